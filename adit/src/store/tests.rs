use adit_proto_core::identity::AgentIdentity;

use super::*;

#[test]
fn token_is_used_once_also_after_a_restart() {
    let scratch = Scratch::new();
    let store = scratch.open();
    store.reserve(JTI).wait().unwrap();
    store.commit_enrolment(enrolment(1, 1)).wait().unwrap();
    assert!(matches!(
        store.reserve(JTI).wait(),
        Err(StoreError::TokenUsed)
    ));
    drop(store);
    let store = scratch.open();
    assert!(matches!(
        store.reserve(JTI).wait(),
        Err(StoreError::TokenUsed)
    ));
    let tokens = store.tokens(NOW).wait().unwrap();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].state, TokenState::Used { by: id(1) });
}

#[test]
fn reservation_excludes_others_and_ends_with_release_or_restart() {
    let scratch = Scratch::new();
    let store = scratch.open();
    store.reserve(JTI).wait().unwrap();
    assert!(matches!(
        store.reserve(JTI).wait(),
        Err(StoreError::TokenReserved)
    ));
    store.release(JTI).wait().unwrap();
    store.reserve(JTI).wait().unwrap();
    drop(store);
    scratch.open().reserve(JTI).wait().unwrap();
}

#[test]
fn commit_needs_a_reservation_and_ends_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let commit = || store.commit_enrolment(enrolment(1, 1)).wait();
    assert!(matches!(commit(), Err(StoreError::NotReserved)));
    store.reserve(JTI).wait().unwrap();
    commit().unwrap();
    assert!(matches!(commit(), Err(StoreError::NotReserved)));
}

#[test]
fn id_belongs_to_the_key_that_enrolled_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let enrol = |key| {
        let jti = Uuid::new_v4();
        store.reserve(jti).wait().unwrap();
        let outcome = store
            .commit_enrolment(Enrolment {
                jti,
                ..enrolment(1, key)
            })
            .wait();
        (jti, outcome)
    };
    enrol(1).1.unwrap();
    let (jti, refused) = enrol(2);
    assert!(matches!(refused, Err(StoreError::OtherKey)));
    store.reserve(jti).wait().unwrap();
    enrol(1).1.unwrap();
    assert!(store.delete_agent(id(1)).wait().unwrap());
    enrol(2).1.unwrap();
}

#[test]
fn directory_follows_enrolment_renewal_and_deletion() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let directory = store.directory();
    assert_eq!(directory.admit(&agent(1, 1)), Err(AdmitError::UnknownAgent));
    store.reserve(JTI).wait().unwrap();
    store.commit_enrolment(enrolment(1, 1)).wait().unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Ok(()));
    assert_eq!(directory.admit(&agent(1, 2)), Err(AdmitError::OtherKey));

    let renewal = Renewal {
        spki_sha256: [2; 32],
        fingerprint: [8; 32],
        not_after: 9,
    };
    store.renew(id(1), renewal).wait().unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Ok(()));
    assert_eq!(directory.admit(&agent(1, 2)), Ok(()));
    assert!(directory.awaits_confirmation(&agent(1, 2)));
    assert!(!directory.awaits_confirmation(&agent(1, 1)));
    store.confirm_key(id(1), [3; 32]).wait().unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Ok(()));
    store.confirm_key(id(1), [2; 32]).wait().unwrap();
    assert_eq!(directory.admit(&agent(1, 1)), Err(AdmitError::OtherKey));
    drop(store);

    let store = scratch.open();
    let directory = store.directory();
    assert_eq!(directory.admit(&agent(1, 2)), Ok(()));
    assert_eq!(store.agents().wait().unwrap()[0].fingerprint, [8; 32]);
    assert!(store.delete_agent(id(1)).wait().unwrap());
    assert!(!store.delete_agent(id(1)).wait().unwrap());
    assert_eq!(directory.admit(&agent(1, 2)), Err(AdmitError::UnknownAgent));
    let renewed = store.renew(id(1), renewal).wait();
    assert!(matches!(renewed, Err(StoreError::UnknownAgent)));
}

#[test]
fn revoked_token_cannot_be_reserved_or_committed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    store
        .record_token(NOW, token(JTI, NOW + 60))
        .wait()
        .unwrap();
    store.reserve(JTI).wait().unwrap();
    assert!(store.revoke_token(JTI).wait().unwrap());
    let committed = store.commit_enrolment(enrolment(1, 1)).wait();
    assert!(matches!(committed, Err(StoreError::TokenRevoked)));
    assert!(store.agents().wait().unwrap().is_empty());
    assert!(matches!(
        store.reserve(JTI).wait(),
        Err(StoreError::TokenRevoked)
    ));
    assert!(!store.revoke_token(JTI).wait().unwrap());
    assert!(!store.revoke_token(Uuid::nil()).wait().unwrap());
}

#[test]
fn expired_tokens_are_pruned_but_not_within_the_leeway() {
    let scratch = Scratch::new();
    let store = scratch.open();
    store.record_token(NOW, token(JTI, NOW)).wait().unwrap();
    assert_eq!(store.tokens(NOW + 300).wait().unwrap().len(), 1);
    assert!(store.tokens(NOW + 301).wait().unwrap().is_empty());
    let other = Uuid::from_u128(99);
    store
        .record_token(NOW + 301, token(other, NOW + 999))
        .wait()
        .unwrap();
    let kept = store.tokens(0).wait().unwrap();
    assert_eq!(kept.iter().map(|t| t.jti).collect::<Vec<_>>(), [other]);
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
        &b"not a store at all"[..],
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

#[tokio::test]
async fn of_parallel_uses_one_succeeds() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut uses = tokio::task::JoinSet::new();
    for n in 0..16 {
        let store = store.clone();
        uses.spawn(async move {
            store.reserve(JTI).await?;
            store.commit_enrolment(enrolment(n, n)).await
        });
    }
    let outcomes = uses.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert_eq!(store.agents().await.unwrap().len(), 1);
}

const JTI: Uuid = Uuid::from_u128(1);
const NOW: u64 = 1_790_000_000;

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

fn id(n: u8) -> AgentId {
    AgentId(Uuid::from_u128(u128::from(n)))
}

fn agent(n: u8, key: u8) -> AgentIdentity {
    AgentIdentity {
        id: id(n),
        name: "a".into(),
        fingerprint: [0; 32],
        spki_sha256: [key; 32],
    }
}

fn enrolment(n: u8, key: u8) -> Enrolment {
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
        },
        jti: JTI,
        token_expires_at: NOW + 60,
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
