use std::net::SocketAddr;

use adit_proto_core::{
    domain::DomainPattern,
    id::{ConnId, SessionId},
    output::Event,
    route::{DomainRoute, RouteSet},
};
use uuid::Uuid;

use super::*;
use crate::{
    facts::LegFact,
    faults::{Fault, Wish},
    net::{Fate, LossCause},
    tcp::{Ending, LegId, Script, Side},
};

fn hashes(facts: &[(u64, usize, Fact<'_>)], mut trace: Trace) -> Hashes {
    for (us, node, fact) in facts {
        trace.note(At::from_micros(*us), NodeId(*node), fact);
    }
    trace.hashes()
}

fn one(fact: Fact<'_>) -> Hashes {
    hashes(&[(5, 1, fact)], Trace::default())
}

fn sent(data: &[u8], fate: Fate) -> Fact<'_> {
    let (src, dst) = (addr("192.0.2.1:4433"), addr("[2001:db8::1]:4433"));
    Fact::Sent {
        src,
        dst,
        data,
        fate,
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const TRAVELS: Fate = Fate::OnTheWay {
    copies: 1,
    spoilt: 0,
};

fn line(fact: &Fact<'_>) -> Line {
    let mut trace = Trace::with_lines(2);
    trace.note(At::from_micros(12_125_076), NodeId(5), fact);
    trace.take_lines().remove(0)
}

#[test]
fn equal_facts_have_equal_hashes_with_and_without_lines() {
    let facts = || {
        [
            (5, 1, sent(&[1, 2, 3], TRAVELS)),
            (9, 0, Fact::Event(ConnId(3), &Event::Seen)),
        ]
    };
    let wanted = hashes(&facts(), Trace::default());
    assert_eq!(hashes(&facts(), Trace::default()), wanted);
    assert_eq!(hashes(&facts(), Trace::with_lines(1)), wanted);
    assert_eq!(wanted.records, 2);
}

#[test]
fn a_changed_byte_changes_the_bytes_only() {
    let (a, b) = (
        one(sent(&[1, 2, 3], TRAVELS)),
        one(sent(&[1, 2, 4], TRAVELS)),
    );
    assert_ne!(a.bytes, b.bytes);
    assert_eq!(a.shape, b.shape);
}

#[test]
fn a_changed_length_time_node_or_kind_changes_both() {
    let wanted = one(sent(&[1, 2, 3], TRAVELS));
    let src = addr("192.0.2.1:4433");
    let other = [
        one(sent(&[1, 2, 3, 0], TRAVELS)),
        hashes(&[(6, 1, sent(&[1, 2, 3], TRAVELS))], Trace::default()),
        hashes(&[(5, 2, sent(&[1, 2, 3], TRAVELS))], Trace::default()),
        one(sent(&[1, 2, 3], Fate::Lost(LossCause::Burst))),
        one(Fact::Received {
            src,
            from: NodeId(0),
            sent: At::ZERO,
            data: &[1, 2, 3],
        }),
    ];
    for other in other {
        assert_ne!(other.bytes, wanted.bytes);
        assert_ne!(other.shape, wanted.shape);
    }
}

#[test]
fn the_shape_holds_the_kinds_of_events_and_nothing_they_say() {
    let routes = |epoch| Event::RoutesAccepted {
        epoch,
        routes: RouteSet::default(),
    };
    let of = |event: &Event| one(Fact::Event(ConnId(0), event));
    let (a, b, c) = (of(&routes(1)), of(&routes(2)), of(&Event::Seen));
    assert_ne!(a.bytes, b.bytes);
    assert_eq!(a.shape, b.shape);
    assert_ne!(a.shape, c.shape);
}

#[test]
fn what_goes_from_one_fact_to_the_next_changes_the_hash() {
    let parts = |first: &[u8], second: &[u8]| {
        let facts = [(5, 1, sent(first, TRAVELS)), (5, 1, sent(second, TRAVELS))];
        hashes(&facts, Trace::default())
    };
    assert_ne!(parts(&[1, 2], &[3]).bytes, parts(&[1], &[2, 3]).bytes);
}

#[test]
fn feeding_a_hash_in_pieces_changes_nothing() {
    let mut sink = Sink::default();
    let mut hasher = blake3::Hasher::new();
    for len in [
        0,
        1,
        PENDING_MAX - 1,
        3,
        PENDING_MAX,
        2 * PENDING_MAX + 1,
        7,
    ] {
        let piece = vec![u8::try_from(len % 251).unwrap(); len];
        sink.put(&piece);
        hasher.update(&piece);
        assert_eq!(sink.hash(), hasher.finalize());
    }
}

#[test]
fn lines_name_nodes_packets_and_losses() {
    let received = line(&Fact::Received {
        src: addr("198.51.100.1:4433"),
        from: NodeId(0),
        sent: At::ZERO,
        data: &[0xc3, 0, 0, 0, 1, 8],
    });
    assert_eq!(
        received.to_string(),
        "  12.125076 agent3   < 198.51.100.1:4433 Initial, 6 bytes"
    );
    assert_eq!(received.topic, Topic::Network);
    for (data, fate, wanted) in [
        (&[0xe0, 0, 0, 0, 1][..], TRAVELS, "Handshake, 5 bytes"),
        (&[0xf0, 0, 0, 0, 1], TRAVELS, "Retry, 5 bytes"),
        (&[0xd0, 0, 0, 0, 1], TRAVELS, "0-RTT, 5 bytes"),
        (&[0x80, 0, 0, 0, 0], TRAVELS, "Version Negotiation, 5 bytes"),
        (
            &[0x41],
            Fate::OnTheWay {
                copies: 2,
                spoilt: 0,
            },
            "1-RTT, 1 bytes, 2 copies",
        ),
        (
            &[0x41],
            Fate::Lost(LossCause::Partition),
            "1-RTT, 1 bytes, lost: Partition",
        ),
        (&[], TRAVELS, "empty, 0 bytes"),
    ] {
        let text = line(&sent(data, fate)).text;
        assert_eq!(
            text,
            format!("192.0.2.1:4433 > [2001:db8::1]:4433 {wanted}")
        );
    }
}

#[test]
fn lines_say_routes_and_scripts_in_short() {
    let routes = RouteSet {
        subnets: vec!["10.0.0.0/8".parse().unwrap()],
        domains: vec![DomainRoute {
            pattern: DomainPattern::parse("*.b.x").unwrap(),
            auto_detected: true,
        }],
    };
    let told = line(&Fact::RoutesTold {
        conn: ConnId(3),
        epoch: 7,
        routes: &routes,
    });
    assert_eq!(
        told.text,
        "dispatch < c3 has epoch 7: [10.0.0.0/8 *.b.x (found)]"
    );
    assert_eq!(told.topic, Topic::Events);
    let wish = Wish {
        gateway: NodeId(1),
        target: "web.x:80".parse().unwrap(),
        pinned: None,
        user: Script {
            chunk: 5,
            gap: At::from_millis(2),
            ending: Ending::Fin,
            reset_after: Some(At::from_secs(1)),
            reset_discards: true,
            ..Script::short(50)
        },
        target_script: Script::silent(),
        promise: None,
        patience: None,
    };
    let fault = line(&Fact::Fault(&Fault::Open(Box::new(wish))));
    assert_eq!(
        fault.text,
        "fault: a user comes to gw1 for web.x:80; \
         user: writes 50, 5 each 2ms, ends, resets after 1s losing what is unread; \
         target: writes 0, ends after the peer"
    );
    assert_eq!(fault.topic, Topic::Faults);
}

#[test]
fn every_other_topic_has_its_lines() {
    let waits = Fact::Waits {
        conn: ConnId(2),
        until: Some(At::from_millis(1_500)),
        sessions: 3,
        expired: true,
    };
    let waits = line(&waits);
    assert_eq!(
        (waits.topic, &*waits.text),
        (Topic::Waits, "c2 waits until 1.500000, 3 sessions")
    );
    let leg = line(&Fact::Leg {
        leg: LegId(4),
        side: Side::User,
        session: SessionId(Uuid::nil()),
        what: LegFact::Got {
            offset: 10,
            bytes: b"abc",
        },
    });
    let wanted = format!("tcp 4 User of {}: got 3 from 10", Uuid::nil());
    assert_eq!((leg.topic, leg.text), (Topic::Sessions, wanted));
}
