//! A node made of the bare QUIC engine, with a member's certificate: it says whatever bytes a test wants.

use adit_proto_core::peer::{
    NodeId,
    bound::{Direction, Route, Tags},
    envelope::Sealed,
    frame::Frame,
    rpc_type::RpcType,
};
use bytes::Bytes;
use quinn_proto::{ConnectionError, StreamId};

use super::{
    bed::{Bed, Place, secs},
    cluster::ring,
    pki::Pair,
    raw::{Got, RawConfig},
};

/// The hello of the reference (peer-rpc 3.2).
pub(crate) const HELLO: &[u8] = &[0, 0, 0, 5, 0x92, 0x92, 1, 2, 0];
/// What it is answered.
pub(crate) const ACK: &[u8] = &[0, 0, 0, 3, 0x92, 2, 0];

/// Joins the cluster's node at `to` by QUIC and TLS, and says nothing.
pub(crate) fn connect(bed: &mut Bed, to: Place, identity: Option<Pair>) -> Place {
    let config = RawConfig {
        alpn: b"nodedb-raft/1",
        identity,
        ..RawConfig::default()
    };
    let bare = bed.add_raw(&config, to);
    bed.run_for(secs(1));
    bare
}

/// The same, and has the version handshake behind it.
pub(crate) fn greet(bed: &mut Bed, to: Place, identity: Option<Pair>) -> Place {
    let bare = connect(bed, to, identity);
    let first = send(bed, bare, HELLO, true);
    bed.run_for(secs(1));
    let ack = bed.raw(bare, |raw| raw.read(first));
    assert_eq!((&ack.bytes[..], ack.end), (ACK, true));
    bare
}

/// Opens a stream and writes to it.
pub(crate) fn send(bed: &mut Bed, bare: Place, bytes: &[u8], finish: bool) -> StreamId {
    bed.raw(bare, |raw| {
        let stream = raw.open();
        raw.write(stream, bytes);
        if finish {
            raw.finish(stream);
        }
        stream
    })
}

/// What came back on a stream within a second.
pub(crate) fn read(bed: &mut Bed, bare: Place, stream: StreamId) -> Got {
    bed.run_for(secs(1));
    bed.raw(bare, |raw| raw.read(stream))
}

/// Code and reason of the close, if there was one.
pub(crate) fn closed(bed: &mut Bed, bare: Place) -> Option<(u64, String)> {
    bed.raw(bare, |raw| match &raw.lost {
        Some(ConnectionError::ApplicationClosed(close)) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            Some((close.error_code.into_inner(), reason))
        }
        _ => None,
    })
}

/// A plain request, made with a secret.
pub(crate) fn request(secret: u8, from: u64, seq: u64, kind: RpcType, body: &[u8]) -> Vec<u8> {
    let frame = Frame::new(kind, 0, Bytes::copy_from_slice(body));
    sealed(secret, from, seq, frame).to_bytes().to_vec()
}

pub(crate) fn sealed(secret: u8, from: u64, seq: u64, frame: Frame) -> Sealed {
    let route = Route {
        from: NodeId(from),
        to: NodeId(2),
        seq,
    };
    let sealed = Tags::plain().seal_frame(&ring(secret), Direction::Request, route, frame, None);
    sealed.unwrap()
}
