//! Enrolment tokens, as they come and signed with the gateway's own key.

use std::{sync::OnceLock, time::Duration};

use adit::{
    state::StateDir,
    token::{LEEWAY_S, RevocationList, TokenKey, TokenVerifier},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::UnixTime;
use serde_json::Value;

use crate::fixtures::{NOON_UNIX_S, known};

/// No text is a token by itself: nothing but this gateway's key signs.
pub(crate) fn raw(text: &str) {
    assert!(keys().check.enrolment(noon(), text).is_err());
}

/// Claims under a good signature: what is taken is what they say, and its time is now.
pub(crate) fn signed(is_typed: bool, claims: &str) {
    let Ok(claims) = serde_json::from_str::<Value>(claims) else {
        return;
    };
    let mut header = Header::new(Algorithm::ES256);
    header.cty = is_typed.then(|| TYPE.to_owned());
    let token = known(jsonwebtoken::encode(&header, &claims, &keys().sign));
    let Ok(taken) = keys().check.enrolment(noon(), &token) else {
        return;
    };
    let text = |name| claims.get(name).and_then(Value::as_str);
    assert_eq!(text("jet_agent_name"), Some(taken.agent_name.as_str()));
    assert_eq!(text("jti").map(str::parse), Some(Ok(taken.jti)));
    assert!(text("jet_gw_url").is_some());
    let seconds = |name| claims.get(name).and_then(Value::as_u64);
    assert_eq!(seconds("exp"), Some(taken.expires_at));
    assert!(taken.expires_at.saturating_add(LEEWAY_S) >= NOON_UNIX_S);
    assert!(seconds("nbf").is_some_and(|from| from <= NOON_UNIX_S + LEEWAY_S));
    assert!(is_typed || text("type").is_some_and(|t| t.eq_ignore_ascii_case(TYPE)));
}

struct Keys {
    sign: EncodingKey,
    check: TokenVerifier,
}

/// A key that lives as long as the process; its folder is gone at once.
fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("adit-fuzz-{}", std::process::id()));
        let dir = known(StateDir::open(&path));
        let own = known(TokenKey::open(&dir, None));
        let check = TokenVerifier::new(&own, None, None, RevocationList::default());
        let pem = known(dir.read_secret_text("token-key.pem")).unwrap_or_default();
        let sign = known(EncodingKey::from_ec_pem(pem.as_bytes()));
        known(std::fs::remove_dir_all(&path));
        Keys { sign, check }
    })
}

fn noon() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOON_UNIX_S))
}

const TYPE: &str = "ENROLLMENT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_claims_are_taken() {
        let claims = serde_json::json!({
            "exp": NOON_UNIX_S, "nbf": NOON_UNIX_S, "jti": uuid::Uuid::nil(),
            "jet_gw_url": "https://g", "jet_agent_name": "a", "type": TYPE,
        });
        let header = Header::new(Algorithm::ES256);
        let token = jsonwebtoken::encode(&header, &claims, &keys().sign).unwrap();
        let taken = keys().check.enrolment(noon(), &token).unwrap();
        assert_eq!(taken.agent_name, "a");
    }
}
