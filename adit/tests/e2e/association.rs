//! Association tokens: which of them let a user in by WebSocket, and how often.

use std::{fs, io::Write as _};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    SOON, beside_others,
    console::{Console, ask, metrics},
    site::Site,
    targets::echo,
    until,
    users::{connect, head},
    websocket::{association, enter, open, path},
};

#[test]
fn every_bad_token_has_its_status_before_the_upgrade() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let revoked = Uuid::new_v4();
    let list = site.path("jrl.json");
    fs::write(&list, json!({"jti": [revoked]}).to_string()).unwrap();
    let rest = format!(
        "revocation_list = {list:?}\ngateway_id = \"{}\"\n",
        Uuid::nil()
    );
    let sections = console
        .sections()
        .replace("[metrics]", &(rest + "[metrics]"));
    let gateway = site.gateway("gw", &sections);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let good = association(target);
    let at = path("tcp", &good);
    let own = console.sign("ASSOCIATION", &good);
    for (token, status, kind) in bad_tokens(&console, &good, revoked) {
        let (got, body) = enter(&gateway, &at, &token).map(|_| ()).unwrap_err();
        assert_eq!(got, status, "{kind}: {body}");
        let shown = format!("urn:adit:problem:{kind}");
        assert_eq!(body["type"], shown, "{token}");
        assert_eq!(body["status"], status);
    }
    // A good token is not used up by a request that is not.
    for (path, status) in [("/jet/fwd/tcp/7", 400), ("/jet/fwd/udp/7", 404)] {
        assert_eq!(
            enter(&gateway, path, &own).map(|_| ()).unwrap_err().0,
            status
        );
    }
    for (method, status) in [("GET", 400), ("POST", 405)] {
        assert_eq!(ask(&gateway, method, &at, &own).0, status);
    }
    let mut user = enter(&gateway, &at, &own).map_err(|e| e.0).unwrap();
    user.echoes(b"good after all");
    assert_eq!(gateway.sessions().len(), 1);
}

/// What a gateway must not take, with the status and the word for each.
fn bad_tokens(console: &Console, good: &Value, revoked: Uuid) -> Vec<(String, u16, &'static str)> {
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        console.sign("ASSOCIATION", &claims)
    };
    let now = good["nbf"].as_u64().unwrap();
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |alg: &str| {
        let header = part(json!({"alg": alg, "typ": "JWT", "cty": "ASSOCIATION"}));
        format!("{header}.{}.", part(good.clone()))
    };
    // The console's public key, which is no secret, as the secret of a MAC.
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.cty = Some("ASSOCIATION".to_owned());
    let public = fs::read(&console.public).unwrap();
    let mac = jsonwebtoken::EncodingKey::from_secret(&public);
    let mac = jsonwebtoken::encode(&header, good, &mac).unwrap();
    let own = console.sign("ASSOCIATION", good);
    let stranger = Console::new(&Site::new()).sign("ASSOCIATION", good);
    vec![
        (String::new(), 401, "malformed"),
        ("garbage".to_owned(), 401, "malformed"),
        ("a.b.c".to_owned(), 401, "malformed"),
        ("x".repeat(6_000), 401, "malformed"),
        (own[..own.len() - 6].to_owned(), 401, "bad_signature"),
        (unsigned("none"), 401, "algorithm"),
        (unsigned("RS256"), 401, "bad_signature"),
        (mac, 401, "algorithm"),
        (stranger, 401, "bad_signature"),
        (console.sign_with_kid("ASSOCIATION", good), 401, "key_id"),
        (with("exp", json!(now - 301)), 401, "expired"),
        (with("nbf", json!(now + 330)), 401, "not_yet_valid"),
        (with("jti", json!(revoked)), 401, "revoked"),
        (with("jet_gw_id", json!(Uuid::max())), 401, "other_gateway"),
        (with("dst_hst", json!("udp://a:1")), 401, "missing_claim"),
        (with("dst_hst", json!("no-port")), 401, "missing_claim"),
        (with("jet_aid", json!(Uuid::new_v4())), 403, "other_session"),
        (with("jet_cm", json!("rdv")), 403, "unsupported"),
        (with("jet_rec", json!("stream")), 403, "unsupported"),
        (console.scope("*"), 403, "wrong_type"),
        (console.sign("ENROLLMENT", good), 403, "wrong_type"),
        (console.sign("NOTHING", good), 401, "unknown_type"),
    ]
}

#[test]
fn a_client_of_rdp_may_come_back_and_others_not_even_after_a_restart() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let mut gateway = site.gateway("gw", &console.sections());
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let mut rdp = association(target);
    rdp["jet_ap"] = json!("rdp");
    rdp["jet_reuse"] = json!(60);
    let rdp_token = console.sign("ASSOCIATION", &rdp);
    let ssh = association(target);
    let ssh_token = console.sign("ASSOCIATION", &ssh);
    // Both at once: the second has an id of its own, for the first still has the token's.
    let mut users = [(), ()].map(|()| {
        enter(&gateway, &path("tcp", &rdp), &rdp_token)
            .map_err(|e| e.0)
            .unwrap()
    });
    for user in &mut users {
        user.echoes(b"x");
    }
    gateway.sessions_are(2);
    enter(&gateway, &path("tcp", &ssh), &ssh_token)
        .map_err(|e| e.0)
        .unwrap()
        .echoes(b"x");
    gateway.process_mut().kill();
    gateway.start();
    for (claims, token) in [(&rdp, &rdp_token), (&ssh, &ssh_token)] {
        let refused = enter(&gateway, &path("tcp", claims), token).map(|_| ());
        assert_eq!(refused.unwrap_err().0, 401);
    }
}

#[test]
fn of_those_who_use_one_token_at_once_exactly_one_is_let_in() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let gateway = site.gateway("gw", &console.sections());
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    for round in 1..=5 {
        let claims = association(target);
        let token = console.sign("ASSOCIATION", &claims);
        let entered = at_once(|| enter(&gateway, &path("tcp", &claims), &token));
        let (mut users, refused) = sorted(entered);
        assert_eq!(users.len(), 1, "round {round}");
        users[0].echoes(b"the only one");
        for (status, body) in refused {
            assert_eq!((status, &body["type"]), (401, &json!(USED)), "{body}");
        }
        let scope = console.scope("gateway.agent.read");
        let answers = at_once(|| ask(&gateway, "GET", "/jet/tunnel/agents", &scope));
        let good = answers.iter().filter(|(status, _)| *status == 200);
        assert_eq!(good.count(), 1, "{answers:?}");
        for (_, body) in answers.iter().filter(|(status, _)| *status != 200) {
            assert!(body.contains(USED), "{body}");
        }
    }
    // A client of RDP may use its own again, and so it may at once.
    for round in 1..=5 {
        let mut claims = association(target);
        claims["jet_ap"] = json!("rdp");
        claims["jet_reuse"] = json!(60);
        let token = console.sign("ASSOCIATION", &claims);
        let entered = at_once(|| enter(&gateway, &path("tcp", &claims), &token));
        let (users, refused) = sorted(entered);
        assert!(refused.is_empty(), "round {round}: {refused:?}");
        for mut user in users {
            user.echoes(b"all of them");
        }
    }
}

/// Does it at the same time as often as matters.
fn at_once<T: Send>(act: impl Fn() -> T + Sync) -> Vec<T> {
    const TIMES: usize = 8;
    let begin = std::sync::Barrier::new(TIMES);
    std::thread::scope(|scope| {
        let one = || {
            begin.wait();
            act()
        };
        let all = [(); TIMES].map(|()| scope.spawn(one));
        all.map(|thread| thread.join().unwrap()).into()
    })
}

fn sorted<T, E>(all: Vec<Result<T, E>>) -> (Vec<T>, Vec<E>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for one in all {
        match one {
            Ok(one) => good.push(one),
            Err(one) => bad.push(one),
        }
    }
    (good, bad)
}

const USED: &str = "urn:adit:problem:used";

#[test]
fn places_and_sources_are_limited() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let sections = format!("{}[websocket]\nsessions = 1\n", console.sections());
    let gateway = site.gateway("gw", &sections);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let mut first = open(&gateway, &console, "tcp", &association(target));
    first.echoes(b"x");
    let claims = association(target);
    let token = console.sign("ASSOCIATION", &claims);
    let at = path("tcp", &claims);
    let (status, body) = enter(&gateway, &at, &token).map(|_| ()).unwrap_err();
    assert_eq!(
        (status, &body["type"]),
        (503, &json!("urn:adit:problem:full"))
    );
    first.close();
    // The token is as good as before, once the place is free.
    let mut second = until("the place is free", SOON, || {
        enter(&gateway, &at, &token).ok()
    });
    second.echoes(b"y");

    let sections = format!(
        "{}[websocket]\nallow_from = [\"192.0.2.0/24\"]\n",
        console.sections()
    );
    let gateway = site.gateway("closed", &sections);
    let claims = association(target);
    let token = console.sign("ASSOCIATION", &claims);
    let (status, body) = enter(&gateway, &path("tcp", &claims), &token)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        (status, &body["type"]),
        (403, &json!("urn:adit:problem:source"))
    );
    let refused = "adit_ingress_source_refused_total{ingress=\"websocket\"}";
    assert_eq!(metrics(&gateway).value(refused), 1);
}

#[test]
fn without_a_consoles_key_there_is_no_way_in() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway(
        "gw",
        "[enroll]\nlisten = \"127.0.0.1:0\"\ninsecure_http = true\n",
    );
    let mut tcp = connect(gateway.address("enroll"));
    write!(
        tcp,
        "GET /jet/fwd/tcp/{} HTTP/1.1\r\nHost: x\r\n\r\n",
        Uuid::nil()
    )
    .unwrap();
    assert!(head(&tcp).starts_with("HTTP/1.1 404 "));
    assert!(
        !gateway
            .process()
            .has(|line| line["message"] == "association token used")
    );
}
