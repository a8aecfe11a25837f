//! Ends in the middle of everything: nobody hangs, and nobody takes a cut for an end.

use std::{
    hint::spin_loop,
    io::Write,
    net::{Ipv4Addr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::{
    bed::{
        Bed,
        end::{End, bytes},
        forwarder::Forwarder,
        request,
        wait::{RUNTIME, SOON, block_on},
    },
    conform, conform_in_turn,
};

#[test]
fn a_gateway_stops_in_the_middle_of_everything() {
    conform(|bed| in_the_middle(bed, Bed::stop_gateway));
}

#[test]
fn a_gateway_is_killed_in_the_middle_of_everything() {
    // The agent finds out when the path is dead.
    conform(|bed| {
        in_the_middle(bed, Bed::quit_gateway);
        bed.statuses("a").wait_down();
        bed.statuses("a").note_no_more();
    });
}

#[test]
fn an_agent_stops_in_the_middle_of_everything() {
    conform(|bed| in_the_middle(bed, |bed| bed.stop_agent("a")));
}

#[test]
fn an_agent_is_killed_in_the_middle_of_everything() {
    conform(|bed| in_the_middle(bed, |bed| bed.quit_agent("a")));
}

#[test]
fn a_gateway_can_be_killed_at_any_moment() {
    conform_in_turn(|bed| {
        for moment in 0..200 {
            bed.start_gateway();
            for _ in 0..moment * 20 {
                spin_loop();
            }
            bed.quit_gateway();
        }
    });
}

#[test]
fn a_gateway_does_not_wait_for_a_handshake_that_hangs() {
    conform(|bed| {
        bed.start_gateway();
        let nat = Forwarder::new(bed.gateway_addr());
        nat.hush();
        bed.start_agent_towards("a", nat.addr());
        bed.see_handshakes(1);
        // Nobody tells the gateway.
        bed.quit_agent("a");
        bed.stop_gateway_at_once();
    });
}

#[test]
fn an_agent_does_not_wait_for_a_gateway_that_does_not_answer() {
    conform(|bed| {
        let mute = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        mute.set_read_timeout(Some(SOON)).unwrap();
        bed.set_gateway_addr(mute.local_addr().unwrap());
        bed.start_agent("a");
        mute.recv(&mut []).unwrap();
        bed.stop_agent_at_once("a");
    });
}

/// Has bulk under way both ways, a session that is still, and one that is being opened, when `end` comes.
fn in_the_middle(bed: &mut Bed, end: impl FnOnce(&mut Bed)) {
    bed.begin();
    // The node takes an attempt back and the endpoint ends its connection, whichever comes first.
    bed.pass_over(&["Cancel"]);
    let target = bed.target("target", None);
    let mut up = bed.open("up", &target);
    let mut down = bed.open("down", &target);
    let mut still = bed.open("still", &target);
    let (full, _fill) = full_listener();
    let wish = request(&full.local_addr().unwrap().as_socket().unwrap().into());
    let gateway = bed.gateway().clone();
    let opening = RUNTIME.spawn(async move { gateway.open(wish).await.err() });
    let (send_up, send_down) = (flood(&up.user), flood(&down.target));
    // Bulk flows.
    up.target.stream_receive(1 << 20);
    down.user.stream_receive(1 << 20);
    bed.see_opening(1);
    end(bed);
    let down_read = thread::spawn(move || down.user.receive_reset());
    up.target.receive_reset();
    down_read.join().unwrap();
    still.user.receive_reset();
    still.target.receive_reset();
    send_up.join().unwrap();
    send_down.join().unwrap();
    let error = block_on(opening).unwrap().expect("it was not opened");
    bed.note("session that was being opened", &error.to_string());
}

/// Writes until the connection fails.
fn flood(end: &End) -> thread::JoinHandle<()> {
    let mut stream: TcpStream = end.stream.try_clone().unwrap();
    let chunk = bytes(9, 1 << 16);
    thread::spawn(move || while stream.write_all(&chunk).is_ok() {})
}

/// A listener whose queue is full: who connects waits.
fn full_listener() -> (Socket, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let connected = socket.connect_timeout(&addr, Duration::from_millis(300));
        connected.is_ok().then_some(socket)
    };
    let filled = std::iter::from_fn(connect).collect();
    (listener, filled)
}
