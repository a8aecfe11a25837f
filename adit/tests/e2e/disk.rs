//! Disks that are full, and files that are torn or in the way: what is told, and what goes on.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use crate::harness::{
    SOON, beside_others,
    console::{Console, METRICS, ask, fetch, metrics_addr},
    disk::{fill, make_room, surviving, with_room},
    process::{Ran, run},
    site::{Agent, Gateway, Ports, Site, forward},
    targets::{echo, ping},
    until,
    users::connect,
    websocket::{association, enter, open, path},
};

#[test]
fn an_enrolment_that_cannot_be_kept_spends_no_string() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let agent = site.agent("site-a");
    fs::create_dir(&agent.state).unwrap();
    fs::set_permissions(&agent.state, PermissionsExt::from_mode(0o700)).unwrap();
    let token = gateway.token("site-a");
    // Nothing fits, and a few hundred bytes of the key pair's file.
    for blocks in [0, 1] {
        let ran = up(&agent, &token, |command| with_room(blocks, &command));
        ran.fails(1, &["cannot write", agent.state.to_str().unwrap(), "room"]);
        assert_eq!(fs::read_dir(&agent.state).unwrap().count(), 0, "{ran:?}");
    }
    for name in [
        "agent-pair.json",
        "agent.json",
        "agent-enrolling.json",
        "routes.json",
    ] {
        let in_the_way = agent.state.join(name);
        fs::create_dir(&in_the_way).unwrap();
        let ran = up(&agent, &token, |command| command);
        ran.fails(1, &[in_the_way.to_str().unwrap()]);
        fs::remove_dir(in_the_way).unwrap();
        assert_eq!(fs::read_dir(&agent.state).unwrap().count(), 0, "{ran:?}");
    }
    let ran = up(&agent, &token, |command| command);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn an_agent_on_a_full_disk_serves_and_renews_when_there_is_room() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    let next = agent.state.join("agent-pair-next.json");
    let before = agent.pair("");
    for is_full in [true, false] {
        let seen = gateway.process().count("routes accepted");
        agent.spawn_through(|command| match is_full {
            true => with_room(0, &command),
            false => command,
        });
        gateway.routes_to(&agent.id(), seen + 1);
        if !is_full {
            // One file has something in its place.
            fs::create_dir(&next).unwrap();
        }
        let user = connect(gateway.ingress("echo"));
        ping(&user, b"all that it needs is there");
        assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
        let told = agent.process().logged(NOT_KEPT);
        assert_eq!(told["level"], "ERROR");
        let error = told["error"].as_str().unwrap();
        assert!(error.contains(next.to_str().unwrap()), "{error}");
        assert!(error.contains("room"), "{error}");
        assert_eq!(agent.pair(""), before);
        ping(&user, b"and nobody has noticed");
        agent.process_mut().kill();
    }
    fs::remove_dir(&next).unwrap();
    agent.serve(&gateway);
    assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
    agent.process().logged("renewed certificate in use");
    assert_ne!(agent.pair("")["key"], before["key"]);
    ping(&connect(gateway.ingress("echo")), b"as before");
}

#[test]
fn an_agent_with_a_torn_file_says_which_and_goes_on_with_what_is_whole() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let mut agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    agent.process_mut().kill();
    for name in ["agent.json", "agent-pair.json"] {
        for ran in torn(&agent.state.join(name), || agent.ask(&["agent", "run"])) {
            ran.fails(1, &[name, "damaged", "enrol again"]);
        }
    }
    // A pair beside the current one may be torn in any way.
    for name in ["agent-pair-next.json", "agent-pair-previous.json"] {
        for half in [&b""[..], b"{\"key\": \"-----BEGIN"] {
            secret(&agent.state.join(name), half);
            agent.serve(&gateway);
            ping(&connect(gateway.ingress("echo")), b"all the same");
            agent.process_mut().kill();
        }
    }
}

#[test]
fn where_the_current_pair_is_torn_a_former_one_that_is_good_serves() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    for whole in ["agent-pair-next.json", "agent-pair-previous.json"] {
        let mut agent = site.serving(whole, &gateway, "127.0.0.1/32");
        agent.process_mut().kill();
        let current = agent.state.join("agent-pair.json");
        let good = fs::read(&current).unwrap();
        secret(&agent.state.join(whole), &good);
        secret(&current, &good[..good.len() / 2]);
        agent.serve(&gateway);
        ping(&connect(gateway.ingress("echo")), b"with another pair");
        until("the torn file is replaced", SOON, || {
            (fs::read(&current).unwrap() == good).then_some(())
        });
        agent.process_mut().kill();
    }
}

#[test]
fn a_gateway_whose_disk_is_full_refuses_and_goes_on_when_there_is_room() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let rest = forward("echo", target) + METRICS;
    let mut gateway = site.gateway_with("gw", "", Ports::default(), &rest);
    gateway.spawn_through(|command| surviving(&command));
    gateway.process().logged("gateway running");
    let ready = || fetch(metrics_addr(&gateway), "/readyz");
    let mut serving = site.serving("site-a", &gateway, "127.0.0.1/32");
    let user = connect(gateway.ingress("echo"));
    ping(&user, b"before");
    let token = gateway.token("late");
    fill(gateway.process());
    assert_eq!(ready().0, 200, "nobody has written");
    let late = site.agent("late");
    for n in 1..=2 {
        let ran = up(&late, &token, |command| command);
        ran.fails(1, &["the gateway has a problem of its own", "500"]);
        let told = gateway.process().logged_nth("enrolment failed", n);
        let error = told["error"].as_str().unwrap();
        assert!(error.contains("store.redb"), "{told}");
        assert!(error.contains("room"), "{told}");
        let (status, text) = ready();
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("disk"), "{text}");
    }
    // No reason to be restarted.
    assert_eq!(gateway.ask(&["health"]).code, 0);
    let ran = gateway.ask(&["token", "create", "--name", "x"]);
    ran.fails(1, &["store.redb", "room"]);
    let ran = gateway.ask(&["agents", "delete", &serving.id()]);
    ran.fails(1, &["store.redb", "room"]);
    ping(&user, b"meanwhile");
    ping(&connect(gateway.ingress("echo")), b"and others");
    gateway.ask(&["agents", "list"]).fails(1, &["store.redb"]);
    // Whoever is enrolled is admitted.
    serving.process_mut().kill();
    serving.spawn();
    gateway.process().logged_nth("routes accepted", 2);
    until("it serves", SOON, || {
        let mut user = connect(gateway.ingress("echo"));
        user.write_all(b"x").ok()?;
        user.read_exact(&mut [0]).ok()
    });
    assert_eq!(ready().0, 503);
    make_room(gateway.process());
    // A balancer sends nobody who could write.
    until("it is ready by itself", SOON, || {
        (ready().0 == 200).then_some(())
    });
    let ran = up(&late, &token, |command| command);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = gateway.ask(&["agents", "delete", &serving.id()]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_full_disk_spends_no_token_of_a_console_and_leaves_the_ca_as_it_was() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let mut gateway = site.gateway_with("gw", "", Ports::default(), &console.sections());
    gateway.spawn_through(|command| surviving(&command));
    gateway.process().logged("gateway running");
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let scope = console.scope("gateway.agent.read");
    let claims = association(target);
    let token = console.sign("ASSOCIATION", &claims);
    let at = path("tcp", &claims);
    // Read anew once there is room.
    let ca = || gateway.ask(&["ca", "show", "--json"]).json();
    let before = ca();
    fill(gateway.process());
    assert_eq!(ask(&gateway, "GET", "/jet/tunnel/agents", &scope).0, 500);
    // It is known by now, and users are told before anything is done for them.
    let refused = enter(&gateway, &at, &token).map(|_| ()).unwrap_err();
    assert_eq!(refused.0, 503, "{refused:?}");
    let ran = gateway.ask(&["ca", "rotate"]);
    ran.fails(1, &["store.redb", "room"]);
    assert_eq!(ran.err.matches("room").count(), 1, "said once: {ran:?}");
    make_room(gateway.process());
    assert_eq!(ask(&gateway, "GET", "/jet/tunnel/agents", &scope).0, 200);
    enter(&gateway, &at, &token)
        .map_err(|refused| refused.0)
        .unwrap()
        .echoes(b"the same token");
    assert_eq!(ca(), before);
    let ran = gateway.ask(&["ca", "rotate"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_ne!(ca(), before);
    open(&gateway, &console, "tcp", &association(target)).echoes(b"by another CA");
}

#[test]
fn a_gateway_that_cannot_write_or_finds_a_torn_file_names_it_and_starts_afterwards() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway_with("gw", "", Ports::default(), "");
    let start = |change: &dyn Fn(&Command) -> Command| gateway_run(&gateway, change);
    for blocks in [0, 1] {
        let ran = start(&|command| with_room(blocks, command));
        ran.fails(
            1,
            &["cannot write", gateway.state.to_str().unwrap(), "room"],
        );
    }
    let mut gateway = gateway;
    gateway.start();
    gateway.process_mut().kill();
    for name in [
        "ca-key.pem",
        "ca-cert.pem",
        "server-key.pem",
        "token-key.pem",
        "reset.key",
        "store.redb",
    ] {
        let runs = torn(&gateway.state.join(name), || {
            gateway_run(&gateway, &surviving)
        });
        for ran in runs {
            ran.fails(1, &[name]);
        }
    }
    gateway.start();
}

fn up(agent: &Agent, token: &str, change: impl FnOnce(Command) -> Command) -> Ran {
    let words = [
        "agent",
        "up",
        "--enrollment-string",
        "-",
        "--advertise",
        "10.0.0.0/8",
    ];
    run(change(agent.command(&words)), token)
}

fn gateway_run(gateway: &Gateway, change: &dyn Fn(&Command) -> Command) -> Ran {
    run(change(&gateway.command(&["gateway", "run"])), "")
}

/// Does something while a file is empty, and while half of it is there; then it is whole again.
fn torn<T>(path: &Path, act: impl Fn() -> T) -> Vec<T> {
    let whole = fs::read(path).unwrap();
    let done = [0, whole.len() / 2].map(|len| {
        fs::write(path, &whole[..len]).unwrap();
        act()
    });
    fs::write(path, whole).unwrap();
    done.into()
}

fn secret(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

const NOT_KEPT: &str = "renewed certificate not kept; trying again later";
