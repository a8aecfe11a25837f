//! As much of a gateway as enrolment needs.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use adit::{
    enroll::{
        client::EnrolRequest,
        listener::{ListenerTls, serve},
        server::{EnrolParts, router},
    },
    http::{ListenerCounters, health::Health, public_router},
    live::Live,
    pki::{
        ca::Ca,
        names::ServerNames,
        server::{ServerCert, ServerRole},
    },
    state::StateDir,
    store::Store,
    token::{DEFAULT_LIFETIME, NewToken, RevocationList, TokenKey, TokenVerifier},
};
use adit_proto_core::id::AgentId;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::UnixTime;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::oneshot};
use uuid::Uuid;

#[derive(Clone, Copy)]
pub(crate) enum Scheme {
    Http,
    Https,
}

pub(crate) struct Gateway {
    root: tempfile::TempDir,
    scheme: Scheme,
    pub(crate) connected: Arc<Mutex<BTreeSet<AgentId>>>,
    running: Option<Running>,
}

pub(crate) struct Running {
    store: Store,
    tokens: Arc<TokenKey>,
    pin: Option<[u8; 32]>,
    pub(crate) addr: SocketAddr,
    stop: oneshot::Sender<()>,
    runtime: Runtime,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Gateway {
    pub(crate) fn start(scheme: Scheme) -> Self {
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

    pub(crate) fn restart(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.send(()).unwrap();
        running.runtime.block_on(running.serving).unwrap().unwrap();
        drop((running.runtime, running.store));
        self.run();
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.running().store
    }

    pub(crate) fn url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}", self.running().addr)
    }

    pub(crate) fn token(&self) -> String {
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

    pub(crate) fn token_key(&self) -> KeyPair {
        let pem = fs::read_to_string(self.root.path().join("state/token-key.pem")).unwrap();
        KeyPair::from_pem(&pem).unwrap()
    }

    pub(crate) fn claims(&self) -> Value {
        let now = UnixTime::now().as_secs();
        json!({
            "exp": now + 60, "nbf": now, "jti": Uuid::new_v4(),
            "jet_gw_url": self.url(), "jet_agent_name": "site a",
        })
    }

    /// Signs claims as this gateway would, with the header changed.
    pub(crate) fn sign(&self, header: Value, claims: &Value) -> String {
        let mut full = json!({"alg": "ES256", "typ": "JWT", "cty": "ENROLLMENT"});
        for (name, value) in header.as_object().unwrap() {
            full[name] = value.clone();
        }
        let header: Header = serde_json::from_value(full).unwrap();
        let pem = self.token_key().serialize_pem();
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    pub(crate) fn request(&self, agent: &tempfile::TempDir, token: String) -> EnrolRequest {
        EnrolRequest {
            enrolment_string: SecretString::from(token),
            gateway_url_override: None,
            allow_http: false,
            hostname: Some("host-1".to_owned()),
            state_dir: state_of(agent),
        }
    }

    pub(crate) fn post(&self, token: &str, body: &Value) -> (u16, String) {
        let json = "application/json";
        self.send("/jet/tunnel/enroll", Some(token), json, &body.to_string())
    }

    pub(crate) fn send(
        &self,
        path: &str,
        token: Option<&str>,
        kind: &str,
        body: &str,
    ) -> (u16, String) {
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

pub(crate) fn body(id: Uuid) -> Value {
    json!({"agent_id": id, "csr_pem": rcgen_request(), "later_field": 1})
}

pub(crate) fn rcgen_request() -> String {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::default();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

pub(crate) fn state_of(agent: &tempfile::TempDir) -> PathBuf {
    Path::new(agent.path()).join("agent")
}

pub(crate) const PIN: [u8; 32] = [0xab; 32];
