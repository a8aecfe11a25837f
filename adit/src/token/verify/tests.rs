use jsonwebtoken::{EncodingKey, Header};
use rcgen::KeyPair;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    bed::{Fixture, GATEWAY, JTI, Kind, NOW, at, encode, good_claims, new_token, part},
    *,
};
use crate::token::{IssueError, KEY_FILE};

#[test]
fn issued_token_is_taken_back() {
    let fixture = Fixture::new(Some(GATEWAY));
    let issued = fixture.key.issue(at(NOW), &new_token()).unwrap();
    let text = issued.text.expose_secret();
    let claims = fixture.tokens.enrolment(at(NOW), text).unwrap();
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
    let tokens = TokenVerifier::new(&again, None, None, RevocationList::default());
    tokens
        .enrolment(at(NOW), issued.text.expose_secret())
        .unwrap();
}

#[test]
fn every_signature_of_the_provisioner_is_taken() {
    for kind in Kind::ALL {
        let fixture = Fixture::of(None, Some(kind));
        for &alg in kind.algorithms() {
            let text = fixture.console(alg, json!({}), &good_claims());
            let claims = fixture.tokens.enrolment(at(NOW), &text).unwrap();
            assert_eq!(claims.agent_name, "a", "{alg:?}");
            // One changed bit of the claims.
            let (head, rest) = text.split_once('.').unwrap();
            let altered = format!("{head}.{}", rest.replacen('e', "f", 1));
            let refused = fixture.tokens.enrolment(at(NOW), &altered);
            assert_eq!(refused, Err(TokenError::BadSignature), "{alg:?}");
        }
        // The gateway's own stay good beside them.
        let own = fixture.sign(json!({}), &good_claims());
        fixture.tokens.enrolment(at(NOW), &own).unwrap();
        // Without the console's key its tokens are a stranger's.
        let alg = kind.algorithms()[0];
        let text = fixture.console(alg, json!({}), &good_claims());
        let error = Fixture::new(None).tokens.enrolment(at(NOW), &text);
        let expected = if alg == Algorithm::ES256 {
            TokenError::BadSignature
        } else {
            TokenError::Algorithm
        };
        assert_eq!(error, Err(expected), "{alg:?}");
    }
}

#[test]
fn a_signature_of_another_family_or_curve_is_refused() {
    let names = [
        "none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
        "PS384", "PS512", "ES256", "ES256K", "ES384", "ES512", "EdDSA",
    ];
    for kind in Kind::ALL {
        let fixture = Fixture::of(None, Some(kind));
        let signed = fixture.console(kind.algorithms()[0], json!({}), &good_claims());
        let signature = signed.rsplit_once('.').unwrap().1.to_owned();
        for name in names {
            let header = json!({"alg": name, "cty": ENROLLMENT});
            let body = format!("{}.{}", encode(&header), encode(&good_claims()));
            for text in [format!("{body}.{signature}"), format!("{body}.")] {
                let error = fixture.tokens.enrolment(at(NOW), &text).unwrap_err();
                let known = kind.algorithms().iter().map(|a| format!("{a:?}"));
                let expected = match known.chain(["ES256".to_owned()]).any(|n| n == name) {
                    true => TokenError::BadSignature,
                    false => TokenError::Algorithm,
                };
                assert_eq!(error, expected, "{kind:?} {name}");
                assert_eq!(error.status(), 401);
            }
        }
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    for kind in Kind::ALL {
        let fixture = Fixture::of(None, Some(kind));
        let own = fixture.dir.read_secret_text(KEY_FILE).unwrap().unwrap();
        let own = KeyPair::from_pem(&own).unwrap();
        for key in [&own, &fixture.console.as_ref().unwrap().1] {
            for secret in [
                key.public_key_pem().into_bytes(),
                key.public_key_raw().to_vec(),
            ] {
                for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                    let mut header = Header::new(alg);
                    header.cty = Some(ENROLLMENT.to_owned());
                    let secret = EncodingKey::from_secret(&secret);
                    let text = jsonwebtoken::encode(&header, &good_claims(), &secret).unwrap();
                    let refused = fixture.tokens.enrolment(at(NOW), &text);
                    assert_eq!(refused, Err(TokenError::Algorithm));
                }
            }
        }
    }
}

#[test]
fn rules_hold_for_tokens_of_the_provisioner_too() {
    let fixture = Fixture::of(Some(GATEWAY), Some(Kind::Rsa));
    let with = |header: Value, change: &dyn Fn(&mut Value)| {
        let mut claims = good_claims();
        change(&mut claims);
        let text = fixture.console(Algorithm::RS256, header, &claims);
        fixture.tokens.enrolment(at(NOW), &text).map(|_| ())
    };
    let keep = |_: &mut Value| {};
    assert_eq!(with(json!({}), &keep), Ok(()));
    assert_eq!(with(json!({"kid": "1"}), &keep), Err(TokenError::KeyId));
    let crit = json!({"crit": ["exp"]});
    assert_eq!(with(crit, &keep), Err(TokenError::Critical));
    let no_type = json!({"cty": null});
    assert_eq!(with(no_type.clone(), &keep), Err(TokenError::UnknownType));
    let claim = |c: &mut Value| c["type"] = json!("enrollment");
    assert_eq!(with(no_type, &claim), Ok(()));
    for name in ["exp", "nbf", "jti"] {
        let null = |c: &mut Value| c["jet_gw_id"] = Value::Null;
        assert_eq!(with(json!({}), &null), Ok(()));
        let absent = |c: &mut Value| c[name] = Value::Null;
        let refused = with(json!({}), &absent);
        assert_eq!(refused, Err(TokenError::MissingClaim(name)));
    }
    let late = |c: &mut Value| c["exp"] = json!(NOW - 301);
    assert_eq!(with(json!({}), &late), Err(TokenError::Expired));
    let almost = |c: &mut Value| c["exp"] = json!(NOW - 300);
    assert_eq!(with(json!({}), &almost), Ok(()));
    let early = |c: &mut Value| c["nbf"] = json!(NOW + 301);
    assert_eq!(with(json!({}), &early), Err(TokenError::NotYetValid));
    let other = |c: &mut Value| c["jet_gw_id"] = json!(Uuid::nil());
    assert_eq!(with(json!({}), &other), Err(TokenError::OtherGateway));
    let odd = |c: &mut Value| c["jet_gw_id"] = json!(5);
    assert_eq!(with(json!({}), &odd), Err(TokenError::OtherGateway));
    let absent = |c: &mut Value| drop(c.as_object_mut().unwrap().remove("jet_gw_id"));
    assert_eq!(with(json!({}), &absent), Ok(()));
}

#[test]
fn dates_have_a_leeway_of_five_minutes() {
    let fixture = Fixture::new(None);
    let text = fixture.sign(json!({}), &good_claims());
    let verify = |now| fixture.tokens.enrolment(at(now), &text).map(|_| ());
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
        for odd in [json!([]), json!(-1), json!(1.5), json!({}), json!(null)] {
            claims[name] = odd;
            assert_eq!(
                fixture.verify(json!({}), &claims),
                Err(TokenError::MissingClaim(name))
            );
        }
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
    let other = Err(TokenError::WrongType(ENROLLMENT));
    assert_eq!(with(json!("enrollment"), Value::Null), Ok(()));
    assert_eq!(with(Value::Null, json!("Enrollment")), Ok(()));
    assert_eq!(with(json!("SCOPE"), json!("enrollment")), other);
    assert_eq!(with(Value::Null, json!("association")), other);
    assert_eq!(
        with(json!("else"), Value::Null),
        Err(TokenError::UnknownType)
    );
    assert_eq!(with(Value::Null, Value::Null), Err(TokenError::UnknownType));
    assert_eq!(TokenError::WrongType(ENROLLMENT).status(), 403);
    assert_eq!(TokenError::UnknownType.status(), 401);
}

#[test]
fn a_token_of_another_type_must_be_good_to_be_told_so() {
    let fixture = Fixture::new(None);
    for (claim, value, error) in [
        ("exp", json!(1), TokenError::Expired),
        ("jti", json!("x"), TokenError::MissingClaim("jti")),
    ] {
        let mut claims = good_claims();
        claims[claim] = value;
        let refused = fixture.verify(json!({"cty": "SCOPE"}), &claims);
        assert_eq!(refused, Err(error));
    }
}

#[test]
fn kid_and_crit_are_refused() {
    let fixture = Fixture::new(None);
    let claims = good_claims();
    for kid in [json!("1"), json!(""), json!(1)] {
        let refused = fixture.verify(json!({"kid": kid}), &claims);
        assert_eq!(refused, Err(TokenError::KeyId));
    }
    for crit in [json!(["x"]), json!([]), json!("x")] {
        let refused = fixture.verify(json!({"crit": crit}), &claims);
        assert_eq!(refused, Err(TokenError::Critical));
    }
}

#[test]
fn revoked_claims_are_refused_and_the_list_can_be_exchanged() {
    let fixture = Fixture::new(None);
    let scope = json!({"exp": NOW, "nbf": NOW, "jti": JTI, "scope": "*"});
    let scope = fixture.sign(json!({"cty": "SCOPE"}), &scope);
    let both = || {
        let call = fixture.tokens.scope(at(NOW), &scope, Scope::AgentRead);
        let enrolment = fixture.verify(json!({}), &good_claims());
        (enrolment.map(|_| ()), call.map(|_| ()))
    };
    assert_eq!(both(), (Ok(()), Ok(())));
    let list = |text: Value| {
        let path = fixture.dir.file("jrl.json");
        std::fs::write(&path, text.to_string()).unwrap();
        fixture
            .tokens
            .set_revoked(RevocationList::read(&path).unwrap());
    };
    list(json!({"jet_agent_name": ["a"]}));
    assert_eq!(both(), (Err(TokenError::Revoked), Ok(())));
    list(json!({"jti": [JTI.to_string().to_uppercase()]}));
    assert_eq!(both().1, Err(TokenError::Revoked));
    assert_eq!(TokenError::Revoked.status(), 401);
    list(json!({}));
    assert_eq!(both(), (Ok(()), Ok(())));
}

#[test]
fn scopes_allow_what_they_name() {
    let fixture = Fixture::of(None, Some(Kind::Ed));
    let call = |scope: Value, needed| {
        let claims = json!({"exp": NOW, "nbf": NOW, "jti": JTI, "scope": scope});
        let text = fixture.console(Algorithm::EdDSA, json!({"cty": "scope"}), &claims);
        fixture
            .tokens
            .scope(at(NOW), &text, needed)
            .map(|c| (c.jti, c.expires_at))
    };
    let (read, delete) = ("gateway.agent.read", "gateway.agent.delete");
    let good = Ok((JTI, NOW));
    assert_eq!(call(json!(read), Scope::AgentRead), good);
    assert_eq!(call(json!("*"), Scope::AgentRead), good);
    assert_eq!(call(json!(delete), Scope::AgentDelete), good);
    assert_eq!(call(json!("*"), Scope::AgentDelete), good);
    let refused = Err(TokenError::Scope(delete));
    assert_eq!(call(json!(read), Scope::AgentDelete), refused);
    for odd in [
        "",
        "**",
        "gateway",
        "Gateway.Agent.Read",
        "a gateway.agent.read",
    ] {
        let refused = Err(TokenError::Scope(read));
        assert_eq!(call(json!(odd), Scope::AgentRead), refused, "{odd}");
    }
    let missing = Err(TokenError::MissingClaim("scope"));
    assert_eq!(call(Value::Null, Scope::AgentRead), missing);
    assert_eq!(call(json!(["*"]), Scope::AgentRead), missing);
    let enrolment = fixture.sign(json!({}), &good_claims());
    let refused = fixture.tokens.scope(at(NOW), &enrolment, Scope::AgentRead);
    assert_eq!(refused, Err(TokenError::WrongType(SCOPE)));
    assert_eq!(TokenError::Scope(read).status(), 403);
}

#[test]
fn noise_is_refused() {
    let fixture = Fixture::of(None, Some(Kind::P384));
    let refused = |text: &str| fixture.tokens.enrolment(at(NOW), text).unwrap_err();
    let huge = "x".repeat(9000);
    for noise in [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b.c.d",
        "....",
        "\u{e9}.a.b",
        &huge,
    ] {
        assert_eq!(refused(noise), TokenError::Malformed, "{noise}");
    }
    // Deep, wide and odd JSON, in a header and in claims that are signed well.
    let deep = format!("{}{}", "[".repeat(3_000), "]".repeat(3_000));
    let head = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"ES256\",\"crit\":{deep}}}"));
    assert_eq!(refused(&format!("{head}.e30.e30")), TokenError::Malformed);
    for claims in [
        "",
        "null",
        "[]",
        "{",
        "1",
        "\"x\"",
        "{\"exp\":1e999}",
        "{\"a\":\"\\ud800\"}",
        &deep,
        "{\"exp\":1,\"nbf\":1,\"jti\":\"\u{0}\"}",
    ] {
        let error = refused(&fixture.sign_text(claims));
        assert_eq!(error.status(), 401, "{claims}: {error:?}");
    }
}

#[test]
fn every_cut_and_every_changed_byte_is_refused() {
    for kind in [None, Some(Kind::P256), Some(Kind::Rsa)] {
        let fixture = Fixture::of(None, kind);
        let good = match kind {
            None => fixture.sign(json!({}), &good_claims()),
            Some(kind) => fixture.console(kind.algorithms()[0], json!({}), &good_claims()),
        };
        fixture.tokens.enrolment(at(NOW), &good).unwrap();
        for len in 0..good.len() {
            let error = fixture.tokens.enrolment(at(NOW), &good[..len]).unwrap_err();
            assert_eq!(error.status(), 401, "{len}");
        }
        for i in 0..good.len() {
            // The last digit of a part may hold bits that mean nothing; other digits all do.
            let mut bytes = good.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'Q' } else { b'A' };
            let text = String::from_utf8(bytes).unwrap();
            let error = fixture.tokens.enrolment(at(NOW), &text).unwrap_err();
            assert_eq!(error.status(), 401, "{i}");
        }
    }
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
