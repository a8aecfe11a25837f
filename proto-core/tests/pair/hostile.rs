//! Agents that break the protocol on the control stream, or try to keep the gateway busy.

use adit_proto_core::{
    close::{Closed, PeerFault},
    endpoint::EndpointLimits,
    error::DecodeError,
    gateway::AttemptError,
    limits,
    output::{Event, Renewed},
    wire::control::{Advertised, ControlMessage, RenewalResult},
};
use quinn_proto::StreamId;

use crate::{
    pki::Pair,
    raw::RawConfig,
    world::{At, NodeId, World, ms, routes, secs},
};

/// A gateway and a bare client with the agent's certificate.
pub(crate) struct Hostile {
    pub(crate) w: World,
    pub(crate) g: At,
    pub(crate) raw: NodeId,
    pub(crate) control: StreamId,
}

impl Hostile {
    pub(crate) fn new(change: impl FnOnce(&mut RawConfig)) -> Self {
        let mut w = World::new(70);
        let gateway = w.add_gateway(EndpointLimits::default());
        let identity: Pair = w.pki.agent.clone();
        let mut config = RawConfig {
            identity: Some(identity),
            ..RawConfig::default()
        };
        change(&mut config);
        let raw = w.add_raw_client(gateway, &config);
        w.run_for(ms(200));
        assert!(w.raw(raw, |r| r.connected));
        let control = w.raw(raw, |r| r.open());
        let g = (gateway, w.only_conn(gateway));
        Self { w, g, raw, control }
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let control = self.control;
        self.w.raw(self.raw, |r| r.write(control, bytes));
        self.w.run_for(ms(100));
    }

    fn expect_fault(&self, is: impl Fn(&PeerFault) -> bool) {
        let closed = self.w.closed(self.g);
        assert!(
            matches!(closed, Some(Closed::Fault(fault)) if is(fault)),
            "{closed:?}"
        );
    }

    pub(crate) fn expect_up(&self) {
        assert_eq!(self.w.closed(self.g), None);
    }
}

#[test]
fn bytes_that_are_no_message_end_the_connection() {
    let table: [(&[u8], DecodeError); 4] = [
        (
            &[0x00, 0x10, 0x00, 0x01],
            DecodeError::MessageTooLarge {
                size: 1_048_577,
                max: 1_048_576,
            },
        ),
        (&[0, 0, 0, 1, 0x77], DecodeError::UnknownTag { tag: 0x77 }),
        (&[0, 0, 0, 0], DecodeError::Truncated { expected: 1 }),
        (
            // A route advertisement that claims 2^32 - 1 subnets.
            &[
                0, 0, 0, 15, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff,
            ],
            DecodeError::Truncated { expected: 0 },
        ),
    ];
    for (bytes, want) in table {
        let mut h = Hostile::new(|_| {});
        h.say(bytes);
        h.expect_fault(|fault| match (fault, &want) {
            (PeerFault::Control(DecodeError::Truncated { .. }), DecodeError::Truncated { .. }) => {
                true
            }
            (PeerFault::Control(error), want) => error == want,
            _ => false,
        });
        let lost = h.w.raw(h.raw, |r| format!("{:?}", r.lost));
        assert!(lost.contains("ApplicationClosed"), "{lost}");
    }
}

#[test]
fn message_in_single_bytes_is_one_message() {
    let mut h = Hostile::new(|_| {});
    for byte in advertise(1) {
        h.say(&[byte]);
    }
    assert_eq!(h.w.count(h.g, is_routes), 1);
    h.expect_up();
}

#[test]
fn messages_of_the_other_role_are_a_fault() {
    let table = [
        ControlMessage::HeartbeatAck {
            version: 1,
            timestamp_ms: 1,
        },
        ControlMessage::CertRenewalResponse {
            version: 1,
            result: RenewalResult::Refused { reason: "".into() },
        },
    ];
    for message in table {
        let mut h = Hostile::new(|_| {});
        h.say(&message.encode().unwrap());
        h.expect_fault(|fault| *fault == PeerFault::WrongDirection);
    }
}

#[test]
fn other_versions_are_counted_and_ignored() {
    for version in [0, 2, u16::MAX] {
        let mut h = Hostile::new(|_| {});
        let mut advertised = Advertised::new(1, &routes("10.0.0.0/8")).message;
        advertised.version = version;
        let messages = [
            ControlMessage::RouteAdvertise(advertised),
            ControlMessage::Heartbeat {
                version,
                timestamp_ms: 1,
                active_stream_count: 0,
            },
            ControlMessage::HeartbeatAck {
                version,
                timestamp_ms: 1,
            },
            ControlMessage::CertRenewalRequest {
                version,
                csr_pem: "csr".into(),
            },
        ];
        for message in &messages {
            h.say(&message.encode().unwrap());
        }
        let counters = h.w.conn(h.g, |c| c.counters());
        assert_eq!(counters.versions_ignored, 4);
        assert_eq!(h.w.events(h.g).len(), 1, "{:?}", h.w.events(h.g));
        h.say(&advertise(1));
        assert_eq!(h.w.count(h.g, is_routes), 1);
    }
}

#[test]
fn end_of_the_control_stream_ends_the_connection() {
    let mut ended = Hostile::new(|_| {});
    ended.say(&advertise(1));
    let control = ended.control;
    ended.w.raw(ended.raw, |r| r.finish(control));
    ended.w.run_for(ms(100));
    ended.expect_fault(|fault| *fault == PeerFault::ControlEnded);

    let mut reset = Hostile::new(|_| {});
    reset.say(&advertise(1));
    reset.w.raw(reset.raw, |r| r.reset(control, 1));
    reset.w.run_for(ms(100));
    reset.expect_fault(|fault| *fault == PeerFault::ControlEnded);

    let mut cut = Hostile::new(|_| {});
    cut.say(&advertise(1)[..9]);
    cut.w.raw(cut.raw, |r| r.finish(control));
    cut.w.run_for(ms(100));
    cut.expect_fault(|fault| *fault == PeerFault::Control(DecodeError::UnexpectedEnd));
}

#[test]
fn too_many_routes_are_a_fault() {
    let mut h = Hostile::new(|_| {});
    let mut message = Advertised::new(1, &routes("10.0.0.0/8")).message;
    message.subnets = vec![message.subnets[0]; limits::ROUTES_PER_AGENT_MAX + 1];
    let frame = ControlMessage::RouteAdvertise(message).encode().unwrap();
    h.say(&frame);
    h.expect_fault(|fault| matches!(fault, PeerFault::TooManyRoutes { .. }));
}

#[test]
fn stray_streams_are_reset_and_counted() {
    let mut h = Hostile::new(|_| {});
    h.say(&advertise(1));
    // Many more, one after the other, than are allowed at a time: their credit comes back.
    for count in 1..=20 {
        let stray = h.w.raw(h.raw, |r| r.open());
        h.w.raw(h.raw, |r| r.write(stray, b"hello"));
        h.w.run_for(ms(100));
        let got = h.w.raw(h.raw, |r| r.read(stray));
        assert!(got.reset.is_some(), "{got:?}");
        assert!(h.w.raw(h.raw, |r| r.stopped.iter().any(|(id, _)| *id == stray)));
        assert_eq!(h.w.conn(h.g, |c| c.counters()).streams_stray, count);
        h.w.run_for(ms(100));
        h.w.raw(h.raw, |r| {
            let _already = r
                .conn()
                .send_stream(stray)
                .reset(quinn_proto::VarInt::from_u32(0));
        });
        h.w.run_for(ms(100));
    }
    h.expect_up();
}

#[test]
fn flood_of_route_sets_is_slowed_and_heartbeats_wait_behind_it() {
    let mut h = Hostile::new(|_| {});
    let mut flood: Vec<u8> = (1..=40).flat_map(advertise).collect();
    flood.extend_from_slice(&heartbeat(4_242));
    let began = h.w.at();
    h.say(&flood);
    let burst = usize::try_from(limits::REPLACEMENTS_BURST).unwrap();
    assert_eq!(h.w.count(h.g, is_routes), burst);
    for half in 1..=10 {
        h.w.run_for(limits::REPLACEMENT_INTERVAL);
        assert_eq!(h.w.count(h.g, is_routes), burst + half);
    }
    assert!(!h.w.has(h.g, |e| matches!(e, Event::Seen)));
    // 32 beyond the burst take 16 s, and what comes next waits for one more interval.
    h.w.run_until(secs(60), |w| w.has(h.g, |e| matches!(e, Event::Seen)));
    let seen = h.w.when(h.g, |e| matches!(e, Event::Seen)).unwrap() - began;
    assert!((ms(16_500)..ms(16_700)).contains(&seen), "{seen:?}");
    let last = h.w.events(h.g).iter().rev().find(|(_, e)| is_routes(e));
    assert!(matches!(
        last,
        Some((_, Event::RoutesAccepted { epoch: 40, .. }))
    ));
    h.w.run_for(ms(100));
    let ack = h.w.raw(h.raw, |r| r.read(h.control));
    assert_eq!(ack.bytes[7..], 4_242_u64.to_be_bytes());
    // A pause fills the allowance again.
    h.w.run_for(secs(5));
    let next: Vec<u8> = (41..=60).flat_map(advertise).collect();
    h.say(&next);
    assert_eq!(h.w.count(h.g, is_routes), 40 + burst);
    h.expect_up();
}

#[test]
fn flood_waits_in_the_agents_window() {
    let mut h = Hostile::new(|_| {});
    let flood: Vec<u8> = (1..=500_000).flat_map(advertise).collect();
    let control = h.control;
    let mut sent = 0;
    for _ in 0..20 {
        sent += h.w.raw(h.raw, |r| r.write_some(control, &flood[sent..]));
        h.w.run_for(ms(100));
    }
    let window = usize::try_from(limits::STREAM_WINDOW).unwrap();
    assert!((window..window + 2_000).contains(&sent), "{sent}");
    h.expect_up();
}

#[test]
fn repetitions_are_not_slowed() {
    let mut h = Hostile::new(|_| {});
    let same: Vec<u8> = (0..100).flat_map(|_| advertise(5)).collect();
    h.say(&same);
    assert_eq!(h.w.count(h.g, is_routes), 1);
    assert_eq!(h.w.count(h.g, |e| matches!(e, Event::Seen)), 99);
}

#[test]
fn agent_that_does_not_read_its_answers_is_not_read() {
    // It takes 10,000 bytes in all, which no answer of 15 bytes outlives for long.
    let mut h = Hostile::new(|config| config.window = 10_000);
    // More than waits unread in the gateway.
    let beats: Vec<u8> = (0..600_000).flat_map(heartbeat).collect();
    let control = h.control;
    let mut sent = 0;
    for _ in 0..50 {
        sent += h.w.raw(h.raw, |r| r.write_some(control, &beats[sent..]));
        h.w.run_for(ms(100));
    }
    let seen = h.w.count(h.g, |e| matches!(e, Event::Seen));
    let most = (limits::CONTROL_OUT_MAX + 10_000) / 15 + 1;
    assert!((1_000..=most).contains(&seen), "{seen}");
    assert!(sent < beats.len());
    h.expect_up();
    // It reads again: everything is answered.
    for _ in 0..1_200 {
        h.w.raw(h.raw, |r| r.read(control));
        sent += h.w.raw(h.raw, |r| r.write_some(control, &beats[sent..]));
        h.w.run_for(ms(30));
    }
    assert_eq!(h.w.count(h.g, |e| matches!(e, Event::Seen)), 600_000);
}

#[test]
fn second_renewal_before_the_answer_is_passed_over() {
    let mut h = Hostile::new(|_| {});
    let ask = ControlMessage::CertRenewalRequest {
        version: 1,
        csr_pem: "csr".into(),
    };
    let ask = ask.encode().unwrap();
    let is_asked = |e: &Event| matches!(e, Event::RenewalRequested { csr_pem } if csr_pem == "csr");
    h.say(&ask);
    h.say(&ask);
    assert_eq!(h.w.count(h.g, is_asked), 1);
    let answer = |h: &mut Hostile| {
        h.w.conn(h.g, |c| {
            let renewed = Renewed {
                client_cert_pem: "cert".into(),
                gateway_ca_pem: "ca".into(),
            };
            c.as_gateway().unwrap().answer_renewal(Ok(renewed))
        })
    };
    assert!(answer(&mut h));
    assert!(!answer(&mut h), "answered twice");
    h.w.run_for(limits::RENEWAL_INTERVAL);
    h.say(&ask);
    assert_eq!(h.w.count(h.g, is_asked), 2);
    let now = h.w.now();
    h.w.raw(h.raw, |r| r.close(now));
    h.w.run_for(ms(100));
    assert!(!answer(&mut h), "answered after the close");
}

#[test]
fn open_without_stream_credit_is_given_up_at_its_deadline() {
    let mut h = Hostile::new(|config| config.streams = 1);
    h.say(&advertise(1));
    h.w.open(h.g, "10.0.0.4:22");
    let attempt = h.w.open(h.g, "10.0.0.5:22");
    h.w.run_for(limits::OPEN_TIMEOUT - ms(1));
    assert!(!h.w.has(h.g, is_refused));
    h.w.run_for(ms(1));
    let (_, last) = h.w.events(h.g).last().unwrap();
    assert!(
        matches!(last, Event::SessionRefused { attempt: a, cause: AttemptError::NoCredit } if *a == attempt),
        "{last:?}"
    );
}

#[test]
fn agent_that_has_lost_its_streams_is_sent_away() {
    let mut h = Hostile::new(|config| config.streams = 0);
    h.say(&advertise(1));
    h.w.run_for(limits::CREDIT_PATIENCE * 2);
    h.expect_up();
    let attempt = h.w.open(h.g, "10.0.0.5:22");
    h.w.run_for(limits::CREDIT_PATIENCE - ms(1));
    h.expect_up();
    // Whoever gives up in time has not waited.
    h.w.conn(h.g, |c| c.as_gateway().unwrap().cancel(attempt));
    h.w.run_for(limits::CREDIT_PATIENCE);
    h.expect_up();
    h.w.open(h.g, "10.0.0.5:22");
    h.w.run_for(limits::CREDIT_PATIENCE);
    h.expect_fault(|fault| *fault == PeerFault::NoStreams);
}

#[test]
fn opens_beyond_the_queue_are_refused_at_once() {
    let mut h = Hostile::new(|config| config.streams = 0);
    h.say(&advertise(1));
    for _ in 0..limits::OPENS_WAITING_MAX {
        h.w.open(h.g, "10.0.0.5:22");
    }
    assert!(!h.w.has(h.g, is_refused));
    h.w.open(h.g, "10.0.0.5:22");
    assert_eq!(h.w.count(h.g, is_refused), 1);
}

#[test]
fn open_without_an_answer_is_given_up_at_its_deadline() {
    let mut h = Hostile::new(|_| {});
    h.say(&advertise(1));
    let attempt = h.w.open(h.g, "10.0.0.5:22");
    h.w.run_for(limits::OPEN_TIMEOUT - ms(1));
    assert!(!h.w.has(h.g, is_refused));
    h.w.run_for(ms(1));
    let (_, last) = h.w.events(h.g).last().unwrap();
    assert!(
        matches!(last, Event::SessionRefused { attempt: a, cause: AttemptError::TimedOut } if *a == attempt),
        "{last:?}"
    );
    // The agent learns of it, and the late answer changes nothing.
    h.w.run_for(ms(100));
    let stream = h.w.raw(h.raw, |r| r.accept()).unwrap();
    assert!(h.w.raw(h.raw, |r| r.read(stream)).reset.is_some());
    h.expect_up();
}

pub(crate) fn advertise(epoch: u64) -> Vec<u8> {
    let message = Advertised::new(epoch, &routes("10.0.0.0/8")).message;
    let frame = ControlMessage::RouteAdvertise(message).encode().unwrap();
    frame.to_vec()
}

fn heartbeat(timestamp_ms: u64) -> Vec<u8> {
    let beat = ControlMessage::Heartbeat {
        version: 1,
        timestamp_ms,
        active_stream_count: 0,
    };
    beat.encode().unwrap().to_vec()
}

fn is_routes(event: &Event) -> bool {
    matches!(event, Event::RoutesAccepted { .. })
}

fn is_refused(event: &Event) -> bool {
    matches!(event, Event::SessionRefused { .. })
}
