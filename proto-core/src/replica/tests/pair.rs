//! Both ends joined, plain and sealed.

use proptest::prelude::*;

use super::*;

/// Plays a handshake and gives what both ends were left with.
fn play(dialer_config: Config, acceptor_config: Config) -> (Told, Told) {
    let mut ends = [
        End::Dialer(dialer(dialer_config)),
        End::Acceptor(acceptor(acceptor_config)),
    ];
    let mut outcomes = [None, None];
    let mut inboxes = [Vec::new(), Vec::new()];
    let mut is_moving = true;
    while is_moving {
        is_moving = false;
        for nth in [0, 1] {
            let used = ends[nth].handle_bytes(start(), &inboxes[nth]);
            inboxes[nth].drain(..used);
            let told = ends[nth].drain();
            is_moving |= used > 0 || !told.sent.is_empty();
            inboxes[1 - nth].extend(told.sent);
            outcomes[nth] = outcomes[nth].take().or(told.outcome);
        }
    }
    // Whoever gave up closes the connection.
    for nth in [0, 1] {
        if outcomes[nth].is_none() {
            ends[nth].handle_end();
            outcomes[nth] = ends[nth].drain().outcome;
        }
    }
    // Bytes that nobody took are of the stream.
    let [dialer, acceptor] = outcomes;
    let [to_dialer, to_acceptor] = inboxes;
    let told = |outcome, sent| Told { outcome, sent };
    (told(dialer, to_dialer), told(acceptor, to_acceptor))
}

fn with_keys(own: u8, current: &str, previous: Option<&str>, seal: Seal) -> Config {
    config_with(own, seal, Some(keys(current, previous)))
}

#[test]
fn both_ends_learn_who_the_other_is() {
    for seal in [Seal::Never, Seal::Require] {
        for profile in [Profile::A, Profile::B] {
            let of = |own| config(own, seal).with_profile(profile);
            let (dialer, acceptor) = play(of(1), of(2));
            assert!(dialer.sent.is_empty() && acceptor.sent.is_empty());
            let (peer, key, stream) = dialer.verified();
            assert_eq!((peer, key), (ReplicaId(2), KeyUsed::Current));
            assert_eq!(matches!(stream, Stream::Sealed(_)), seal == Seal::Require);
            let (peer, key, stream) = acceptor.verified();
            assert_eq!((peer, key), (ReplicaId(1), KeyUsed::Current));
            assert_eq!(matches!(stream, Stream::Sealed(_)), seal == Seal::Require);
        }
    }
}

#[test]
fn keys_are_changed_without_an_interruption() {
    // replica-handshake 11.1: any two neighbouring steps meet while the change goes round.
    let (old, new) = (PSK, OTHER_PSK);
    let steps = [(old, None), (old, Some(new)), (new, Some(old)), (new, None)];
    for seal in [Seal::Never, Seal::Require] {
        for (ahead, behind) in [(1, 0), (2, 1), (3, 2)] {
            for (d, a) in [(ahead, behind), (behind, ahead)] {
                let (dialer, acceptor) = play(
                    with_keys(1, steps[d].0, steps[d].1, seal),
                    with_keys(2, steps[a].0, steps[a].1, seal),
                );
                let used = match steps[d].0 == steps[a].0 {
                    true => KeyUsed::Current,
                    false => KeyUsed::Previous,
                };
                let (_, dialer_used, stream) = dialer.verified();
                assert_eq!(dialer_used, used);
                let (_, acceptor_used, peer_stream) = acceptor.verified();
                assert_eq!(acceptor_used, used);
                if let (Stream::Sealed(one), Stream::Sealed(other)) = (stream, peer_stream) {
                    seal::speak(one, other);
                }
            }
        }
    }
}

#[test]
fn a_window_on_one_side_is_noticed_where_the_link_is_sealed() {
    let (old, new) = (PSK, OTHER_PSK);
    let mismatch = Fault::MacMismatch(MacHint::Unknown);
    // A plain dialer takes the connection for established, as nothing confirms it (replica-handshake 11.1).
    let plain = play(
        with_keys(1, new, Some(old), Seal::Never),
        with_keys(2, old, None, Seal::Never),
    );
    assert_eq!(plain.1.fault(), Some(mismatch));
    assert_eq!(plain.0.verified().0, ReplicaId(2));
    let sealed = play(
        with_keys(1, new, Some(old), Seal::Require),
        with_keys(2, old, None, Seal::Require),
    );
    assert_eq!(sealed.1.fault(), Some(mismatch));
    let told = sealed.0.fault();
    assert_eq!(told, Some(Fault::Closed(Awaited::Confirmation)));
}

#[test]
fn another_key_shows_nobody_a_proof() {
    let (dialer, acceptor) = play(
        with_keys(1, PSK, None, Seal::Never),
        with_keys(2, OTHER_PSK, None, Seal::Never),
    );
    assert_eq!(dialer.fault(), Some(Fault::MacMismatch(MacHint::Unknown)));
    assert_eq!(acceptor.fault(), Some(Fault::Closed(Awaited::Finish)));
}

#[test]
fn one_end_without_keys_is_told_apart() {
    let (bare, keyed) = (
        |own| config_with(own, Seal::Never, None),
        |own| config(own, Seal::Never),
    );
    let (dialer, acceptor) = play(bare(1), keyed(2));
    assert_eq!(acceptor.fault(), Some(Fault::AuthRequired(ReplicaId(1))));
    assert!(matches!(dialer.outcome, Some(Step::Announced(_))));
    let (dialer, acceptor) = play(keyed(1), bare(2));
    assert!(matches!(acceptor.outcome, Some(Step::Announced(_))));
    assert_eq!(dialer.fault(), Some(Fault::Closed(Awaited::Challenge)));
}

#[test]
fn no_end_shows_a_key() {
    let (dialer, acceptor) = (
        dialer(config(1, Seal::Require)),
        acceptor(config(2, Seal::Require)),
    );
    let shown = format!("{dialer:?} {acceptor:?}");
    assert!(shown.contains("ReplicaKey(hidden)"));
    let mac_key = MacKey::derive(PSK.as_bytes());
    assert!(!shown.contains(&format!("{:?}", &mac_key.0[..4])));
    let seal_key = key(PSK);
    assert!(!shown.contains(&format!("{:?}", &seal_key.seal()[..4])));
}

/// What one end did, as values that compare.
#[derive(Debug, PartialEq)]
struct Run {
    sent: Vec<u8>,
    used: usize,
    outcome: String,
}

/// Feeds an end its peer's bytes in pieces and gives all that came of it.
fn feed(mut end: End, stream: &[u8], mut cut: impl FnMut() -> usize) -> Run {
    let mut run = Run {
        sent: end.drain().sent,
        used: 0,
        outcome: String::new(),
    };
    let mut at = 0;
    while at < stream.len() {
        let upto = at.saturating_add(cut().max(1)).min(stream.len());
        let wanted = end.wanted();
        let used = end.handle_bytes(start(), &stream[at..upto]);
        assert!(wanted > 0 || used == 0, "taken beyond the handshake");
        run.used += used;
        let told = end.drain();
        run.sent.extend(told.sent);
        if let Some(outcome) = told.outcome {
            run.outcome = format!("{outcome:?}");
        }
        if used < upto - at {
            break;
        }
        at = upto;
    }
    run
}

/// What each end of a good handshake receives, with bytes of the stream behind it.
fn streams(seal: Seal) -> (Vec<u8>, Vec<u8>) {
    let mut dialer = End::Dialer(dialer(config(1, seal)));
    let mut acceptor = End::Acceptor(acceptor(config(2, seal)));
    let mut from_dialer = dialer.drain().sent;
    let mut from_acceptor = acceptor.take(&from_dialer).sent;
    let finish = dialer.take(&from_acceptor).sent;
    from_acceptor.extend(acceptor.take(&finish).sent);
    from_dialer.extend(finish);
    for stream in [&mut from_dialer, &mut from_acceptor] {
        stream.extend_from_slice(b"what follows");
    }
    (from_dialer, from_acceptor)
}

proptest! {
    #[test]
    fn any_split_has_the_same_outcome_and_nothing_behind_is_taken(
        cuts in proptest::collection::vec(1..300_usize, 1..40),
        is_sealed: bool,
        spoiled in proptest::option::of((0..600_usize, 1..=u8::MAX)),
    ) {
        let seal = if is_sealed { Seal::Require } else { Seal::Never };
        let (mut to_acceptor, mut to_dialer) = streams(seal);
        for stream in [&mut to_acceptor, &mut to_dialer] {
            if let Some((at, bits)) = spoiled
                && let Some(byte) = stream.get_mut(at)
            {
                *byte ^= bits;
            }
        }
        let ends: [fn(Seal) -> End; 2] = [
            |seal| End::Dialer(dialer(config(1, seal))),
            |seal| End::Acceptor(acceptor(config(2, seal))),
        ];
        for (end, stream) in ends.into_iter().zip([to_dialer, to_acceptor]) {
            let whole = feed(end(seal), &stream, || usize::MAX);
            let mut cut = cuts.iter().copied().cycle();
            let pieces = feed(end(seal), &stream, || cut.next().unwrap());
            prop_assert_eq!(&pieces, &whole);
            prop_assert_eq!(&feed(end(seal), &stream, || 1), &whole);
            if spoiled.is_none() {
                prop_assert_eq!(whole.used, stream.len() - b"what follows".len());
                prop_assert!(whole.outcome.starts_with("Verified"), "{}", whole.outcome);
            }
        }
    }

    #[test]
    fn noise_has_one_outcome_at_most(
        noise in proptest::collection::vec(any::<u8>(), 0..700),
        command in 0..32_u8,
    ) {
        let mut noise = noise;
        // Noise that gets past the length.
        if let Some(head) = noise.get_mut(48..61) {
            head.copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, command]);
        }
        for end in [End::Dialer(dialer(config(1, Seal::Never))), End::Acceptor(acceptor(config(2, Seal::Never)))] {
            let run = feed(end, &noise, || 100);
            prop_assert!(!run.outcome.starts_with("Verified"));
            prop_assert!(run.used <= FRAME_LEN.min(noise.len()) * 2);
        }
    }
}
