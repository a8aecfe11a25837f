//! Enrolment against the real listener on loopback.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use adit::{
    enroll::{
        TransportError,
        client::{EnrolError, EnrolRequest, enrol},
        files::{AgentFiles, FilesError},
        listener::{ListenerTls, serve},
        pair::{KeyPairFile, PairName},
        server::{EnrolParts, router},
    },
    http::{ListenerCounters, health::Health, public_router},
    live::Live,
    pki::{
        ca::Ca,
        hex,
        names::ServerNames,
        server::{ServerCert, ServerRole},
    },
    state::{StateDir, StateError},
    store::{AdmitError, Store},
    token::{DEFAULT_LIFETIME, NewToken, RevocationList, TokenKey, TokenVerifier},
};
use adit_proto_core::{id::AgentId, identity::AgentIdentity};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::UnixTime;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::oneshot};
use uuid::Uuid;

#[test]
fn agent_enrols_over_pinned_https() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let files = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    assert_eq!(files.name, "site a");
    assert_eq!(files.quic_endpoints, ["gw.example:4433"]);
    assert_eq!(files.server_spki_sha256, PIN);
    assert!(files.renews_with_new_key);

    let dir = StateDir::open_existing(state_of(&agent)).unwrap();
    let loaded = AgentFiles::load(&dir).unwrap();
    assert_eq!(loaded.id, files.id);
    assert_eq!(loaded.gateway_url, gateway.url());
    for name in ["agent-pair.json", "agent.json"] {
        let mode = fs::metadata(dir.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let records = gateway.store().agents().wait().unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].hostname.as_deref(), Some("host-1"));
    let mut identity = AgentIdentity {
        id: files.id,
        name: "site a".into(),
        fingerprint: records[0].fingerprint,
        spki_sha256: records[0].spki_sha256,
    };
    let directory = gateway.store().directory();
    assert_eq!(directory.admit(&identity), Ok(()));
    identity.spki_sha256[0] ^= 1;
    assert_eq!(directory.admit(&identity), Err(AdmitError::OtherKey));
}

#[test]
fn second_enrolment_keeps_id_and_key() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let first = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    let second = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    assert_eq!(second.id, first.id);
    assert_eq!(second.pair.key_pem, first.pair.key_pem);
    assert_ne!(second.pair.cert_pem, first.pair.cert_pem);
}

#[test]
fn whichever_of_its_keys_the_gateway_knows_an_agent_enrols_with_it() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let first = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    let dir = StateDir::open_existing(state_of(&agent)).unwrap();
    let stranger = || {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::default().self_signed(&key).unwrap();
        KeyPairFile {
            key_pem: key.serialize_pem().into(),
            cert_pem: cert.pem(),
            ca_pem: cert.pem(),
        }
    };
    // A renewed pair that the gateway never heard of.
    stranger().save(&dir, PairName::Next).unwrap();
    let second = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    assert_eq!(second.id, first.id);
    assert_eq!(second.pair.key_pem, first.pair.key_pem);
    // The gateway was restored from a backup that is older than the latest renewal.
    second.pair.save(&dir, PairName::Previous).unwrap();
    stranger().save(&dir, PairName::Current).unwrap();
    let third = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    assert_eq!(third.id, first.id);
    assert_eq!(third.pair.key_pem, first.pair.key_pem);
    // None of them.
    stranger().save(&dir, PairName::Current).unwrap();
    let error = enrol(&gateway.request(&agent, gateway.token())).unwrap_err();
    assert!(
        matches!(error, EnrolError::Refused { status: 409, .. }),
        "{error}"
    );
}

#[test]
fn string_is_used_once_and_the_loser_changes_nothing() {
    let gateway = Gateway::start(Scheme::Https);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let token = gateway.token();
    enrol(&gateway.request(&one, token.clone())).unwrap();
    let error = enrol(&gateway.request(&two, token)).unwrap_err();
    assert!(
        matches!(error, EnrolError::Refused { status: 401, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("create a new one"), "{error}");
    assert_eq!(fs::read_dir(state_of(&two)).unwrap().count(), 0);
    let dir = StateDir::open_existing(state_of(&two)).unwrap();
    assert!(matches!(
        AgentFiles::load(&dir),
        Err(FilesError::NotEnrolled)
    ));
}

#[test]
fn other_server_than_the_pinned_one_is_not_trusted() {
    let gateway = Gateway::start(Scheme::Https);
    let imposter = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let token = gateway.token();
    let mut request = gateway.request(&agent, token.clone());
    request.gateway_url_override = Some(imposter.url());
    let error = enrol(&request).unwrap_err();
    assert!(
        matches!(error, EnrolError::Transport(TransportError::PinMismatch)),
        "{error}"
    );
    enrol(&gateway.request(&agent, token)).unwrap();
}

#[test]
fn without_a_pin_the_system_roots_decide() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let token = gateway.sign(json!({}), &gateway.claims());
    let error = enrol(&gateway.request(&agent, token)).unwrap_err();
    assert!(
        matches!(error, EnrolError::Transport(TransportError::Tls(_))),
        "{error}"
    );
}

#[test]
fn plain_http_is_used_on_request_only() {
    let gateway = Gateway::start(Scheme::Http);
    let agent = tempfile::tempdir().unwrap();
    let mut request = gateway.request(&agent, gateway.token());
    assert!(matches!(enrol(&request), Err(EnrolError::PlainHttp)));
    request.allow_http = true;
    enrol(&request).unwrap();
}

#[test]
fn unwritable_state_folder_spends_no_token() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let token = gateway.token();
    let mut request = gateway.request(&agent, token.clone());
    request.state_dir = PathBuf::from("/proc/adit-agent");
    let error = enrol(&request).unwrap_err();
    assert!(
        matches!(error, EnrolError::State(StateError::Create { .. })),
        "{error}"
    );
    enrol(&gateway.request(&agent, token)).unwrap();
}

#[test]
fn answer_has_the_fields_of_the_specification() {
    let gateway = Gateway::start(Scheme::Http);
    let id = Uuid::new_v4();
    let (status, body) = gateway.post(&gateway.token(), &body(id));
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let fields: BTreeSet<_> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "agent_id",
        "client_cert_pem",
        "gateway_ca_cert_pem",
        "quic_endpoint",
        "server_spki_sha256",
        "adit",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    assert_eq!(body["agent_id"], id.to_string());
    assert_eq!(body["server_spki_sha256"], hex(&PIN));
    assert_eq!(body["adit"], json!({"renewal": 1}));
}

#[test]
fn each_refusal_has_its_status_and_spends_no_token() {
    let gateway = Gateway::start(Scheme::Http);
    let token = gateway.token();
    let good = body(Uuid::new_v4()).to_string();
    let connected = Uuid::new_v4();
    gateway.connected.lock().unwrap().insert(AgentId(connected));

    let with = |field: &str, value: Value| {
        let mut body = body(Uuid::new_v4());
        body[field] = value;
        body.to_string()
    };
    let mut broken = rcgen_request();
    broken.insert_str(60, "AAAA");
    let json = "application/json";
    let cases = [
        (400, json, "{".to_owned()),
        (400, json, with("csr_pem", json!(broken))),
        (400, json, with("csr_pem", json!("noise"))),
        (400, json, with("agent_hostname", json!("no host"))),
        (409, json, body(connected).to_string()),
        (413, json, with("csr_pem", json!("x".repeat(70_000)))),
        (415, "text/plain", good.clone()),
        (422, json, "{}".to_owned()),
        (422, json, with("agent_id", json!("no uuid"))),
    ];
    for (expected, kind, body) in cases {
        let (status, text) = gateway.send("/jet/tunnel/enroll", Some(&token), kind, &body);
        assert_eq!(status, expected, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], expected);
        assert!(answer["title"].is_string() && answer["detail"].is_string());
        let kind = answer["type"].as_str().unwrap();
        assert!(kind.starts_with("urn:adit:problem:"), "{kind}");
    }
    let (status, _) = gateway.send("/jet/elsewhere", Some(&token), json, &good);
    assert_eq!(status, 404);
    let (status, text) = gateway.send("/jet/tunnel/enroll", Some(&token), json, &good);
    assert_eq!(status, 200, "{text}");
    let (status, _) = gateway.send("/jet/tunnel/enroll", Some(&token), json, &good);
    assert_eq!(status, 401);
    let (status, _) = gateway.send("/jet/tunnel/enroll", Some(&token), json, "{");
    assert_eq!(
        status, 401,
        "a used token is refused before the body is looked at"
    );
}

#[test]
fn bad_tokens_have_their_status() {
    let gateway = Gateway::start(Scheme::Http);
    let good = gateway.claims();
    let signed = |header: Value, change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        gateway.sign(header, &claims)
    };
    let foreign = Gateway::start(Scheme::Http);
    let mut hs256 = Header::new(Algorithm::HS256);
    hs256.cty = Some("ENROLLMENT".to_owned());
    let public = gateway.token_key().public_key_pem();
    let hmac = jsonwebtoken::encode(&hs256, &good, &EncodingKey::from_secret(public.as_bytes()));
    let none = {
        let own = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
        let (_, rest) = signed(json!({}), &|_| {}).split_once('.').map(own).unwrap();
        let (claims, _) = rest.split_once('.').map(own).unwrap();
        // {"alg":"none","cty":"ENROLLMENT"}
        format!("eyJhbGciOiJub25lIiwiY3R5IjoiRU5ST0xMTUVOVCJ9.{claims}.")
    };
    let now = UnixTime::now().as_secs();
    let cases = [
        (401, "foreign", foreign.token()),
        (401, "hmac", hmac.unwrap()),
        (401, "none", none),
        (401, "kid", signed(json!({"kid": "k"}), &|_| {})),
        (
            401,
            "expired",
            signed(json!({}), &|c| c["exp"] = json!(now - 400)),
        ),
        (
            401,
            "early",
            signed(json!({}), &|c| c["nbf"] = json!(now + 400)),
        ),
        (401, "exp", signed(json!({}), &|c| c["exp"] = Value::Null)),
        (401, "nbf", signed(json!({}), &|c| c["nbf"] = Value::Null)),
        (401, "jti", signed(json!({}), &|c| c["jti"] = Value::Null)),
        (
            401,
            "url",
            signed(json!({}), &|c| c["jet_gw_url"] = Value::Null),
        ),
        (
            401,
            "name",
            signed(json!({}), &|c| c["jet_agent_name"] = Value::Null),
        ),
        (401, "type", signed(json!({"cty": "ELSE"}), &|_| {})),
        (403, "scope", signed(json!({"cty": "SCOPE"}), &|_| {})),
        (
            400,
            "bad name",
            signed(json!({}), &|c| c["jet_agent_name"] = json!("é")),
        ),
        (
            400,
            "no name",
            signed(json!({}), &|c| c["jet_agent_name"] = json!("")),
        ),
        (401, "noise", "noise".to_owned()),
    ];
    for (expected, case, token) in cases {
        let (status, text) = gateway.post(&token, &body(Uuid::new_v4()));
        assert_eq!(status, expected, "{case}: {text}");
    }
    let (status, _) = gateway.send("/jet/tunnel/enroll", None, "application/json", "{}");
    assert_eq!(status, 401);
    assert!(gateway.store().agents().wait().unwrap().is_empty());
}

#[test]
fn token_may_come_in_the_query() {
    let gateway = Gateway::start(Scheme::Http);
    let path = format!("/jet/tunnel/enroll?token={}", gateway.token());
    let body = body(Uuid::new_v4()).to_string();
    let (status, text) = gateway.send(&path, None, "application/json", &body);
    assert_eq!(status, 200, "{text}");
}

#[test]
fn id_of_another_key_is_a_conflict() {
    let gateway = Gateway::start(Scheme::Http);
    let id = Uuid::new_v4();
    assert_eq!(gateway.post(&gateway.token(), &body(id)).0, 200);
    let token = gateway.token();
    assert_eq!(gateway.post(&token, &body(id)).0, 409);
    assert_eq!(gateway.post(&token, &body(Uuid::new_v4())).0, 200);
}

#[test]
fn of_parallel_uses_one_enrols() {
    let gateway = Gateway::start(Scheme::Http);
    let token = gateway.token();
    let statuses = std::thread::scope(|scope| {
        let uses: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| gateway.post(&token, &body(Uuid::new_v4())).0))
            .collect();
        uses.into_iter()
            .map(|u| u.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(
        statuses.iter().filter(|s| **s == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|s| **s == 401).count(),
        7,
        "{statuses:?}"
    );
    assert_eq!(gateway.store().agents().wait().unwrap().len(), 1);
}

#[test]
fn a_caller_that_leaves_half_way_spends_no_token() {
    let gateway = Gateway::start(Scheme::Http);
    let token = gateway.token();
    let whole = body(Uuid::new_v4()).to_string();
    let head = format!(
        "POST /jet/tunnel/enroll HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        whole.len()
    );
    for len in [0, 1, whole.len() / 2, whole.len() - 1] {
        let mut tcp = TcpStream::connect(gateway.running().addr).unwrap();
        tcp.write_all(head.as_bytes()).unwrap();
        tcp.write_all(&whole.as_bytes()[..len]).unwrap();
    }
    // The last of them may not have been noticed yet: the token is in use until then.
    let start = Instant::now();
    let status = loop {
        let (status, text) = gateway.post(&token, &body(Uuid::new_v4()));
        if status == 200 || !text.contains("in use") {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{text}");
    };
    assert_eq!(status, 200);
    assert_eq!(gateway.store().agents().wait().unwrap().len(), 1);
}

#[test]
fn used_token_stays_used_after_a_restart() {
    let mut gateway = Gateway::start(Scheme::Http);
    let token = gateway.token();
    assert_eq!(gateway.post(&token, &body(Uuid::new_v4())).0, 200);
    gateway.restart();
    assert_eq!(gateway.post(&token, &body(Uuid::new_v4())).0, 401);
    assert_eq!(gateway.post(&gateway.token(), &body(Uuid::new_v4())).0, 200);
}

#[derive(Clone, Copy)]
enum Scheme {
    Http,
    Https,
}

struct Gateway {
    root: tempfile::TempDir,
    scheme: Scheme,
    connected: Arc<Mutex<BTreeSet<AgentId>>>,
    running: Option<Running>,
}

struct Running {
    store: Store,
    tokens: Arc<TokenKey>,
    pin: Option<[u8; 32]>,
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    runtime: Runtime,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Gateway {
    fn start(scheme: Scheme) -> Self {
        let mut gateway = Self {
            root: tempfile::tempdir().unwrap(),
            scheme,
            connected: Arc::default(),
            running: None,
        };
        gateway.run();
        gateway
    }

    fn run(&mut self) {
        let dir = StateDir::open(self.root.path().join("state")).unwrap();
        let now = UnixTime::now();
        let ca = Ca::open(&dir, now).unwrap();
        let tokens = Arc::new(TokenKey::open(&dir, None).unwrap());
        let store = Store::open(&dir).unwrap();
        let tls = match self.scheme {
            Scheme::Http => ListenerTls::Plain,
            Scheme::Https => {
                let names = ServerNames::parse(["gw.example"]).unwrap();
                let cert = ServerCert::open(&dir, &ca, ServerRole::Https, &names, now).unwrap();
                ListenerTls::Own(cert)
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let config = tls.server_config(addr, false).unwrap();
        let config = config.map(|config| Arc::new(Live::new(config)));
        let none = RevocationList::default();
        let parts = EnrolParts {
            ca: Arc::new(Live::new(ca)),
            tokens: Arc::new(TokenVerifier::new(&tokens, None, None, none)),
            store: store.clone(),
            quic_endpoint: "gw.example:4433".to_owned(),
            server_spki_sha256: PIN,
            counters: Arc::default(),
        };
        let connected = Arc::clone(&self.connected);
        let enrolment = router(parts, move |id| {
            let is_connected = connected.lock().unwrap().contains(&id);
            async move { is_connected }
        });
        let health = Health::new(store.clone());
        let router = public_router(enrolment, axum::Router::new(), None, &health);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = runtime.spawn(serve(
            listener,
            config,
            router,
            Arc::new(ListenerCounters::new(512)),
            async move {
                drop(stopped.await);
            },
        ));
        self.running = Some(Running {
            store,
            tokens,
            pin: tls.pin(),
            addr,
            stop,
            runtime,
            serving,
        });
    }

    fn restart(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.send(()).unwrap();
        running.runtime.block_on(running.serving).unwrap().unwrap();
        drop((running.runtime, running.store));
        self.run();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    fn store(&self) -> &Store {
        &self.running().store
    }

    fn url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}", self.running().addr)
    }

    fn token(&self) -> String {
        let token = NewToken {
            gateway_url: self.url(),
            agent_name: "site a".to_owned(),
            lifetime: DEFAULT_LIFETIME,
            https_spki_sha256: self.running().pin,
        };
        let issued = self
            .running()
            .tokens
            .issue(UnixTime::now(), &token)
            .unwrap();
        issued.text.expose_secret().to_owned()
    }

    fn token_key(&self) -> KeyPair {
        let pem = fs::read_to_string(self.root.path().join("state/token-key.pem")).unwrap();
        KeyPair::from_pem(&pem).unwrap()
    }

    fn claims(&self) -> Value {
        let now = UnixTime::now().as_secs();
        json!({
            "exp": now + 60, "nbf": now, "jti": Uuid::new_v4(),
            "jet_gw_url": self.url(), "jet_agent_name": "site a",
        })
    }

    /// Signs claims as this gateway would, with the header changed.
    fn sign(&self, header: Value, claims: &Value) -> String {
        let mut full = json!({"alg": "ES256", "typ": "JWT", "cty": "ENROLLMENT"});
        for (name, value) in header.as_object().unwrap() {
            full[name] = value.clone();
        }
        let header: Header = serde_json::from_value(full).unwrap();
        let pem = self.token_key().serialize_pem();
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    fn request(&self, agent: &tempfile::TempDir, token: String) -> EnrolRequest {
        EnrolRequest {
            enrolment_string: SecretString::from(token),
            gateway_url_override: None,
            allow_http: false,
            hostname: Some("host-1".to_owned()),
            state_dir: state_of(agent),
        }
    }

    fn post(&self, token: &str, body: &Value) -> (u16, String) {
        let json = "application/json";
        self.send("/jet/tunnel/enroll", Some(token), json, &body.to_string())
    }

    fn send(&self, path: &str, token: Option<&str>, kind: &str, body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        let mut request = agent
            .post(format!("{}{path}", self.url()))
            .header("content-type", kind);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request.send(body).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), text)
    }
}

fn body(id: Uuid) -> Value {
    json!({"agent_id": id, "csr_pem": rcgen_request(), "later_field": 1})
}

fn rcgen_request() -> String {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::default();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn state_of(agent: &tempfile::TempDir) -> PathBuf {
    Path::new(agent.path()).join("agent")
}

const PIN: [u8; 32] = [0xab; 32];
