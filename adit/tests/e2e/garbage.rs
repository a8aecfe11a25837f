//! What is no SOCKS5 and no CONNECT harms nobody else.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
};

use crate::harness::{
    beside_others,
    site::{PROXIES, Site},
    targets::{echo, patient, ping},
    users::{connect, http_connect, socks},
};

#[test]
fn garbage_at_socks5_harms_nobody() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", PROXIES);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let (proxy, target) = (gateway.ingress("socks5"), target.to_string());
    let open = socks(proxy, &target).unwrap();
    for garbage in garbage() {
        fire(proxy, &garbage);
        ping(&open, b"undisturbed");
        ping(&socks(proxy, &target).unwrap(), b"served");
    }
    // A wish for what is not spoken gets its own answer: BIND.
    let mut user = connect(proxy);
    user.write_all(&[5, 1, 0, 5, 2, 0, 1, 127, 0, 0, 1, 0, 80])
        .unwrap();
    let mut answer = [0; 4];
    user.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [5, 0, 5, 7]);
}

#[test]
fn garbage_at_connect_harms_nobody() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", PROXIES);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let (proxy, target) = (gateway.ingress("connect"), target.to_string());
    let (_, open) = http_connect(proxy, &target, "");
    let mut oversized = b"CONNECT a:1 HTTP/1.1\r\nX: ".to_vec();
    oversized.resize(1 << 20, b'x');
    for garbage in garbage().into_iter().chain([
        oversized,
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"CONNECT a HTTP/1.1\r\n\r\n".to_vec(),
    ]) {
        fire(proxy, &garbage);
        ping(&open, b"undisturbed");
        let (status, user) = http_connect(proxy, &target, "");
        assert_eq!(status, 200);
        ping(&user, b"served");
    }
}

#[test]
fn one_byte_at_a_time_is_served() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", PROXIES);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let mut user = connect(gateway.ingress("socks5"));
    user.set_nodelay(true).unwrap();
    let mut request = vec![5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1];
    request.extend(target.port().to_be_bytes());
    for byte in request {
        user.write_all(&[byte]).unwrap();
    }
    let mut answer = [0; 12];
    user.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [5, 0, 5, 0]);
    ping(&user, b"slow but served");

    let mut user = connect(gateway.ingress("connect"));
    user.set_nodelay(true).unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    for byte in request.bytes() {
        user.write_all(&[byte]).unwrap();
    }
    let head = crate::harness::users::head(&user);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    ping(&user, b"slow but served");
}

#[test]
fn what_is_sent_behind_the_request_reaches_the_target() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", PROXIES);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let mut user = connect(gateway.ingress("connect"));
    let early = [b'e'; 10_000];
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
    request.extend(early);
    user.write_all(&request).unwrap();
    let head = crate::harness::users::head(&user);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    crate::harness::targets::expect(&user, &early);
}

/// Sends it and leaves in two ways: after reading what comes, and at once.
fn fire(proxy: SocketAddr, garbage: &[u8]) {
    let mut user = connect(proxy);
    patient(&user);
    // The listener may close before it has read everything.
    let _closed = user.write_all(garbage);
    let _closed = user.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _reset = user.read_to_end(&mut answer);
    assert!(answer.len() < 1_000, "{} bytes of answer", answer.len());

    let mut user = connect(proxy);
    let _closed = user.write_all(garbage);
    drop(user);
}

fn garbage() -> Vec<Vec<u8>> {
    // xorshift, so that every run is the same.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |len: usize| -> Vec<u8> {
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        (0..len).map(|_| byte()).collect()
    };
    let mut client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    client_hello.extend(random(501));
    vec![
        vec![],
        vec![5],
        vec![0],
        vec![4, 1, 0, 80, 127, 0, 0, 1, 0],
        vec![5, 0],
        vec![5, 255],
        vec![5, 1, 0, 5, 1, 0, 3, 0, 0, 80],
        vec![5, 1, 0, 5, 1, 0, 9, 1, 1],
        random(1),
        random(100),
        random(100_000),
        client_hello,
        b"\r\n\r\n".to_vec(),
        vec![b'a'; 100_000],
    ]
}
