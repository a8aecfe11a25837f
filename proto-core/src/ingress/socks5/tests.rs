//! Conversations with clients, good and bad ones.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::target::TargetError;

#[test]
fn targets_of_every_kind_are_read() {
    for (request, target) in [
        (
            &b"\x05\x01\x00\x01\x0a\x00\x00\x05\x0d\x3d"[..],
            "10.0.0.5:3389",
        ),
        (b"\x05\x01\x00\x03\x04DB.x\x15\x38", "db.x:5432"),
        (b"\x05\x01\x00\x03\x0810.0.0.5\x00\x16", "10.0.0.5:22"),
        (
            b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x16",
            "[2001:db8::1]:22",
        ),
        (
            b"\x05\x01\xff\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x00\x00\x05\x00\x16",
            "10.0.0.5:22",
        ),
    ] {
        let run = Run::of(false, &[b"\x05\x02\x00\x02", request, b"early"].concat());
        assert_eq!(run.target.as_deref(), Some(target));
        assert_eq!(run.sent, b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0");
        assert_eq!(run.left, b"early");
    }
}

#[test]
fn credentials_are_asked_for_and_judged() {
    let good = Run::of(true, &[CREDENTIALS_HEAD, b"\x04pass", CONNECT].concat());
    assert_eq!(good.login, Some(("user".into(), b"pass".to_vec())));
    assert_eq!(good.sent, b"\x05\x02\x01\x00\x05\x00\x00\x01\0\0\0\0\0\0");
    assert_eq!(good.error, None);

    let bad = Run::of(true, &[CREDENTIALS_HEAD, b"\x04nope", CONNECT].concat());
    assert_eq!(bad.sent, b"\x05\x02\x01\x01");
    assert_eq!(bad.error, Some(Socks5Error::CredentialsRefused));
    assert_eq!((bad.target, bad.left.as_slice()), (None, CONNECT));
}

#[test]
fn other_protocols_get_no_answer() {
    for (client, error) in [
        (&b"GET / HTTP/1.1"[..], Socks5Error::LooksLikeHttp),
        (b"CONNECT a:1", Socks5Error::LooksLikeHttp),
        (b"\x16\x03\x01", Socks5Error::LooksLikeTls),
        (b"\x04\x01", Socks5Error::LooksLikeSocks4),
        (b"\0", Socks5Error::NotSocks(0)),
    ] {
        let run = Run::of(false, client);
        assert_eq!((run.error, run.sent), (Some(error), vec![]));
    }
}

#[test]
fn greeting_without_the_right_method_is_refused() {
    for (required, client, error) in [
        (false, &b"\x05\x01\x02"[..], Socks5Error::NoMethod),
        (false, b"\x05\x00", Socks5Error::NoMethod),
        (true, b"\x05\x01\x00", Socks5Error::CredentialsNotOffered),
        (true, b"\x05\x00", Socks5Error::CredentialsNotOffered),
    ] {
        let run = Run::of(required, client);
        assert_eq!((run.error, run.sent), (Some(error), vec![5, 0xff]));
    }
}

#[test]
fn bad_credentials_are_refused() {
    for (credentials, error) in [
        (&b"\x05"[..], Socks5Error::CredentialsVersion(5)),
        (b"\x01\x01\xff\x00", Socks5Error::UserNotText),
        (b"\x01\x00\x00", Socks5Error::CredentialsRefused),
    ] {
        let run = Run::of(true, &[b"\x05\x01\x02", credentials].concat());
        assert_eq!((run.error, run.sent), (Some(error), vec![5, 2, 1, 1]));
    }
}

#[test]
fn bad_requests_get_the_code_that_fits() {
    let target = Socks5Error::Target;
    for (request, code, error) in [
        (&b"\x04"[..], 1, Socks5Error::RequestVersion(4)),
        (
            b"\x05\x02\0\x01\x0a\0\0\x05\0\x16",
            7,
            Socks5Error::Command(2),
        ),
        (b"\x05\x03\0\x03\x01a\0\x16", 7, Socks5Error::Command(3)),
        (b"\x05\x03\0\x02", 7, Socks5Error::Command(3)),
        (b"\x05\x01\0\x02", 8, Socks5Error::AddressType(2)),
        (
            b"\x05\x01\0\x01\x0a\0\0\x05\0\0",
            1,
            target(TargetError::BadPort),
        ),
        (b"\x05\x01\0\x03\x01a\0\0", 1, target(TargetError::BadPort)),
        (b"\x05\x01\0\x03\0\0\x16", 1, target(TargetError::BadHost)),
        (
            b"\x05\x01\0\x03\x01\xff\0\x16",
            1,
            target(TargetError::BadHost),
        ),
    ] {
        let run = Run::of(false, &[b"\x05\x01\x00", request].concat());
        let sent = vec![5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!((run.error, run.sent), (Some(error), sent));
    }
}

#[test]
fn unsupported_command_is_answered_after_its_whole_request() {
    let mut s = Socks5::new(false);
    let client = b"\x05\x01\x00\x05\x02\x00\x01\x0a\0\0\x05\0\x16";
    assert_eq!(s.handle_bytes(&client[..12]), 12);
    assert_eq!(
        s.poll_output(),
        Some(Step::Send(Bytes::from_static(b"\x05\x00")))
    );
    assert_eq!(s.poll_output(), None);
    assert_eq!(s.handle_bytes(&client[12..]), 1);
    assert!(matches!(s.poll_output(), Some(Step::Send(_))));
    assert_eq!(s.poll_output(), Some(Step::Fail(Socks5Error::Command(2))));
}

#[test]
fn replies_carry_their_code() {
    for (reply, code) in [
        (Reply::Succeeded, 0),
        (Reply::GeneralFailure, 1),
        (Reply::NotAllowed, 2),
        (Reply::NetworkUnreachable, 3),
        (Reply::HostUnreachable, 4),
        (Reply::ConnectionRefused, 5),
        (Reply::TtlExpired, 6),
        (Reply::CommandNotSupported, 7),
        (Reply::AddressTypeNotSupported, 8),
    ] {
        assert_eq!(reply.encode(), [5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn answers_to_no_question_do_nothing() {
    let mut s = Socks5::new(true);
    s.authenticated(true);
    s.reply(Reply::Succeeded);
    assert_eq!(s.poll_output(), None);
    assert_eq!(s.handle_bytes(CREDENTIALS_HEAD), CREDENTIALS_HEAD.len());
    assert!(matches!(s.poll_output(), Some(Step::Send(_))));
    s.authenticated(true);
    s.reply(Reply::Succeeded);
    assert_eq!(s.poll_output(), None);
}

#[test]
fn password_is_never_shown() {
    let mut s = Socks5::new(true);
    let client = [CREDENTIALS_HEAD, b"\x04pass"].concat();
    for byte in client {
        s.handle_bytes(&[byte]);
        let shown = format!("{s:?}");
        assert!(
            !shown.contains("pass\"") && !shown.contains("112"),
            "{shown}"
        );
    }
    s.poll_output();
    let shown = format!("{:?}", s.poll_output());
    assert!(shown.contains("Password(hidden)"), "{shown}");
}

#[test]
fn longest_credentials_fit_without_growing() {
    let mut s = Socks5::new(true);
    let capacity = s.message.0.capacity();
    s.handle_bytes(b"\x05\x01\x02\x01\xff");
    let field = [b'x'; 255];
    s.handle_bytes(&[&field[..], b"\xff", &field[..254]].concat());
    assert_eq!(s.message.0.len(), MESSAGE_LEN_MAX - 1);
    s.handle_bytes(b"x");
    assert_eq!(
        (s.state, s.message.0.capacity()),
        (State::Verifying, capacity)
    );
}

proptest! {
    #[test]
    fn any_split_gives_the_same_handshake(
        required: bool,
        client in client(),
        sizes in vec(1_usize..9, 1..20),
    ) {
        let whole = Run::of(required, &client);
        prop_assert_eq!(&Run::split(required, &client, &sizes), &whole);
        prop_assert_eq!(&Run::split(required, &client, &[1]), &whole);
    }

    #[test]
    fn a_good_client_gets_its_session_and_keeps_what_follows(
        login in prop::option::of(("\\PC{0,60}", vec(any::<u8>(), 0..=255))),
        methods in vec(any::<u8>(), 0..255),
        (target, address) in address(),
        behind in vec(any::<u8>(), 0..20),
        sizes in vec(1_usize..200, 1..20),
    ) {
        let (required, right) = (login.is_some(), if login.is_some() { 2 } else { 0 });
        let (user, password) = login.clone().unwrap_or_default();
        let mut client = [&[5, u8::try_from(methods.len() + 1).unwrap()], &methods[..], &[right]].concat();
        if required {
            client.extend([&[1, u8::try_from(user.len()).unwrap()], user.as_bytes()].concat());
            client.extend([&[u8::try_from(password.len()).unwrap()], &password[..]].concat());
        }
        client.extend([&[5, 1, 0], &address[..]].concat());
        for cut in 0..client.len() {
            let run = Run::judged(required, &client[..cut], &[usize::MAX], &password);
            prop_assert_eq!((run.target, run.error, run.left), (None, None, vec![]), "{}", cut);
        }
        client.extend(&behind);
        let run = Run::judged(required, &client, &sizes, &password);
        prop_assert_eq!((run.target, run.error, run.left), (Some(target), None, behind));
        prop_assert_eq!(run.login, login);
    }

    #[test]
    fn any_client_is_answered_once_and_nothing_is_taken_behind_the_end(
        required: bool,
        client in prop_oneof![client(), vec(any::<u8>(), 0..40)],
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut client = client;
        if !client.is_empty() {
            let at = at.index(client.len());
            client[at] = byte;
        }
        let run = Run::of(required, &client);
        prop_assert!(run.target.is_none() || run.error.is_none());
        if run.target.is_some() || run.error.is_some() {
            let taken = client.len() - run.left.len();
            let before = Run::of(required, &client[..taken - 1]);
            prop_assert!(before.target.is_none() && before.error.is_none());
            let end = Run::of(required, &client[..taken]);
            prop_assert_eq!((end.target, end.error, end.sent), (run.target, run.error, run.sent));
        } else {
            prop_assert!(run.left.is_empty());
        }
    }
}

/// A target as it is shown, and address and port of its request.
fn address() -> impl Strategy<Value = (String, Vec<u8>)> {
    let host = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| (
            std::net::IpAddr::from(ip).to_string(),
            [&[1], &ip[..]].concat()
        )),
        any::<[u8; 16]>().prop_map(|ip| {
            let shown = std::net::IpAddr::from(ip).to_canonical();
            let shown = if shown.is_ipv6() {
                format!("[{shown}]")
            } else {
                shown.to_string()
            };
            (shown, [&[4], &ip[..]].concat())
        }),
        "[a-z][a-z0-9-]{0,60}(\\.[a-z]{1,60}){0,3}".prop_map(|name| {
            let head = [3, u8::try_from(name.len()).unwrap()];
            (name.clone(), [&head, name.as_bytes()].concat())
        }),
    ];
    (host, 1..=u16::MAX).prop_map(|((host, address), port)| {
        (
            format!("{host}:{port}"),
            [&address[..], &port.to_be_bytes()].concat(),
        )
    })
}

const CREDENTIALS_HEAD: &[u8] = b"\x05\x02\x00\x02\x01\x04user";
const CONNECT: &[u8] = b"\x05\x01\x00\x03\x04db.x\x15\x38";

/// Clients that come close to the protocol: good pieces in any order, with stray bytes between.
fn client() -> impl Strategy<Value = Vec<u8>> {
    let piece = select(vec![
        &b"\x05\x01\x00"[..],
        b"\x05\x02\x00\x02",
        b"\x01\x04user\x04pass",
        b"\x01\x00\x00",
        CONNECT,
        b"\x05\x01\x00\x01\x0a\x00\x00\x05\x0d\x3d",
        b"\x05\x03\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x16",
        b"GET /",
    ]);
    let stray = vec(0_u8..6, 1..4);
    vec(
        prop_oneof![8 => piece.prop_map(<[u8]>::to_vec), 1 => stray],
        0..5,
    )
    .prop_map(|pieces| pieces.concat())
}

/// What came of a whole handshake in which "pass" is the password and every target is reached.
#[derive(Debug, Default, PartialEq)]
struct Run {
    sent: Vec<u8>,
    login: Option<(String, Vec<u8>)>,
    target: Option<String>,
    error: Option<Socks5Error>,
    left: Vec<u8>,
}

impl Run {
    fn of(required: bool, client: &[u8]) -> Self {
        Self::split(required, client, &[usize::MAX])
    }

    fn split(required: bool, client: &[u8], sizes: &[usize]) -> Self {
        Self::judged(required, client, sizes, b"pass")
    }

    fn judged(required: bool, client: &[u8], sizes: &[usize], password: &[u8]) -> Self {
        let mut socks = Socks5::new(required);
        let mut run = Self::default();
        let mut rest = client;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at((*size).min(rest.len()));
            rest = later;
            run.left.extend_from_slice(piece);
            // An answer may set free what was not taken before it.
            while {
                let used = socks.handle_bytes(&run.left);
                run.left.drain(..used);
                run.answer(&mut socks, password)
            } {}
        }
        run
    }

    fn answer(&mut self, socks: &mut Socks5, good: &[u8]) -> bool {
        let mut answered = false;
        while let Some(step) = socks.poll_output() {
            match step {
                Step::Send(bytes) => self.sent.extend_from_slice(&bytes),
                Step::Authenticate { user, password } => {
                    socks.authenticated(password.as_bytes() == good);
                    self.login = Some((user, password.as_bytes().to_vec()));
                    answered = true;
                }
                Step::Connect(target) => {
                    socks.reply(Reply::Succeeded);
                    self.target = Some(target.to_string());
                    answered = true;
                }
                Step::Fail(error) => self.error = Some(error),
            }
        }
        answered
    }
}
