//! The check of a token that comes back: signature, dates, purpose (agent-tunnel 14.4 and 15).

use std::fmt;

use adit_io_common::lines::Lines;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use rustls_pki_types::UnixTime;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    ASSOCIATION, ENROLLMENT, LEEWAY_S, ProvisionerKey, RevocationList, TokenError, TokenKey,
    provisioner::VerifyingKey,
};
use crate::live::Live;

/// Checks tokens of this gateway and of its provisioner. Whether one was used before is the store's to say.
pub struct TokenVerifier {
    own: VerifyingKey,
    provisioner: Live<Option<ProvisionerKey>>,
    gateway_id: Option<Uuid>,
    revoked: Live<RevocationList>,
    unnamed: Lines,
}

impl TokenVerifier {
    /// Makes one. With a gateway id, tokens that name another gateway are refused.
    #[must_use]
    pub fn new(
        own: &TokenKey,
        provisioner: Option<ProvisionerKey>,
        gateway_id: Option<Uuid>,
        revoked: RevocationList,
    ) -> Self {
        Self {
            own: own.verifying(),
            provisioner: Live::new(provisioner),
            gateway_id,
            revoked: Live::new(revoked),
            unnamed: Lines::new(UNNAMED),
        }
    }

    /// Exchanges the revocation list; every later check goes by it.
    pub fn set_revoked(&self, list: RevocationList) {
        self.revoked.set(list);
    }

    /// Exchanges the provisioner's key; every later check goes by it.
    pub fn set_provisioner(&self, key: Option<ProvisionerKey>) {
        self.provisioner.set(key);
    }

    /// Checks a token that is to enrol an agent.
    ///
    /// # Errors
    /// [`TokenError`], each with the status of agent-tunnel 14.3.
    pub fn enrolment(&self, now: UnixTime, token: &str) -> Result<EnrolmentClaims, TokenError> {
        let good = self.check(now, token, ENROLLMENT)?;
        text(&good.claims, "jet_gw_url")?;
        Ok(EnrolmentClaims {
            jti: good.jti,
            expires_at: good.expires_at,
            agent_name: text(&good.claims, "jet_agent_name")?.to_owned(),
        })
    }

    /// Checks a token that is to allow a call of the API.
    ///
    /// # Errors
    /// [`TokenError`], each with the status of agent-tunnel 15.
    pub fn scope(
        &self,
        now: UnixTime,
        token: &str,
        needed: Scope,
    ) -> Result<ScopeClaims, TokenError> {
        let good = self.check(now, token, SCOPE)?;
        let scope = text(&good.claims, "scope")?;
        if scope != "*" && scope != needed.name() {
            return Err(TokenError::Scope(needed.name()));
        }
        Ok(ScopeClaims {
            jti: good.jti,
            expires_at: good.expires_at,
        })
    }

    /// What all kinds of tokens have in common. The purpose is looked at last: only a token that is good otherwise is
    /// told that it has another one.
    pub(super) fn check(
        &self,
        now: UnixTime,
        token: &str,
        purpose: &'static str,
    ) -> Result<Checked, TokenError> {
        let header = Head::read(token)?;
        if header.kid.is_some() {
            return Err(TokenError::KeyId);
        }
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let claims = self.decode(token, &header.alg)?;
        let expires_at = check_dates(now, &claims)?;
        let jti = claims.get("jti").and_then(uuid_of);
        let jti = jti.ok_or(TokenError::MissingClaim("jti"))?;
        self.check_gateway(&claims)?;
        if self.revoked.get().covers(&claims) {
            return Err(TokenError::Revoked);
        }
        check_purpose(header.cty.as_deref(), &claims, purpose)?;
        Ok(Checked {
            jti,
            expires_at,
            claims,
        })
    }

    fn decode(&self, token: &str, alg: &str) -> Result<Map<String, Value>, TokenError> {
        let alg: Algorithm = alg.parse().map_err(|_| TokenError::Algorithm)?;
        let mut outcome = Err(TokenError::Algorithm);
        let provisioner = self.provisioner.get();
        let keys = [Some(&self.own), (*provisioner).as_ref().map(|key| &key.0)];
        let keys = keys.into_iter().flatten();
        for key in keys.filter(|key| key.algorithms.contains(&alg)) {
            outcome = decode(token, key);
            match outcome {
                Err(TokenError::BadSignature) => {}
                Ok(_) | Err(_) => return outcome,
            }
        }
        outcome
    }

    fn check_gateway(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        // Some makers write what they leave out as null.
        let named = claims.get("jet_gw_id").filter(|id| !id.is_null());
        match (self.gateway_id, named) {
            (_, None) => Ok(()),
            (Some(ours), Some(theirs)) if uuid_of(theirs) == Some(ours) => Ok(()),
            (Some(_), Some(_)) => Err(TokenError::OtherGateway),
            (None, Some(theirs)) => {
                if self.unnamed.allow() {
                    tracing::warn!(jet_gw_id = %theirs, "{UNNAMED}; set provisioner.gateway_id");
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("gateway_id", &self.gateway_id)
            .finish_non_exhaustive()
    }
}

/// What a good enrolment token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentClaims {
    /// The token's id.
    pub jti: Uuid,
    /// Unix time of its end, in seconds.
    pub expires_at: u64,
    /// Name that the agent gets; not checked yet.
    pub agent_name: String,
}

/// What a good scope token says beside its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeClaims {
    /// The token's id.
    pub jti: Uuid,
    /// Unix time of its end, in seconds.
    pub expires_at: u64,
}

/// What a call of the API needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To list agents.
    AgentRead,
    /// To delete one.
    AgentDelete,
}

impl Scope {
    /// Gives its name in the claim `scope`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentRead => "gateway.agent.read",
            Self::AgentDelete => "gateway.agent.delete",
        }
    }
}

pub(super) struct Checked {
    pub(super) jti: Uuid,
    pub(super) expires_at: u64,
    pub(super) claims: Map<String, Value>,
}

/// What the header says before any of it is believed.
#[derive(Deserialize)]
struct Head {
    alg: String,
    cty: Option<String>,
    kid: Option<Value>,
    crit: Option<Value>,
}

impl Head {
    fn read(token: &str) -> Result<Self, TokenError> {
        let malformed = TokenError::Malformed;
        if token.len() > TOKEN_LEN_MAX || token.split('.').count() != 3 {
            return Err(malformed);
        }
        let (header, _) = token.split_once('.').ok_or(malformed)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(header);
        serde_json::from_slice(&json.map_err(|_| malformed)?).map_err(|_| malformed)
    }
}

fn decode(token: &str, key: &VerifyingKey) -> Result<Map<String, Value>, TokenError> {
    let mut validation = Validation {
        algorithms: key.algorithms.to_vec(),
        // Dates are checked against the caller's clock; the other registered claims have no meaning here.
        validate_exp: false,
        validate_nbf: false,
        validate_aud: false,
        ..Validation::default()
    };
    validation.required_spec_claims.clear();
    match jsonwebtoken::decode(token, &key.decoding, &validation) {
        Ok(data) => Ok(data.claims),
        Err(e) if matches!(e.kind(), ErrorKind::InvalidSignature) => Err(TokenError::BadSignature),
        Err(e) if matches!(e.kind(), ErrorKind::InvalidAlgorithm) => Err(TokenError::Algorithm),
        Err(_) => Err(TokenError::Malformed),
    }
}

fn check_dates(now: UnixTime, claims: &Map<String, Value>) -> Result<u64, TokenError> {
    let now = now.as_secs();
    let expires_at = seconds(claims, "exp")?;
    if expires_at.saturating_add(LEEWAY_S) < now {
        return Err(TokenError::Expired);
    }
    if seconds(claims, "nbf")? > now.saturating_add(LEEWAY_S) {
        return Err(TokenError::NotYetValid);
    }
    Ok(expires_at)
}

/// Tells a good token for another purpose (403) from one whose purpose is unknown (401).
fn check_purpose(
    cty: Option<&str>,
    claims: &Map<String, Value>,
    wanted: &'static str,
) -> Result<(), TokenError> {
    let named = cty
        .or_else(|| claims.get("type").and_then(Value::as_str))
        .ok_or(TokenError::UnknownType)?;
    if named.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    if PURPOSES
        .iter()
        .any(|known| named.eq_ignore_ascii_case(known))
    {
        return Err(TokenError::WrongType(wanted));
    }
    Err(TokenError::UnknownType)
}

pub(super) fn text<'a>(
    claims: &'a Map<String, Value>,
    name: &'static str,
) -> Result<&'a str, TokenError> {
    claims
        .get(name)
        .and_then(Value::as_str)
        .ok_or(TokenError::MissingClaim(name))
}

fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<u64, TokenError> {
    claims
        .get(name)
        .and_then(Value::as_u64)
        .ok_or(TokenError::MissingClaim(name))
}

pub(super) fn uuid_of(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}

const UNNAMED: &str = "a token names a gateway, and this one has no id to compare";
const SCOPE: &str = "SCOPE";
/// Content types of the reference's tokens.
const PURPOSES: [&str; 10] = [
    ENROLLMENT,
    SCOPE,
    ASSOCIATION,
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
pub(super) mod bed;
#[cfg(test)]
mod tests;
