//! Tokens: those that this gateway signs, and the check of those that come back, its own and those of an external
//! provisioner (agent-tunnel 14.4 and 15, design 3.9 and 8.10).

mod association;
mod error;
mod provisioner;
mod revocation;
mod verify;

use std::{fmt, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::KeyPair;
use rustls_pki_types::UnixTime;
use secrecy::SecretString;
use serde::Serialize;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use association::{Association, Reuse, TARGETS_MAX};
pub use error::TokenError;
use provisioner::VerifyingKey;
pub use provisioner::{ProvisionerKey, ProvisionerKeyError};
pub use revocation::{RevocationError, RevocationList};
pub use verify::{EnrolmentClaims, Scope, ScopeClaims, TokenVerifier};

use crate::{
    pki::{PkiError, ca::new_key, hex, is_agent_name},
    state::StateDir,
};

/// Signs enrolment tokens with one P-256 key from the state folder; a [`TokenVerifier`] checks them.
pub struct TokenKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    gateway_id: Option<Uuid>,
}

impl TokenKey {
    /// Reads the key, making it at first use. A gateway id goes into the tokens.
    ///
    /// # Errors
    /// [`PkiError::BadFile`] when the key is damaged.
    pub fn open(dir: &StateDir, gateway_id: Option<Uuid>) -> Result<Self, PkiError> {
        let bad = |_| PkiError::BadFile {
            path: dir.file(KEY_FILE),
            what: "holds no usable private key",
        };
        let key = match dir.read_secret_text(KEY_FILE)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(bad)?,
            None => new_key(dir, KEY_FILE)?,
        };
        let private = Zeroizing::new(key.serialize_pem());
        let bad = |_| PkiError::BadFile {
            path: dir.file(KEY_FILE),
            what: "holds no P-256 private key",
        };
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(private.as_bytes()).map_err(bad)?,
            decoding: DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).map_err(bad)?,
            gateway_id,
        })
    }

    /// Signs a token for one enrolment.
    ///
    /// # Errors
    /// [`IssueError::BadAgentName`] and [`IssueError::BadUrl`] for what an enrolment would fail on.
    pub fn issue(&self, now: UnixTime, token: &NewToken) -> Result<IssuedToken, IssueError> {
        if !is_agent_name(&token.agent_name) {
            return Err(IssueError::BadAgentName);
        }
        if !["https://", "http://"]
            .iter()
            .any(|scheme| token.gateway_url.starts_with(scheme))
        {
            return Err(IssueError::BadUrl);
        }
        let jti = Uuid::new_v4();
        let expires_at = now.as_secs().saturating_add(token.lifetime.as_secs());
        let claims = Claims {
            exp: expires_at,
            nbf: now.as_secs(),
            jti,
            jet_gw_url: &token.gateway_url,
            jet_agent_name: &token.agent_name,
            jet_gw_id: self.gateway_id,
            adit_spki_sha256: token.https_spki_sha256.map(|pin| hex(&pin)),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.cty = Some(ENROLLMENT.to_owned());
        let text =
            jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(|_| IssueError::Sign)?;
        Ok(IssuedToken {
            text: text.into(),
            jti,
            expires_at,
        })
    }

    /// What checks the signatures of this key.
    fn verifying(&self) -> VerifyingKey {
        VerifyingKey::new(self.decoding.clone(), &[Algorithm::ES256])
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// What a new token is to say.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Base URL of the gateway's HTTP listener, as agents reach it.
    pub gateway_url: String,
    /// Name that the agent gets.
    pub agent_name: String,
    /// How long the token may be used; [`DEFAULT_LIFETIME`] unless configured.
    pub lifetime: Duration,
    /// Pin of the HTTPS listener's key; `None` where the operator's certificate or plain HTTP is used.
    pub https_spki_sha256: Option<[u8; 32]>,
}

/// A signed token, to be shown once.
#[derive(Debug)]
pub struct IssuedToken {
    /// The enrolment string.
    pub text: SecretString,
    /// Its id, by which the store knows it.
    pub jti: Uuid,
    /// Unix time of its end, in seconds.
    pub expires_at: u64,
}

/// Why a token cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// An enrolment with this name would be refused.
    #[error("an agent's name is 1 to 255 printable ASCII characters")]
    BadAgentName,
    /// The agent could not reach this.
    #[error("the gateway's URL must begin with https:// or http://")]
    BadUrl,
    /// The signature could not be made.
    #[error("the token could not be signed")]
    Sign,
}

/// How long a token may be used unless configured otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// How far the clocks of a token's maker and of the gateway may differ (agent-tunnel 14.4).
pub const LEEWAY_S: u64 = 300;

#[derive(Serialize)]
struct Claims<'a> {
    exp: u64,
    nbf: u64,
    jti: Uuid,
    jet_gw_url: &'a str,
    jet_agent_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    jet_gw_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adit_spki_sha256: Option<String>,
}

const KEY_FILE: &str = "token-key.pem";
const ENROLLMENT: &str = "ENROLLMENT";
const ASSOCIATION: &str = "ASSOCIATION";
