//! The token of a user's session: who may go where, once (agent-tunnel 15.1).

use std::time::Duration;

use adit_proto_core::{
    id::AgentId,
    target::{Host, Target, TargetError},
};
use rustls_pki_types::UnixTime;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{ASSOCIATION, TokenError, TokenVerifier, verify};
use crate::pki::parse_hex_32;

/// What a good association token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// The token's id.
    pub jti: Uuid,
    /// Unix time of its end, in seconds.
    pub expires_at: u64,
    /// The session's id, as whoever made the token knows it.
    pub id: Uuid,
    /// Where the session goes: tried in this order, 1 to [`TARGETS_MAX`].
    pub targets: Vec<Target>,
    /// The agent that must carry it; none: the routing table decides.
    pub agent: Option<AgentId>,
    /// How long it may last; none: as long as it likes.
    pub lifetime: Option<Duration>,
    /// SHA-256 of the target's certificate, where that counts in place of its chain and name.
    pub target_cert: Option<[u8; 32]>,
    /// How long after its first use the token may be used again from the same address.
    pub reuse: Reuse,
}

/// Whether a token may be used more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Once.
    Never,
    /// For so long after the first use.
    For(Duration),
    /// Until it has expired.
    WhileGood,
}

impl TokenVerifier {
    /// Checks a token that is to open a session.
    ///
    /// # Errors
    /// [`TokenError`], each with its status.
    pub fn association(&self, now: UnixTime, token: &str) -> Result<Association, TokenError> {
        let good = self.check(now, token, ASSOCIATION)?;
        let claims = &good.claims;
        let id = uuid(claims, "jet_aid")?.ok_or(TokenError::MissingClaim("jet_aid"))?;
        let protocol = verify::text(claims, "jet_ap")?;
        if verify::text(claims, "jet_cm")? != "fwd" {
            return Err(TokenError::Unsupported("another mode than fwd (jet_cm)"));
        }
        refuse_demands(claims)?;
        Ok(Association {
            jti: good.jti,
            expires_at: good.expires_at,
            id,
            targets: targets(claims, protocol)?,
            agent: uuid(claims, "jet_agent_id")?.map(AgentId),
            lifetime: lifetime(claims)?,
            target_cert: target_cert(claims)?,
            reuse: reuse(claims, protocol)?,
        })
    }
}

/// What the token's maker demands and this gateway cannot do: a session without it would be less than was asked for.
fn refuse_demands(claims: &Map<String, Value>) -> Result<(), TokenError> {
    match claims.get("jet_rec") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(Value::String(text)) if text == "none" => {}
        Some(_) => return Err(TokenError::Unsupported("a recording (jet_rec)")),
    }
    match claims.get("jet_flt") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(()),
        Some(_) => Err(TokenError::Unsupported("filtering (jet_flt)")),
    }
}

fn targets(claims: &Map<String, Value>, protocol: &str) -> Result<Vec<Target>, TokenError> {
    let first = target(verify::text(claims, "dst_hst")?, protocol);
    let mut all = vec![first.map_err(|_| TokenError::MissingClaim("dst_hst"))?];
    let bad = || TokenError::MissingClaim("dst_alt");
    let further = match claims.get("dst_alt") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(list)) if list.len() < TARGETS_MAX => list,
        Some(_) => return Err(bad()),
    };
    for one in further {
        let text = one.as_str().ok_or_else(bad)?;
        all.push(target(text, protocol).map_err(|_| bad())?);
    }
    Ok(all)
}

/// `host:port`, `host` or `tcp://host:port`; an IPv6 address in brackets, or bare where there is no port.
fn target(text: &str, protocol: &str) -> Result<Target, TargetError> {
    let text = text.strip_prefix("tcp://").unwrap_or(text);
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<Host>() {
        Ok(host) => Ok(Target {
            host,
            port: default_port(protocol).ok_or(TargetError::NoPort)?,
        }),
        Err(_) => text.parse(),
    }
}

/// The port of a target that names none, by its application protocol.
fn default_port(protocol: &str) -> Option<u16> {
    match protocol {
        "rdp" => Some(3389),
        "ssh" | "ssh-pwsh" | "sftp" | "scp" => Some(22),
        "telnet" => Some(23),
        "vnc" | "ard" => Some(5900),
        "http" => Some(80),
        "https" => Some(443),
        "ldap" => Some(389),
        "ldaps" => Some(636),
        "winrm-http-pwsh" => Some(5985),
        "winrm-https-pwsh" => Some(5986),
        _ => None,
    }
}

/// Minutes; 0 means no end.
fn lifetime(claims: &Map<String, Value>) -> Result<Option<Duration>, TokenError> {
    let minutes = number(claims, "jet_ttl")?.unwrap_or(0);
    Ok((minutes > 0).then(|| Duration::from_secs(minutes.saturating_mul(60).min(LONGEST_S))))
}

/// Only clients of RDP come back with the token that they have used (agent-tunnel 15.1).
fn reuse(claims: &Map<String, Value>, protocol: &str) -> Result<Reuse, TokenError> {
    let window = number(claims, "jet_reuse")?;
    Ok(match (protocol, window) {
        ("rdp", None) => Reuse::WhileGood,
        ("rdp", Some(seconds @ 1..)) => Reuse::For(Duration::from_secs(seconds.min(LONGEST_S))),
        (_, _) => Reuse::Never,
    })
}

/// 64 hexadecimal digits, of either case, with or without colons.
fn target_cert(claims: &Map<String, Value>) -> Result<Option<[u8; 32]>, TokenError> {
    const NAME: &str = "cert_thumb256";
    let bad = || TokenError::MissingClaim(NAME);
    let text = match claims.get(NAME) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_str().ok_or_else(bad)?,
    };
    let hash = parse_hex_32(&text.replace(':', "")).ok_or_else(bad)?;
    Ok(Some(hash))
}

fn uuid(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Uuid>, TokenError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let id = verify::uuid_of(value).ok_or(TokenError::MissingClaim(name))?;
            Ok(Some(id))
        }
    }
}

fn number(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, TokenError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().ok_or(TokenError::MissingClaim(name))?;
            Ok(Some(number))
        }
    }
}

/// Targets of one token.
pub const TARGETS_MAX: usize = 16;
/// A hundred years: longer times cannot be added to every clock.
const LONGEST_S: u64 = 100 * 365 * 86_400;

#[cfg(test)]
mod tests;
