//! The acceptor opposite bytes that somebody made up: every row of replica-handshake 6.

use super::*;
use crate::limits::{REPLICA_HANDSHAKE_TIMEOUT, REPLICA_SILENCE_MAX};

fn hello() -> Frame {
    Frame {
        nonce: [0x11; 32],
        ..Frame::new(Command::Hello, ClusterId::of(CLUSTER), ReplicaId(1))
    }
}

fn end(config: Config) -> End {
    End::Acceptor(acceptor(config))
}

fn on() -> End {
    end(config(2, Seal::Never))
}

fn off() -> End {
    end(config_with(2, Seal::Never, None))
}

/// What comes of a hello: the fault, and the status of the answer.
fn judged(mut end: End, hello: &Frame) -> (Option<Fault>, Option<Status>) {
    let told = end.take(&hello.encode());
    let answer = (!told.sent.is_empty()).then(|| Status::of(told.frame().status));
    (told.fault(), answer)
}

#[test]
fn each_wrong_hello_has_its_fault_and_its_answer() {
    let other = ClusterId::of("another");
    let rows = [
        (
            Frame {
                command: Command::Other(1),
                ..hello()
            },
            Fault::UnexpectedCommand {
                awaited: Awaited::Hello,
                command: Command::Other(1),
            },
            Status::UnknownCommand,
        ),
        (
            Frame {
                command: Command::Finish,
                ..hello()
            },
            Fault::UnexpectedCommand {
                awaited: Awaited::Hello,
                command: Command::Finish,
            },
            Status::UnknownCommand,
        ),
        (
            Frame {
                cluster: other,
                ..hello()
            },
            Fault::ClusterMismatch(other),
            Status::ClusterMismatch,
        ),
        (
            Frame {
                replica: ReplicaId(2),
                ..hello()
            },
            Fault::DirectionalRule(ReplicaId(2)),
            Status::DirectionalRule,
        ),
        (
            Frame {
                replica: ReplicaId(3),
                ..hello()
            },
            Fault::DirectionalRule(ReplicaId(3)),
            Status::DirectionalRule,
        ),
        (
            Frame {
                replica: ReplicaId(255),
                ..hello()
            },
            Fault::DirectionalRule(ReplicaId(255)),
            Status::DirectionalRule,
        ),
    ];
    for (hello, fault, status) in rows {
        assert_eq!(judged(on(), &hello), (Some(fault), Some(status)));
        // Who sends no nonce may have begun to speak on the stream, and without keys nobody is answered.
        let bare = Frame {
            nonce: [0; 32],
            ..hello.clone()
        };
        assert_eq!(judged(on(), &bare), (Some(fault), None));
        assert_eq!(judged(off(), &hello), (Some(fault), None));
    }
}

#[test]
fn the_order_of_checks_is_the_references() {
    let all_wrong = Frame {
        command: Command::Challenge,
        cluster: ClusterId::of("another"),
        replica: ReplicaId(9),
        ..hello()
    };
    let status = |frame: &Frame| judged(on(), frame).1;
    assert_eq!(status(&all_wrong), Some(Status::UnknownCommand));
    let next = Frame {
        command: Command::Hello,
        ..all_wrong
    };
    assert_eq!(status(&next), Some(Status::ClusterMismatch));
    let next = Frame {
        cluster: ClusterId::of(CLUSTER),
        ..next
    };
    assert_eq!(status(&next), Some(Status::DirectionalRule));
}

#[test]
fn a_gap_in_the_list_of_replicas_is_no_replica() {
    let roster = [0, 2, 3].map(|id| (ReplicaId(id), Seal::Never));
    let cluster = ClusterId::of(CLUSTER);
    let config = Config::new(
        cluster,
        ReplicaId(2),
        roster.into_iter().collect(),
        Some(keys(PSK, None)),
    );
    let (fault, _) = judged(end(config.unwrap()), &hello());
    assert_eq!(fault, Some(Fault::DirectionalRule(ReplicaId(1))));
}

#[test]
fn a_refusal_does_not_tell_the_own_cluster() {
    let foreign = Frame {
        cluster: ClusterId([0xcc; 16]),
        ..hello()
    };
    let refusal = on().take(&foreign.encode());
    let expected = Frame {
        status: Status::ClusterMismatch.byte(),
        ..Frame::new(Command::Challenge, ClusterId([0xcc; 16]), ReplicaId(2))
    };
    assert_eq!(refusal.sent, expected.encode());
    // The reference tells it.
    let mut as_reference = end(config(2, Seal::Never).with_conduct(Conduct::Reference));
    let told = as_reference.take(&foreign.encode()).frame();
    assert_eq!(told.cluster, ClusterId::of(CLUSTER));
}

#[test]
fn a_hello_without_a_nonce_gets_no_answer() {
    let bare = Frame {
        nonce: [0; 32],
        ..hello()
    };
    let fault = Fault::AuthRequired(ReplicaId(1));
    assert_eq!(judged(on(), &bare), (Some(fault), None));
    assert_eq!(fault.status(), Some(Status::AuthRequired));
}

#[test]
fn without_keys_a_peer_is_taken_for_whom_it_says_it_is() {
    for hello in [
        hello(),
        Frame {
            nonce: [0; 32],
            ..hello()
        },
    ] {
        let mut end = off();
        let told = end.take(&hello.encode());
        assert!(matches!(told.outcome, Some(Step::Announced(ReplicaId(1)))));
        assert_eq!((told.sent, end.wanted()), (vec![], 0));
    }
}

#[test]
fn bytes_of_another_protocol_get_no_answer() {
    let mut http = b"GET / HTTP/1.1\r\n".to_vec();
    http.resize(FRAME_LEN, b'x');
    let told = on().take(&http);
    let size = u32::from_le_bytes(*b"xxxx");
    assert_eq!(told.fault(), Some(Fault::Frame(FrameError::Size(size))));
    assert!(told.sent.is_empty());

    let unknown = Frame {
        command: Command::Other(30),
        ..hello()
    };
    let told = on().take(&unknown.encode());
    assert_eq!(told.fault(), Some(Fault::Frame(FrameError::Command(30))));
    assert!(told.sent.is_empty());
}

#[test]
fn a_body_is_refused_before_it_comes() {
    let mut bytes = hello().encode();
    bytes[48..52].copy_from_slice(&(60_u32 << 20).to_le_bytes());
    let mut end = on();
    let told = end.take(&bytes);
    assert_eq!(told.fault(), Some(Fault::Frame(FrameError::Size(60 << 20))));
    assert_eq!((end.wanted(), end.handle_bytes(start(), &[0; 100])), (0, 0));
}

#[test]
fn an_end_of_the_connection_is_told_once() {
    let mut end = on();
    assert!(end.take(&hello().encode()[..255]).outcome.is_none());
    end.handle_end();
    assert_eq!(end.drain().fault(), Some(Fault::Closed(Awaited::Hello)));
    end.handle_end();
    end.handle_timeout(start() + REPLICA_HANDSHAKE_TIMEOUT);
    assert_eq!(
        (end.handle_bytes(start(), &[0]), end.poll_timeout()),
        (0, None)
    );
    let told = end.drain();
    assert!(told.outcome.is_none() && told.sent.is_empty());

    let mut end = on();
    end.take(&hello().encode());
    end.handle_end();
    assert_eq!(end.drain().fault(), Some(Fault::Closed(Awaited::Finish)));
}

/// The challenge to [`hello`], and what comes of a finish made from it.
fn finished(mut end: End, finish: impl Fn(&Frame) -> Frame) -> Told {
    let challenge = end.take(&hello().encode()).frame();
    end.take(&finish(&challenge).encode())
}

fn finish_with(mac: Mac) -> Frame {
    Frame {
        mac,
        ..Frame::new(Command::Finish, ClusterId::of(CLUSTER), ReplicaId(1))
    }
}

fn transcript() -> Transcript {
    Transcript {
        cluster: ClusterId::of(CLUSTER),
        dialer: ReplicaId(1),
        acceptor: ReplicaId(2),
        nonce_d: [0x11; 32],
        nonce_a: [0x22; 32],
        binding: Binding::Plaintext,
    }
}

fn mac_of(transcript: &Transcript, profile: Profile, psk: &str) -> Mac {
    let key = MacKey::derive(psk.as_bytes());
    transcript.mac(profile, Signer::Dialer, &key)
}

#[test]
fn a_second_frame_that_is_no_finish_gets_no_answer() {
    for command in [Command::Hello, Command::Challenge, Command::Other(6)] {
        let told = finished(on(), |challenge| Frame {
            command,
            ..finish_with(challenge.mac)
        });
        let awaited = Awaited::Finish;
        let fault = Fault::UnexpectedCommand { awaited, command };
        assert_eq!((told.fault(), told.sent), (Some(fault), vec![]));
    }
}

#[test]
fn a_wrong_proof_gets_no_answer_and_is_explained() {
    let tls = Transcript {
        binding: Binding::Tls([5; 32]),
        ..transcript()
    };
    let both = || config_with(2, Seal::Never, Some(keys(OTHER_PSK, Some(PSK))));
    let profile = |profile, key| MacHint::Profile { profile, key };
    let rows = [
        (
            mac_of(&transcript(), Profile::A, PSK),
            config(2, Seal::Never),
            profile(Profile::A, KeyUsed::Current),
        ),
        (
            mac_of(&transcript(), Profile::A, PSK),
            both(),
            profile(Profile::A, KeyUsed::Previous),
        ),
        (
            mac_of(&transcript(), Profile::B, PSK),
            config(2, Seal::Never).with_profile(Profile::A),
            profile(Profile::B, KeyUsed::Current),
        ),
        (
            mac_of(&transcript(), Profile::B, OTHER_PSK),
            config(2, Seal::Never),
            MacHint::Unknown,
        ),
        (
            mac_of(&tls, Profile::B, PSK),
            config(2, Seal::Never),
            MacHint::Unknown,
        ),
        (Mac([0; 32]), config(2, Seal::Never), MacHint::Unknown),
    ];
    for (mac, config, hint) in rows {
        let told = finished(end(config), |_| finish_with(mac));
        assert_eq!(
            (told.fault(), told.sent),
            (Some(Fault::MacMismatch(hint)), vec![])
        );
    }
    let reflected = finished(on(), |challenge| finish_with(challenge.mac));
    assert_eq!(
        reflected.fault(),
        Some(Fault::MacMismatch(MacHint::Reflected))
    );
}

#[test]
fn a_relay_without_tls_on_one_side_is_named() {
    let binding = Binding::Tls([5; 32]);
    let config = Arc::new(config(2, Seal::Never));
    let acceptor = Acceptor::new(start(), config, binding, nonce(0x22));
    let mac = mac_of(&transcript(), Profile::B, PSK);
    let told = finished(End::Acceptor(acceptor), |_| finish_with(mac));
    let hint = MacHint::Plaintext(KeyUsed::Current);
    assert_eq!(told.fault(), Some(Fault::MacMismatch(hint)));
}

#[test]
fn every_bit_of_the_proof_counts() {
    let good = mac_of(&transcript(), Profile::B, PSK);
    for bit in 0..256 {
        let mut mac = good;
        mac.0[bit / 8] ^= 1 << (bit % 8);
        let told = finished(on(), |_| finish_with(mac));
        assert_eq!(
            told.fault(),
            Some(Fault::MacMismatch(MacHint::Unknown)),
            "{bit}"
        );
    }
    let told = finished(on(), |_| finish_with(good));
    assert_eq!(told.verified().0, ReplicaId(1));
}

#[test]
fn fields_that_later_versions_may_use_are_ignored() {
    let mut end = on();
    let mut bytes = hello().encode();
    for field in [0..32, 52..60, 62..128, 160..256] {
        bytes[field].fill(0xff);
    }
    assert_eq!(end.take(&bytes).frame().status, Status::Ok.byte());
    let mut bytes = finish_with(mac_of(&transcript(), Profile::B, PSK)).encode();
    for field in [0..48, 52..60, 61..160, 192..256] {
        bytes[field].fill(0xff);
    }
    assert_eq!(end.take(&bytes).verified().0, ReplicaId(1));
}

#[test]
fn silence_ends_a_handshake() {
    for (sent, awaited) in [
        (0, Awaited::Hello),
        (1, Awaited::Hello),
        (256, Awaited::Finish),
    ] {
        let mut end = on();
        end.take(&hello().encode()[..sent]);
        let due = start() + REPLICA_SILENCE_MAX;
        assert_eq!(end.poll_timeout(), Some(due));
        end.handle_timeout(due - Duration::from_nanos(1));
        assert!(end.drain().outcome.is_none());
        end.handle_timeout(due);
        assert_eq!(end.drain().fault(), Some(Fault::Silent(awaited)));
    }
}

#[test]
fn a_trickle_ends_with_the_whole_time() {
    let mut end = on();
    let bytes = hello().encode();
    let due = start() + REPLICA_HANDSHAKE_TIMEOUT;
    let step = Duration::from_millis(500);
    let mut now = start();
    for byte in &bytes[..19] {
        now += step;
        assert_eq!(end.handle_bytes(now, &[*byte]), 1);
    }
    assert_eq!(end.poll_timeout(), Some(due));
    end.handle_timeout(due - Duration::from_nanos(1));
    assert!(end.drain().outcome.is_none());
    // Bytes that come at the deadline come late, whether or not the timer was looked at.
    assert_eq!(end.handle_bytes(due, &bytes[19..]), 0);
    assert_eq!(end.drain().fault(), Some(Fault::TimedOut(Awaited::Hello)));
}
