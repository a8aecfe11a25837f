//! The agents API and the tokens of a console, against the real listener on loopback.
#![cfg(feature = "gateway")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

#[path = "agents_api/headers.rs"]
mod headers;
#[path = "agents_api/parts.rs"]
mod parts;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit::{
    enroll::{
        listener::serve,
        server::{EnrolParts, router},
    },
    http::{
        HttpCounters, ListenerCounters,
        health::{Condition, Health},
        public_router,
    },
    live::Live,
    pki::{ca::Ca, hex},
    presence::Presence,
    state::StateDir,
    store::Store,
    token::{ProvisionerKey, RevocationList, TokenKey, TokenVerifier},
};
use adit_proto_core::{
    domain::DomainPattern,
    gateway::info::{AgentInfo, AgentStatus},
    id::{AgentId, ConnId},
    identity::AgentIdentity,
    route::{DomainRoute, RouteSet},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parts::agents_router;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use ureq::http::Method;
use uuid::Uuid;

#[test]
fn enrolled_agents_are_listed_however_they_are() {
    let gateway = Gateway::start(json!({}));
    let ids = [1, 2, 3, 4].map(|n| gateway.enrolled(n));
    gateway.connected(ids[0], 1, AgentStatus::Superseded);
    gateway.connected(ids[0], 2, AgentStatus::Online);
    gateway.connected(ids[1], 3, AgentStatus::Suspect);
    gateway.presence.note(AgentId(ids[3]), 5_000);
    let (status, text) = gateway.get(LIST, READ);
    assert_eq!(status, 200, "{text}");
    let all: Value = serde_json::from_str(&text).unwrap();
    let of = |id: Uuid| {
        let mut list = all.as_array().unwrap().iter();
        list.find(|agent| agent["agent_id"] == id.to_string())
            .unwrap()
            .clone()
    };
    assert_eq!(all.as_array().unwrap().len(), 4);
    let mut online = of(ids[0]);
    let seen = online["last_seen_ms"].take().as_u64().unwrap();
    let now = UnixTime::now().as_secs() * 1_000;
    assert!((now - 20_000..=now).contains(&seen), "{seen}");
    assert_eq!(
        online,
        json!({
            "agent_id": ids[0], "name": "site-a", "cert_fingerprint": hex(&[2; 32]),
            "is_online": true, "status": "online", "last_seen_ms": null,
            "subnets": ["10.0.0.0/8"],
            "domains": [{"domain": "*.contoso.local", "auto_detected": true}],
            "route_epoch": 1,
        })
    );
    let stalled = of(ids[1]);
    assert_eq!(stalled["status"], "unresponsive");
    assert_eq!(stalled["is_online"], false);
    assert_eq!(stalled["subnets"], json!(["10.0.0.0/8"]));
    let offline = of(ids[2]);
    assert_eq!(offline["status"], "offline");
    assert_eq!(offline["is_online"], false);
    assert_eq!(offline["name"], "agent 3");
    assert_eq!(
        (&offline["subnets"], &offline["route_epoch"]),
        (&json!([]), &json!(0))
    );
    let enrolled = offline["last_seen_ms"].as_u64().unwrap();
    assert!((now - 20_000..=now).contains(&enrolled), "its enrolment");
    assert_eq!(of(ids[3])["last_seen_ms"], 5_000);

    let (status, text) = gateway.get(&one(ids[1]), "*");
    assert_eq!(status, 200, "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["status"], "unresponsive");
    assert_eq!(gateway.lists.load(Ordering::Relaxed), 1, "one is not all");
}

#[test]
fn each_refusal_of_a_call_has_its_status_and_body() {
    let gateway = Gateway::start(json!({}));
    let id = gateway.enrolled(1);
    let (here, nowhere) = (one(id), one(Uuid::from_u128(99)));
    let now = UnixTime::now().as_secs();
    let changed = |claim: &str, value: Value| {
        let mut claims = gateway.claims(READ);
        claims[claim] = value;
        Some(gateway.sign(json!({}), &claims))
    };
    let header = |header: Value| Some(gateway.sign(header, &gateway.claims(READ)));
    let enrolment = gateway.sign(json!({"cty": "ENROLLMENT"}), &gateway.enrolment());
    let scope = |scope: &str| Some(gateway.scope(scope));
    let cases = [
        (401, "GET", LIST, None),
        (401, "GET", LIST, Some("noise".to_owned())),
        (401, "GET", LIST, changed("exp", json!(now - 400))),
        (401, "GET", LIST, changed("nbf", json!(now + 400))),
        (401, "GET", LIST, changed("jti", json!("x"))),
        (401, "GET", LIST, changed("scope", Value::Null)),
        (401, "GET", LIST, changed("jet_gw_id", json!(Uuid::nil()))),
        (401, "GET", LIST, header(json!({"kid": "1"}))),
        (401, "GET", LIST, header(json!({"crit": ["x"]}))),
        (401, "GET", LIST, header(json!({"cty": "ELSE"}))),
        (401, "GET", "/jet/tunnel/agents/x", None),
        (403, "GET", LIST, scope(DELETE)),
        (403, "GET", LIST, scope("gateway.sessions.read")),
        (403, "GET", LIST, header(json!({"cty": "ASSOCIATION"}))),
        (403, "GET", LIST, Some(enrolment)),
        (403, "GET", &here, scope(DELETE)),
        (403, "DELETE", &here, scope(READ)),
        (400, "GET", "/jet/tunnel/agents/x", scope(READ)),
        (400, "DELETE", "/jet/tunnel/agents/x", scope(DELETE)),
        (400, "GET", "/jet/tunnel/agents/%ff", scope(READ)),
        (404, "GET", &nowhere, scope(READ)),
        (404, "DELETE", &nowhere, scope(DELETE)),
        (404, "GET", "/jet/tunnel", scope(READ)),
        (405, "POST", LIST, scope(READ)),
        (405, "POST", &here, scope(READ)),
        (405, "GET", "/jet/tunnel/enroll", None),
    ];
    for (expected, method, path, token) in cases {
        let (status, text) = gateway.send(method, path, token.as_deref(), "");
        assert_eq!(status, expected, "{method} {path}: {text}");
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(body["status"], expected);
        for member in ["type", "title", "detail"] {
            assert_ne!(body[member].as_str().unwrap(), "", "{member}: {text}");
        }
    }
    assert_eq!(gateway.store.agents().wait().unwrap().len(), 1);
    let refused = gateway.counters.calls_refused.read();
    assert_eq!(refused["missing"], 2);
    assert_eq!(refused["wrong_scope"], 4);
    assert_eq!(gateway.counters.tokens_refused.read()["key_id"], 1);
}

#[test]
fn a_scope_token_allows_one_call() {
    let gateway = Gateway::start(json!({}));
    let id = gateway.enrolled(1);
    let token = gateway.scope("*");
    // What is not carried out does not use it up.
    let bad = gateway.send("GET", "/jet/tunnel/agents/x", Some(&token), "");
    assert_eq!(bad.0, 400);
    assert_eq!(gateway.send("DELETE", &one(id), Some(&token), "").0, 204);
    for method in ["GET", "DELETE"] {
        let (status, text) = gateway.send(method, &one(id), Some(&token), "");
        assert_eq!(status, 401, "{text}");
        assert!(text.contains("urn:adit:problem:used"), "{text}");
    }
    // Of calls at the same time, one is carried out.
    let token = gateway.scope(READ);
    let statuses = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| gateway.send("GET", LIST, Some(&token), "").0))
            .collect();
        calls
            .into_iter()
            .map(|call| call.join().unwrap())
            .collect::<Vec<_>>()
    });
    let good = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(good, 1, "{statuses:?}");
    assert!(
        statuses.iter().all(|s| [200, 401].contains(s)),
        "{statuses:?}"
    );
}

#[test]
fn a_deleted_agent_is_gone() {
    let gateway = Gateway::start(json!({}));
    let (id, other) = (gateway.enrolled(1), gateway.enrolled(2));
    let delete = || {
        let token = gateway.scope(DELETE);
        gateway.send("DELETE", &one(id), Some(&token), "")
    };
    assert_eq!(delete(), (204, String::new()));
    assert_eq!(delete().0, 404);
    assert_eq!(gateway.get(&one(id), READ).0, 404);
    assert_eq!(gateway.get(&one(other), READ).0, 200);
}

#[test]
fn a_consoles_token_enrols_once_and_only_success_uses_it() {
    let gateway = Gateway::start(json!({"jet_agent_name": ["banned"]}));
    let enrol = |token: &str, body: &Value| {
        let text = body.to_string();
        gateway.send("POST", "/jet/tunnel/enroll", Some(token), &text)
    };
    let token = gateway.sign(json!({"cty": "ENROLLMENT"}), &gateway.enrolment());
    let bad = json!({"agent_id": Uuid::new_v4(), "csr_pem": "noise"});
    assert_eq!(enrol(&token, &bad).0, 400);
    assert_eq!(enrol(&token, &json!({})).0, 422);
    let (status, text) = enrol(&token, &enrol_body(Uuid::new_v4()));
    assert_eq!(status, 200, "{text}");
    let (status, text) = enrol(&token, &enrol_body(Uuid::new_v4()));
    assert_eq!(status, 401, "{text}");
    assert!(text.contains("urn:adit:problem:used"), "{text}");
    for (claim, value, word) in [
        ("jet_gw_id", json!(Uuid::nil()), "other_gateway"),
        ("jet_agent_name", json!("banned"), "revoked"),
    ] {
        let mut claims = gateway.enrolment();
        claims[claim] = value;
        let token = gateway.sign(json!({"cty": "ENROLLMENT"}), &claims);
        let (status, text) = enrol(&token, &enrol_body(Uuid::new_v4()));
        assert_eq!(status, 401, "{text}");
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(gateway.store.agents().wait().unwrap().len(), 1);
    let enrolments = &gateway.counters.enrolments;
    assert_eq!(enrolments.load(Ordering::Relaxed), 1);
    assert_eq!(gateway.counters.enrolments_refused.read()["used"], 1);
}

#[test]
fn garbage_for_tokens_is_refused_and_the_next_call_answered() {
    let gateway = Gateway::start(json!({}));
    let good = gateway.scope(READ);
    let deep = "[".repeat(3_000) + &"]".repeat(3_000);
    let mut garbage: Vec<String> = (0..good.len())
        .step_by(13)
        .map(|len| good[..len].to_owned())
        .collect();
    garbage.extend([
        format!("{good}."),
        format!(".{good}"),
        good.to_uppercase(),
        good.replace('.', ".."),
        "A".repeat(20_000),
        ".".repeat(5_000),
        gateway.sign(
            json!({"x": serde_json::from_str::<Value>("[[[[]]]]").unwrap()}),
            &json!({"a": deep}),
        ),
    ]);
    for token in &garbage {
        for (method, path) in [("GET", LIST), ("POST", "/jet/tunnel/enroll")] {
            let (status, text) = gateway.send(method, path, Some(token), "");
            assert_eq!(status, 401, "{token}: {text}");
        }
    }
    assert_eq!(gateway.send("GET", LIST, Some(&good), "").0, 200);
}

#[test]
fn ready_means_started_and_not_stopping() {
    let gateway = Gateway::start(json!({}));
    let ask = |path| gateway.send("GET", path, None, "");
    let (status, text) = ask("/readyz");
    assert_eq!(status, 503);
    assert!(text.contains("starting"), "{text}");
    gateway.health.set(Condition::Ready);
    assert_eq!(ask("/readyz"), (200, "ready\n".to_owned()));
    gateway.health.set(Condition::Stopping);
    let (status, text) = ask("/readyz");
    assert_eq!(status, 503);
    assert!(text.contains("stopping"), "{text}");
    assert_eq!(ask("/livez"), (200, "ok\n".to_owned()));
    assert_eq!(ask("/metrics").0, 404, "not on the public listener");
}

struct Gateway {
    store: Store,
    presence: Presence,
    live: Arc<Mutex<Vec<AgentInfo>>>,
    /// How often all agents were listed.
    lists: Arc<AtomicUsize>,
    counters: Arc<HttpCounters>,
    health: Health,
    console: EncodingKey,
    addr: SocketAddr,
    _runtime: Runtime,
    _root: tempfile::TempDir,
}

impl Gateway {
    fn start(revoked: Value) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("state")).unwrap();
        let store = Store::open(&dir).unwrap();
        let console = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let write = |name: &str, text: String| {
            let path = root.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let key = write("console.pem", console.public_key_pem());
        let list = write("jrl.json", revoked.to_string());
        let own = TokenKey::open(&dir, Some(GATEWAY)).unwrap();
        let tokens = Arc::new(TokenVerifier::new(
            &own,
            Some(ProvisionerKey::read(&key).unwrap()),
            Some(GATEWAY),
            RevocationList::read(&list).unwrap(),
        ));
        let counters = Arc::new(HttpCounters::default());
        let enrolment = EnrolParts {
            ca: Arc::new(Live::new(Ca::open(&dir, UnixTime::now()).unwrap())),
            tokens: Arc::clone(&tokens),
            store: store.clone(),
            quic_endpoint: "gw.example:4433".to_owned(),
            server_spki_sha256: [7; 32],
            counters: Arc::clone(&counters),
        };
        let enrolment = router(enrolment, |_| async { false });
        let presence = Presence::new(store.directory());
        let live = Arc::new(Mutex::new(Vec::new()));
        let lists = Arc::new(AtomicUsize::new(0));
        let api = agents_router(&store, tokens, &presence, &live, &lists, &counters);
        let health = Health::new(store.clone());
        let whole = public_router(enrolment, api, None, &health);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let places = Arc::new(ListenerCounters::new(512));
        runtime.spawn(serve(listener, None, whole, places, std::future::pending()));
        let pem = console.serialize_pem();
        Self {
            store,
            presence,
            live,
            lists,
            counters,
            health,
            console: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
            addr,
            _runtime: runtime,
            _root: root,
        }
    }

    /// Enrols an agent by a token of the console.
    fn enrolled(&self, n: u128) -> Uuid {
        let id = Uuid::from_u128(n);
        let mut claims = self.enrolment();
        claims["jet_agent_name"] = json!(format!("agent {n}"));
        let token = self.sign(json!({"cty": "ENROLLMENT"}), &claims);
        let body = enrol_body(id).to_string();
        let (status, text) = self.send("POST", "/jet/tunnel/enroll", Some(&token), &body);
        assert_eq!(status, 200, "{text}");
        id
    }

    fn connected(&self, id: Uuid, conn: u64, status: AgentStatus) {
        let info = AgentInfo {
            identity: AgentIdentity {
                id: AgentId(id),
                name: "site-a".into(),
                fingerprint: [u8::try_from(conn).unwrap(); 32],
                spki_sha256: [0; 32],
            },
            conn: ConnId(conn),
            routes: Arc::new(RouteSet {
                subnets: vec!["10.0.0.0/8".parse().unwrap()],
                domains: vec![DomainRoute {
                    pattern: DomainPattern::parse("*.contoso.local").unwrap(),
                    auto_detected: true,
                }],
            }),
            epoch: 1,
            status,
            drained: false,
            sessions: 0,
            silent: Duration::from_millis(1_500),
            connected: Duration::from_secs(60),
        };
        self.live.lock().unwrap().push(info);
    }

    fn claims(&self, scope: &str) -> Value {
        let now = UnixTime::now().as_secs();
        json!({"exp": now + 60, "nbf": now, "jti": Uuid::new_v4(), "scope": scope})
    }

    fn enrolment(&self) -> Value {
        let now = UnixTime::now().as_secs();
        json!({
            "exp": now + 60, "nbf": now, "jti": Uuid::new_v4(), "jet_gw_id": GATEWAY,
            "jet_gw_url": "http://gw.example", "jet_agent_name": "site a",
        })
    }

    fn scope(&self, scope: &str) -> String {
        self.sign(json!({}), &self.claims(scope))
    }

    /// Signs as the console does; entries of `header` stand over the usual ones.
    fn sign(&self, header: Value, claims: &Value) -> String {
        let mut full = json!({"alg": "ES384", "typ": "JWT", "cty": "SCOPE"});
        for (name, value) in header.as_object().unwrap() {
            full[name] = value.clone();
        }
        let header: Header = serde_json::from_value(full).unwrap();
        assert_eq!(header.alg, Algorithm::ES384);
        jsonwebtoken::encode(&header, claims, &self.console).unwrap()
    }

    fn get(&self, path: &str, scope: &str) -> (u16, String) {
        self.send("GET", path, Some(&self.scope(scope)), "")
    }

    fn send(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        let method: Method = method.parse().unwrap();
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr))
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = if body.is_empty() {
            agent.run(request.body(()).unwrap()).unwrap()
        } else {
            agent.run(request.body(body.to_owned()).unwrap()).unwrap()
        };
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), text)
    }
}

fn enrol_body(id: Uuid) -> Value {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key);
    json!({"agent_id": id, "csr_pem": request.unwrap().pem().unwrap()})
}

fn one(id: Uuid) -> String {
    format!("{LIST}/{id}")
}

const LIST: &str = "/jet/tunnel/agents";
const READ: &str = "gateway.agent.read";
const DELETE: &str = "gateway.agent.delete";
const GATEWAY: Uuid = Uuid::from_u128(5);
