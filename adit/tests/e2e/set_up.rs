//! Set-up as the README prints it: configuration files that are pointed at, and answers for scripts.

use std::{fs, process::Command};

use serde_json::Value;

use crate::harness::{
    SOON, beside_others,
    process::{Process, Ran, run},
    site::{Site, forward},
    targets::{echo, ping},
    until,
    users::connect,
};

#[test]
fn an_agent_is_set_up_with_a_configuration_that_is_not_there_yet() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let (config, state) = (site.path("etc/agent.toml"), site.path("agent"));
    let [config_arg, state_arg] = [&config, &state].map(|path| path.to_str().unwrap());
    let up = |more: &[&str]| -> Ran {
        let args = ["agent", "up", "--config", config_arg];
        let line = ["--enrollment-string", "-", "--advertise", "127.0.0.1/32"];
        let command = site.command(&[&args[..], &line[..], more].concat());
        run(command, &format!("{}\n", gateway.token("site-a")))
    };
    let made = up(&["--state-dir", state_arg, "--json"]).json();
    assert_eq!(made["config"], config_arg);
    assert_eq!(made["config_is_new"], true);
    assert_eq!(made["name"], "site-a");
    // The state directory of the first call is in the file, so that later verbs find it.
    let again = up(&["--json"]).json();
    assert_eq!(
        (&again["id"], &again["config_is_new"]),
        (&made["id"], &false.into())
    );
    let ran = site.run(&["config", "check", "--role", "agent", "--config", config_arg]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "ok\n"), "{ran:?}");
    let _agent = start(site.command(&["--config", config_arg, "agent", "run"]));
    until("the agent is connected", SOON, || {
        let ran = site.run(&["agent", "status", "--json", "--config", config_arg]);
        (ran.code == 0 && ran.json()["connected"] == true).then_some(())
    });

    // One that is there is never touched.
    fs::write(&config, format!("# mine\nstate_dir = {state:?}\n")).unwrap();
    site.run(&["agent", "reload", "--config", config_arg]);
    assert!(fs::read_to_string(&config).unwrap().starts_with("# mine"));
}

#[test]
fn whatever_changes_something_answers_in_json_too() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("t", target));
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let json = |args: &[&str]| -> Value { gateway.ask(&[args, &["--json"]].concat()).json() };

    let _user = connect(gateway.ingress("t"));
    gateway.sessions_are(1);
    let id = gateway.sessions()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(json(&["sessions", "kill", &id])["id"], *id);
    let jti = json(&["token", "create", "--name", "x"])["jti"].clone();
    let revoked = json(&["token", "revoke", jti.as_str().unwrap()]);
    assert_eq!(revoked["jti"], jti);
    assert_eq!(json(&["agents", "drain", "site-a"])["name"], "site-a");
    let ran = agent.ask(&["agent", "renew", "--json"]);
    assert_eq!(ran.json()["begun"], true);
    let status = until("the agent tells how the renewal ended", SOON, || {
        let status = agent.status();
        (status["renewal"]["state"] == "done").then_some(status)
    });
    assert_eq!(
        (&status["id"], &status["name"]),
        (&agent.id().into(), &"site-a".into())
    );
    assert_eq!(status["gateways"], agent.record()["quic_endpoints"]);
    let details = json(&["agents", "show", "site-a"]);
    assert_eq!(
        status["certificate_ends_unix_s"],
        details["certificate_ends_unix_s"]
    );
    let text = agent.ask(&["agent", "status"]).out;
    assert!(text.contains("renewal     done at 20"), "{text}");
    assert_eq!(json(&["agents", "delete", "site-a"])["id"], agent.id());
    let exported = json(&["ca", "export"]);
    let ca = fs::read_to_string(gateway.state.join("ca-cert.pem")).unwrap();
    assert_eq!(exported["certificates"], serde_json::json!([ca]));

    let config = site.path("new/gateway.toml");
    let state = site.path("new/state");
    let [config, state] = [&config, &state].map(|path| path.to_str().unwrap());
    let init = ["gateway", "init", "--name", "gw.x", "--json"];
    let at = ["--config", config, "--state-dir", state];
    let made = site.run(&[&init[..], &at[..]].concat()).json();
    assert_eq!(
        (&made["config"], &made["config_is_new"]),
        (&config.into(), &true.into())
    );
    assert_eq!(made["pin"].as_str().unwrap().len(), 64);
}

#[test]
fn an_address_of_the_gateway_that_is_dead_does_not_keep_an_agent_away() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("t", target));
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    // It takes everything and answers nothing.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoints = [silent.local_addr().unwrap(), gateway.address("tunnel")];
    let config = site.path("agent.toml");
    let list = endpoints.map(|addr| format!("{:?}", addr.to_string()));
    let text = format!("[gateway]\nendpoints = [{}]\n", list.join(", "));
    fs::write(&config, text).unwrap();
    agent.spawn_with(&config);
    gateway.routes_to(&agent.id(), 1);
    ping(&connect(gateway.ingress("t")), b"by the second address");
    assert_eq!(
        agent.status()["gateways"],
        serde_json::json!(endpoints.map(|addr| addr.to_string()))
    );
    // They are ways to one gateway with one store, which learns of another key.
    let before = agent.pair("");
    assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
    agent.process().logged("renewed certificate in use");
    assert_ne!(agent.pair("")["key"], before["key"]);
    assert_eq!(agent.pair("-previous"), before);
}

fn start(command: Command) -> Process {
    Process::start("agent", command)
}
