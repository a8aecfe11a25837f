//! What an operator takes back: agents that are deleted, enrolment strings that are revoked or used.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use serde_json::Value;
use uuid::Uuid;

use crate::harness::{
    SOON, beside_others,
    process::Ran,
    site::{Gateway, Ports, Site, forward, free_port, free_udp_port},
    targets::{drain, echo, ping},
    until,
    users::connect,
};

/// A gateway whose ports stay the same over a restart.
fn lasting(site: &Site, rest: &str) -> Gateway {
    let ports = Ports {
        tunnel: free_udp_port(),
        enroll: free_port(),
    };
    let mut gateway = site.gateway_with("gw", "", ports, rest);
    gateway.start();
    gateway
}

#[test]
fn a_deleted_agent_is_cut_at_once_and_stays_out_until_it_enrols_again() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let mut gateway = lasting(&site, &forward("echo", target));
    let mut agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let id = agent.id();
    let user = connect(gateway.ingress("echo"));
    ping(&user, b"before");
    // A second process of the same agent: its sessions are newer, and both connections are to go.
    let mut second = agent.copy(&site.path("second"));
    second.serve(&gateway);
    let newer = connect(gateway.ingress("echo"));
    ping(&newer, b"before, too");

    let ran = gateway.ask(&["agents", "delete", "site-a"]);
    let deleted = Instant::now();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.out,
        format!("deleted site-a ({id}); connections closed: 2\n")
    );
    for user in [&user, &newer] {
        let (_, end) = drain(user);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let took = deleted.elapsed();
    eprintln!("users were reset {took:?} after the verb");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let line = gateway.process().logged("agent deleted");
    assert_eq!(
        line["by"],
        format!("uid {}", rustix::process::geteuid().as_raw())
    );
    assert_eq!(line["agent"], id);
    assert_eq!(line["name"], "site-a");
    assert_eq!(line["closed"], 2);
    assert_eq!(gateway.ended(1), "agent deleted");
    assert_eq!(gateway.enrolled().len(), 0);

    // Each of them takes it for a refusal of its identity.
    for told in [&agent, &second] {
        let lost = told.process().logged("connection to the gateway lost");
        assert!(
            lost["why"].as_str().unwrap().contains("enrol it again"),
            "{lost}"
        );
        let waiting = told
            .process()
            .logged("waiting before the next attempt to connect");
        assert!(waiting["wait_ms"].as_u64().unwrap() >= 59_000, "{waiting}");
    }
    assert!(second.process_mut().terminate().success());
    assert!(agent.process_mut().terminate().success());
    agent.spawn();
    let refused = gateway.process().logged("agent refused");
    assert_eq!(refused["agent"], agent.id());

    gateway.process_mut().kill();
    gateway.start();
    agent.process_mut().kill();
    agent.spawn();
    gateway.process().logged("agent refused");
    assert_eq!(gateway.enrolled().len(), 0);
    gateway
        .ask(&["agents", "delete", "site-a"])
        .fails(1, &["no agent named"]);

    assert!(agent.process_mut().terminate().success());
    let ran = agent.up(&gateway.token("site-a"), "127.0.0.1/32", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    agent.serve(&gateway);
    ping(&connect(gateway.ingress("echo")), b"enrolled again");
}

#[test]
fn an_agent_that_is_offline_can_be_deleted() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    let listed = &gateway.enrolled()[0];
    assert_eq!(listed["status"], "offline");
    assert_eq!(listed["name"], "site-a");
    assert_eq!(listed["connected_ms"], Value::Null);
    let ran = gateway.ask(&["agents", "delete", &agent.id()]);
    assert!(ran.out.contains("connections closed: 0"), "{ran:?}");
    agent.spawn();
    gateway.process().logged("agent refused");
    assert!(!gateway.process().log.text().contains("agent connected"));
}

#[test]
fn tokens_are_listed_and_a_revoked_one_enrols_nobody() {
    let _machine = beside_others();
    let site = Site::new();
    let mut gateway = lasting(&site, "");
    let [revoked, used, fresh] = ["a", "b", "c"].map(|name| {
        let made = gateway.ask(&["token", "create", "--name", name, "--json"]);
        made.json()
    });
    let text = |token: &Value, key: &str| token[key].as_str().unwrap().to_owned();
    let revoke = |gateway: &Gateway, token: &Value| -> Ran {
        gateway.ask(&["token", "revoke", &text(token, "jti")])
    };
    let agent = site.agent("one");
    assert_eq!(agent.up(&text(&used, "token"), "", &[]).code, 0);
    for _ in 0..2 {
        let ran = revoke(&gateway, &revoked);
        assert_eq!(
            (ran.code, ran.out),
            (0, format!("revoked {} for a\n", text(&revoked, "jti")))
        );
    }
    assert_eq!(
        gateway.process().count("token revoked"),
        1,
        "one change, one line"
    );
    revoke(&gateway, &used).fails(1, &["was used already", &agent.id()]);
    let nobodys = Uuid::new_v4().to_string();
    gateway
        .ask(&["token", "revoke", &nobodys])
        .fails(1, &["no token", &nobodys]);
    let refused = site.agent("two").up(&text(&revoked, "token"), "", &[]);
    refused.fails(4, &["create a new one"]);

    for restart in [false, true] {
        if restart {
            gateway.process_mut().kill();
            gateway.start();
        }
        let listed = gateway.ask(&["token", "list", "--json"]).json();
        let mut listed = listed.as_array().unwrap().clone();
        listed.sort_by_key(|token| text(token, "name"));
        let states: Vec<_> = listed.iter().map(|token| text(token, "state")).collect();
        assert_eq!(states, ["revoked", "used", "issued"]);
        for (row, made) in listed.iter().zip([&revoked, &used, &fresh]) {
            for key in ["jti", "name", "expires_unix_s"] {
                assert_eq!(row[key], made[key]);
            }
        }
        assert_eq!(listed[1]["used_by"], agent.id());
    }
    let table = gateway.ask(&["token", "list"]);
    assert!(table.out.starts_with("ID "), "{table:?}");
    assert!(
        !table.out.contains(&text(&fresh, "token")),
        "secrets are not kept"
    );
    site.agent("two")
        .up(&text(&revoked, "token"), "", &[])
        .fails(4, &[]);
    assert_eq!(
        site.agent("three").up(&text(&fresh, "token"), "", &[]).code,
        0
    );
}

#[test]
fn of_parallel_uses_of_a_string_one_enrols_and_none_after_a_restart() {
    let _machine = beside_others();
    let site = Site::new();
    let mut gateway = lasting(&site, "");
    let token = gateway.token("site-a");
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let uses = ["one", "two", "three", "four"].map(|name| {
            let (agent, token) = (site.agent(name), &token);
            scope.spawn(move || agent.up(token, "", &[]).code)
        });
        uses.into_iter().map(|used| used.join().unwrap()).collect()
    });
    assert_eq!(
        codes.iter().filter(|code| **code == 0).count(),
        1,
        "{codes:?}"
    );
    assert_eq!(
        codes.iter().filter(|code| **code == 4).count(),
        3,
        "{codes:?}"
    );
    gateway.process_mut().kill();
    gateway.start();
    site.agent("five")
        .up(&token, "", &[])
        .fails(4, &["create a new one"]);
    until("one agent is enrolled", SOON, || {
        (gateway.enrolled().len() == 1).then_some(())
    });
}
