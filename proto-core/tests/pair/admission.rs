//! Handshakes in progress: how many, for how long, and what is answered without state.

use adit_proto_core::{
    close::{CloseReason, Closed},
    endpoint::EndpointLimits,
    limits,
    output::{Event, Renewed},
};

use crate::{
    pki::{GATEWAY_NAME, Pki},
    world::{At, Joined, NodeId, World, ms, secs},
};

#[test]
fn many_handshakes_must_prove_their_address_and_still_get_in() {
    let mut w = World::new(90);
    let gateway = w.add_gateway(EndpointLimits {
        handshakes_retry: 0,
        ..EndpointLimits::default()
    });
    let agent = w.add_agent();
    let a = w.connect(agent, gateway);
    w.run_for(secs(2));
    assert!(is_up(&w, a));
    assert_eq!(w.peers(gateway).count(), 1);
    let counters = w.endpoint(gateway).counters();
    // The hybrid key exchange makes the first flight two datagrams, and each one is answered.
    assert_eq!((counters.retried, counters.accepted), (2, 1));
}

#[test]
fn connection_that_its_first_datagram_closes_keeps_no_place() {
    let mut w = World::new(96);
    let gateway = w.add_gateway(EndpointLimits::default());
    let agent = w.add_agent();
    let (from, to) = (w.addr(agent), w.addr(gateway));
    w.net.path(from, to).black_hole = true;
    let a = w.connect(agent, gateway);
    w.net.path(from, to).black_hole = false;
    let now = w.now();
    w.conn(a, |conn| conn.close(now, &CloseReason::Redundant));
    w.run_for(ms(100));
    let endpoint = w.endpoint(gateway);
    assert_eq!(
        (endpoint.connections(), endpoint.counters().malformed),
        (0, 1)
    );
    assert_eq!(w.peers(gateway).count(), 0);
}

#[test]
fn handshake_above_a_limit_is_refused_as_overload() {
    let none = EndpointLimits::default();
    for full in [
        EndpointLimits {
            handshakes: 0,
            ..none
        },
        EndpointLimits {
            handshakes_per_source: 0,
            ..none
        },
        EndpointLimits {
            connections: 0,
            ..none
        },
    ] {
        let mut w = World::new(91);
        let gateway = w.add_gateway(full);
        let agent = w.add_agent();
        let a = w.connect(agent, gateway);
        w.run_for(secs(2));
        assert_eq!(w.closed(a), Some(&Closed::Overloaded));
        let counters = w.endpoint(gateway).counters();
        assert_eq!((counters.refused.total(), counters.accepted), (2, 0));
        let refused = counters.refused;
        for (limit, count) in [
            (full.connections, refused.connections),
            (full.handshakes, refused.handshakes),
            (full.handshakes_per_source, refused.source),
        ] {
            assert_eq!(count, if limit == 0 { 2 } else { 0 }, "{refused:?}");
        }
        // Limits can be exchanged.
        w.endpoint(gateway).set_limits(EndpointLimits::default());
        let again = w.connect(agent, gateway);
        w.run_for(secs(2));
        assert!(is_up(&w, again));
    }
}

#[test]
fn established_connections_take_no_handshake_place() {
    let mut w = World::new(92);
    let gateway = w.add_gateway(EndpointLimits {
        handshakes: 1,
        handshakes_per_source: 1,
        ..EndpointLimits::default()
    });
    let agent = w.add_agent();
    for _ in 0..5 {
        let a = w.connect(agent, gateway);
        w.run_for(secs(1));
        assert!(is_up(&w, a));
    }
}

#[test]
fn who_has_no_certificate_takes_no_place_of_those_who_have() {
    let mut w = World::new(94);
    let gateway = w.add_gateway(EndpointLimits {
        connections: 2,
        handshakes_per_source: 8,
        ..EndpointLimits::default()
    });
    let agent = w.add_agent();
    for _ in 0..4 {
        let tls = w.pki.agent_tls_with(&Pki::new().agent);
        w.connect_as(agent, gateway, tls, GATEWAY_NAME);
    }
    w.run_for(ms(200));
    let load = w.endpoint(gateway).load();
    assert_eq!(
        (load.connections, load.handshakes),
        (4, 4),
        "all have failed"
    );
    let a = w.connect(agent, gateway);
    w.run_for(ms(200));
    assert!(is_up(&w, a));
    // And they are counted as long as they are there.
    for _ in 0..20 {
        let tls = w.pki.agent_tls_with(&Pki::new().agent);
        w.connect_as(agent, gateway, tls, GATEWAY_NAME);
        w.run_for(ms(20));
    }
    assert!(w.endpoint(gateway).counters().refused.source > 0);
    w.run_for(secs(10));
    let load = w.endpoint(gateway).load();
    assert_eq!((load.connections, load.handshakes), (1, 0));
}

#[test]
fn connection_that_ended_frees_its_place() {
    let mut w = World::new(93);
    let gateway = w.add_gateway(EndpointLimits {
        connections: 1,
        ..EndpointLimits::default()
    });
    let agent = w.add_agent();
    for _ in 0..3 {
        let a = w.connect(agent, gateway);
        w.run_for(secs(1));
        assert!(is_up(&w, a));
        let extra = w.connect(agent, gateway);
        w.run_for(secs(1));
        assert_eq!(w.closed(extra), Some(&Closed::Overloaded));
        let now = w.now();
        let stop = CloseReason::AgentStopping;
        w.conn(a, |c| c.close(now, &stop));
        w.run_for(secs(2));
        assert_eq!(w.endpoint(gateway).connections(), 0);
    }
}

#[test]
fn agent_gives_up_soon_where_nothing_answers_and_late_where_something_did() {
    for (answers, patience) in [
        (false, limits::UNANSWERED_TIMEOUT),
        (true, limits::HANDSHAKE_TIMEOUT),
    ] {
        let mut w = World::new(95);
        // The answer to a first datagram asks for a second one, to which there is none.
        let gateway = w.add_gateway(EndpointLimits {
            handshakes_retry: 0,
            ..EndpointLimits::default()
        });
        let agent = w.add_agent();
        let (to, from) = (w.addr(agent), w.addr(gateway));
        w.net.path(from, to).black_hole = !answers;
        let began = w.at();
        let a = w.connect(agent, gateway);
        w.run_for(ms(15));
        w.net.path(to, from).black_hole = true;
        w.run_for(secs(11));
        assert_eq!(w.closed(a), Some(&Closed::HandshakeTimedOut));
        let closed = w.when(a, |e| matches!(e, Event::Closed(_))).unwrap();
        let took = closed - began;
        assert!((patience..patience + ms(100)).contains(&took), "{took:?}");
    }
}

#[test]
fn handshake_that_stalls_is_closed_and_its_place_is_free() {
    let mut w = World::new(94);
    let gateway = w.add_gateway(EndpointLimits {
        handshakes: 1,
        ..EndpointLimits::default()
    });
    let stalled = w.add_agent();
    // Nothing passes after the first flight, so the handshake never gets on.
    let (to, from) = (w.addr(stalled), w.addr(gateway));
    w.net.path(from, to).black_hole = true;
    let began = w.at();
    let a = w.connect(stalled, gateway);
    w.run_for(ms(15));
    w.net.path(to, from).black_hole = true;
    w.run_for(secs(5));
    let agent = w.add_agent();
    let refused = w.connect(agent, gateway);
    w.run_for(secs(1));
    assert_eq!(w.closed(refused), Some(&Closed::Overloaded));
    w.run_for(secs(6));
    assert_eq!(w.closed(a), Some(&Closed::HandshakeTimedOut));
    let g = (gateway, w.only_conn(gateway));
    assert_eq!(w.closed(g), Some(&Closed::HandshakeTimedOut));
    let closed = w.when(g, |e| matches!(e, Event::Closed(_))).unwrap();
    let took = closed - began;
    assert!((limits::HANDSHAKE_TIMEOUT..limits::HANDSHAKE_TIMEOUT + ms(100)).contains(&took));
    // As long as it says so it keeps its place.
    w.run_for(secs(4));
    assert_eq!(w.endpoint(gateway).load().connections, 0);
    let late = w.connect(agent, gateway);
    w.run_for(secs(1));
    assert!(is_up(&w, late));
}

#[test]
fn spoofed_handshakes_keep_nobody_out_who_proves_the_address() {
    let mut w = World::new(98);
    let gateway = w.add_gateway(EndpointLimits {
        handshakes_per_source: 32,
        ..EndpointLimits::default()
    });
    // What comes from the first port is spoofed: whoever sends it gets no answer.
    let spoofer = agent_at(&mut w, "198.51.100.9:1");
    let (to, from) = (w.addr(spoofer), w.addr(gateway));
    w.net.path(from, to).black_hole = true;
    for _ in 0..200 {
        w.connect(spoofer, gateway);
    }
    w.run_for(ms(100));
    let accepted = w.endpoint(gateway).counters().accepted;
    assert_eq!(
        accepted,
        limits::HANDSHAKES_PER_SOURCE_RETRY.try_into().unwrap()
    );
    let owner = agent_at(&mut w, "198.51.100.9:2");
    let a = w.connect(owner, gateway);
    w.run_for(secs(1));
    assert!(is_up(&w, a), "{:?}", w.events(a));
    assert_eq!(w.endpoint(gateway).counters().refused.total(), 0);
}

#[test]
fn one_source_is_an_ipv4_address_or_an_ipv6_network() {
    let table = [
        ("[2001:db8:1:2::1]:1", "[2001:db8:1:2:ffff::9]:1", true),
        ("[2001:db8:1:2::1]:1", "[2001:db8:1:3::1]:1", false),
        ("198.51.100.9:1", "[::ffff:198.51.100.9]:1", true),
        ("[::ffff:198.51.100.9]:1", "[::ffff:198.51.100.8]:1", false),
        ("198.51.100.9:1", "198.51.100.8:1", false),
    ];
    for (first, second, same) in table {
        let mut w = World::new(99);
        let gateway = w.add_gateway(EndpointLimits {
            handshakes_retry: 0,
            handshakes_per_source: 1,
            ..EndpointLimits::default()
        });
        // It answers the Retry, and stalls.
        let stalled = agent_at(&mut w, first);
        let (to, from) = (w.addr(stalled), w.addr(gateway));
        w.connect(stalled, gateway);
        let counted = w.run_until(secs(1), |w| w.peers(gateway).next().is_some());
        assert!(counted, "{first} was not accepted");
        w.net.path(from, to).black_hole = true;
        w.net.path(to, from).black_hole = true;
        let other = agent_at(&mut w, second);
        let a = w.connect(other, gateway);
        w.run_for(secs(1));
        assert_eq!(is_up(&w, a), !same, "{first} then {second}");
        assert_eq!(w.closed(a) == Some(&Closed::Overloaded), same);
    }
}

#[test]
fn unknown_version_is_answered_with_those_spoken() {
    let (mut w, gateway) = alone(95);
    let mut probe = vec![0; 1_200];
    probe[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
    probe[6..14].copy_from_slice(b"somedcid");
    let from = "198.51.100.7:1234".parse().unwrap();
    w.inject(from, gateway, &probe);
    w.run_for(ms(100));
    let [(to, answer)] = &w.mailbox[..] else {
        panic!("{:?}", w.mailbox);
    };
    assert_eq!(*to, from);
    assert_eq!(answer[0] & 0x80, 0x80);
    assert_eq!(answer[1..5], [0; 4]);
    // Connection ids change places, versions follow.
    assert_eq!(answer[5..15], [&[0][..], &[8], b"somedcid"].concat());
    assert!(
        answer[15..]
            .chunks(4)
            .any(|version| version == [0, 0, 0, 1])
    );
}

#[test]
fn garbage_is_dropped_and_counted() {
    let (mut w, gateway) = alone(96);
    let from = "198.51.100.7:1234".parse().unwrap();
    let table: [&[u8]; 5] = [&[], &[0], &[0xff; 3], &[0x40; 5], &[0xc0, 0, 0, 0, 1, 21]];
    for bytes in table {
        w.inject(from, gateway, bytes);
        w.run_for(ms(100));
    }
    assert_eq!(w.endpoint(gateway).counters().dropped, 5);
    assert_eq!(w.mailbox, []);
    assert_eq!(w.peers(gateway).count(), 0);
}

#[test]
fn renewal_is_asked_and_answered() {
    let mut j = Joined::new(97);
    let ask = |j: &mut Joined| j.w.conn(j.a, |c| c.as_agent().unwrap().renew("csr".into()));
    let renewed = Renewed {
        client_cert_pem: "cert".into(),
        gateway_ca_pem: "ca".into(),
    };
    for answer in [Ok(renewed), Err("not today".to_owned())] {
        assert_eq!(ask(&mut j), Ok(()));
        j.w.run_for(ms(100));
        // Nothing came back yet; asked again it is the same question.
        assert_eq!(ask(&mut j), Ok(()));
        j.w.run_for(secs(1));
        let (_, last) = j.w.events(j.g).last().unwrap();
        assert!(matches!(last, Event::RenewalRequested { csr_pem } if csr_pem == "csr"));
        let given = answer.clone();
        let answered = |e: &Event| matches!(e, Event::RenewalAnswered(_));
        let before = j.w.count(j.a, answered);
        assert!(j.w.conn(j.g, |c| c.as_gateway().unwrap().answer_renewal(given)));
        j.w.run_for(secs(1));
        assert_eq!(j.w.count(j.a, answered), before + 1);
        let (_, last) = j.w.events(j.a).last().unwrap();
        assert!(
            matches!(last, Event::RenewalAnswered(got) if *got == answer),
            "{last:?}"
        );
        j.w.run_for(limits::RENEWAL_INTERVAL);
    }
}

#[test]
fn renewal_that_is_asked_for_too_soon_is_refused_and_costs_nothing() {
    let mut j = Joined::new(100);
    let mut refused = 0;
    for _ in 0..5 {
        let asked = j.w.conn(j.a, |c| c.as_agent().unwrap().renew("csr".into()));
        assert_eq!(asked, Ok(()));
        j.w.run_for(secs(1));
        if j.w
            .has(j.g, |e| matches!(e, Event::RenewalRequested { .. }))
        {
            let answer = Err("not today".to_owned());
            j.w.conn(j.g, |c| c.as_gateway().unwrap().answer_renewal(answer));
        }
        j.w.run_for(secs(1));
        let (_, last) = j.w.events(j.a).last().unwrap();
        let Event::RenewalAnswered(Err(reason)) = last else {
            panic!("{last:?}");
        };
        refused += usize::from(reason.contains("too soon"));
    }
    assert_eq!(refused, 4);
    let passed_on = |e: &Event| matches!(e, Event::RenewalRequested { .. });
    assert_eq!(j.w.count(j.g, passed_on), 1);
}

fn is_up(w: &World, a: At) -> bool {
    w.has(a, |e| matches!(e, Event::Established { .. })) && w.closed(a).is_none()
}

fn agent_at(w: &mut World, addr: &str) -> NodeId {
    let agent = w.add_agent();
    w.move_to(agent, addr.parse().unwrap());
    agent
}

fn alone(seed: u64) -> (World, NodeId) {
    let mut w = World::new(seed);
    let gateway = w.add_gateway(EndpointLimits::default());
    (w, gateway)
}
