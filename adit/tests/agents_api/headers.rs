//! Where a call carries its token, and what the headers of a refusal say.

use std::time::Duration;

use serde_json::json;
use ureq::{Body, http::Response};

use super::{DELETE, Gateway, LIST, READ};

#[test]
fn a_token_may_stand_in_the_query_but_not_beside_another_scheme() {
    let gateway = Gateway::start(json!({}));
    let query = |token: &str| format!("{LIST}?x=1&token={token}");
    let token = gateway.scope(READ);
    let basic = ask(&gateway, &query(&token), Some("Basic dXNlcjpwYXNz"));
    assert_eq!(basic.status(), 401);
    let other = ask(&gateway, &query(&token), Some("Bearer noise"));
    assert_eq!(other.status(), 401, "the header counts");
    let good = ask(&gateway, &query(&token), None);
    assert_eq!(good.status(), 200);
    assert_eq!(good.headers()["content-type"], "application/json");
    assert_eq!(ask(&gateway, &query(&token), None).status(), 401, "used");
    assert_eq!(ask(&gateway, &query(""), None).status(), 401);
}

#[test]
fn a_refusal_says_in_its_headers_what_is_wrong_with_the_token() {
    let gateway = Gateway::start(json!({}));
    let bearer = |scope| format!("Bearer {}", gateway.scope(scope));
    let cases = [
        (LIST, None, 401, Some("Bearer")),
        (
            LIST,
            Some("Bearer noise".to_owned()),
            401,
            Some("Bearer error=\"invalid_token\""),
        ),
        (
            LIST,
            Some(bearer(DELETE)),
            403,
            Some("Bearer error=\"insufficient_scope\""),
        ),
        ("/jet/tunnel/agents/x", Some(bearer(READ)), 400, None),
        ("/nothing", None, 404, None),
    ];
    for (path, authorization, status, challenge) in cases {
        let refused = ask(&gateway, path, authorization.as_deref());
        assert_eq!(refused.status(), status, "{path}");
        let headers = refused.headers();
        assert_eq!(headers["content-type"], "application/problem+json");
        let told = headers.get("www-authenticate");
        assert_eq!(told.map(|told| told.to_str().unwrap()), challenge, "{path}");
    }
}

fn ask(gateway: &Gateway, path: &str, authorization: Option<&str>) -> Response<Body> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into();
    let mut request = agent.get(format!("http://{}{path}", gateway.addr));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request.call().unwrap()
}
