//! Users of one address who take all that they can get: they have their share, and users of other addresses the rest. On
//! loopback, where all have one address, there are no shares.

use std::{
    fs,
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::{
    harness::{
        SOON, beside_others, block_on,
        console::{Console, METRICS, fetch, metrics},
        site::{Agent, Gateway},
        targets::{echo_at, ping},
        until,
        users::{connect, http_connect},
        websocket::{WsUser, association, path, upgrade},
    },
    lab::{Lab, TARGET, TUNNEL_PORT, host},
};

#[test]
fn an_address_has_its_share_of_the_connections_to_the_http_listener() {
    let _machine = beside_others();
    let bed = Bed::new();
    let crowd = bed.crowd(HTTP, 128);
    let refused = bed.greedy(|| connect(at(HTTP)));
    assert!(has_ended(&refused));
    bed.says(
        "HTTP connection closed: its source has its share of places",
        "source",
    );
    assert_eq!(bed.other(|| fetch(at(HTTP), "/livez").0), 200);
    assert_eq!(
        bed.counted("adit_http_share_full_total{listener=\"enrolment\"}"),
        1
    );
    drop(crowd);
    until("there is room again", SOON, || {
        let caller = bed.greedy(|| connect(at(HTTP)));
        // Nothing comes to one who has asked for nothing.
        caller.set_nonblocking(true).unwrap();
        let kept = bed.other(|| fetch(at(HTTP), "/livez").0) == 200 && !has_ended(&caller);
        kept.then_some(())
    });
}

#[test]
fn an_address_has_its_share_of_the_handshakes_of_an_ingress() {
    let _machine = beside_others();
    let bed = Bed::new();
    let crowd = bed.crowd(PROXY, 2);
    let refused = bed.greedy(|| connect(at(PROXY)));
    assert!(has_ended(&refused));
    bed.says(
        "one source has its share of handshakes in progress; more are closed",
        "user",
    );
    let come = || {
        let basic = BASE64_STANDARD.encode(USER);
        http_connect(
            at(PROXY),
            TARGET,
            &format!("Proxy-Authorization: Basic {basic}\r\n"),
        )
    };
    let (status, user) = bed.other(come);
    assert_eq!(status, 200);
    ping(&user, b"from elsewhere");
    assert_eq!(
        bed.counted("adit_ingress_share_full_total{ingress=\"connect\"}"),
        1
    );
    drop(crowd);
    // Handshakes that are over count no more.
    let users = [(); 4].map(|()| bed.greedy(come));
    for (status, user) in &users {
        assert_eq!(*status, 200);
        ping(user, b"one after the other");
    }
}

#[test]
fn an_address_has_its_share_of_the_users_by_websocket() {
    let _machine = beside_others();
    let bed = Bed::new();
    let come = || {
        let claims = association(TARGET);
        bed.enter(&claims, &bed.console.sign("ASSOCIATION", &claims))
    };
    let mut users = [(); 2].map(|()| bed.greedy(come).unwrap());
    let claims = association(TARGET);
    let token = bed.console.sign("ASSOCIATION", &claims);
    let again = || bed.enter(&claims, &token);
    let (status, body) = bed.greedy(again).map(drop).unwrap_err();
    assert_eq!(
        (status, &body["type"]),
        (503, &json!("urn:adit:problem:full"))
    );
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("from your address"), "{detail}");
    bed.says("no session", "user");
    assert_eq!(
        bed.counted("adit_ingress_share_full_total{ingress=\"websocket\"}"),
        1
    );
    // The token was not used up, and there are places for others.
    bed.other(again).unwrap().echoes(b"from elsewhere");
    let [first, second] = &mut users;
    first.echoes(b"undisturbed");
    second.echoes(b"undisturbed");
    users.into_iter().for_each(WsUser::close);
    let mut next = until("there is room again", SOON, || bed.greedy(come).ok());
    next.echoes(b"the next one");
}

/// A gateway with 8 places for each of its ways in, an agent that serves, greedy users on the agent's host and others on
/// the router.
struct Bed {
    lab: Lab,
    console: Console,
    gateway: Gateway,
    _agent: Agent,
}

impl Bed {
    fn new() -> Self {
        let lab = Lab::new(1);
        let console = Console::new(&lab.site);
        let users = lab.site.path("users");
        fs::write(&users, USER).unwrap();
        fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
        let text = format!(
            "[tunnel]\nlisten = \"[::]:{TUNNEL_PORT}\"\nnames = [\"{}\"]\n{METRICS}\
             [enroll]\nlisten = \"{}\"\ninsecure_http = true\n\
             [provisioner]\npublic_key_file = {:?}\n\
             [websocket]\nsessions = 8\n[limits]\ningress_handshakes = 8\n\
             [[http_connect]]\nname = \"connect\"\nlisten = \"{}\"\nusers_file = {users:?}\n",
            host(0),
            at(HTTP),
            console.public,
            at(PROXY)
        );
        let mut gateway = lab.site.gateway_of("gw", &text);
        lab.gateway.within(|| gateway.start());
        let agent = lab.serving(0, &gateway);
        lab.agents[0].within(|| echo_at(TARGET));
        Self {
            lab,
            console,
            gateway,
            _agent: agent,
        }
    }

    fn greedy<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.lab.agents[0].within(act)
    }

    fn other<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.lab.router.within(act)
    }

    /// Greedy users who say nothing.
    fn crowd(&self, port: u16, count: usize) -> Vec<TcpStream> {
        self.greedy(|| (0..count).map(|_| connect(at(port))).collect())
    }

    fn enter(&self, claims: &Value, token: &str) -> Result<WsUser, (u16, Value)> {
        let tcp = block_on(tokio::net::TcpStream::connect(at(HTTP))).unwrap();
        let local = tcp.local_addr().unwrap();
        upgrade(local, Box::new(tcp), &path("tcp", claims), token)
    }

    /// Checks for a line about the greedy address.
    fn says(&self, message: &str, who: &str) {
        let line = self.gateway.process().logged(message);
        let greedy = format!("{}:", host(1));
        let about = line[who].as_str().unwrap_or_default();
        assert!(about.starts_with(&greedy), "{line}");
    }

    fn counted(&self, metric: &str) -> u64 {
        let now = self.lab.gateway.within(|| metrics(&self.gateway));
        now.value(metric)
    }
}

/// Tells whether the gateway has closed a connection on which nothing was asked.
fn has_ended(mut tcp: &TcpStream) -> bool {
    match tcp.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// A port of the gateway's host.
fn at(port: u16) -> SocketAddr {
    (host(0), port).into()
}

const HTTP: u16 = 7171;
const PROXY: u16 = 3128;
const USER: &str = "alice:secret";
