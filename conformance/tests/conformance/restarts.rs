//! Agents and gateways that end and come back.

use std::net::{Ipv4Addr, UdpSocket};

use crate::{
    bed::{Bed, Session},
    conform,
};

#[test]
fn an_agent_that_stops_resets_its_sessions_and_serves_again_when_it_is_back() {
    conform(|bed| {
        bed.begin();
        let mut s = used(bed, "first");
        bed.stop_agent("a");
        s.user.receive_reset();
        s.target.receive_reset();
        bed.see_agents(&[]);
        bed.start_agent("a");
        bed.see_agents(&["a"]);
        used(bed, "second");
    });
}

#[test]
fn an_agent_that_was_killed_serves_at_once_when_it_is_back() {
    conform(|bed| {
        bed.begin();
        let mut s = used(bed, "first");
        bed.quit_agent("a");
        s.target.receive_reset();
        bed.start_agent("a");
        bed.see_agents(&["a", "a superseded"]);
        used(bed, "second");
        // The dead connection is found out, and its session is no clean end.
        s.user.receive_reset();
        bed.see_agents(&["a"]);
    });
}

#[test]
fn a_gateway_that_stops_is_found_again_at_the_same_port() {
    conform(|bed| {
        bed.begin();
        let mut s = used(bed, "first");
        bed.stop_gateway();
        s.user.receive_reset();
        s.target.receive_reset();
        bed.start_gateway();
        bed.see_agents(&["a"]);
        bed.statuses("a").wait_up();
        bed.resume("a");
        used(bed, "second");
    });
}

#[test]
fn a_gateway_that_was_killed_is_found_again_at_the_same_port() {
    conform(|bed| {
        bed.begin();
        let mut s = used(bed, "first");
        bed.quit_gateway();
        s.user.receive_reset();
        bed.start_gateway();
        s.target.receive_reset();
        bed.statuses("a").wait_down();
        bed.see_agents(&["a"]);
        bed.statuses("a").wait_up();
        used(bed, "second");
    });
}

#[test]
fn an_agent_finds_a_gateway_whose_port_was_closed_at_first() {
    conform(|bed| {
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        bed.set_gateway_addr(port.local_addr().unwrap());
        drop(port);
        bed.start_agent("a");
        let failed = |status: &adit_io_common::agent::Status| status.last_error.is_some();
        bed.statuses("a").wait("told of a failure", failed);
        bed.start_gateway();
        bed.see_agents(&["a"]);
        bed.statuses("a").wait_up();
        used(bed, "s");
    });
}

/// A session through which something has gone both ways.
fn used(bed: &Bed, name: &str) -> Session {
    let target = bed.target("target", None);
    let mut s = bed.open(name, &target);
    s.user.send(b"question");
    s.target.receive(8);
    s.target.send(b"answer");
    s.user.receive(6);
    s
}
