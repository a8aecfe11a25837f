//! Who gets in, who does not, and what is said first.

use std::sync::Arc;

use adit_proto_core::{
    close::{CloseReason, Closed},
    endpoint::EndpointLimits,
    output::Event,
};
use sha2::{Digest, Sha256};

use crate::{
    pki::{AGENT_NAME, AGENT_UUID, GATEWAY_NAME, Pki},
    raw::RawConfig,
    world::{At, Joined, NodeId, World, ms, routes, secs},
};

#[test]
fn identity_comes_first_then_the_routes() {
    let j = Joined::new(1);
    let events = j.w.events(j.g);
    let Event::Established {
        identity: Some(who),
    } = &events[0].1
    else {
        panic!("{events:?}");
    };
    assert_eq!(who.id.to_string(), AGENT_UUID);
    assert_eq!(&*who.name, AGENT_NAME);
    let cert = &j.w.pki.agent;
    assert_eq!(
        who.fingerprint,
        <[u8; 32]>::from(Sha256::digest(&cert.cert))
    );
    assert_eq!(who.spki_sha256, cert.spki_sha256);
    assert!(
        matches!(&events[1].1, Event::RoutesAccepted { epoch: 1, routes: set } if *set == routes("10.0.0.0/8")),
        "{events:?}"
    );
    let first = &j.w.events(j.a)[0].1;
    assert!(matches!(first, Event::Established { identity: None }));
}

#[test]
fn changed_routes_get_a_higher_epoch_and_repeats_are_only_seen() {
    let mut j = Joined::new(2);
    let now = j.w.now();
    let set = Arc::new(routes("172.16.0.0/12"));
    j.w.conn(j.a, |c| c.as_agent().unwrap().set_routes(now, set))
        .unwrap();
    j.w.run_for(secs(1));
    let (_, last) = j.w.events(j.g).last().unwrap();
    assert!(
        matches!(last, Event::RoutesAccepted { epoch: 2, routes: set } if *set == routes("172.16.0.0/12")),
        "{last:?}"
    );
    let is_seen = |e: &Event| matches!(e, Event::Seen);
    j.w.run_for(secs(28));
    assert_eq!(j.w.count(j.g, is_seen), 0);
    j.w.run_for(secs(3));
    assert_eq!(j.w.count(j.g, is_seen), 1);
    // The heartbeat at 60 s, and a second repetition.
    j.w.run_for(secs(30));
    assert_eq!(j.w.count(j.g, is_seen), 3);
    assert_eq!(j.w.closed(j.g), None);
}

#[test]
fn good_agent_is_let_in() {
    let mut w = World::new(3);
    let tls = w.pki.agent_tls();
    let (_, a) = attempt(&mut w, |w, gateway, agent| {
        w.connect_as(agent, gateway, tls, GATEWAY_NAME)
    });
    assert_eq!(w.closed(a), None);
}

#[test]
fn a_handshake_that_is_not_wanted_any_more_is_ended_at_once() {
    for (by_gateway, drains) in [(true, false), (false, false), (false, true)] {
        let mut w = World::new(6);
        let (gateway, agent) = (w.add_gateway(EndpointLimits::default()), w.add_agent());
        // The gateway is heard by nobody.
        let (from, to) = (w.addr(gateway), w.addr(agent));
        w.net.path(from, to).black_hole = true;
        let a = w.connect(agent, gateway);
        w.run_for(ms(100));
        let at = match by_gateway {
            true => (gateway, w.only_conn(gateway)),
            false => a,
        };
        let (now, reason) = (w.now(), CloseReason::GatewayStopping);
        w.conn(at, |c| match drains {
            true => c.as_agent().unwrap().drain(),
            false => c.stop(now, reason),
        });
        assert_eq!(w.closed(at), Some(&Closed::Local), "drains: {drains}");
    }
}

#[test]
fn agents_that_are_not_acceptable_get_the_right_alert() {
    const BAD_CERTIFICATE: u8 = 42;
    const UNKNOWN_CA: u8 = 48;
    const ACCESS_DENIED: u8 = 49;
    type Change = fn(&mut World) -> adit_proto_core::link::tls::AgentTls;
    let table: [(&str, &[u8], Change); 5] = [
        ("no URI", &[BAD_CERTIFICATE, ACCESS_DENIED], |w| {
            w.pki.agent_tls_with(&w.pki.agent_named(None))
        }),
        ("bad UUID", &[BAD_CERTIFICATE, ACCESS_DENIED], |w| {
            w.pki
                .agent_tls_with(&w.pki.agent_named(Some("urn:uuid:7c4f5b1e")))
        }),
        ("another URI", &[BAD_CERTIFICATE, ACCESS_DENIED], |w| {
            w.pki
                .agent_tls_with(&w.pki.agent_named(Some("https://example.test/")))
        }),
        ("server certificate", &[43, BAD_CERTIFICATE], |w| {
            w.pki.agent_tls_with(&w.pki.server)
        }),
        ("another CA", &[UNKNOWN_CA, 51], |w| {
            w.pki.agent_tls_with(&Pki::new().agent)
        }),
    ];
    for (what, alerts, change) in table {
        let mut w = World::new(4);
        let tls = change(&mut w);
        let gateway = w.add_gateway(EndpointLimits::default());
        let agent = w.add_agent();
        let a = w.connect_as(agent, gateway, tls, GATEWAY_NAME);
        w.run_for(secs(3));
        expect_refused(&w, gateway, a, alerts, what);
    }
}

#[test]
fn agent_out_of_its_dates_is_refused() {
    for (year, alerts) in [(2040, &[45][..]), (2025, &[42, 45])] {
        let mut w = World::new(5);
        let gateway = w.add_gateway(EndpointLimits::default());
        let agent = w.add_agent();
        let a = w.connect(agent, gateway);
        // The clock jumps when the agent has judged the gateway, whose certificate has the same dates, and the
        // gateway has yet to judge the agent.
        w.run_until(secs(1), |w| {
            w.has(a, |e| matches!(e, Event::Established { .. }))
        });
        w.wall.set_year(year);
        w.run_for(secs(3));
        expect_refused(&w, gateway, a, alerts, "dates");
    }
}

#[test]
fn agent_that_is_not_admitted_is_refused() {
    let mut w = World::new(6);
    let gateway = w.add_gateway_that(EndpointLimits::default(), false);
    let agent = w.add_agent();
    let a = w.connect(agent, gateway);
    w.run_for(secs(3));
    expect_refused(&w, gateway, a, &[42, 49], "not admitted");
}

#[test]
fn client_without_certificate_or_with_another_protocol_is_refused() {
    for (alert, alpn) in [(116, "gw-agent-tunnel/1"), (120, "gw-agent-tunnel/2")] {
        let mut w = World::new(7);
        let gateway = w.add_gateway(EndpointLimits::default());
        let config = RawConfig {
            alpn: alpn.as_bytes(),
            ..RawConfig::default()
        };
        let raw = w.add_raw_client(gateway, &config);
        w.run_for(secs(3));
        let lost = w.raw(raw, |r| format!("{:?}", r.lost));
        assert!(
            lost.contains(&format!("Code::crypto({:02x})", alert)),
            "{lost}"
        );
        expect_never_established(&w, gateway);
    }
}

#[test]
fn gateway_that_is_not_acceptable_is_not_trusted() {
    let mut other_root = World::new(8);
    let other = Pki::new();
    let mut tls = other_root.pki.agent_tls();
    tls.gateway_roots = vec![other.ca];
    let (gateway, a) = attempt(&mut other_root, |w, gateway, agent| {
        w.connect_as(agent, gateway, tls, GATEWAY_NAME)
    });
    expect_not_trusted(&other_root, gateway, a, "another CA");

    let mut other_name = World::new(9);
    let tls = other_name.pki.agent_tls();
    let (gateway, a) = attempt(&mut other_name, |w, gateway, agent| {
        w.connect_as(agent, gateway, tls, "other.example.test")
    });
    expect_not_trusted(&other_name, gateway, a, "another name");

    let mut other_pin = World::new(10);
    let mut tls = other_pin.pki.agent_tls();
    tls.gateway_pin = Some([7; 32]);
    let (gateway, a) = attempt(&mut other_pin, |w, gateway, agent| {
        w.connect_as(agent, gateway, tls, GATEWAY_NAME)
    });
    expect_not_trusted(&other_pin, gateway, a, "another pin");
}

#[test]
fn right_pin_is_trusted() {
    let mut w = World::new(11);
    let mut tls = w.pki.agent_tls();
    tls.gateway_pin = Some(w.pki.server.spki_sha256);
    let (_, a) = attempt(&mut w, |w, gateway, agent| {
        w.connect_as(agent, gateway, tls, GATEWAY_NAME)
    });
    assert!(w.has(a, |e| matches!(e, Event::Established { .. })));
    assert_eq!(w.closed(a), None);
}

#[test]
fn exchanged_roots_hold_for_the_next_agent_only() {
    let mut j = Joined::new(12);
    let mut tls = j.w.pki.gateway_tls(true);
    tls.agent_roots = vec![Pki::new().ca];
    let env = j.w.env("gateway", 1);
    j.w.endpoint(j.g.0).set_server_tls(&tls, &env).unwrap();
    let agent = j.w.add_agent();
    let late = j.w.connect(agent, j.g.0);
    j.w.run_for(secs(5));
    assert!(
        matches!(j.w.closed(late), Some(Closed::IdentityRefused { .. })),
        "{:?}",
        j.w.closed(late)
    );
    assert_eq!(j.w.closed(j.a), None);
}

fn attempt(w: &mut World, connect: impl FnOnce(&mut World, NodeId, NodeId) -> At) -> (NodeId, At) {
    let gateway = w.add_gateway(EndpointLimits::default());
    let agent = w.add_agent();
    let a = connect(w, gateway, agent);
    w.run_for(secs(3));
    (gateway, a)
}

fn expect_refused(w: &World, gateway: NodeId, a: At, alerts: &[u8], what: &str) {
    let closed = w.closed(a);
    assert!(
        matches!(closed, Some(Closed::IdentityRefused { alert, .. }) if alerts.contains(alert)),
        "{what}: {closed:?}"
    );
    expect_never_established(w, gateway);
}

fn expect_not_trusted(w: &World, gateway: NodeId, a: At, what: &str) {
    let closed = w.closed(a);
    assert!(
        matches!(closed, Some(Closed::PeerNotTrusted { .. })),
        "{what}: {closed:?}"
    );
    assert!(!w.has(a, |e| matches!(e, Event::Established { .. })));
    expect_never_established(w, gateway);
}

fn expect_never_established(w: &World, gateway: NodeId) {
    for peer in w.peers(gateway) {
        let said = peer.events.iter().map(|(_, e)| e).collect::<Vec<_>>();
        assert!(matches!(said[..], [Event::Closed(_)]), "{said:?}");
    }
    assert_eq!(w.peers(gateway).count(), 1);
}
