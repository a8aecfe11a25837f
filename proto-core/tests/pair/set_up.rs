//! Set-up messages that are broken, late, or answered by the wrong means.

use adit_proto_core::{
    connection::Counters,
    gateway::AttemptError,
    id::{SessionId, Slot},
    limits,
    output::{Event, SessionEnd},
    wire::connect::{ConnectRequest, ConnectResponse},
};
use quinn_proto::StreamId;
use uuid::Uuid;

use crate::{
    hostile::{Hostile, advertise},
    peer::Answer,
    raw::{Got, RawConfig},
    world::{At, NodeId, World, ms, secs},
};

/// An agent and a bare gateway.
struct Asked {
    w: World,
    a: At,
    raw: NodeId,
}

impl Asked {
    fn new(change: impl FnOnce(&mut RawConfig)) -> Self {
        let mut w = World::new(80);
        let mut config = RawConfig::default();
        change(&mut config);
        let raw = w.add_raw_server(&config);
        let agent = w.add_agent();
        let a = w.connect(agent, raw);
        w.run_for(ms(200));
        assert!(w.has(a, |e| matches!(e, Event::Established { .. })));
        Self { w, a, raw }
    }

    fn send(&mut self, bytes: &[u8]) -> StreamId {
        let stream = self.w.raw(self.raw, |r| r.open());
        self.w.raw(self.raw, |r| r.write(stream, bytes));
        self.w.run_for(ms(100));
        stream
    }

    fn answer(&mut self, stream: StreamId) -> Got {
        self.w.raw(self.raw, |r| r.read(stream))
    }

    fn expect_refusal(&mut self, stream: StreamId, mentions: &str) {
        let got = self.answer(stream);
        assert!(got.end, "no clean end: {got:?}");
        let answer = ConnectResponse::decode(&got.bytes[4..]).unwrap();
        let reason = answer.result.unwrap_err();
        assert!(reason.contains(mentions), "{reason}");
        assert!(
            self.w
                .raw(self.raw, |r| r.stopped.is_empty() || r.lost.is_none())
        );
    }

    fn counters(&mut self) -> Counters {
        self.w.conn(self.a, |c| c.counters())
    }
}

#[test]
fn first_frame_of_an_agent_is_its_routes() {
    let mut a = Asked::new(|_| {});
    let control = a.w.raw(a.raw, |r| r.accept()).unwrap();
    let got = a.w.raw(a.raw, |r| r.read(control));
    assert_eq!(got.bytes, advertise(1));
}

#[test]
fn control_stream_waits_for_a_late_grant() {
    let mut a = Asked::new(|config| config.streams = 0);
    a.w.run_for(secs(40));
    assert_eq!(a.w.closed(a.a), None);
    a.w.raw(a.raw, |r| {
        r.conn()
            .set_max_concurrent_streams(quinn_proto::Dir::Bi, 10_u32.into());
    });
    a.w.run_for(ms(100));
    let control = a.w.raw(a.raw, |r| r.accept()).expect("a control stream");
    let got = a.w.raw(a.raw, |r| r.read(control));
    assert_eq!(got.bytes[..advertise(1).len()], advertise(1));
}

#[test]
fn broken_requests_are_refused_with_a_reason() {
    let table: [(Vec<u8>, &str); 7] = [
        (request("10.0.0.5:22", 0), "version"),
        (request("10.0.0.5:22", 2), "version"),
        (request("10.0.0.5", 1), "target"),
        (request("10.0.0.5:0", 1), "target"),
        (vec![0, 1, 0, 1], "65537"),
        (vec![0, 0, 0, 2, 1, 0], "malformed"),
        ([&[0, 0, 0, 19, 9][..], &[0; 18]].concat(), "0x09"),
    ];
    for (bytes, mentions) in table {
        let mut a = Asked::new(|_| {});
        let stream = a.send(&bytes);
        a.expect_refusal(stream, mentions);
        assert_eq!(a.counters().setups_malformed, 1);
        assert!(!a.w.has(a.a, is_requested));
        a.w.run_for(secs(40));
        assert_eq!(a.w.closed(a.a), None);
    }
}

#[test]
fn request_that_ends_early_is_abandoned() {
    let mut a = Asked::new(|_| {});
    let stream = a.send(&request("10.0.0.5:22", 1)[..10]);
    a.w.raw(a.raw, |r| r.finish(stream));
    a.w.run_for(ms(100));
    assert!(a.answer(stream).reset.is_some());
    let stream = a.send(&request("10.0.0.5:22", 1)[..10]);
    a.w.raw(a.raw, |r| r.reset(stream, 0));
    a.w.run_for(ms(100));
    assert!(a.answer(stream).reset.is_some());
    assert_eq!(a.counters().setups_abandoned, 2);
    assert!(!a.w.has(a.a, |e| matches!(e, Event::SessionEnded { .. })));
}

#[test]
fn request_that_does_not_come_is_dropped_at_its_deadline() {
    let mut a = Asked::new(|_| {});
    let stream = a.w.raw(a.raw, |r| r.open());
    a.w.raw(a.raw, |r| r.write(stream, &request("10.0.0.5:22", 1)[..10]));
    a.w.run_for(limits::REQUEST_TIMEOUT);
    assert_eq!(a.counters().setups_abandoned, 0);
    a.w.run_for(ms(100));
    assert_eq!(a.counters().setups_abandoned, 1);
    assert!(a.answer(stream).reset.is_some());
}

#[test]
fn request_in_single_bytes_is_one_request_and_bytes_behind_it_are_kept() {
    let mut a = Asked::new(|_| {});
    a.w.set_answer(a.a.0, &Answer::Hold);
    let stream = a.w.raw(a.raw, |r| r.open());
    for byte in request("10.0.0.5:22", 1) {
        a.w.raw(a.raw, |r| r.write(stream, &[byte]));
        a.w.run_for(ms(20));
    }
    a.w.raw(a.raw, |r| r.write(stream, b"early"));
    a.w.raw(a.raw, |r| r.finish(stream));
    a.w.run_for(ms(100));
    assert_eq!(a.w.count(a.a, is_requested), 1);
    let early = a.w.with(a.a, |peer| {
        peer.accept(Slot(0));
        let mut out = std::collections::VecDeque::new();
        let mut session = peer.conn.session(Slot(0)).unwrap();
        let state = session.read(100, &mut out).unwrap();
        peer.conn.session(Slot(0)).unwrap().reset(1);
        (state, out.into_iter().flatten().collect::<Vec<u8>>())
    });
    assert_eq!(
        early,
        (adit_proto_core::session::Read::End, b"early".to_vec())
    );
}

#[test]
fn gateway_that_stops_waiting_ends_the_session() {
    let mut a = Asked::new(|_| {});
    a.w.set_answer(a.a.0, &Answer::Hold);
    let stream = a.send(&request("10.0.0.5:22", 1));
    // What a reference gateway does when it gives up (agent-tunnel 7.3).
    a.w.raw(a.raw, |r| {
        r.finish(stream);
        r.stop(stream, 0);
    });
    a.w.run_for(ms(100));
    let (_, last) = a.w.events(a.a).last().unwrap();
    assert!(
        matches!(
            last,
            Event::SessionEnded {
                how: SessionEnd::ResetByPeer(0),
                ..
            }
        ),
        "{last:?}"
    );
}

#[test]
fn answer_held_back_by_flow_control_arrives_before_the_end() {
    // The gateway takes just the route advertisement.
    let room = u32::try_from(advertise(1).len()).unwrap();
    let mut a = Asked::new(|config| config.window = room);
    a.w.set_answer(a.a.0, &Answer::Hold);
    let stream = a.send(&request("10.0.0.5:22", 1));
    a.w.raw(a.raw, |r| r.finish(stream));
    a.w.run_for(ms(100));
    // The application accepts, ends its half and reads the end of the other, all while the answer is stuck.
    a.w.with(a.a, |peer| {
        peer.accept(Slot(0));
        peer.flows.get_mut(&Slot(0)).unwrap().finish = true;
        peer.pump(Slot(0));
    });
    a.w.run_for(ms(100));
    assert_eq!(a.answer(stream), Got::default());
    a.w.raw(a.raw, |r| {
        let control = r.accept().unwrap();
        r.read(control);
        r.conn().set_receive_window(10_000_u32.into());
    });
    a.w.run_for(ms(200));
    let got = a.answer(stream);
    assert_eq!(got.bytes, ConnectResponse::accepted().encode().unwrap());
    assert!(got.end);
}

#[test]
fn refusal_that_nobody_takes_is_forgotten_with_its_stream() {
    let room = u32::try_from(advertise(1).len()).unwrap();
    let mut a = Asked::new(|config| config.window = room);
    a.w.set_answer(a.a.0, &Answer::Refuse("no".into()));
    let stream = a.send(&request("10.0.0.5:22", 1));
    a.w.raw(a.raw, |r| r.stop(stream, 0));
    a.w.run_for(secs(1));
    let state = a.w.conn(a.a, |c| format!("{c:?}"));
    assert!(state.contains("unsent: {}"), "{state}");
}

#[test]
fn answers_that_are_none_fail_the_attempt() {
    let is_malformed = |cause: &AttemptError| matches!(cause, AttemptError::Malformed(_));
    let is_lost = |cause: &AttemptError| *cause == AttemptError::ConnectionLost;
    type Act = fn(&mut crate::raw::Raw, StreamId);
    type Is = fn(&AttemptError) -> bool;
    let table: [(Act, Is); 7] = [
        (|r, s| r.write(s, &[0, 0, 0, 3, 9, 0, 1]), is_malformed),
        (|r, s| r.write(s, &[0, 0, 0, 1, 0]), is_malformed),
        (|r, s| r.write(s, &[0, 1, 0, 1]), is_malformed),
        (|r, s| r.write(s, &[0, 0, 0, 3, 0, 0, 2]), is_malformed),
        (|r, s| r.write(s, &[0, 0, 0, 3, 0, 0, 0]), is_malformed),
        (
            |r, s| {
                r.write(s, &[0, 0]);
                r.finish(s);
            },
            is_lost,
        ),
        (|r, s| r.reset(s, 3), is_lost),
    ];
    for (act, is) in table {
        let mut h = Hostile::new(|_| {});
        h.say(&advertise(1));
        let attempt = h.w.open(h.g, "10.0.0.5:22");
        h.w.run_for(ms(100));
        let stream = h.w.raw(h.raw, |r| r.accept()).unwrap();
        h.w.raw(h.raw, |r| act(r, stream));
        h.w.run_for(ms(100));
        let (_, last) = h.w.events(h.g).last().unwrap();
        assert!(
            matches!(last, Event::SessionRefused { attempt: a, cause } if *a == attempt && is(cause)),
            "{last:?}"
        );
        assert!(
            h.w.raw(h.raw, |r| r.stopped.iter().any(|(id, _)| *id == stream))
                || h.w.raw(h.raw, |r| r.read(stream)).reset.is_some()
        );
        h.expect_up();
        // The connection still carries sessions.
        let next = h.w.open(h.g, "10.0.0.5:22");
        h.w.run_for(ms(100));
        let stream = h.w.raw(h.raw, |r| r.accept()).unwrap();
        h.w.raw(h.raw, |r| r.write(stream, &[0, 0, 0, 3, 0, 0, 1]));
        h.w.run_for(ms(100));
        assert!(h.w.opened(h.g, next).is_some());
    }
}

#[test]
fn answer_with_bytes_to_spare_opens_the_session() {
    let mut h = Hostile::new(|_| {});
    h.say(&advertise(1));
    let attempt = h.w.open(h.g, "10.0.0.5:22");
    h.w.run_for(ms(100));
    let stream = h.w.raw(h.raw, |r| r.accept()).unwrap();
    let asked = h.w.raw(h.raw, |r| r.read(stream)).bytes;
    let asked = ConnectRequest::decode(&asked[4..]).unwrap();
    assert_eq!((asked.version, &*asked.target), (1, "10.0.0.5:22"));
    // A later version may append fields (agent-tunnel 5).
    for byte in [0, 0, 0, 5, 0, 0, 1, 7, 7] {
        h.w.raw(h.raw, |r| r.write(stream, &[byte]));
        h.w.run_for(ms(20));
    }
    assert!(h.w.opened(h.g, attempt).is_some());
}

fn request(target: &str, version: u16) -> Vec<u8> {
    let mut request = ConnectRequest::new(SessionId(Uuid::from_u128(5)), target.to_owned());
    request.version = version;
    request.encode().unwrap().to_vec()
}

fn is_requested(event: &Event) -> bool {
    matches!(event, Event::SessionRequested { .. })
}
