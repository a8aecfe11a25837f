//! A gateway whose QUIC lives and whose control loop is silent: sessions pass, and no heartbeat is answered.

use std::time::{Duration, Instant};

use crate::{
    harness::{
        beside_others, block_on,
        reference::{ACCEPTED, frame},
        targets::echo,
    },
    reference_gateway::{LOOPBACK, ReferenceGateway},
};

#[test]
fn a_gateway_whose_control_loop_is_silent_is_left_and_tried_again() {
    let _machine = beside_others();
    let target = echo();
    let (mut gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    let connected = Instant::now();
    let (mut send, mut recv) = block_on(gateway.ask(1, &target.to_string()));
    assert_eq!(block_on(frame(&mut recv)), ACCEPTED);
    let mut passes = async |text: &[u8]| {
        send.write_all(text).await.unwrap();
        let mut got = vec![0; text.len()];
        recv.read_exact(&mut got).await.unwrap();
        assert_eq!(got, text);
    };
    // agent-tunnel 6.2
    let beat = block_on(frame(&mut gateway.control.1));
    assert_eq!(beat[0], 2);
    let beaten = connected.elapsed();
    block_on(passes(b"the path works"));
    let closed = block_on(gateway.connection.closed());
    let took = connected.elapsed();
    eprintln!("heartbeat after {beaten:?}, left after {took:?}");
    // Every 5 s, and an answer is waited for for 10 s; the rest is for a busy machine.
    assert!(beaten < Duration::from_secs(7), "{beaten:?}");
    assert!(
        took > Duration::from_secs(13) && took < Duration::from_secs(18),
        "{took:?}"
    );
    let quinn::ConnectionError::ApplicationClosed(close) = closed else {
        panic!("{closed}");
    };
    assert_eq!(close.error_code, 3u32.into());
    let why = gateway
        .agent
        .process()
        .logged("connection to the gateway lost");
    let why = why["why"].as_str().unwrap();
    assert!(why.contains("answered no heartbeat"), "{why}");

    let left = Instant::now();
    gateway.next();
    let took = left.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let (mut send, mut recv) = block_on(gateway.ask(1, &target.to_string()));
    block_on(async {
        assert_eq!(frame(&mut recv).await, ACCEPTED);
        send.write_all(b"back").await.unwrap();
        let mut got = [0; 4];
        recv.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"back");
    });
}
