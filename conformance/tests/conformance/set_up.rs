//! Sessions come about, or are refused with a reason.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use adit_io_common::agent::Restrictions;
use adit_proto_core::{route::RouteSet, target::Target};

use crate::conform;

#[test]
fn a_session_carries_bytes_both_ways_until_both_ends_have_ended() {
    conform(|bed| {
        bed.begin();
        let target = bed.target("target", None);
        let mut session = bed.open("s", &target);
        session.user.send(b"question");
        session.target.receive(8);
        session.target.send(b"the answer");
        session.user.receive(10);
        session.user.finish();
        session.target.receive_rest();
        session.target.finish();
        session.user.receive_rest();
    });
}

#[test]
fn refusals_have_the_same_words() {
    conform(|bed| {
        bed.begin();
        let closed = closed_port();
        bed.name(closed, "closed");
        bed.refused("to a closed port", &closed.into());
        let nobody: Target = format!("{}.invalid:80", "x".repeat(64)).parse().unwrap();
        bed.refused("to a name that nobody has", &nobody);
        bed.refused("without a route", &"192.0.2.1:80".parse().unwrap());
        // The gateway still knows the former routes when it asks.
        let denies = Restrictions {
            deny: vec!["127.0.0.0/8".parse().unwrap()],
            ..Restrictions::default()
        };
        let routes = RouteSet {
            subnets: vec!["127.0.0.1/32".parse().unwrap()],
            domains: Vec::new(),
        };
        bed.agent("a").reload(routes, &denies).unwrap();
        bed.refused("against the policy", &closed.into());
    });
}

/// Where nobody listens.
fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}
