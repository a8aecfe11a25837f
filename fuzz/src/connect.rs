//! Messages that open a session, and the texts of targets and routes (agent-tunnel 6.1 and 7).

use adit_proto_core::{
    domain::DomainPattern,
    limits::{REASON_LEN_MAX, SESSION_LEN_MAX},
    target::{Host, Target},
    wire::connect::{ConnectRequest, ConnectResponse},
};

use crate::input::Input;

/// Whatever decodes encodes canonically; whatever is read as text reads again as it is shown.
pub fn connect(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.below(5);
    let rest = input.rest();
    match (kind, str::from_utf8(rest)) {
        (0, _) => request(rest),
        (1, _) => response(rest),
        (2, Ok(text)) => target(text),
        (3, Ok(text)) => pattern(text),
        (4, Ok(text)) => refusal(text),
        (_, Ok(_) | Err(_)) => {}
    }
}

fn request(payload: &[u8]) {
    let Ok(request) = ConnectRequest::decode(payload) else {
        return;
    };
    assert!(request.target.capacity() <= payload.len());
    if let Ok(frame) = request.encode() {
        assert!(frame.len() <= payload.len() + 4);
        assert_eq!(ConnectRequest::decode(&frame[4..]), Ok(request));
    } else {
        assert!(payload.len() > SESSION_LEN_MAX);
    }
}

fn response(payload: &[u8]) {
    let Ok(response) = ConnectResponse::decode(payload) else {
        return;
    };
    if let Ok(frame) = response.encode() {
        assert!(frame.len() <= payload.len() + 4);
        assert_eq!(ConnectResponse::decode(&frame[4..]), Ok(response));
    } else {
        assert!(payload.len() > SESSION_LEN_MAX);
    }
}

fn target(text: &str) {
    let Ok(target) = text.parse::<Target>() else {
        return;
    };
    assert_ne!(target.port, 0);
    assert_eq!(target.to_string().parse().as_ref(), Ok(&target));
    let host = target.host.to_string();
    assert_eq!(host.parse().as_ref(), Ok(&target.host));
    assert_eq!(Target::new(&host, target.port).as_ref(), Ok(&target));
    match target.host {
        Host::Ip(ip) => assert_eq!(ip, ip.to_canonical()),
        Host::Name(name) => {
            assert!((1..=255).contains(&name.len()));
            assert!(!name.bytes().any(|b| b.is_ascii_uppercase() || b <= b' '));
        }
    }
}

/// The first line is a route, the second a name.
fn pattern(text: &str) {
    let (route, name) = text.split_once('\n').unwrap_or((text, "a.b"));
    let Ok(pattern) = DomainPattern::parse(route) else {
        return;
    };
    assert_eq!(DomainPattern::parse(pattern.as_str()), Ok(pattern.clone()));
    assert_eq!(pattern.to_string(), pattern.as_str());
    let lower = name.to_ascii_lowercase();
    let covered = match pattern.suffix() {
        None => {
            assert!(pattern.matches(route));
            lower == pattern.as_str()
        }
        Some(suffix) => {
            assert!(!pattern.matches(suffix) && !pattern.matches(&format!(".{suffix}")));
            assert!(pattern.matches(&format!("a.b.{suffix}")));
            lower
                .strip_suffix(suffix)
                .and_then(|head| head.strip_suffix('.'))
                .is_some_and(|below| !below.is_empty())
        }
    };
    assert_eq!(pattern.matches(name), covered);
}

fn refusal(text: &str) {
    let response = ConnectResponse::refused(text);
    let Err(reason) = &response.result else {
        panic!("a refusal accepts");
    };
    assert!(reason.len() <= REASON_LEN_MAX && text.starts_with(reason.as_str()));
    assert!(reason.len() == text.len() || reason.len() + 4 > REASON_LEN_MAX);
    let Ok(frame) = response.encode() else {
        panic!("a refusal does not encode");
    };
    assert_eq!(ConnectResponse::decode(&frame[4..]), Ok(response));
}
