//! Processes that die at each step of what they write.

use std::collections::BTreeSet;

use crate::harness::{
    SOON, alone,
    crash::Crash,
    site::{Agent, Gateway, Site},
    until,
};

#[test]
fn an_agent_that_dies_at_any_step_of_a_renewal_is_never_locked_out() {
    let _machine = alone();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let died: BTreeSet<usize> = std::thread::scope(|scope| {
        let one = |step| {
            let agent = site.enrol(&format!("site-{step}"), &gateway, "10.0.0.0/8");
            let crash = Crash::new(&site, &agent.state, "agent-pair");
            let gateway = &gateway;
            scope.spawn(move || dies_at(step, agent, gateway, &crash).then_some(step))
        };
        let all: Vec<_> = (1..=STEPS_MAX).map(one).collect();
        all.into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    });
    // Two files, each made, written, synced, renamed and its folder synced, and another rename with its folder.
    assert!((12..STEPS_MAX).contains(&died.len()), "{died:?}");
    assert_eq!(died, (1..=died.len()).collect());
}

/// Has an agent die at a step of its renewal, and come back. Tells whether there was such a step.
fn dies_at(step: usize, mut agent: Agent, gateway: &Gateway, crash: &Crash) -> bool {
    let before = agent.pair("");
    agent.spawn_through(|command| crash.at(step, command));
    agent.process().logged(CONNECTED);
    // One that dies may not get to answer.
    let _asked = agent.ask(&["agent", "renew"]);
    let died = until("the renewal or the agent ends", SOON, || {
        let renewed = agent.process().count(IN_USE) > 0;
        let gone = || agent.ask(&["agent", "status"]).code == 5;
        renewed.then_some(false).or_else(|| gone().then_some(true))
    });
    if died {
        assert_eq!(agent.process_mut().exit().code(), Some(137));
        // Whole, whatever stands beside it.
        agent.pair("");
        agent.spawn();
        agent.process().logged(CONNECTED);
        // What was begun is ended, or was undone.
        let next = agent.state.join("agent-pair-next.json");
        until("one pair", SOON, || (!next.exists()).then_some(()));
        agent.process_mut().kill();
        agent.spawn();
        agent.process().logged(CONNECTED);
    } else {
        assert_ne!(agent.pair(""), before);
    }
    until("it is online", SOON, || {
        let online = |row: &serde_json::Value| row["id"] == agent.id() && row["status"] == "online";
        gateway.agents().iter().any(online).then_some(())
    });
    died
}

const CONNECTED: &str = "connected to the gateway";
const IN_USE: &str = "renewed certificate in use";
/// More than there are.
const STEPS_MAX: usize = 16;
