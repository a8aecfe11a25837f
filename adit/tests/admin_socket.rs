//! The administration socket, over a temporary directory.
#![allow(
    clippy::unwrap_used,
    reason = "a failed test may panic, in its helpers too"
)]

use std::{os::unix::fs::PermissionsExt, path::Path};

use adit::admin::{
    AdminListener, AgentBackend, AgentOrder, AgentStatus, Answer, Backend, BindError, ClientError,
    ErrorKind, LINE_LEN_MAX, Request, Response, call,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};

fn agent(path: &Path) -> (watch::Sender<AgentStatus>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(AgentStatus::default());
    let listener = AdminListener::bind(path).unwrap();
    let (order, mut orders) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            match order {
                AgentOrder::Reload(reply) => reply.send(Err("line 3".to_owned())).unwrap(),
                AgentOrder::Renew(reply) => reply.send(true).unwrap(),
            }
        }
    });
    let backend = AgentBackend {
        status: receiver,
        order,
    };
    (
        sender,
        tokio::spawn(listener.serve(Backend::Agent(backend))),
    )
}

async fn raw(path: &Path, bytes: &[u8]) -> Option<Response> {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The other side may refuse before it has read everything.
    let _sent = stream.write_all(bytes).await;
    let _ended = stream.shutdown().await;
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer).await;
    serde_json::from_slice(&answer).ok()
}

#[tokio::test]
async fn questions_have_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/agent.sock");
    let (status, _server) = agent(&path);
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    status.send_modify(|s| s.sessions = 3);
    let answer = call(&path, &Request::Status {}).await.unwrap();
    assert!(matches!(answer, Answer::Agent(s) if s.sessions == 3 && !s.connected));
    assert!(matches!(
        call(&path, &Request::Version {}).await,
        Ok(Answer::Version(_))
    ));
    let refused = call(&path, &Request::AgentsList {}).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(e) if e.kind == ErrorKind::BadRequest));
    let renewed = call(&path, &Request::AgentRenew {}).await;
    assert!(matches!(renewed, Ok(Answer::Done {})));
    let failed = call(&path, &Request::Reload {}).await.unwrap_err();
    assert!(
        matches!(failed, ClientError::Refused(e) if e.kind == ErrorKind::Failed && e.message == "line 3")
    );
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let (_status, _server) = agent(&path);
    let long = vec![b'['; LINE_LEN_MAX + 1];
    for bytes in [
        &b"\n"[..],
        b"",
        b"{\"op\":\"status\"}",
        b"{\"op\":\"format_disk\"}\n",
        b"{\"op\":\"status\",\"x\":1}\n",
        b"\xff\xfe\n",
    ] {
        let answer = raw(&path, bytes).await;
        assert!(
            matches!(answer, Some(Response::Error(e)) if e.kind == ErrorKind::BadRequest),
            "{bytes:?}"
        );
    }
    // The answer to too long a line may be lost with the rest of the line.
    assert!(!matches!(raw(&path, &long).await, Some(Response::Ok(_))));
    assert!(call(&path, &Request::Status {}).await.is_ok());
}

#[tokio::test]
async fn a_live_socket_is_left_alone_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    assert!(matches!(
        call(&path, &Request::Status {}).await,
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
        call(&path, &Request::Status {}).await,
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
