//! What is no SOCKS5 and no CONNECT harms nobody else.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
};

use crate::harness::{
    beside_others,
    console::{Console, fetch},
    site::{PROXIES, Site},
    targets::{echo, patient, ping},
    users::{connect, http_connect, socks},
    websocket::{association, open, path},
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
fn garbage_at_the_enrolment_listener_harms_nobody() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let plain = site.gateway("plain", &console.sections());
    let _agent = site.serving("site-a", &plain, "127.0.0.1/32");
    let mut user = open(&plain, &console, "tcp", &association(target));
    let addr = plain.address("enroll");
    for garbage in garbage().into_iter().chain(http_garbage()) {
        fire(addr, &garbage);
        user.echoes(b"undisturbed");
        assert_eq!(fetch(addr, "/livez").0, 200);
    }
    // Tokens that are no text, or far too long, wherever they stand.
    let at = path("tcp", &association(target));
    let long = "x".repeat(9_000);
    for (query, header, status) in [
        ("?token=%ff%fe", &b""[..], 401),
        ("", b"Authorization: Bearer \xff\xfe\r\n", 401),
        ("", b"Authorization: Basic eDp5\r\n", 401),
        ("?token=%00", b"", 401),
        ("?token=", b"", 401),
        (&format!("?token={long}"), b"", 401),
    ] {
        let mut user = connect(addr);
        let head = format!("GET {at}{query} HTTP/1.1\r\nHost: x\r\n{UPGRADE}");
        user.write_all(head.as_bytes()).unwrap();
        user.write_all(header).unwrap();
        user.write_all(b"\r\n").unwrap();
        let head = crate::harness::users::head(&user);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{query}: {head}"
        );
    }
    open(&plain, &console, "tcp", &association(target)).echoes(b"served");
    user.echoes(b"still undisturbed");

    // Behind TLS nothing of it even comes to be HTTP.
    let gateway = site.gateway("gw", "");
    for garbage in garbage().into_iter().chain(http_garbage()) {
        fire(gateway.address("enroll"), &garbage);
    }
    site.enrol("site-b", &gateway, "127.0.0.1/32");
}

#[test]
fn what_is_no_http_has_a_status_and_no_body() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway(
        "gw",
        "[enroll]\nlisten = \"127.0.0.1:0\"\ninsecure_http = true\n",
    );
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    for (request, status) in [("no \0 http\r\n\r\n", 400), (&long, 414), (&many, 431)] {
        let mut user = connect(gateway.address("enroll"));
        // It may close before it has read everything.
        let _closed = user.write_all(request.as_bytes());
        let head = crate::harness::users::head(&user);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains("content-length: 0"), "{head}");
    }
}

/// Requests that end nowhere, or say two things at once.
fn http_garbage() -> Vec<Vec<u8>> {
    let enrol = "POST /jet/tunnel/enroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let mut long = b"GET /jet/fwd/tcp/".to_vec();
    long.resize(1 << 20, b'a');
    let mut many = b"GET / HTTP/1.1\r\n".to_vec();
    many.extend(b"a: b\r\n".repeat(10_000));
    let text = |rest: &str| format!("{enrol}{rest}").into_bytes();
    vec![
        long,
        many,
        text("Content-Length: 18446744073709551615\r\n\r\n{"),
        text("Content-Length: -1\r\n\r\n{"),
        text("Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"),
        text("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"),
        text("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{"),
        text("Transfer-Encoding: chunked\r\n\r\nnot hexadecimal\r\n"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        format!("GET /jet/fwd/tcp/x HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n").into_bytes(),
    ]
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

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
