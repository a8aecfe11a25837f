//! An agent whose packets vanish without an error.

use std::{
    io::{ErrorKind, Write},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{
        SOON, alone,
        targets::{drain, expect},
        until,
    },
    lab::{Lab, host},
};

#[test]
fn the_other_agent_takes_the_next_sessions_at_once_and_open_ones_end() {
    let _machine = alone();
    let lab = Lab::new(2);
    let gateway = lab.start_gateway("");
    let agents = [lab.serving(0, &gateway), lab.serving(1, &gateway)];
    let targets = [lab.target(0), lab.target(1)];
    // With equal loads the newest route set is the first choice: one session on each, and the second agent is it again.
    let lost = lab.user(&gateway);
    let lost_far = targets[1].accept();
    let kept = lab.user(&gateway);
    let kept_far = targets[0].accept();

    lab.swallow(host(2).into());
    let swallowed = Instant::now();
    let mut others = Vec::new();
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let start = Instant::now();
        let mut user = lab.user(&gateway);
        user.write_all(b"to").unwrap();
        let mut far = targets[0].accept();
        expect(&far, b"to");
        far.write_all(b"and back").unwrap();
        expect(&user, b"and back");
        longest = longest.max(start.elapsed());
        others.push((user, far));
    }
    eprintln!("slowest of ten sessions beside a black hole: {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!(targets[1].untouched());

    // Both ends are told, and not before the path is taken for dead.
    for end in [&lost, &lost_far] {
        let error = drain(end).1.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let took = swallowed.elapsed();
        eprintln!("reset {took:?} after the black hole");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let line = gateway.process().logged("session ended");
    assert_eq!(line["reason"], "connection between agent and gateway lost");
    agents[1].process().logged("connection to the gateway lost");

    lab.let_pass(host(2).into());
    until("both agents serve", SOON, || {
        let serves = |row: &Value| row["status"] == "online" && row["epoch"] != 0;
        (gateway.agents().iter().filter(|row| serves(row)).count() == 2).then_some(())
    });
    // What the other agent carries has noticed nothing.
    others.push((kept, kept_far));
    for (user, far) in &mut others {
        far.write_all(b"still there").unwrap();
        expect(user, b"still there");
    }
}
