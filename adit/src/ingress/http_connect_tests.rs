use std::sync::Arc;

use adit_proto_core::gateway::OpenError;
use tokio::{net::TcpListener, sync::oneshot};

use super::*;
use crate::ingress::Door;

const REQUEST: &str = "CONNECT db.corp.local:5432 HTTP/1.1\r\nHost: db.corp.local:5432\r\n\r\n";

fn users() -> Users {
    Users::parse("alice:open:sesame\n").unwrap()
}

/// A request with credentials, `alice:open:sesame` unless told otherwise.
fn with_credentials(field: &str) -> String {
    format!("CONNECT h:1 HTTP/1.1\r\nProxy-Authorization: {field}\r\n\r\n")
}

fn status(head: Head) -> u16 {
    match head {
        Head::Refused(refusal) => refusal.status,
        Head::Connect { .. } => 200,
        Head::Partial => 0,
    }
}

#[test]
fn a_head_is_partial_until_its_last_byte() {
    for end in 1..REQUEST.len() {
        assert_eq!(
            read_head(&REQUEST.as_bytes()[..end], None),
            Head::Partial,
            "{end}"
        );
    }
    let head = read_head(format!("{REQUEST}early").as_bytes(), None);
    let target = "db.corp.local:5432".parse().unwrap();
    assert_eq!(
        head,
        Head::Connect {
            target,
            len: REQUEST.len(),
            account: None,
        }
    );
}

#[test]
fn bad_heads_have_their_status() {
    let many = "X: y\r\n".repeat(65);
    let long = format!("CONNECT h:1 HTTP/1.1\r\nX: {}", "y".repeat(HEAD_LEN_MAX));
    for (head, wanted) in [
        ("GET / HTTP/1.1\r\n\r\n", 405),
        ("CONNECT h HTTP/1.1\r\n\r\n", 400),
        ("CONNECT h:0 HTTP/1.1\r\n\r\n", 400),
        ("CONNECT http://h:1/ HTTP/1.1\r\n\r\n", 400),
        ("\u{5}\u{1}\u{0}", 400),
        ("CONNECT h:1 HTTP/2\r\n\r\n", 400),
        (&format!("CONNECT h:1 HTTP/1.1\r\n{many}\r\n"), 400),
        (&long, 400),
        ("CONNECT [2001:db8::1]:22 HTTP/1.0\r\n\r\n", 200),
    ] {
        assert_eq!(
            status(read_head(head.as_bytes(), None)),
            wanted,
            "{head:.40}"
        );
    }
}

#[test]
fn credentials_are_demanded_where_users_are_known() {
    let users = users();
    let check = |head: &str| status(read_head(head.as_bytes(), Some(&users)));
    let good = STANDARD.encode("alice:open:sesame");
    let wrong = STANDARD.encode("alice:open");
    for (field, wanted) in [
        (format!("Basic {good}"), 200),
        (format!("bAsIc   {good}"), 200),
        (format!("Basic {wrong}"), 407),
        (format!("Bearer {good}"), 407),
        ("Basic ???".to_owned(), 407),
        ("Basic".to_owned(), 407),
        (format!("Basic {}", STANDARD.encode("alice")), 407),
    ] {
        assert_eq!(check(&with_credentials(&field)), wanted, "{field}");
    }
    assert_eq!(check(REQUEST), 407);
    let twice = format!(
        "CONNECT h:1 HTTP/1.1\r\nProxy-Authorization: Basic {good}\r\nProxy-Authorization: Basic {good}\r\n\r\n"
    );
    assert_eq!(check(&twice), 407);
}

fn door() -> Door {
    Door {
        name: "web".into(),
        counters: Arc::default(),
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let user = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (user, listener.accept().await.unwrap().0)
}

/// Serves one connection with a gateway that answers as told, while a user sends bytes one by one and then reads up to
/// the success or the end.
async fn exchange(
    sent: &str,
    users: Option<&Users>,
    answer: Result<(), OpenError>,
) -> (Result<Established<()>, Ended>, String) {
    let (mut user, stream) = pair().await;
    user.set_nodelay(true).unwrap();
    let door = door();
    let visit = Visit {
        door: &door,
        user: user.local_addr().unwrap(),
    };
    let talk = async {
        for byte in sent.as_bytes() {
            user.write_all(std::slice::from_ref(byte)).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        while answer != SUCCESS && user.read_buf(&mut answer).await.unwrap() > 0 {}
        drop(user);
        String::from_utf8(answer).unwrap()
    };
    let mut target = None;
    let serve = serve(
        visit,
        stream,
        users,
        Permit::none(),
        &mut target,
        async |_| answer,
    );
    tokio::join!(serve, talk)
}

#[tokio::test]
async fn one_byte_at_a_time_opens_a_session() {
    let (result, text) = exchange(REQUEST, None, Ok(())).await;
    let established = result.unwrap();
    assert!(established.early.is_empty());
    assert_eq!(text.as_bytes(), SUCCESS);
}

#[tokio::test]
async fn bytes_behind_the_head_go_into_the_session() {
    let (mut user, stream) = pair().await;
    user.write_all(format!("{REQUEST}hello").as_bytes())
        .await
        .unwrap();
    let door = door();
    let visit = Visit {
        door: &door,
        user: user.local_addr().unwrap(),
    };
    let mut target = None;
    let open = async |request: OpenRequest| {
        assert_eq!(request.target.to_string(), "db.corp.local:5432");
        assert_eq!(&*request.ingress, "web");
        Ok(())
    };
    let established = serve(visit, stream, None, Permit::none(), &mut target, open)
        .await
        .unwrap();
    assert_eq!(&established.early[..], b"hello");
    assert!(target.is_some());
}

#[tokio::test]
async fn refusals_arrive_with_a_reason() {
    let (result, text) = exchange(REQUEST, None, Err(OpenError::NoRoute)).await;
    assert!(matches!(result, Err(Ended::Refused(OpenError::NoRoute))));
    assert!(
        text.starts_with("HTTP/1.1 403 Forbidden\r\n") && text.contains("no connected agent"),
        "{text}"
    );

    let (result, text) = exchange(REQUEST, Some(&users()), Ok(())).await;
    assert!(matches!(result, Err(Ended::Unauthorised)));
    assert!(
        text.starts_with("HTTP/1.1 407 ") && text.contains("Proxy-Authenticate: Basic"),
        "{text}"
    );

    let (result, text) = exchange("GET / HTTP/1.1\r\n\r\n", None, Ok(())).await;
    assert!(matches!(result, Err(Ended::Handshake(_))));
    assert!(text.contains("Allow: CONNECT"), "{text}");
}

#[tokio::test]
async fn a_user_who_leaves_cancels_the_open() {
    let (mut user, stream) = pair().await;
    user.write_all(REQUEST.as_bytes()).await.unwrap();
    let door = door();
    let visit = Visit {
        door: &door,
        user: user.local_addr().unwrap(),
    };
    let (opening, opened) = oneshot::channel();
    let (alive, mut cancelled) = oneshot::channel::<()>();
    let leave = async move {
        opened.await.unwrap();
        drop(user);
    };
    let mut target = None;
    let open = async move |_: OpenRequest| {
        opening.send(()).unwrap();
        std::future::pending::<()>().await;
        drop(alive);
        Ok(())
    };
    let serve = serve(visit, stream, None, Permit::none(), &mut target, open);
    let (result, ()) = tokio::join!(serve, leave);
    assert!(matches!(result, Err(Ended::UserLeft)));
    assert_eq!(
        cancelled.try_recv(),
        Err(oneshot::error::TryRecvError::Closed)
    );
}

#[tokio::test]
async fn a_forwards_user_may_end_first_and_still_listens() {
    let (mut user, stream) = pair().await;
    user.write_all(b"GET").await.unwrap();
    user.shutdown().await.unwrap();
    let door = door();
    let visit = Visit {
        door: &door,
        user: user.local_addr().unwrap(),
    };
    let wanted = crate::ingress::forward::wanted(&"h:1".parse().unwrap(), None);
    // Many turns, so that data and end are seen before the gateway answers.
    let open = async |_: OpenRequest| {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let established = visit.forward(stream, wanted, open).await.unwrap();
    assert_eq!(&established.early[..], b"GET");
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_ends_at_its_deadline() {
    let (mut user, stream) = pair().await;
    user.write_all(b"CONNECT").await.unwrap();
    let door = door();
    let visit = Visit {
        door: &door,
        user: user.local_addr().unwrap(),
    };
    let mut target = None;
    let result = serve(
        visit,
        stream,
        None,
        Permit::none(),
        &mut target,
        async |_| Ok(()),
    )
    .await;
    assert!(matches!(result, Err(Ended::HandshakeTimedOut)));
}
