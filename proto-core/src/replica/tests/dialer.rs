//! The dialer opposite bytes that somebody made up: every row of replica-handshake 7.

use super::*;
use crate::limits::{REPLICA_HANDSHAKE_TIMEOUT, REPLICA_SILENCE_MAX};

fn end(config: Config) -> End {
    End::Dialer(dialer(config))
}

/// A dialer whose hello is sent.
fn waiting(config: Config) -> End {
    let mut end = end(config);
    let hello = end.drain();
    assert_eq!(hello.sent.len(), FRAME_LEN);
    end
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

/// A challenge that is right for a transcript.
fn challenge(of: &Transcript, profile: Profile, psk: &str) -> Frame {
    Frame {
        nonce: of.nonce_a,
        mac: of.mac(profile, Signer::Acceptor, &MacKey::derive(psk.as_bytes())),
        ..Frame::new(Command::Challenge, of.cluster, of.acceptor)
    }
}

fn good() -> Frame {
    challenge(&transcript(), Profile::B, PSK)
}

/// What comes of an answer, as far as it is a fault; nothing is ever sent then.
fn fault(config: Config, answer: &Frame) -> Option<Fault> {
    let told = waiting(config).take(&answer.encode());
    assert!(
        told.fault().is_none() || told.sent.is_empty(),
        "a proof for nobody"
    );
    told.fault()
}

fn own() -> Config {
    config(1, Seal::Never)
}

#[test]
fn the_hello_says_who_and_nothing_else() {
    let mut end = end(own());
    let hello = end.drain().frame();
    let expected = Frame {
        nonce: [0x11; 32],
        ..Frame::new(Command::Hello, ClusterId::of(CLUSTER), ReplicaId(1))
    };
    assert_eq!((hello, end.wanted()), (expected, FRAME_LEN));
}

#[test]
fn a_good_challenge_is_answered_with_the_proof() {
    let told = waiting(own()).take(&good().encode());
    let finish = told.frame();
    let mac = transcript().mac(Profile::B, Signer::Dialer, &MacKey::derive(PSK.as_bytes()));
    let expected = Frame {
        mac,
        ..Frame::new(Command::Finish, ClusterId::of(CLUSTER), ReplicaId(1))
    };
    assert_eq!(finish, expected);
    assert_eq!(told.verified().0, ReplicaId(2));
}

#[test]
fn another_command_is_no_challenge() {
    for command in [Command::Hello, Command::Finish, Command::Other(29)] {
        let awaited = Awaited::Challenge;
        let got = fault(own(), &Frame { command, ..good() });
        assert_eq!(got, Some(Fault::UnexpectedCommand { awaited, command }));
    }
    let got = fault(
        own(),
        &Frame {
            command: Command::Other(30),
            ..good()
        },
    );
    assert_eq!(got, Some(Fault::Frame(FrameError::Command(30))));
}

#[test]
fn a_refusal_is_read_before_anything_else() {
    for byte in 1..=u8::MAX {
        let got = fault(
            own(),
            &Frame {
                status: byte,
                ..good()
            },
        );
        assert_eq!(got, Some(Fault::Refused(Status::of(byte))));
        let bare = Frame {
            status: byte,
            ..Frame::new(Command::Challenge, ClusterId([0; 16]), ReplicaId(2))
        };
        assert_eq!(fault(own(), &bare), Some(Fault::Refused(Status::of(byte))));
    }
}

#[test]
fn a_nonce_that_nobody_drew_is_refused() {
    for nonce_a in [[0; 32], [0x11; 32]] {
        let odd = Transcript {
            nonce_a,
            ..transcript()
        };
        let answer = challenge(&odd, Profile::B, PSK);
        assert_eq!(fault(own(), &answer), Some(Fault::NonceNotDrawn));
        // The reference does not look.
        let as_reference = own().with_conduct(Conduct::Reference);
        assert_eq!(fault(as_reference, &answer), None);
    }
}

#[test]
fn a_wrong_proof_is_explained() {
    let tls = Transcript {
        binding: Binding::Tls([5; 32]),
        ..transcript()
    };
    let moved = Transcript {
        acceptor: ReplicaId(3),
        ..transcript()
    };
    let elsewhere = Transcript {
        cluster: ClusterId::of("another"),
        ..transcript()
    };
    let own_mac = transcript().mac(Profile::B, Signer::Dialer, &MacKey::derive(PSK.as_bytes()));
    let profile = |profile, key| MacHint::Profile { profile, key };
    let rows = [
        (
            challenge(&transcript(), Profile::A, PSK),
            profile(Profile::A, KeyUsed::Current),
        ),
        (
            challenge(&moved, Profile::B, PSK),
            MacHint::Replica(ReplicaId(3)),
        ),
        (
            challenge(&elsewhere, Profile::B, PSK),
            MacHint::Cluster(ClusterId::of("another")),
        ),
        (
            Frame {
                mac: own_mac,
                ..good()
            },
            MacHint::Reflected,
        ),
        (challenge(&tls, Profile::B, PSK), MacHint::Unknown),
        (
            challenge(&transcript(), Profile::B, OTHER_PSK),
            MacHint::Unknown,
        ),
        (
            Frame {
                nonce: [0x23; 32],
                ..good()
            },
            MacHint::Unknown,
        ),
        // What a challenge says of itself is no proof of it.
        (
            Frame {
                replica: ReplicaId(3),
                mac: Mac([1; 32]),
                ..good()
            },
            MacHint::Unknown,
        ),
    ];
    for (answer, hint) in rows {
        assert_eq!(fault(own(), &answer), Some(Fault::MacMismatch(hint)));
    }
    let keys = keys(OTHER_PSK, Some(PSK));
    let got = fault(
        config_with(1, Seal::Never, Some(keys)),
        &challenge(&transcript(), Profile::A, PSK),
    );
    let hint = profile(Profile::A, KeyUsed::Previous);
    assert_eq!(got, Some(Fault::MacMismatch(hint)));
}

#[test]
fn cluster_and_replica_of_a_challenge_are_not_looked_at() {
    let answer = Frame {
        cluster: ClusterId([0; 16]),
        replica: ReplicaId(200),
        ..good()
    };
    assert_eq!(fault(own(), &answer), None);
}

#[test]
fn a_challenge_with_a_body_is_refused() {
    let mut bytes = good().encode().to_vec();
    bytes[48..52].copy_from_slice(&264_u32.to_le_bytes());
    bytes.extend_from_slice(&[7; 8]);
    let mut strict = waiting(own());
    assert_eq!(strict.handle_bytes(start(), &bytes), FRAME_LEN);
    let fault = strict.drain().fault();
    assert_eq!(fault, Some(Fault::Frame(FrameError::Size(264))));
    let mut as_reference = waiting(own().with_conduct(Conduct::Reference));
    assert_eq!(as_reference.take(&bytes).verified().0, ReplicaId(2));
}

#[test]
fn silence_and_an_end_are_told() {
    let mut end = waiting(own());
    let due = start() + REPLICA_SILENCE_MAX;
    assert_eq!(end.poll_timeout(), Some(due));
    end.handle_timeout(due - Duration::from_nanos(1));
    assert!(end.drain().outcome.is_none());
    end.handle_timeout(due);
    let fault = end.drain().fault();
    assert_eq!(fault, Some(Fault::Silent(Awaited::Challenge)));

    let mut end = waiting(own());
    end.handle_end();
    let fault = end.drain().fault();
    assert_eq!(fault, Some(Fault::Closed(Awaited::Challenge)));
}

#[test]
fn a_trickle_ends_with_the_whole_time() {
    let mut end = waiting(own());
    let bytes = good().encode();
    let due = start() + REPLICA_HANDSHAKE_TIMEOUT;
    for seconds in 1..10 {
        let now = start() + Duration::from_secs(seconds);
        assert_eq!(end.handle_bytes(now, &bytes[..1]), 1);
    }
    assert_eq!(end.poll_timeout(), Some(due));
    end.handle_timeout(due);
    let fault = end.drain().fault();
    assert_eq!(fault, Some(Fault::TimedOut(Awaited::Challenge)));
}

#[test]
fn only_higher_replicas_of_the_list_are_dialled() {
    let dial = |target, conduct| {
        let config = Arc::new(own().with_conduct(conduct));
        let target = ReplicaId(target);
        Dialer::new(start(), config, Binding::Plaintext, target, nonce(1)).err()
    };
    for target in [0, 1] {
        let error = DialError::NotHigher(ReplicaId(target));
        assert_eq!(dial(target, Conduct::Strict), Some(error));
        assert_eq!(dial(target, Conduct::Reference), None);
    }
    assert_eq!(dial(3, Conduct::Strict), None);
    let error = DialError::NotInRoster(ReplicaId(4));
    assert_eq!(dial(4, Conduct::Strict), Some(error));
}

#[test]
fn without_keys_the_hello_is_all() {
    let mut end = end(config_with(1, Seal::Never, None));
    let told = end.drain();
    let bare = Frame::new(Command::Hello, ClusterId::of(CLUSTER), ReplicaId(1));
    assert_eq!(told.frame(), bare);
    assert!(matches!(told.outcome, Some(Step::Announced(ReplicaId(2)))));
    assert_eq!((end.wanted(), end.poll_timeout()), (0, None));
    assert_eq!(end.handle_bytes(start(), &good().encode()), 0);
}
