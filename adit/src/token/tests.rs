use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;

#[test]
fn issued_token_is_taken_back() {
    let fixture = Fixture::new(Some(GATEWAY));
    let issued = fixture.key.issue(at(NOW), &new_token()).unwrap();
    let text = issued.text.expose_secret();
    let claims = fixture.key.verify(at(NOW), text).unwrap();
    assert_eq!(claims.jti, issued.jti);
    assert_eq!(claims.expires_at, NOW + 3600);
    assert_eq!(claims.agent_name, "site a");
    let header: Value = part(text, 0);
    assert_eq!(
        header,
        json!({"alg": "ES256", "typ": "JWT", "cty": "ENROLLMENT"})
    );
    let body: Value = part(text, 1);
    assert_eq!(body["adit_spki_sha256"], "ab".repeat(32));
    assert_eq!(body["jet_gw_id"], GATEWAY.to_string());
    assert_eq!(body["jet_gw_url"], "https://gw.example:8443");
    assert!(!format!("{issued:?}").contains(text));
}

#[test]
fn key_survives_a_restart() {
    let fixture = Fixture::new(None);
    let issued = fixture.key.issue(at(NOW), &new_token()).unwrap();
    let again = TokenKey::open(&fixture.dir, None).unwrap();
    again.verify(at(NOW), issued.text.expose_secret()).unwrap();
}

#[test]
fn dates_have_a_leeway_of_five_minutes() {
    let fixture = Fixture::new(None);
    let text = fixture.sign(json!({}), &good_claims());
    let verify = |now| fixture.key.verify(at(now), &text).map(|_| ());
    assert_eq!(verify(NOW - 300), Ok(()));
    assert_eq!(verify(NOW - 301), Err(TokenError::NotYetValid));
    assert_eq!(verify(NOW + 3900), Ok(()));
    assert_eq!(verify(NOW + 3901), Err(TokenError::Expired));
}

#[test]
fn each_required_claim_is_missed() {
    let fixture = Fixture::new(None);
    for name in ["exp", "nbf", "jti", "jet_gw_url", "jet_agent_name"] {
        let mut claims = good_claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(
            fixture.verify(json!({}), &claims),
            Err(TokenError::MissingClaim(name))
        );
        claims[name] = json!([]);
        assert_eq!(
            fixture.verify(json!({}), &claims),
            Err(TokenError::MissingClaim(name))
        );
    }
}

#[test]
fn content_type_comes_from_header_or_claim_in_any_case() {
    let fixture = Fixture::new(None);
    let with = |cty: Value, kind: Value| {
        let mut claims = good_claims();
        claims["type"] = kind;
        fixture.verify(json!({"cty": cty}), &claims).map(|_| ())
    };
    assert_eq!(with(json!("enrollment"), Value::Null), Ok(()));
    assert_eq!(with(Value::Null, json!("Enrollment")), Ok(()));
    assert_eq!(
        with(json!("SCOPE"), json!("enrollment")),
        Err(TokenError::WrongType)
    );
    assert_eq!(
        with(Value::Null, json!("association")),
        Err(TokenError::WrongType)
    );
    assert_eq!(
        with(json!("else"), Value::Null),
        Err(TokenError::UnknownType)
    );
    assert_eq!(with(Value::Null, Value::Null), Err(TokenError::UnknownType));
    assert_eq!(TokenError::WrongType.status(), 403);
    assert_eq!(TokenError::UnknownType.status(), 401);
}

#[test]
fn expired_token_of_another_type_is_expired() {
    let fixture = Fixture::new(None);
    let mut claims = good_claims();
    claims["exp"] = json!(1);
    assert_eq!(
        fixture.verify(json!({"cty": "SCOPE"}), &claims),
        Err(TokenError::Expired)
    );
}

#[test]
fn other_signers_and_algorithms_are_refused() {
    let fixture = Fixture::new(None);
    let foreign = Fixture::new(None).sign(json!({}), &good_claims());
    assert_eq!(
        fixture.key.verify(at(NOW), &foreign),
        Err(TokenError::BadSignature)
    );
    let pem = fixture.dir.read_secret_text(KEY_FILE).unwrap().unwrap();
    let public = KeyPair::from_pem(&pem).unwrap().public_key_pem();
    let mut header = Header::new(Algorithm::HS256);
    header.cty = Some(ENROLLMENT.to_owned());
    let secret = EncodingKey::from_secret(public.as_bytes());
    let hmac = jsonwebtoken::encode(&header, &good_claims(), &secret).unwrap();
    assert_eq!(
        fixture.key.verify(at(NOW), &hmac),
        Err(TokenError::Algorithm)
    );
    for alg in ["none", "None", "RS256", "ES384", "EdDSA"] {
        let header = json!({"alg": alg, "cty": ENROLLMENT});
        let text = format!("{}.{}.", encode(&header), encode(&good_claims()));
        assert_eq!(
            fixture.key.verify(at(NOW), &text).unwrap_err().status(),
            401
        );
    }
}

#[test]
fn kid_and_crit_are_refused() {
    let fixture = Fixture::new(None);
    let claims = good_claims();
    assert_eq!(
        fixture.verify(json!({"kid": "1"}), &claims),
        Err(TokenError::KeyId)
    );
    assert_eq!(
        fixture.verify(json!({"crit": ["x"]}), &claims),
        Err(TokenError::Malformed)
    );
}

#[test]
fn token_for_another_gateway_is_refused() {
    let fixture = Fixture::new(Some(GATEWAY));
    let mut claims = good_claims();
    fixture.verify(json!({}), &claims).unwrap();
    claims["jet_gw_id"] = json!(Uuid::nil());
    assert_eq!(
        fixture.verify(json!({}), &claims),
        Err(TokenError::OtherGateway)
    );
    Fixture::new(None).verify(json!({}), &claims).unwrap();
}

#[test]
fn noise_is_malformed() {
    let fixture = Fixture::new(None);
    let mut good = fixture.sign(json!({}), &good_claims());
    for noise in ["", ".", "..", "a.b.c", "a.b.c.d", &"x".repeat(9000)] {
        assert_eq!(
            fixture.key.verify(at(NOW), noise),
            Err(TokenError::Malformed)
        );
    }
    good.truncate(good.len() - 3);
    assert_eq!(
        fixture.key.verify(at(NOW), &good).unwrap_err().status(),
        401
    );
}

#[test]
fn token_that_could_not_enrol_is_not_made() {
    let fixture = Fixture::new(None);
    let mut token = new_token();
    token.agent_name = "é".to_owned();
    assert_eq!(
        fixture.key.issue(at(NOW), &token).unwrap_err(),
        IssueError::BadAgentName
    );
    token = new_token();
    token.gateway_url = "gw.example".to_owned();
    assert_eq!(
        fixture.key.issue(at(NOW), &token).unwrap_err(),
        IssueError::BadUrl
    );
}

const NOW: u64 = 1_790_000_000;
const GATEWAY: Uuid = Uuid::from_u128(5);

struct Fixture {
    _root: tempfile::TempDir,
    dir: StateDir,
    key: TokenKey,
}

impl Fixture {
    fn new(gateway_id: Option<Uuid>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        let key = TokenKey::open(&dir, gateway_id).unwrap();
        Self {
            _root: root,
            dir,
            key,
        }
    }

    /// Signs with the fixture's key; entries of `header` stand over the usual ones, null removes one.
    fn sign(&self, header: Value, claims: &Value) -> String {
        let mut full = json!({"alg": "ES256", "typ": "JWT", "cty": ENROLLMENT});
        for (name, value) in header.as_object().unwrap() {
            full[name] = value.clone();
        }
        full.as_object_mut().unwrap().retain(|_, v| !v.is_null());
        let text = format!("{}.{}", encode(&full), encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(text.as_bytes(), &self.key.encoding, Algorithm::ES256)
                .unwrap();
        format!("{text}.{signature}")
    }

    fn verify(&self, header: Value, claims: &Value) -> Result<EnrolmentClaims, TokenError> {
        self.key.verify(at(NOW), &self.sign(header, claims))
    }
}

fn new_token() -> NewToken {
    NewToken {
        gateway_url: "https://gw.example:8443".to_owned(),
        agent_name: "site a".to_owned(),
        lifetime: DEFAULT_LIFETIME,
        https_spki_sha256: Some([0xab; 32]),
    }
}

fn good_claims() -> Value {
    json!({
        "exp": NOW + 3600, "nbf": NOW, "jti": Uuid::from_u128(1),
        "jet_gw_url": "https://gw", "jet_agent_name": "a",
    })
}

fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn part(text: &str, index: usize) -> Value {
    let part = text.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
