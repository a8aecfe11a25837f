//! Links whose stream is sealed: the handshake's last step, and what a relay may try.

use super::*;
use crate::limits::REPLICA_SILENCE_MAX;

/// Passes bytes both ways, and ends both directions.
pub(super) fn speak(mut one: Sealed, mut other: Sealed) {
    pass(&mut one.sealer, &mut other.opener);
    pass(&mut other.sealer, &mut one.opener);
}

fn pass(sealer: &mut Sealer, opener: &mut Opener) {
    let mut wire = Vec::new();
    sealer.seal(b"some words", &mut wire).unwrap();
    match opener.open(&mut wire).unwrap() {
        Opened::Data { payload, used } => {
            assert_eq!((payload, used), (&b"some words"[..], 10 + RECORD_OVERHEAD));
        }
        other @ (Opened::Missing(_) | Opened::End { .. }) => panic!("{other:?}"),
    }
    wire.clear();
    sealer.end(&mut wire).unwrap();
    let used = RECORD_OVERHEAD;
    assert_eq!(opener.open(&mut wire), Ok(Opened::End { used }));
    assert_eq!(opener.handle_end(), Ok(()));
}

/// Both ends, the finish and the first record of the dialer not yet delivered.
fn before_the_finish(dialer_seal: Seal, acceptor_seal: Seal) -> (End, End, Told) {
    let mut dialer = End::Dialer(dialer(config(1, dialer_seal)));
    let mut acceptor = End::Acceptor(acceptor(config(2, acceptor_seal)));
    let hello = dialer.drain().sent;
    let challenge = acceptor.take(&hello).sent;
    let finish = dialer.take(&challenge);
    (dialer, acceptor, finish)
}

#[test]
fn both_ends_confirm_before_either_speaks() {
    let (mut dialer, mut acceptor, finish) = before_the_finish(Seal::Require, Seal::Require);
    assert_eq!(finish.sent.len(), FRAME_LEN + RECORD_OVERHEAD);
    // The dialer knows who answered, and waits to be known itself.
    assert!(finish.outcome.is_none());
    assert_eq!(dialer.wanted(), RECORD_OVERHEAD);
    let half = acceptor.take(&finish.sent[..FRAME_LEN]);
    assert_eq!(
        (half.sent.len(), half.outcome.is_some()),
        (RECORD_OVERHEAD, false)
    );
    let other = acceptor.take(&finish.sent[FRAME_LEN..]).sealed();
    speak(dialer.take(&half.sent).sealed(), other);
}

#[test]
fn a_link_that_one_end_does_not_seal_comes_to_nothing() {
    let plain = [0_u8; 256];
    let (mut dialer, mut acceptor, finish) = before_the_finish(Seal::Require, Seal::Never);
    // The acceptor, as the reference, has its stream and speaks on it.
    assert_eq!(acceptor.handle_bytes(start(), &finish.sent), FRAME_LEN);
    assert_eq!(acceptor.drain().verified().0, ReplicaId(1));
    assert_eq!(dialer.handle_bytes(start(), &plain), RECORD_OVERHEAD);
    let fault = dialer.drain().fault();
    assert_eq!(fault, Some(Fault::NotSealed(OpenFault::NotARecord)));

    let (_, mut acceptor, finish) = before_the_finish(Seal::Never, Seal::Require);
    acceptor.take(&finish.sent);
    assert_eq!(acceptor.handle_bytes(start(), &plain), RECORD_OVERHEAD);
    let fault = acceptor.drain().fault();
    assert_eq!(fault, Some(Fault::NotSealed(OpenFault::NotARecord)));
}

#[test]
fn a_relay_that_strips_or_changes_the_first_record_is_noticed() {
    let forged = Some(Fault::NotSealed(OpenFault::Forged { record: 0 }));
    for at in 4..RECORD_OVERHEAD {
        let (_, mut acceptor, finish) = before_the_finish(Seal::Require, Seal::Require);
        let mut sent = finish.sent;
        sent[FRAME_LEN + at] ^= 1;
        assert_eq!(acceptor.take(&sent).fault(), forged);
    }
    // The dialer's own record, sent back to it.
    let (mut dialer, _, finish) = before_the_finish(Seal::Require, Seal::Require);
    assert_eq!(dialer.take(&finish.sent[FRAME_LEN..]).fault(), forged);
    // Nothing at all.
    let (mut dialer, _, _) = before_the_finish(Seal::Require, Seal::Require);
    dialer.handle_timeout(start() + REPLICA_SILENCE_MAX);
    let fault = dialer.drain().fault();
    assert_eq!(fault, Some(Fault::Silent(Awaited::Confirmation)));
}

#[test]
fn each_peer_has_its_own_setting() {
    let roster: Roster = [(1, Seal::Require), (2, Seal::Never), (3, Seal::Never)]
        .map(|(id, seal)| (ReplicaId(id), seal))
        .into_iter()
        .collect();
    let cluster = ClusterId::of(CLUSTER);
    let own = Config::new(cluster, ReplicaId(2), roster, Some(keys(PSK, None))).unwrap();
    let mut dialer = End::Dialer(dialer(config(1, Seal::Require)));
    let mut acceptor = End::Acceptor(acceptor(own.clone()));
    let challenge = acceptor.take(&dialer.drain().sent).sent;
    let finish = dialer.take(&challenge).sent;
    assert!(matches!(
        acceptor.take(&finish).verified().2,
        Stream::Sealed(_)
    ));
    let to_third = Dialer::new(
        start(),
        Arc::new(own),
        Binding::Plaintext,
        ReplicaId(3),
        nonce(7),
    );
    let mut to_third = End::Dialer(to_third.unwrap());
    let third = Acceptor::new(
        start(),
        Arc::new(config(3, Seal::Never)),
        Binding::Plaintext,
        nonce(8),
    );
    let mut third = End::Acceptor(third);
    let challenge = third.take(&to_third.drain().sent).sent;
    assert!(matches!(
        to_third.take(&challenge).verified().2,
        Stream::Plain
    ));
}

#[test]
fn every_handshake_has_keys_of_its_own() {
    let sealed = |psk: &str, nonce_d: u8, nonce_a: u8, own: u8| {
        let config = |own| Arc::new(config_with(own, Seal::Require, Some(keys(psk, None))));
        let (binding, peer) = (Binding::Plaintext, ReplicaId(3));
        let dialer = Dialer::new(start(), config(own), binding, peer, nonce(nonce_d)).unwrap();
        let acceptor = Acceptor::new(start(), config(3), binding, nonce(nonce_a));
        let (mut dialer, mut acceptor) = (End::Dialer(dialer), End::Acceptor(acceptor));
        let challenge = acceptor.take(&dialer.drain().sent).sent;
        let finish = dialer.take(&challenge).sent;
        let answer = acceptor.take(&finish).sent;
        [finish[FRAME_LEN..].to_vec(), answer]
    };
    let runs = [
        sealed(PSK, 1, 2, 0),
        sealed(PSK, 3, 2, 0),
        sealed(PSK, 1, 3, 0),
        sealed(PSK, 1, 2, 1),
        sealed(OTHER_PSK, 1, 2, 0),
    ];
    let mut records = runs.concat();
    records.sort_unstable();
    records.dedup();
    assert_eq!(records.len(), 2 * runs.len());
    assert_eq!(sealed(PSK, 1, 2, 0), runs[0]);
}
