//! An agent behind a router that forgets its translation while a session is carried.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use crate::{
    address::same_connection,
    harness::alone,
    lab::{Lab, TUNNEL_PORT, host, router},
    transfer::{MEGABYTE, exchange_over_change},
};

#[test]
fn a_transfer_goes_on_when_its_translation_is_forgotten() {
    let _machine = alone();
    let lab = Lab::new(1);
    let gateway = lab.start_gateway(&format!(
        "public_endpoint = \"{}:{TUNNEL_PORT}\"",
        router(0)
    ));
    let nat = lab.router.within(Nat::start);
    let agent = lab.serving(0, &gateway);
    let target = lab.target(0);
    let user = lab.user(&gateway);
    let far = target.accept();
    let longest = exchange_over_change(&user, &far, 40 * MEGABYTE, || {
        lab.router.within(|| nat.forget());
    });
    eprintln!("40 MB each way over another port: longest wait {longest:?}");
    same_connection(&gateway, &agent);
}

/// Translates addresses for one agent: the gateway sees a port of the router's.
struct Nat {
    inside: Arc<UdpSocket>,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    agent: Arc<Mutex<Option<SocketAddr>>>,
}

impl Nat {
    /// Starts it on the router; it ends with the test's process.
    fn start() -> Self {
        let nat = Self {
            inside: Arc::new(UdpSocket::bind((router(0), TUNNEL_PORT)).unwrap()),
            outside: Arc::new(Mutex::new(outside())),
            agent: Arc::default(),
        };
        let (inside, outside) = (Arc::clone(&nat.inside), Arc::clone(&nat.outside));
        let agent = Arc::clone(&nat.agent);
        nat.answers(Arc::clone(&outside.lock().unwrap()));
        std::thread::spawn(move || {
            let mut datagram = [0; 1 << 16];
            while let Ok((length, from)) = inside.recv_from(&mut datagram) {
                *agent.lock().unwrap() = Some(from);
                // What the path has no room for is lost.
                let _lost = outside.lock().unwrap().send(&datagram[..length]);
            }
        });
        nat
    }

    /// Takes another port from now on. What the gateway sends to the former one is lost.
    fn forget(&self) {
        let next = outside();
        self.answers(Arc::clone(&next));
        let former = std::mem::replace(&mut *self.outside.lock().unwrap(), next);
        // Ends its thread: what comes from elsewhere than the gateway is no answer.
        former.connect(former.local_addr().unwrap()).unwrap();
        former.send(b"").unwrap();
    }

    fn answers(&self, outside: Arc<UdpSocket>) {
        let (inside, agent) = (Arc::clone(&self.inside), Arc::clone(&self.agent));
        std::thread::spawn(move || {
            let mut datagram = [0; 1 << 16];
            while let Ok(length @ 1..) = outside.recv(&mut datagram) {
                let to = *agent.lock().unwrap();
                // What the path has no room for is lost.
                let _lost = to.map(|to| inside.send_to(&datagram[..length], to));
            }
        });
    }
}

fn outside() -> Arc<UdpSocket> {
    let socket = UdpSocket::bind((router(0), 0)).unwrap();
    socket.connect((host(0), TUNNEL_PORT)).unwrap();
    Arc::new(socket)
}
