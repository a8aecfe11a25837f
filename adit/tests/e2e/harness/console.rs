//! Whoever signs tokens elsewhere, and those who ask a gateway over HTTP.

use std::{fs, net::SocketAddr, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use uuid::Uuid;

use super::site::{Gateway, Site};

/// Whoever signs tokens outside of the gateway.
pub(crate) struct Console {
    key: EncodingKey,
    pub(crate) public: std::path::PathBuf,
}

impl Console {
    pub(crate) fn new(site: &Site) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let public = site.path("console.pem");
        fs::write(&public, key.public_key_pem()).unwrap();
        Self {
            key: EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap(),
            public,
        }
    }

    pub(crate) fn sections(&self) -> String {
        format!(
            "[provisioner]\npublic_key_file = {:?}\n{METRICS}\
             [enroll]\nlisten = \"127.0.0.1:0\"\ninsecure_http = true\n",
            self.public
        )
    }

    pub(crate) fn enrolment(&self, gateway: &Gateway) -> Value {
        let mut claims = claims();
        claims["jet_gw_url"] = json!(format!("http://{}", gateway.address("enroll")));
        claims["jet_agent_name"] = json!("site a");
        claims
    }

    pub(crate) fn scope(&self, scope: &str) -> String {
        let mut claims = claims();
        claims["scope"] = json!(scope);
        self.sign("SCOPE", &claims)
    }

    pub(crate) fn sign(&self, cty: &str, claims: &Value) -> String {
        self.sign_as(Header::new(Algorithm::RS256), cty, claims)
    }

    /// With the name of a key, of which the gateway knows none.
    pub(crate) fn sign_with_kid(&self, cty: &str, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some("sub".to_owned());
        self.sign_as(header, cty, claims)
    }

    fn sign_as(&self, mut header: Header, cty: &str, claims: &Value) -> String {
        header.cty = Some(cty.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    pub(crate) fn json(&self, gateway: &Gateway, path: &str) -> Value {
        let token = self.scope("gateway.agent.read");
        let (status, text) = ask(gateway, "GET", path, &token);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

pub(crate) fn claims() -> Value {
    let now = rustls_pki_types::UnixTime::now().as_secs();
    json!({"exp": now + 60, "nbf": now, "jti": Uuid::new_v4()})
}

/// Calls the API of a gateway that listens without TLS.
pub(crate) fn ask(gateway: &Gateway, method: &str, path: &str, token: &str) -> (u16, String) {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", gateway.address("enroll")))
        .header("authorization", format!("Bearer {token}"))
        .body(());
    answer(client().run(request.unwrap()))
}

pub(crate) fn fetch(addr: SocketAddr, path: &str) -> (u16, String) {
    answer(client().get(format!("http://{addr}{path}")).call())
}

pub(crate) fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)));
    config.build().into()
}

pub(crate) fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> (u16, String) {
    let mut response = response.unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), text)
}

pub(crate) fn metrics_addr(gateway: &Gateway) -> SocketAddr {
    let line = gateway.process().logged("metrics open");
    line["addr"].as_str().unwrap().parse().unwrap()
}

pub(crate) fn metrics(gateway: &Gateway) -> Metrics {
    let (status, text) = fetch(metrics_addr(gateway), "/metrics");
    assert_eq!(status, 200, "{text}");
    Metrics(text)
}

/// A page of metrics.
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    pub(crate) fn value(&self, name: &str) -> u64 {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        let found = self.0.lines().find_map(of);
        found.unwrap_or_else(|| panic!("{name} is not in\n{}", self.0))
    }
}

pub(crate) const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"\n";
