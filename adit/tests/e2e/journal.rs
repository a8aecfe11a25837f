//! A process takes down what its state machines did, and `adit replay` does it again.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::harness::{
    SOON, beside_others,
    process::run,
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
    for (name, role, machines, said) in [
        (
            "gateway.journal",
            "gateway",
            ["dispatch", "gateway's connection c0"],
            "SessionOpened",
        ),
        (
            "agent.journal",
            "agent",
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
        assert_eq!(view["role"], role);
        let begun = view["begun_unix_ms"].as_u64().unwrap();
        let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_millis(begun));
        assert!(age.unwrap() < Duration::from_secs(600));
        let head = format!("{role}, driver {}, adit ", view["driver"].as_str().unwrap());
        let told = site.run(&["replay", &copy.to_string_lossy()]).out;
        assert!(told.starts_with(&head), "{told}");
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
    replay("").fails(1, &["it cannot be read", "directory"]);
}

#[test]
fn nothing_but_journals_is_moved_aside() {
    let _machine = beside_others();
    let site = Site::new();
    let (mut gateway, mut agent) = recorded(&site, 64);
    assert!(agent.process_mut().terminate().success());
    // One of the other process, which writes it.
    let refused = |name: &str, code: i32, says: &[&str]| {
        let mut command = agent.command(&["agent", "run"]);
        command.arg("--journal").arg(site.path(name));
        run(command, "").fails(code, says);
    };
    refused("gateway.journal", 1, &["another process writes"]);
    // The state folder, with its keys.
    refused("", 3, &["journal.file", "is no journal of adit"]);
    fs::write(site.path("mine"), "mine").unwrap();
    refused("mine", 3, &["journal.file", "is no journal of adit"]);
    assert_eq!(fs::read(site.path("mine")).unwrap(), b"mine");
    refused("none/journal", 3, &["journal.file", "none", "No such file"]);
    assert!(gateway.process_mut().terminate().success());
    assert_eq!(
        replayed(&site, &site.path("gateway.journal"))["whole"],
        true
    );
}

#[test]
fn a_start_that_fails_keeps_the_incident() {
    let _machine = beside_others();
    let site = Site::new();
    let (mut gateway, mut agent) = recorded(&site, 64);
    agent.process_mut().kill();
    gateway.process_mut().kill();
    let journal = site.path("gateway.journal");
    let incident = fs::read(&journal).unwrap();
    let config = fs::read_to_string(&gateway.config).unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listen = config.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    assert_ne!(listen, config);
    fs::write(&gateway.config, listen).unwrap();
    run(gateway.command(&["gateway", "run"]), "").fails(1, &["cannot listen on UDP"]);
    assert_eq!(fs::read(&journal).unwrap(), incident);
    drop(taken);
    // Nor do the restarts that a supervisor tries.
    for n in 1..=3 {
        gateway.spawn();
        gateway.process().logged("gateway running");
        // One that its process was killed before it wrote a word is not kept, as it pushes nothing out.
        until("the journal has begun", Duration::from_secs(10), || {
            (fs::metadata(&journal).ok()?.len() > 0).then_some(())
        });
        gateway.process_mut().kill();
        let kept = site.path(&format!("gateway.journal.{n}"));
        assert_eq!(fs::read(kept).unwrap(), incident);
    }
}
