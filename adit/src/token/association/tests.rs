use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;
use crate::token::verify::bed::{Fixture, GATEWAY, Kind, NOW, at};

fn check(changes: Value) -> Result<Association, TokenError> {
    let mut claims = json!({
        "exp": NOW + 60, "nbf": NOW, "jti": Uuid::from_u128(1), "jet_aid": Uuid::from_u128(2),
        "jet_ap": "ssh", "jet_cm": "fwd", "dst_hst": "db.corp.local:5432",
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, v| !v.is_null());
    let fixture = Fixture::of(Some(GATEWAY), Some(Kind::Ed));
    let header = json!({"cty": "ASSOCIATION"});
    let text = fixture.console(Algorithm::EdDSA, header, &claims);
    fixture.tokens.association(at(NOW), &text)
}

#[test]
fn a_good_token_says_where_to() {
    let plain = check(json!({})).unwrap();
    assert_eq!(
        plain,
        Association {
            jti: Uuid::from_u128(1),
            expires_at: NOW + 60,
            id: Uuid::from_u128(2),
            targets: vec!["db.corp.local:5432".parse().unwrap()],
            agent: None,
            lifetime: None,
            target_cert: None,
            reuse: Reuse::Never,
        }
    );
    let full = check(json!({
        "dst_alt": ["tcp://10.0.0.5:1", "[2001:db8::1]:2", "host"], "jet_agent_id": Uuid::from_u128(3),
        "jet_ttl": 2, "jet_rec": "none", "jet_flt": false, "jet_gw_id": GATEWAY,
        "cert_thumb256": "AB:".repeat(31) + "ab",
    }))
    .unwrap();
    let shown: Vec<_> = full.targets.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "db.corp.local:5432",
            "10.0.0.5:1",
            "[2001:db8::1]:2",
            "host:22"
        ]
    );
    assert_eq!(full.agent, Some(AgentId(Uuid::from_u128(3))));
    assert_eq!(full.lifetime, Some(Duration::from_secs(120)));
    assert_eq!(full.target_cert, Some([0xab; 32]));
    assert_eq!(check(json!({"jet_ttl": 0})).unwrap().lifetime, None);
}

#[test]
fn targets_take_the_port_of_their_protocol() {
    for (protocol, text, shown) in [
        ("ssh", "a", "a:22"),
        ("rdp", "tcp://a", "a:3389"),
        ("vnc", "10.0.0.5", "10.0.0.5:5900"),
        ("https", "2001:db8::1", "[2001:db8::1]:443"),
        ("https", "[2001:db8::1]", "[2001:db8::1]:443"),
        ("unknown", "A.b:1", "a.b:1"),
    ] {
        assert_eq!(target(text, protocol).unwrap().to_string(), shown);
    }
    for text in [
        "a",
        "",
        ":1",
        "a:0",
        "udp://a:1",
        "a b:1",
        "a:1/",
        "[::1",
        "tcp://",
    ] {
        assert!(target(text, "unknown").is_err(), "{text}");
    }
}

#[test]
fn only_rdp_comes_back_with_the_same_token() {
    for (protocol, window, reuse) in [
        ("ssh", json!(60), Reuse::Never),
        ("ssh", json!(null), Reuse::Never),
        ("rdp", json!(null), Reuse::WhileGood),
        ("rdp", json!(0), Reuse::Never),
        ("rdp", json!(60), Reuse::For(Duration::from_secs(60))),
    ] {
        let changes = json!({"jet_ap": protocol, "jet_reuse": window});
        assert_eq!(check(changes).unwrap().reuse, reuse);
    }
}

#[test]
fn what_is_missing_or_cannot_be_done_is_refused() {
    for name in ["jet_aid", "jet_ap", "jet_cm", "dst_hst"] {
        for value in [json!(null), json!(7), json!([])] {
            let refused = check(json!({name: value}));
            assert_eq!(refused, Err(TokenError::MissingClaim(name)));
        }
    }
    let many = vec!["a:1"; TARGETS_MAX];
    for (name, value) in [
        ("dst_hst", json!("udp://a:1")),
        ("dst_alt", json!("a:1")),
        ("dst_alt", json!(["a:1", "a:0"])),
        ("dst_alt", json!([7])),
        ("dst_alt", json!(many)),
        ("jet_aid", json!("x")),
        ("jet_agent_id", json!("x")),
        ("jet_agent_id", json!(7)),
        ("jet_ttl", json!(-1)),
        ("jet_ttl", json!("5")),
        ("jet_reuse", json!(0.5)),
        ("cert_thumb256", json!("ab")),
        ("cert_thumb256", json!("zz".repeat(32))),
        ("cert_thumb256", json!("ab".repeat(33))),
        ("cert_thumb256", json!("a".repeat(63))),
    ] {
        let refused = check(json!({name: value}));
        assert_eq!(refused, Err(TokenError::MissingClaim(name)), "{value}");
    }
    for changes in [
        json!({"jet_cm": "rdv"}),
        json!({"jet_rec": "stream"}),
        json!({"jet_rec": true}),
        json!({"jet_flt": true}),
    ] {
        let refused = check(changes).unwrap_err();
        assert!(matches!(refused, TokenError::Unsupported(_)), "{refused}");
        assert_eq!(refused.status(), 403);
    }
    assert!(check(json!({"jet_ttl": u64::MAX, "jet_ap": "rdp", "jet_reuse": u64::MAX})).is_ok());
    let other = check(json!({"jet_gw_id": Uuid::nil()}));
    assert_eq!(other, Err(TokenError::OtherGateway));
}

#[test]
fn a_token_for_another_purpose_opens_nothing() {
    let fixture = Fixture::of(None, Some(Kind::Ed));
    let claims = json!({"exp": NOW, "nbf": NOW, "jti": Uuid::nil()});
    for (cty, error) in [
        ("SCOPE", TokenError::WrongType(ASSOCIATION)),
        ("ENROLLMENT", TokenError::WrongType(ASSOCIATION)),
        ("JMUX", TokenError::WrongType(ASSOCIATION)),
        ("x", TokenError::UnknownType),
    ] {
        let text = fixture.console(Algorithm::EdDSA, json!({"cty": cty}), &claims);
        assert_eq!(fixture.tokens.association(at(NOW), &text), Err(error));
    }
}
