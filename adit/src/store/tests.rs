use std::time::{Duration, Instant};

use adit_proto_core::identity::AgentIdentity;

use super::*;
use crate::{
    admin::HealthView,
    http::health::{Condition, Health},
};

mod faults;
mod uses;

#[test]
fn reservation_excludes_others_until_it_is_dropped() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let held = store.reserve(JTI).wait().unwrap();
    assert!(matches!(
        store.reserve(JTI).wait(),
        Err(StoreError::TokenReserved)
    ));
    drop(held);
    let held = store.reserve(JTI).wait().unwrap();
    assert_eq!(held.jti(), JTI);
    drop(store);
    drop(scratch.open().reserve(JTI).wait().unwrap());
}

#[test]
fn reservation_that_nobody_waits_for_ends() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let free = blocked(&store);
    drop(store.reserve(JTI));
    free.send(()).unwrap();
    drop(store.reserve(JTI).wait().unwrap());
}

#[test]
fn reservation_ends_however_busy_the_store_is() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let held = store.reserve(JTI).wait().unwrap();
    let free = blocked(&store);
    let waiting: Vec<_> = (0..QUEUE_MAX).map(|_| store.tokens(NOW)).collect();
    assert!(matches!(store.tokens(NOW).wait(), Err(StoreError::Busy)));
    drop(held);
    free.send(()).unwrap();
    for reply in waiting {
        reply.wait().unwrap();
    }
    drop(store.reserve(JTI).wait().unwrap());
}

#[test]
fn a_renewal_waits_for_a_place() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    let free = blocked(&store);
    let waiting: Vec<_> = (0..QUEUE_MAX).map(|_| store.tokens(NOW)).collect();
    assert!(matches!(store.tokens(NOW).wait(), Err(StoreError::Busy)));
    let patient = store.clone();
    let renewing = thread::spawn(move || patient.renew(agent(1, 1), renewal(2)));
    free.send(()).unwrap();
    renewing.join().unwrap().unwrap();
    drop(waiting);
    let agent = store.agent(id(1)).wait().unwrap().unwrap();
    assert_eq!(agent.renewed_spki_sha256, Some([2; 32]));
}

#[test]
fn store_whose_thread_has_died_says_so() {
    let scratch = Scratch::new();
    let store = scratch.open();
    assert!(store.is_running());
    let health = Health::new(store.clone());
    health.set(Condition::Ready);
    assert!(HealthView::of_gateway(&health).healthy);
    let died = store.call::<()>(|_| panic!("a fault")).wait();
    assert!(matches!(died, Err(StoreError::Stopped)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.is_running() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    // Supervisors are told the same as load balancers.
    let view = HealthView::of_gateway(&health);
    assert!(!view.healthy && view.detail.contains("store"), "{view:?}");
}

#[test]
fn id_belongs_to_the_key_that_enrolled_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    let other = Uuid::from_u128(2);
    let refused = enrol(&store, other, 1, 2);
    assert!(matches!(refused, Err(StoreError::OtherKey)));
    enrol(&store, other, 1, 1).unwrap();
    assert!(store.delete_agent(id(1)).wait().unwrap().is_some());
    enrol(&store, Uuid::from_u128(3), 1, 2).unwrap();
}

#[test]
fn directory_follows_enrolment_renewal_and_deletion() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let directory = store.directory();
    assert_eq!(directory.admit(&agent(1, 1)), Err(AdmitError::UnknownAgent));
    enrol(&store, JTI, 1, 1).unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Ok(()));
    assert_eq!(directory.admit(&agent(1, 2)), Err(AdmitError::OtherKey));

    store.renew(agent(1, 1), renewal(2)).unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Ok(()));
    assert_eq!(directory.admit(&agent(1, 2)), Ok(()));
    assert!(directory.awaits_confirmation(&agent(1, 2)));
    assert!(!directory.awaits_confirmation(&agent(1, 1)));
    store.confirm(agent(1, 3)).wait().unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Ok(()));
    store.confirm(agent(1, 2)).wait().unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Err(AdmitError::OtherKey));
    drop(store);

    let store = scratch.open();
    let directory = store.directory();
    assert_eq!(directory.admit(&agent(1, 2)), Ok(()));
    assert_eq!(store.agents().wait().unwrap()[0].fingerprint, [8; 32]);
    assert!(store.delete_agent(id(1)).wait().unwrap().is_some());
    assert!(store.delete_agent(id(1)).wait().unwrap().is_none());
    assert_eq!(directory.admit(&agent(1, 2)), Err(AdmitError::UnknownAgent));
    let renewed = store.renew(agent(1, 2), renewal(3));
    assert!(matches!(renewed, Err(StoreError::UnknownAgent)));
}

#[test]
fn a_key_that_counts_no_more_gets_no_successor() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let directory = store.directory();
    enrol(&store, JTI, 1, 1).unwrap();
    store.renew(agent(1, 1), renewal(2)).unwrap();
    store.confirm(agent(1, 2)).wait().unwrap();
    // A connection with the former key is still there, and asks again.
    let late = store.renew(agent(1, 1), renewal(3));
    assert!(matches!(late, Err(StoreError::OtherKey)));
    assert_eq!(directory.admit(&agent(1, 2)), Ok(()));
    assert_eq!(directory.admit(&agent(1, 3)), Err(AdmitError::OtherKey));
    // Its certificate was being signed when the agent was deleted and its id enrolled with another key.
    store.delete_agent(id(1)).wait().unwrap();
    enrol(&store, Uuid::from_u128(2), 1, 9).unwrap();
    let late = store.renew(agent(1, 2), renewal(4));
    assert!(matches!(late, Err(StoreError::OtherKey)));
    assert_eq!(directory.admit(&agent(1, 4)), Err(AdmitError::OtherKey));
    let record = &store.agents().wait().unwrap()[0];
    assert_eq!(record.renewed_spki_sha256, None);
    assert_eq!(record.fingerprint, [0; 32]);
}

#[test]
fn a_renewed_key_that_asks_for_its_successor_has_proved_itself() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let directory = store.directory();
    enrol(&store, JTI, 1, 1).unwrap();
    store.renew(agent(1, 1), renewal(2)).unwrap();
    store.renew(agent(1, 2), renewal(3)).unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Err(AdmitError::OtherKey));
    assert_eq!(directory.admit(&agent(1, 2)), Ok(()));
    assert!(directory.awaits_confirmation(&agent(1, 3)));
}

#[test]
fn a_certificate_of_another_ca_counts_once_it_has_been_shown() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let directory = store.directory();
    enrol(&store, JTI, 1, 1).unwrap();
    let issuer = |store: &Store| store.agents().wait().unwrap()[0].issuer_sha256;
    // The same key, as of every agent that has no use for another one.
    store.renew(agent(1, 1), renewal(1)).unwrap();
    assert_eq!(issuer(&store), None);
    assert!(!directory.awaits_confirmation(&agent(1, 1)));
    store.confirm(agent(1, 1)).wait().unwrap();
    assert_eq!(issuer(&store), None, "it has come with the former one");
    drop(store);
    let store = scratch.open();
    let directory = store.directory();
    let renewed = AgentIdentity {
        fingerprint: [8; 32],
        ..agent(1, 1)
    };
    assert!(directory.awaits_confirmation(&renewed));
    store.confirm(renewed.clone()).wait().unwrap();
    assert_eq!(issuer(&store), Some([9; 32]));
    assert!(!directory.awaits_confirmation(&renewed));
    // Nothing to wait for where the authority stays, and a new key alone proves no certificate.
    store.renew(renewed.clone(), renewal(1)).unwrap();
    assert!(!directory.awaits_confirmation(&renewed));
    let other = Renewal {
        issuer_sha256: [7; 32],
        ..renewal(2)
    };
    store.renew(renewed, other).unwrap();
    store.confirm(agent(1, 2)).wait().unwrap();
    assert_eq!(issuer(&store), Some([9; 32]));
}

#[test]
fn revoked_token_cannot_be_reserved_or_committed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    store
        .record_token(NOW, token(JTI, NOW + 60))
        .wait()
        .unwrap();
    let held = store.reserve(JTI).wait().unwrap();
    let state_before = || store.revoke_token(JTI).wait().unwrap().unwrap().state;
    assert_eq!(state_before(), TokenState::Issued);
    let committed = store.commit_enrolment(held, enrolment(1, 1)).wait();
    assert!(matches!(committed, Err(StoreError::TokenRevoked)));
    assert!(store.agents().wait().unwrap().is_empty());
    assert!(matches!(
        store.reserve(JTI).wait(),
        Err(StoreError::TokenRevoked)
    ));
    assert_eq!(state_before(), TokenState::Revoked);
    assert_eq!(store.revoke_token(Uuid::nil()).wait().unwrap(), None);
}

#[test]
fn a_used_token_cannot_be_revoked() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    let used = TokenState::Used { by: id(1) };
    for _ in 0..2 {
        let before = store.revoke_token(JTI).wait().unwrap().unwrap();
        assert_eq!(before.state, used);
    }
    assert_eq!(store.tokens(NOW).wait().unwrap()[0].state, used);
}

#[test]
fn draining_lasts_until_undone_or_the_agent_is_deleted() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let drain = |store: &Store, drained| store.set_drained(id(1), drained).wait().unwrap();
    assert!(!drain(&store, true));
    let enrol_again = |store: &Store| enrol(store, Uuid::new_v4(), 1, 1).unwrap();
    enrol_again(&store);
    assert!(store.directory().drained().is_empty());
    assert!(drain(&store, true));
    enrol_again(&store);
    assert_eq!(store.directory().drained(), [id(1)]);
    drop(store);
    let store = scratch.open();
    assert_eq!(store.directory().drained(), [id(1)]);
    assert!(drain(&store, false));
    assert!(drain(&store, false));
    assert!(store.directory().drained().is_empty());
    assert!(drain(&store, true));
    assert!(store.delete_agent(id(1)).wait().unwrap().is_some());
    enrol_again(&store);
    assert!(store.directory().drained().is_empty());
}

#[test]
fn expired_tokens_are_pruned_but_not_within_the_leeway() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    let end = NOW + 60;
    assert_eq!(store.tokens(end + 300).wait().unwrap().len(), 1);
    assert!(store.tokens(end + 301).wait().unwrap().is_empty());
    // A token that was found good in time may be reserved a little later.
    let write = |n, now| {
        let other = token(Uuid::from_u128(n), now + 999);
        store.record_token(now, other).wait().unwrap();
    };
    write(98, end + KEPT_S);
    let again = store.reserve(JTI).wait();
    assert!(matches!(again, Err(StoreError::TokenUsed)));
    write(99, end + KEPT_S + 1);
    let kept = store.tokens(0).wait().unwrap();
    let kept = kept.iter().map(|t| t.jti.as_u128());
    assert_eq!(kept.collect::<Vec<_>>(), [98, 99]);
}

#[test]
fn a_clock_that_was_ahead_for_a_while_makes_no_token_good_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    let revoked = Uuid::from_u128(8);
    store
        .record_token(NOW, token(revoked, NOW + 60))
        .wait()
        .unwrap();
    store.revoke_token(revoked).wait().unwrap().unwrap();
    let ahead = NOW + 86_400;
    let other = token(Uuid::from_u128(9), ahead);
    store.record_token(ahead, other).wait().unwrap();
    assert!(matches!(
        store.reserve(JTI).wait(),
        Err(StoreError::TokenUsed)
    ));
    assert!(matches!(
        store.reserve(revoked).wait(),
        Err(StoreError::TokenRevoked)
    ));
}

#[test]
fn after_a_fault_of_the_disk_the_file_is_opened_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    let held = store.reserve(Uuid::from_u128(8)).wait().unwrap();
    let path = scratch.dir.file(FILE);
    let fault = StoreError::of_file(path.clone(), redb::Error::PreviousIo);
    assert!(store.is_sound());
    let failed = store.call::<()>(move |_| Err(fault)).wait().unwrap_err();
    assert!(failed.to_string().contains("room"), "{failed}");
    assert!(!store.is_sound());
    // Its disk has gone for a while: nothing is made in its place, and admission goes on by what was known.
    let away = path.with_extension("away");
    std::fs::rename(&path, &away).unwrap();
    let gone = store.agents().wait().unwrap_err();
    assert!(matches!(gone, StoreError::Disk { .. }), "{gone}");
    assert!(!path.exists());
    assert!(store.directory().knows(id(1)));
    std::fs::rename(&away, &path).unwrap();
    assert!(!store.is_sound());
    assert_eq!(store.agents().wait().unwrap().len(), 1);
    assert!(store.is_sound());
    assert!(matches!(
        store.reserve(held.jti()).wait(),
        Err(StoreError::TokenReserved)
    ));
}

#[test]
fn torn_file_is_an_error_that_names_it() {
    let scratch = Scratch::new();
    let path = scratch.dir.file(FILE);
    drop(scratch.open());
    let whole = std::fs::read(&path).unwrap();
    let mut garbled = whole.clone();
    garbled[..64].fill(0xff);
    for torn in [
        &b""[..],
        b"not a store at all",
        &whole[..whole.len() / 2],
        &whole[..100],
        &garbled,
    ] {
        std::fs::write(&path, torn).unwrap();
        let error = Store::open(&scratch.dir).unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains(FILE), "{error}");
    }
}

#[test]
fn second_user_is_refused() {
    let scratch = Scratch::new();
    let _held = scratch.open();
    assert!(matches!(
        Store::open(&scratch.dir),
        Err(StoreError::InUse { .. })
    ));
}

const JTI: Uuid = Uuid::from_u128(1);
pub(super) const NOW: u64 = 1_790_000_000;

struct Scratch {
    _root: tempfile::TempDir,
    dir: StateDir,
}

impl Scratch {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        Self { _root: root, dir }
    }

    fn open(&self) -> Store {
        Store::open(&self.dir).unwrap()
    }
}

pub(super) fn id(n: u8) -> AgentId {
    AgentId(Uuid::from_u128(u128::from(n)))
}

pub(super) fn agent(n: u8, key: u8) -> AgentIdentity {
    AgentIdentity {
        id: id(n),
        name: "a".into(),
        fingerprint: [0; 32],
        spki_sha256: [key; 32],
    }
}

pub(super) fn enrolment(n: u8, key: u8) -> Enrolment {
    Enrolment {
        agent: AgentRecord {
            id: id(n),
            name: "a".to_owned(),
            spki_sha256: [key; 32],
            renewed_spki_sha256: None,
            fingerprint: [0; 32],
            hostname: None,
            enrolled_at: NOW,
            not_after: 0,
            issuer_sha256: None,
            renewed_issuer_sha256: None,
            has_connected: false,
        },
        token_expires_at: NOW + 60,
    }
}

fn enrol(store: &Store, jti: Uuid, n: u8, key: u8) -> Result<(), StoreError> {
    let held = store.reserve(jti).wait()?;
    store.commit_enrolment(held, enrolment(n, key)).wait()
}

/// Keeps the store's thread from what is asked of it, until it is told otherwise.
fn blocked(store: &Store) -> SyncSender<()> {
    let (begins, begun) = sync_channel(0);
    let (free, freed) = sync_channel(1);
    drop(store.call(move |_| {
        begins.send(()).unwrap();
        freed.recv().unwrap();
        Ok(())
    }));
    begun.recv().unwrap();
    free
}

fn renewal(key: u8) -> Renewal {
    Renewal {
        spki_sha256: [key; 32],
        fingerprint: [8; 32],
        not_after: 9,
        issuer_sha256: [9; 32],
    }
}

fn token(jti: Uuid, expires_at: u64) -> TokenRecord {
    TokenRecord {
        jti,
        name: "a".to_owned(),
        expires_at,
        state: TokenState::Issued,
    }
}
