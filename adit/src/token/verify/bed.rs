//! A verifier, its gateway's key, and a console, for tests.

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::KeyPair;
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{EnrolmentClaims, TokenVerifier};
use crate::{
    state::StateDir,
    token::{
        DEFAULT_LIFETIME, ENROLLMENT, NewToken, ProvisionerKey, RevocationList, TokenError,
        TokenKey,
    },
};

pub(in crate::token) const NOW: u64 = 1_790_000_000;
pub(in crate::token) const GATEWAY: Uuid = Uuid::from_u128(5);
pub(in crate::token) const JTI: Uuid = Uuid::from_u128(0xabc1);

/// Kinds of keys that a console may sign with.
#[derive(Clone, Copy, Debug)]
pub(in crate::token) enum Kind {
    Rsa,
    P256,
    P384,
    Ed,
}

impl Kind {
    pub(in crate::token) const ALL: [Self; 4] = [Self::Rsa, Self::P256, Self::P384, Self::Ed];

    pub(in crate::token) fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::Rsa => &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512],
            Self::P256 => &[Algorithm::ES256],
            Self::P384 => &[Algorithm::ES384],
            Self::Ed => &[Algorithm::EdDSA],
        }
    }

    pub(in crate::token) fn generate(self) -> KeyPair {
        let alg = match self {
            Self::Rsa => &rcgen::PKCS_RSA_SHA256,
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Ed => &rcgen::PKCS_ED25519,
        };
        KeyPair::generate_for(alg).unwrap()
    }
}

pub(in crate::token) struct Fixture {
    _root: tempfile::TempDir,
    pub(in crate::token) dir: StateDir,
    pub(in crate::token) key: TokenKey,
    pub(in crate::token) console: Option<(Kind, KeyPair)>,
    pub(in crate::token) tokens: TokenVerifier,
}

impl Fixture {
    pub(in crate::token) fn new(gateway_id: Option<Uuid>) -> Self {
        Self::of(gateway_id, None)
    }

    pub(in crate::token) fn of(gateway_id: Option<Uuid>, console: Option<Kind>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        let key = TokenKey::open(&dir, gateway_id).unwrap();
        let console = console.map(|kind| (kind, kind.generate()));
        let provisioner = console.as_ref().map(|(_, console)| {
            let path = dir.file("console.pem");
            std::fs::write(&path, console.public_key_pem()).unwrap();
            ProvisionerKey::read(&path).unwrap()
        });
        let none = RevocationList::default();
        Self {
            _root: root,
            tokens: TokenVerifier::new(&key, provisioner, gateway_id, none),
            dir,
            key,
            console,
        }
    }

    /// Signs with the gateway's key; entries of `header` stand over the usual ones, null removes one.
    pub(in crate::token) fn sign(&self, header: Value, claims: &Value) -> String {
        let text = head(Algorithm::ES256, header) + "." + &encode(claims);
        signed(text, &self.key.encoding, Algorithm::ES256)
    }

    /// Signs any text in the place of claims.
    pub(in crate::token) fn sign_text(&self, claims: &str) -> String {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims);
        let text = head(Algorithm::ES256, json!({})) + "." + &claims;
        signed(text, &self.key.encoding, Algorithm::ES256)
    }

    /// Signs as the console does.
    pub(in crate::token) fn console(
        &self,
        alg: Algorithm,
        header: Value,
        claims: &Value,
    ) -> String {
        let (kind, key) = self.console.as_ref().unwrap();
        let pem = key.serialize_pem();
        let key = match kind {
            Kind::P256 | Kind::P384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Kind::Ed => EncodingKey::from_ed_pem(pem.as_bytes()),
            Kind::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        signed(
            head(alg, header) + "." + &encode(claims),
            &key.unwrap(),
            alg,
        )
    }

    pub(in crate::token) fn verify(
        &self,
        header: Value,
        claims: &Value,
    ) -> Result<EnrolmentClaims, TokenError> {
        self.tokens.enrolment(at(NOW), &self.sign(header, claims))
    }
}

pub(in crate::token) fn head(alg: Algorithm, header: Value) -> String {
    let mut full = json!({"alg": format!("{alg:?}"), "typ": "JWT", "cty": ENROLLMENT});
    for (name, value) in header.as_object().unwrap() {
        full[name] = value.clone();
    }
    full.as_object_mut().unwrap().retain(|_, v| !v.is_null());
    encode(&full)
}

pub(in crate::token) fn signed(text: String, key: &EncodingKey, alg: Algorithm) -> String {
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), key, alg).unwrap();
    format!("{text}.{signature}")
}

pub(in crate::token) fn new_token() -> NewToken {
    NewToken {
        gateway_url: "https://gw.example:8443".to_owned(),
        agent_name: "site a".to_owned(),
        lifetime: DEFAULT_LIFETIME,
        https_spki_sha256: Some([0xab; 32]),
    }
}

pub(in crate::token) fn good_claims() -> Value {
    json!({
        "exp": NOW + 3600, "nbf": NOW, "jti": Uuid::from_u128(1), "jet_gw_id": GATEWAY,
        "jet_gw_url": "https://gw", "jet_agent_name": "a",
    })
}

pub(in crate::token) fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

pub(in crate::token) fn part(text: &str, index: usize) -> Value {
    let part = text.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

pub(in crate::token) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
