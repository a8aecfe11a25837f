//! A process takes down what its state machines did, and `adit replay` does it again.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;

use crate::harness::{
    SOON, beside_others,
    site::{Agent, Gateway, Ports, Site, forward},
    targets::{echo, ping},
    until,
    users::connect,
};

/// A gateway and an agent that write journals, after a session.
fn recorded(site: &Site, max_mib: u32) -> (Gateway, Agent) {
    let target = echo();
    let journal = |name: &str| {
        format!(
            "[journal]\nfile = {:?}\nmax_mib = {max_mib}\n",
            site.path(name)
        )
    };
    let rest = format!("{}{}", journal("gateway.journal"), forward("echo", target));
    let mut gateway = site.gateway_with("gw", "", Ports::default(), &rest);
    gateway.start();
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    agent.spawn_through(|mut command| {
        command.arg("--journal").arg(site.path("agent.journal"));
        command
    });
    gateway.routes_to(&agent.id(), 1);
    ping(&connect(gateway.ingress("echo")), b"to be forgotten");
    gateway.sessions_are(0);
    (gateway, agent)
}

fn replayed(site: &Site, journal: &Path) -> Value {
    site.run(&["replay", "--json", &journal.to_string_lossy()])
        .json()
}

#[test]
fn an_incident_can_be_replayed_elsewhere() {
    let _machine = beside_others();
    let (site, elsewhere) = (Site::new(), Site::new());
    let (mut gateway, mut agent) = recorded(&site, 64);
    assert!(agent.process_mut().terminate().success());
    assert!(gateway.process_mut().terminate().success());
    for (name, machines, said) in [
        (
            "gateway.journal",
            ["dispatch", "gateway's connection c0"],
            "SessionOpened",
        ),
        (
            "agent.journal",
            ["supervisor", "agent's connection c0"],
            "SessionRequested",
        ),
    ] {
        let journal = site.path(name);
        let mode = fs::metadata(&journal).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bytes = fs::read(&journal).unwrap();
        assert!(!bytes.windows(9).any(|window| window == b"forgotten"));
        let copy = elsewhere.path("journal");
        fs::copy(&journal, &copy).unwrap();
        let view = replayed(&elsewhere, &copy);
        assert_eq!(view["whole"], true, "{view}");
        let names = view["machines"].as_array().unwrap().iter();
        let names: Vec<&str> = names.map(|one| one["machine"].as_str().unwrap()).collect();
        assert_eq!(names, machines);
        let mut outputs = view["outputs"].as_array().unwrap().iter();
        assert!(outputs.any(|one| one["output"].as_str().unwrap().starts_with(said)));
        assert_eq!(
            view["hash"],
            replayed(&site, &journal)["hash"],
            "whoever replays it"
        );
        // A byte of a record, far behind the head.
        let mut other = bytes;
        let at = other.len() / 2;
        other[at] ^= 1;
        fs::write(&copy, &other).unwrap();
        let told = elsewhere.run(&["replay", &copy.to_string_lossy()]);
        told.fails(1, &["it was changed"]);
    }
}

#[test]
fn what_a_killed_process_took_down_is_good() {
    let _machine = beside_others();
    let site = Site::new();
    let (mut gateway, mut agent) = recorded(&site, 64);
    let journal = site.path("gateway.journal");
    until("the session is on the disk", SOON, || {
        let text = site.run(&["replay", &journal.to_string_lossy()]).out;
        text.contains("SessionOpened").then_some(())
    });
    gateway.process_mut().kill();
    let view = replayed(&site, &journal);
    assert_eq!(view["whole"], false);
    let told = site.run(&["replay", &journal.to_string_lossy()]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.contains("the journal has no end"), "{told:?}");
    agent.process_mut().kill();
}

#[test]
fn a_journal_that_is_full_touches_no_session() {
    let _machine = beside_others();
    let site = Site::new();
    let (mut gateway, _agent) = recorded(&site, 1);
    until("the journal is full", SOON, || {
        for _ in 0..100 {
            ping(&connect(gateway.ingress("echo")), b"one more");
        }
        let full = gateway
            .process()
            .count("the journal ends here; sessions go on");
        (full > 0).then_some(())
    });
    ping(&connect(gateway.ingress("echo")), b"and on");
    assert!(gateway.process_mut().terminate().success());
    let journal = site.path("gateway.journal");
    assert!(fs::metadata(&journal).unwrap().len() <= 1 << 20);
    assert_eq!(replayed(&site, &journal)["whole"], false);
}

#[test]
fn what_is_no_journal_is_told() {
    let _machine = beside_others();
    let site = Site::new();
    fs::write(site.path("x"), "adit journal 2 9.9.9\n").unwrap();
    let replay = |name: &str| site.run(&["replay", &site.path(name).to_string_lossy()]);
    replay("x").fails(1, &["no journal of adit"]);
    replay("nothing").fails(1, &["journal", "No such file"]);
}
