//! Enrolment strings: the tokens that this gateway signs and takes back (agent-tunnel 14.4, design 3.9 and 8.10).

use std::{fmt, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use rcgen::KeyPair;
use rustls_pki_types::UnixTime;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    pki::{PkiError, ca::new_key, hex, is_agent_name},
    state::StateDir,
};

/// Signs enrolment tokens and checks those that come back, with one P-256 key from the state folder.
pub struct TokenKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    gateway_id: Option<Uuid>,
}

impl TokenKey {
    /// Reads the key, making it at first use. With a gateway id, tokens for another gateway are refused.
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

    /// Checks a token that came back. Whether it was used before is the store's to say.
    ///
    /// # Errors
    /// [`TokenError`], each with the status of agent-tunnel 14.3.
    pub fn verify(&self, now: UnixTime, token: &str) -> Result<EnrolmentClaims, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.kid.is_some() {
            return Err(TokenError::KeyId);
        }
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let claims = self.decode(token)?;
        check_dates(now, &claims)?;
        check_type(header.cty.as_deref(), &claims)?;
        if let Some(ours) = self.gateway_id
            && let Some(theirs) = claims.get("jet_gw_id")
            && uuid_of(theirs) != Some(ours)
        {
            return Err(TokenError::OtherGateway);
        }
        let text = |name: &'static str| {
            claims
                .get(name)
                .and_then(Value::as_str)
                .ok_or(TokenError::MissingClaim(name))
        };
        text("jet_gw_url")?;
        Ok(EnrolmentClaims {
            jti: claims
                .get("jti")
                .and_then(uuid_of)
                .ok_or(TokenError::MissingClaim("jti"))?,
            expires_at: seconds(&claims, "exp")?,
            agent_name: text("jet_agent_name")?.to_owned(),
        })
    }

    fn decode(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        // Dates are checked against the caller's clock; the other registered claims have no meaning here.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        match jsonwebtoken::decode(token, &self.decoding, &validation) {
            Ok(data) => Ok(data.claims),
            Err(e) if matches!(e.kind(), ErrorKind::InvalidSignature) => {
                Err(TokenError::BadSignature)
            }
            Err(e) if matches!(e.kind(), ErrorKind::InvalidAlgorithm) => Err(TokenError::Algorithm),
            Err(_) => Err(TokenError::Malformed),
        }
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

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentClaims {
    /// The token's id.
    pub jti: Uuid,
    /// Unix time of its end, in seconds.
    pub expires_at: u64,
    /// Name that the agent gets; not checked yet.
    pub agent_name: String,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// No token was sent.
    #[error("no token: send the enrolment string as a bearer token")]
    Missing,
    /// Not a JWS with JSON inside.
    #[error("the token is not a signed token; paste the whole enrolment string")]
    Malformed,
    /// Signed with a kind of signature that is not taken.
    #[error("the token's signature algorithm is not accepted; create the token at this gateway")]
    Algorithm,
    /// Signed by someone else, or altered.
    #[error("the token was not signed by this gateway; create a token here and paste it whole")]
    BadSignature,
    /// It names a key; keys with names sign no enrolments.
    #[error("an enrolment token names no key (kid)")]
    KeyId,
    /// Its time has passed.
    #[error("the token has expired; create a new one")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; check the clocks of the gateway and of the token's maker")]
    NotYetValid,
    /// A required claim is absent or of the wrong type.
    #[error("the token lacks a usable claim {0}; create a new one")]
    MissingClaim(&'static str),
    /// Neither header nor claims say what the token is for.
    #[error("the token's content type is unknown; create an enrolment token")]
    UnknownType,
    /// Made for another gateway.
    #[error("the token is for another gateway")]
    OtherGateway,
    /// A good token for another purpose.
    #[error("the token is good, but not for enrolment; create an enrolment token")]
    WrongType,
}

impl TokenError {
    /// Gives the HTTP status (agent-tunnel 14.3).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::WrongType => 403,
            Self::Missing
            | Self::Malformed
            | Self::Algorithm
            | Self::BadSignature
            | Self::KeyId
            | Self::Expired
            | Self::NotYetValid
            | Self::MissingClaim(_)
            | Self::UnknownType
            | Self::OtherGateway => 401,
        }
    }
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

#[derive(Serialize, Deserialize)]
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

fn check_dates(now: UnixTime, claims: &Map<String, Value>) -> Result<(), TokenError> {
    let now = now.as_secs();
    if seconds(claims, "exp")?.saturating_add(LEEWAY_S) < now {
        return Err(TokenError::Expired);
    }
    if seconds(claims, "nbf")? > now.saturating_add(LEEWAY_S) {
        return Err(TokenError::NotYetValid);
    }
    Ok(())
}

/// Tells a good token for another purpose (403) from one whose purpose is unknown (401).
fn check_type(cty: Option<&str>, claims: &Map<String, Value>) -> Result<(), TokenError> {
    let named = cty
        .or_else(|| claims.get("type").and_then(Value::as_str))
        .ok_or(TokenError::UnknownType)?;
    if named.eq_ignore_ascii_case(ENROLLMENT) {
        return Ok(());
    }
    if OTHER_TYPES
        .iter()
        .any(|other| named.eq_ignore_ascii_case(other))
    {
        return Err(TokenError::WrongType);
    }
    Err(TokenError::UnknownType)
}

fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<u64, TokenError> {
    claims
        .get(name)
        .and_then(Value::as_u64)
        .ok_or(TokenError::MissingClaim(name))
}

fn uuid_of(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}

const KEY_FILE: &str = "token-key.pem";
const ENROLLMENT: &str = "ENROLLMENT";
/// Content types of the reference's other tokens.
const OTHER_TYPES: [&str; 9] = [
    "ASSOCIATION",
    "SCOPE",
    "BRIDGE",
    "JMUX",
    "JREC",
    "KDC",
    "JRL",
    "WEBAPP",
    "NETSCAN",
];
const TOKEN_LEN_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests;
