//! Enrolment as any caller may try it over HTTP: statuses, tokens, and callers that leave.

use std::{
    collections::BTreeSet,
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use adit::pki::hex;
use adit_proto_core::{id::AgentId, identity::AgentIdentity};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::gateway::{Gateway, PIN, Scheme, body, rcgen_request};

#[test]
fn answer_has_the_fields_of_the_specification() {
    let gateway = Gateway::start(Scheme::Http);
    let id = Uuid::new_v4();
    let (status, body) = gateway.post(&gateway.token(), &body(id));
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let fields: BTreeSet<_> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "agent_id",
        "client_cert_pem",
        "gateway_ca_cert_pem",
        "quic_endpoint",
        "server_spki_sha256",
        "adit",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    assert_eq!(body["agent_id"], id.to_string());
    assert_eq!(body["server_spki_sha256"], hex(&PIN));
    assert_eq!(body["adit"], json!({"renewal": 1}));
}

#[test]
fn each_refusal_has_its_status_and_spends_no_token() {
    let gateway = Gateway::start(Scheme::Http);
    let token = gateway.token();
    let good = body(Uuid::new_v4()).to_string();
    let connected = Uuid::new_v4();
    gateway.connected.lock().unwrap().insert(AgentId(connected));

    let with = |field: &str, value: Value| {
        let mut body = body(Uuid::new_v4());
        body[field] = value;
        body.to_string()
    };
    let mut broken = rcgen_request();
    broken.insert_str(60, "AAAA");
    let json = "application/json";
    let cases = [
        (400, json, "{".to_owned()),
        (400, json, with("csr_pem", json!(broken))),
        (400, json, with("csr_pem", json!("noise"))),
        (400, json, with("agent_hostname", json!("no host"))),
        (409, json, body(connected).to_string()),
        (413, json, with("csr_pem", json!("x".repeat(70_000)))),
        (415, "text/plain", good.clone()),
        (422, json, "{}".to_owned()),
        (422, json, with("agent_id", json!("no uuid"))),
    ];
    for (expected, kind, body) in cases {
        let (status, text) = gateway.send("/jet/tunnel/enroll", Some(&token), kind, &body);
        assert_eq!(status, expected, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], expected);
        assert!(answer["title"].is_string() && answer["detail"].is_string());
        let kind = answer["type"].as_str().unwrap();
        assert!(kind.starts_with("urn:adit:problem:"), "{kind}");
    }
    let (status, _) = gateway.send("/jet/elsewhere", Some(&token), json, &good);
    assert_eq!(status, 404);
    let (status, text) = gateway.send("/jet/tunnel/enroll", Some(&token), json, &good);
    assert_eq!(status, 200, "{text}");
    // Nobody but the agent that used it.
    let other = body(Uuid::new_v4()).to_string();
    let (status, _) = gateway.send("/jet/tunnel/enroll", Some(&token), json, &other);
    assert_eq!(status, 401);
    let (status, _) = gateway.send("/jet/tunnel/enroll", Some(&token), json, "{");
    assert_eq!(
        status, 401,
        "a used token is refused before the body is looked at"
    );
}

#[test]
fn bad_tokens_have_their_status() {
    let gateway = Gateway::start(Scheme::Http);
    let good = gateway.claims();
    let signed = |header: Value, change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        gateway.sign(header, &claims)
    };
    let foreign = Gateway::start(Scheme::Http);
    let mut hs256 = Header::new(Algorithm::HS256);
    hs256.cty = Some("ENROLLMENT".to_owned());
    let public = gateway.token_key().public_key_pem();
    let hmac = jsonwebtoken::encode(&hs256, &good, &EncodingKey::from_secret(public.as_bytes()));
    let none = {
        let own = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
        let (_, rest) = signed(json!({}), &|_| {}).split_once('.').map(own).unwrap();
        let (claims, _) = rest.split_once('.').map(own).unwrap();
        // {"alg":"none","cty":"ENROLLMENT"}
        format!("eyJhbGciOiJub25lIiwiY3R5IjoiRU5ST0xMTUVOVCJ9.{claims}.")
    };
    let now = UnixTime::now().as_secs();
    let cases = [
        (401, "foreign", foreign.token()),
        (401, "hmac", hmac.unwrap()),
        (401, "none", none),
        (401, "kid", signed(json!({"kid": "k"}), &|_| {})),
        (
            401,
            "expired",
            signed(json!({}), &|c| c["exp"] = json!(now - 400)),
        ),
        (
            401,
            "early",
            signed(json!({}), &|c| c["nbf"] = json!(now + 400)),
        ),
        (401, "exp", signed(json!({}), &|c| c["exp"] = Value::Null)),
        (401, "nbf", signed(json!({}), &|c| c["nbf"] = Value::Null)),
        (401, "jti", signed(json!({}), &|c| c["jti"] = Value::Null)),
        (
            401,
            "url",
            signed(json!({}), &|c| c["jet_gw_url"] = Value::Null),
        ),
        (
            401,
            "name",
            signed(json!({}), &|c| c["jet_agent_name"] = Value::Null),
        ),
        (401, "type", signed(json!({"cty": "ELSE"}), &|_| {})),
        (403, "scope", signed(json!({"cty": "SCOPE"}), &|_| {})),
        (
            400,
            "bad name",
            signed(json!({}), &|c| c["jet_agent_name"] = json!("é")),
        ),
        (
            400,
            "no name",
            signed(json!({}), &|c| c["jet_agent_name"] = json!("")),
        ),
        (401, "noise", "noise".to_owned()),
    ];
    for (expected, case, token) in cases {
        let (status, text) = gateway.post(&token, &body(Uuid::new_v4()));
        assert_eq!(status, expected, "{case}: {text}");
    }
    let (status, _) = gateway.send("/jet/tunnel/enroll", None, "application/json", "{}");
    assert_eq!(status, 401);
    assert!(gateway.store().agents().wait().unwrap().is_empty());
}

#[test]
fn token_may_come_in_the_query() {
    let gateway = Gateway::start(Scheme::Http);
    let path = format!("/jet/tunnel/enroll?token={}", gateway.token());
    let body = body(Uuid::new_v4()).to_string();
    let (status, text) = gateway.send(&path, None, "application/json", &body);
    assert_eq!(status, 200, "{text}");
}

#[test]
fn a_used_token_is_good_for_the_same_agent_until_it_has_connected() {
    let mut gateway = Gateway::start(Scheme::Http);
    let (token, body) = (gateway.token(), body(Uuid::new_v4()));
    for _ in 0..2 {
        assert_eq!(gateway.post(&token, &body).0, 200);
    }
    let record = gateway.store().agents().wait().unwrap().remove(0);
    let connected = AgentIdentity {
        id: record.id,
        name: record.name.as_str().into(),
        fingerprint: record.fingerprint,
        spki_sha256: record.spki_sha256,
    };
    gateway.store().confirm(connected).wait().unwrap();
    let record = gateway.store().agents().wait().unwrap().remove(0);
    // It has gone again, and so has the gateway that saw it.
    gateway.restart();
    let (status, text) = gateway.post(&token, &body);
    assert_eq!(status, 401, "{text}");
    assert!(text.contains("has been used"), "{text}");
    assert_eq!(gateway.store().agents().wait().unwrap(), [record]);
    assert_eq!(gateway.post(&gateway.token(), &body).0, 200);
}

#[test]
fn id_of_another_key_is_a_conflict() {
    let gateway = Gateway::start(Scheme::Http);
    let id = Uuid::new_v4();
    assert_eq!(gateway.post(&gateway.token(), &body(id)).0, 200);
    let token = gateway.token();
    assert_eq!(gateway.post(&token, &body(id)).0, 409);
    assert_eq!(gateway.post(&token, &body(Uuid::new_v4())).0, 200);
}

#[test]
fn of_parallel_uses_one_enrols() {
    let gateway = Gateway::start(Scheme::Http);
    let token = gateway.token();
    let statuses = std::thread::scope(|scope| {
        let uses: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| gateway.post(&token, &body(Uuid::new_v4())).0))
            .collect();
        uses.into_iter()
            .map(|u| u.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(
        statuses.iter().filter(|s| **s == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|s| **s == 401).count(),
        7,
        "{statuses:?}"
    );
    assert_eq!(gateway.store().agents().wait().unwrap().len(), 1);
}

#[test]
fn a_caller_that_leaves_half_way_spends_no_token() {
    let gateway = Gateway::start(Scheme::Http);
    let token = gateway.token();
    let whole = body(Uuid::new_v4()).to_string();
    let head = format!(
        "POST /jet/tunnel/enroll HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        whole.len()
    );
    for len in [0, 1, whole.len() / 2, whole.len() - 1] {
        let mut tcp = TcpStream::connect(gateway.running().addr).unwrap();
        tcp.write_all(head.as_bytes()).unwrap();
        tcp.write_all(&whole.as_bytes()[..len]).unwrap();
    }
    // The last of them may not have been noticed yet: the token is in use until then.
    let start = Instant::now();
    let status = loop {
        let (status, text) = gateway.post(&token, &body(Uuid::new_v4()));
        if status == 200 || !text.contains("in use") {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{text}");
    };
    assert_eq!(status, 200);
    assert_eq!(gateway.store().agents().wait().unwrap().len(), 1);
}

#[test]
fn used_token_stays_used_after_a_restart() {
    let mut gateway = Gateway::start(Scheme::Http);
    let token = gateway.token();
    assert_eq!(gateway.post(&token, &body(Uuid::new_v4())).0, 200);
    gateway.restart();
    assert_eq!(gateway.post(&token, &body(Uuid::new_v4())).0, 401);
    assert_eq!(gateway.post(&gateway.token(), &body(Uuid::new_v4())).0, 200);
}
