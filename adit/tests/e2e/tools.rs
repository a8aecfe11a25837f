//! Verbs for scripts, supervisors and packagers.

use std::{fs, os::unix::fs::PermissionsExt};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    SOON, beside_others,
    site::{Ports, Site, forward, free_udp_port},
    targets::{Target, expect},
    until,
    users::connect,
};

#[test]
fn health_follows_what_runs() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let ports = Ports {
        tunnel: free_udp_port(),
        enroll: 0,
    };
    let rest = forward("t", target.addr);
    let mut gateway = site.gateway_with("gw", "grace = \"15s\"", ports, &rest);
    gateway.ask(&["health"]).fails(5, &["nothing is running"]);
    gateway.start();
    let view = gateway.ask(&["health", "--json"]).json();
    assert_eq!(
        (&view["healthy"], &view["role"]),
        (&true.into(), &"gateway".into())
    );
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    until("the agent says that it is connected", SOON, || {
        (agent.ask(&["health"]).code == 0).then_some(())
    });
    assert!(
        agent
            .ask(&["health"])
            .out
            .starts_with("agent connected to 127.0.0.1:")
    );
    let state = agent.state.to_string_lossy();
    site.run(&["--state-dir", &state, "health", "--role", "gateway"])
        .fails(5, &["nothing is running"]);

    let mut user = connect(gateway.ingress("t"));
    std::io::Write::write_all(&mut user, b"x").unwrap();
    let far = target.accept();
    expect(&far, b"x");
    gateway.process().signal(Signal::TERM);
    gateway
        .process()
        .logged("stopping: no new users; a second signal ends at once");
    gateway
        .ask(&["health"])
        .fails(1, &["the gateway does not serve: the gateway is stopping"]);
    // Nobody waits for what will not come.
    gateway.ask(&["gateway", "reload"]).fails(5, &["stopping"]);
    gateway.ask(&["ca", "rotate"]).fails(5, &["stopping"]);
    gateway.process().signal(Signal::TERM);
    assert_eq!(gateway.process_mut().exit().code(), Some(0));
    until("the agent says that it is not", SOON, || {
        (agent.ask(&["health"]).code == 1).then_some(())
    });
}

#[test]
fn a_probe_tells_what_is_wrong_and_disturbs_nobody() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let ports = Ports {
        tunnel: free_udp_port(),
        enroll: 0,
    };
    let rest = forward("t", target.addr);
    let mut gateway = site.gateway_with("gw", "", ports, &rest);
    gateway.start();
    let stranger = site.agent("stranger");
    let ran = stranger.ask(&["agent", "probe", "--json"]);
    ran.fails(1, &["not well: enrolment"]);
    let mut agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let user = connect(gateway.ingress("t"));
    let far = target.accept();
    let ran = agent.ask(&["agent", "probe", "--json"]);
    assert_eq!(
        states(&ran.out),
        [
            "enrolment true",
            "certificate true",
            "name true",
            "udp true",
            "gateway true"
        ]
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = agent.ask(&["agent", "probe"]).out;
    assert!(text.contains("udp          ok"), "{text}");
    // The running agent has not noticed.
    assert_eq!(gateway.process().count("agent connected"), 1);
    assert_eq!(gateway.agents().len(), 1);
    drop((user, far));

    // Another gateway at its address.
    let mut record = agent.record();
    let good = record.to_string();
    record["server_spki_sha256"] = "00".repeat(32).into();
    let file = agent.state.join("agent.json");
    agent.process_mut().kill();
    fs::write(&file, record.to_string()).unwrap();
    let ran = agent.ask(&["agent", "probe", "--json"]);
    ran.fails(1, &["not well: gateway"]);
    assert_eq!(states(&ran.out)[3..], ["udp true", "gateway false"]);
    // A name that nobody has; the network's fault, or the name's.
    record["quic_endpoints"] = serde_json::json!(["gateway.invalid:4433"]);
    fs::write(&file, record.to_string()).unwrap();
    agent.ask(&["agent", "probe"]).fails(5, &["not well: name"]);
    // Nobody answers.
    fs::write(&file, good).unwrap();
    gateway.process_mut().kill();
    let ran = agent.ask(&["agent", "probe", "--json"]);
    ran.fails(5, &["not well: udp"]);
    assert_eq!(
        states(&ran.out),
        [
            "enrolment true",
            "certificate true",
            "name true",
            "udp false"
        ]
    );
}

#[test]
fn a_probe_of_an_enrolment_that_was_cut_short_says_so_and_writes_nothing() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    let (record, pair) = (agent.record(), agent.pair(""));
    let pending = serde_json::json!({
        "agent_id": record["agent_id"],
        "key": pair["key"],
        "enrolment": {
            "record": record,
            "certificate": pair["certificate"],
            "gateway_ca": pair["gateway_ca"],
        },
    });
    let file = agent.state.join("agent-enrolling.json");
    fs::write(&file, pending.to_string()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(agent.state.join("agent.json")).unwrap();
    let ran = agent.ask(&["agent", "probe"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("cut short"), "{ran:?}");
    assert!(file.exists() && !agent.state.join("agent.json").exists());
}

fn states(json: &str) -> Vec<String> {
    let checks: Vec<Value> = serde_json::from_str(json).unwrap();
    let state = |check: &Value| format!("{} {}", check["check"].as_str().unwrap(), check["ok"]);
    checks.iter().map(state).collect()
}

#[test]
fn pages_and_completions_name_the_verbs() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = site.run(&["completion", shell]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.out.contains("enrollment-string"), "{shell}");
    }
    site.run(&["completion", "sash"]).fails(2, &["sash"]);
    let ran = site.run(&["man"]);
    assert!(ran.code == 0 && ran.out.contains(".TH adit 1"), "{ran:?}");
    let dir = site.path("man1");
    let named = dir.to_str().unwrap();
    site.run(&["man", "--dir", named]).fails(1, &[named]);
    fs::create_dir(&dir).unwrap();
    assert_eq!(site.run(&["man", "--dir", named]).code, 0);
    for page in ["adit.1", "adit-gateway-run.1", "adit-ca-rotate.1"] {
        assert!(dir.join(page).exists(), "{page}");
    }
}
