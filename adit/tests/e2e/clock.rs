//! Clocks that differ by a day, and clocks that are set in the middle of everything.

use serde_json::{Value, json};

use crate::harness::{
    beside_others,
    clock::{Clock, DAY},
    console::{Console, ask},
    process::run,
    site::{Agent, Gateway, Ports, Site, forward},
    targets::{echo, ping},
    users::connect,
    websocket::{association, enter, path},
};

#[test]
fn an_agent_a_day_off_enrols_serves_and_renews() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    for (name, off) in [("ahead", DAY), ("behind", -DAY)] {
        let clock = Clock::new(&site, name);
        clock.set(off);
        let mut agent = enrol(&site, name, &gateway, &clock);
        everything_works(&mut agent, &gateway, &clock);
        agent.process_mut().kill();
    }
}

#[test]
fn a_gateway_a_day_off_is_made_and_serves_and_says_which_clock_a_token_fails_by() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let here = Clock::new(&site, "agent");
    for (name, off, word) in [("ahead", DAY, "expired"), ("behind", -DAY, "not_yet_valid")] {
        let clock = Clock::new(&site, name);
        clock.set(off);
        let rest = console.sections() + &forward("echo", target);
        let mut gateway = site.gateway_with(name, "", Ports::default(), &rest);
        gateway.spawn_through(|command| clock.on(command));
        gateway.process().logged("gateway running");
        let mut agent = enrol(&site, &format!("site-{name}"), &gateway, &here);
        everything_works(&mut agent, &gateway, &here);
        // The console's clock is right, and so is the person who reads this.
        let refused = |(status, text): (u16, String)| {
            let body: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(status, 401, "{body}");
            assert_eq!(body["type"], format!("urn:adit:problem:{word}"));
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.contains("clock"), "{detail}");
        };
        let token = console.scope("gateway.agent.read");
        refused(ask(&gateway, "GET", "/jet/tunnel/agents", &token));
        let claims = association(target);
        let token = console.sign("ASSOCIATION", &claims);
        let (status, body) = enter(&gateway, &path("tcp", &claims), &token)
            .map(|_| ())
            .unwrap_err();
        refused((status, body.to_string()));
        let enrolment = console.sign("ENROLLMENT", &console.enrolment(&gateway));
        let ran = site
            .agent(&format!("late-{name}"))
            .up(&enrolment, "", &["--allow-http"]);
        ran.fails(4, &["clock"]);
    }
}

#[test]
fn clocks_that_are_set_in_the_middle_of_a_connection_disturb_nobody() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let (near, far) = (Clock::new(&site, "gateway"), Clock::new(&site, "agent"));
    let mut gateway = site.gateway_with("gw", "", Ports::default(), &forward("echo", target));
    gateway.spawn_through(|command| near.on(command));
    gateway.process().logged("gateway running");
    let used = gateway.token("site-a");
    let mut agent = site.agent("site-a");
    assert_eq!(up(&agent, &used, &far).0, 0);
    serve(&mut agent, &gateway, &far);
    let user = connect(gateway.ingress("echo"));
    for (gateway_off, agent_off) in [(0, DAY), (0, -DAY), (DAY, 0), (-DAY, 0), (DAY, DAY), (0, 0)] {
        near.set(gateway_off);
        far.set(agent_off);
        ping(&user, b"it stays");
        ping(&connect(gateway.ingress("echo")), b"and others come");
        // What was used stays so, whatever the gateway takes the time for, and others can be made and used.
        let other = site.agent("other");
        let (code, said) = up(&other, &used, &far);
        assert_eq!(code, 4, "{said}");
        assert_eq!(up(&other, &gateway.token("other"), &far).0, 0);
        let row = &gateway.agents()[0];
        assert_eq!(
            (&row["id"], &row["status"]),
            (&json!(agent.id()), &json!("online"))
        );
    }
    // A day is nothing to a certificate of a year.
    assert_eq!(agent.process().count(ASKING), 0);
    assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
    agent.process().logged(IN_USE);
    ping(&user, b"still");
    assert_eq!(agent.process().count(ASKING), 1);
    assert_eq!(agent.process().count("connection to the gateway lost"), 0);
    assert_eq!(gateway.process().count("agent disconnected"), 0);
}

#[test]
fn an_agent_whose_clock_is_years_off_says_that_it_may_be_the_clock() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let clock = Clock::new(&site, "agent");
    let mut agent = enrol(&site, "site-a", &gateway, &clock);
    for off in [-10 * DAY, 400 * DAY] {
        clock.set(off);
        agent.spawn_through(|command| clock.on(command));
        agent
            .process()
            .logged("waiting before the next attempt to connect");
        let error = agent.status()["last_error"].as_str().unwrap().to_owned();
        assert!(error.contains("clock"), "{error}");
        let probe = run(clock.on(agent.command(&["agent", "probe"])), "");
        probe.fails(1, &[]);
        assert!(probe.out.contains("set this machine's clock"), "{probe:?}");
        agent.process_mut().kill();
    }
}

/// Enrols, connects, carries a session, and renews.
fn everything_works(agent: &mut Agent, gateway: &Gateway, clock: &Clock) {
    serve(agent, gateway, clock);
    let user = connect(gateway.ingress("echo"));
    ping(&user, b"a day is no distance");
    assert_eq!(agent.process().count(ASKING), 0);
    assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
    agent.process().logged(IN_USE);
    assert_eq!(agent.process().count(ASKING), 1);
    ping(&user, b"nor with another certificate");
    ping(&connect(gateway.ingress("echo")), b"by which it serves");
}

fn enrol(site: &Site, name: &str, gateway: &Gateway, clock: &Clock) -> Agent {
    let agent = site.agent(name);
    let (code, said) = up(&agent, &gateway.token(name), clock);
    assert_eq!(code, 0, "{said}");
    agent
}

fn up(agent: &Agent, token: &str, clock: &Clock) -> (i32, String) {
    let mut command = clock.on(agent.command(&["agent", "up", "--enrollment-string", "-"]));
    command.args(["--advertise", "127.0.0.1/32", "--allow-http"]);
    let ran = run(command, token);
    (ran.code, ran.err)
}

fn serve(agent: &mut Agent, gateway: &Gateway, clock: &Clock) {
    let before = gateway.process().count("routes accepted");
    agent.spawn_through(|command| clock.on(command));
    gateway.routes_to(&agent.id(), before + 1);
}

const ASKING: &str = "asking the gateway for a new certificate";
const IN_USE: &str = "renewed certificate in use";
