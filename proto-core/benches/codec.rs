//! Encoding and decoding the messages of the control stream and those that open a session.

use std::hint::black_box;

use adit_proto_core::{
    domain::DomainPattern,
    id::SessionId,
    limits::SESSION_LEN_MAX,
    route::{DomainRoute, RouteSet},
    wire::{
        connect::{ConnectRequest, ConnectResponse},
        control::{Advertised, ControlMessage},
        frame::FrameDecoder,
    },
};
use divan::Bencher;
use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

fn main() {
    divan::main();
}

/// Length of a frame's prefix, which stands before each encoded message.
const PREFIX_LEN: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Heartbeat,
    HeartbeatAck,
    /// Five subnets and five names.
    TenRoutes,
    /// Five hundred of each.
    ThousandRoutes,
}

const KINDS: [Kind; 4] = [
    Kind::Heartbeat,
    Kind::HeartbeatAck,
    Kind::TenRoutes,
    Kind::ThousandRoutes,
];

#[divan::bench(args = KINDS)]
fn control_encode(bencher: Bencher<'_, '_>, kind: Kind) {
    let message = message(kind);
    bencher.bench_local(|| black_box(&message).encode());
}

#[divan::bench(args = KINDS)]
fn control_decode(bencher: Bencher<'_, '_>, kind: Kind) {
    let frame = message(kind).encode().unwrap_or_default();
    assert!(ControlMessage::decode(&frame[PREFIX_LEN..]).is_ok());
    bencher.bench_local(|| ControlMessage::decode(&black_box(&frame)[PREFIX_LEN..]));
}

#[divan::bench]
fn connect_request_encode(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.bench_local(|| black_box(&request).encode());
}

#[divan::bench]
fn connect_request_decode(bencher: Bencher<'_, '_>) {
    let frame = request().encode().unwrap_or_default();
    assert!(ConnectRequest::decode(&frame[PREFIX_LEN..]).is_ok());
    bencher.bench_local(|| ConnectRequest::decode(&black_box(&frame)[PREFIX_LEN..]));
}

#[divan::bench]
fn connect_response_encode(bencher: Bencher<'_, '_>) {
    let response = ConnectResponse::accepted();
    bencher.bench_local(|| black_box(&response).encode());
}

#[divan::bench]
fn connect_response_decode(bencher: Bencher<'_, '_>) {
    let frame = ConnectResponse::accepted().encode().unwrap_or_default();
    assert!(ConnectResponse::decode(&frame[PREFIX_LEN..]).is_ok());
    bencher.bench_local(|| ConnectResponse::decode(&black_box(&frame)[PREFIX_LEN..]));
}

/// What stands in front of each decoding: the frame is cut out of the stream.
#[divan::bench]
fn frame_of_a_request(bencher: Bencher<'_, '_>) {
    let frame = request().encode().unwrap_or_default();
    bencher.bench_local(|| FrameDecoder::new(SESSION_LEN_MAX).feed(black_box(&frame)));
}

fn request() -> ConnectRequest {
    let session = SessionId(Uuid::from_u128(7));
    ConnectRequest::new(session, "db.site7.corp.local:5432".to_owned())
}

fn message(kind: Kind) -> ControlMessage {
    match kind {
        Kind::Heartbeat => ControlMessage::Heartbeat {
            version: 1,
            timestamp_ms: 1_893_456_000_000,
            active_stream_count: 7,
        },
        Kind::HeartbeatAck => ControlMessage::HeartbeatAck {
            version: 1,
            timestamp_ms: 1_893_456_000_000,
        },
        Kind::TenRoutes => routes(5),
        Kind::ThousandRoutes => routes(500),
    }
}

/// So many subnets and so many names.
fn routes(count: u32) -> ControlMessage {
    let subnet = |n: u32| IpNet::V4(Ipv4Net::new_assert((0x0a00_0000 + (n << 8)).into(), 24));
    let domain = |n: u32| {
        let pattern = DomainPattern::parse(&format!("*.site{n}.corp.local")).ok()?;
        Some(DomainRoute {
            pattern,
            auto_detected: false,
        })
    };
    let routes = RouteSet {
        subnets: (0..count).map(subnet).collect(),
        domains: (0..count).filter_map(domain).collect(),
    };
    ControlMessage::RouteAdvertise(Advertised::new(1, &routes).message)
}
