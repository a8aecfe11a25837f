//! The administration socket, over a temporary directory.
#![allow(
    clippy::unwrap_used,
    reason = "a failed test may panic, in its helpers too"
)]

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    sync::{Arc, Mutex},
};

use adit::admin::{
    AdminListener, AdminServer, AgentBackend, AgentOrder, AgentStatus, Answer, BindError,
    ClientError, ErrorKind, LINE_LEN_MAX, Request, Response, call,
};

/// An agent's socket, with as many sessions as are given and an order that it cannot take.
fn agent(path: &Path, sessions: usize) -> AdminServer {
    let take = |order: AgentOrder| match order {
        AgentOrder::Reload(reply) => reply.send(Err("line 3".to_owned())).is_ok(),
        AgentOrder::Renew(reply) => reply.send(true).is_ok(),
    };
    serving(path, sessions, take)
}

fn serving(
    path: &Path,
    sessions: usize,
    take: impl Fn(AgentOrder) -> bool + Send + Sync + 'static,
) -> AdminServer {
    let status = move || AgentStatus {
        sessions,
        ..AgentStatus::default()
    };
    let backend = AgentBackend {
        status: Box::new(status),
        order: Box::new(take),
    };
    AdminListener::bind(path).unwrap().answer(backend).unwrap()
}

fn raw(path: &Path, bytes: &[u8]) -> Option<Response> {
    let mut stream = UnixStream::connect(path).unwrap();
    // The other side may refuse before it has read everything.
    let _sent = stream.write_all(bytes);
    let _ended = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer);
    serde_json::from_slice(&answer).ok()
}

#[test]
fn questions_have_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/agent.sock");
    let _server = agent(&path, 3);
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let answer = call(&path, &Request::Status {}).unwrap();
    assert!(matches!(answer, Answer::Agent(s) if s.sessions == 3 && !s.connected));
    assert!(matches!(
        call(&path, &Request::Version {}),
        Ok(Answer::Version(_))
    ));
    let refused = call(&path, &Request::AgentsList {}).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(e) if e.kind == ErrorKind::BadRequest));
    let renewed = call(&path, &Request::AgentRenew {});
    assert!(matches!(renewed, Ok(Answer::Done {})));
    let failed = call(&path, &Request::Reload {}).unwrap_err();
    assert!(
        matches!(failed, ClientError::Refused(e) if e.kind == ErrorKind::Failed && e.message == "line 3")
    );
}

#[test]
fn garbage_is_refused_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let _server = agent(&path, 0);
    let long = vec![b'['; LINE_LEN_MAX + 1];
    for bytes in [
        &b"\n"[..],
        b"",
        b"{\"op\":\"status\"}",
        b"{\"op\":\"format_disk\"}\n",
        b"{\"op\":\"status\",\"x\":1}\n",
        b"\xff\xfe\n",
    ] {
        let answer = raw(&path, bytes);
        assert!(
            matches!(answer, Some(Response::Error(e)) if e.kind == ErrorKind::BadRequest),
            "{bytes:?}"
        );
    }
    // The answer to too long a line may be lost with the rest of the line.
    assert!(!matches!(raw(&path, &long), Some(Response::Ok(_))));
    assert!(call(&path, &Request::Status {}).is_ok());
}

#[test]
fn a_live_socket_is_left_alone_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    assert!(matches!(
        call(&path, &Request::Status {}),
        Err(ClientError::NotRunning(_))
    ));

    let first = AdminListener::bind(&path).unwrap();
    assert!(matches!(
        AdminListener::bind(&path),
        Err(BindError::AlreadyRunning(_))
    ));
    drop(first);
    assert!(!path.exists());

    // What a process leaves that was killed: the file, and nobody behind it.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(
        call(&path, &Request::Status {}),
        Err(ClientError::NotRunning(_))
    ));
    drop(AdminListener::bind(&path).unwrap());

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        AdminListener::bind(&path),
        Err(BindError::NotASocket(_))
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn slow_callers_hold_up_nobody_and_the_end_waits_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let server = agent(&path, 0);
    let slow: Vec<_> = (0..31)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    assert!(call(&path, &Request::Status {}).is_ok());
    // As many as are answered at a time; the socket ends all the same.
    let last = UnixStream::connect(&path).unwrap();
    drop(server);
    assert!(!path.exists());
    drop((slow, last));
}

#[test]
fn an_order_that_finds_no_room_and_one_that_is_dropped_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let refusal = |path: &Path| match call(path, &Request::Reload {}) {
        Err(ClientError::Refused(error)) => error.kind,
        other => panic!("{other:?}"),
    };
    let kept = Arc::new(Mutex::new(None));
    let full = serving(&path, 0, move |order| {
        *kept.lock().unwrap() = Some(order);
        false
    });
    assert_eq!(refusal(&path), ErrorKind::Failed);
    drop(full);
    let _stopping = serving(&path, 0, |order| {
        drop(order);
        true
    });
    assert_eq!(refusal(&path), ErrorKind::Stopping);
}

#[test]
fn questions_are_one_flat_object() {
    let question = Request::RouteExplain {
        target: "10.0.0.5:22".to_owned(),
        agent: None,
    };
    let line = serde_json::to_string(&question).unwrap();
    assert_eq!(
        line,
        r#"{"op":"route_explain","target":"10.0.0.5:22","agent":null}"#
    );
}
