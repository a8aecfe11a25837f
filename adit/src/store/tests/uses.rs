//! How often a token counts.

use super::*;

#[test]
fn token_is_used_once_also_after_a_restart() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
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
fn the_same_agent_with_the_same_key_may_use_its_token_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    let again = |n, key| {
        let held = store.reserve_again(JTI, id(n)).wait()?;
        store.commit_enrolment(held, enrolment(n, key)).wait()
    };
    again(1, 1).unwrap();
    for (n, key) in [(1, 2), (2, 1), (2, 2)] {
        assert!(matches!(again(n, key), Err(StoreError::TokenUsed)));
    }
    again(1, 1).unwrap();
    store.delete_agent(id(1)).wait().unwrap();
    assert!(matches!(again(1, 1), Err(StoreError::TokenUsed)));
}

#[test]
fn an_agent_that_has_connected_needs_another_token() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    let directory = store.directory();
    assert!(directory.awaits_confirmation(&agent(1, 1)));
    assert!(!directory.has_connected(id(1)));
    // A stranger's key proves nothing of the agent.
    store.confirm(agent(1, 2)).wait().unwrap();
    assert!(!directory.has_connected(id(1)));
    let early = store.reserve_again(JTI, id(1)).wait().unwrap();
    store.confirm(agent(1, 1)).wait().unwrap();
    assert!(directory.has_connected(id(1)));
    assert!(!directory.awaits_confirmation(&agent(1, 1)));
    let late = store.commit_enrolment(early, enrolment(1, 1)).wait();
    assert!(matches!(late, Err(StoreError::TokenUsed)), "{late:?}");
    drop(store);
    let store = scratch.open();
    assert!(store.directory().has_connected(id(1)));
    // Its renewed key, which it has not shown yet, is left alone.
    store.renew(agent(1, 1), renewal(2)).unwrap();
    let held = store.reserve_again(JTI, id(1)).wait().unwrap();
    let late = store.commit_enrolment(held, enrolment(1, 1)).wait();
    assert!(matches!(late, Err(StoreError::TokenUsed)), "{late:?}");
    let record = store.agent(id(1)).wait().unwrap().unwrap();
    assert_eq!(record.renewed_spki_sha256, Some([2; 32]));
    // With another token it begins anew.
    enrol(&store, Uuid::from_u128(2), 1, 1).unwrap();
    assert!(!store.directory().has_connected(id(1)));
}

#[tokio::test]
async fn of_parallel_uses_one_succeeds() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut uses = tokio::task::JoinSet::new();
    for n in 0..16 {
        let store = store.clone();
        uses.spawn(async move {
            let held = store.reserve(JTI).await?;
            store.commit_enrolment(held, enrolment(n, n)).await
        });
    }
    let outcomes = uses.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert_eq!(store.agents().await.unwrap().len(), 1);
}

#[test]
fn scope_token_is_used_once_also_after_a_restart() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let take = |store: &Store, n, now| {
        let used = store.use_up(TokenKind::Scope, now, Uuid::from_u128(n), NOW);
        used.wait()
    };
    take(&store, 1, NOW).unwrap();
    assert!(matches!(take(&store, 1, NOW), Err(StoreError::TokenUsed)));
    drop(store);
    let store = scratch.open();
    assert!(matches!(take(&store, 1, NOW), Err(StoreError::TokenUsed)));
    take(&store, 2, NOW).unwrap();
    assert!(store.tokens(NOW).wait().unwrap().is_empty());
}

#[test]
fn tokens_of_one_kind_take_no_room_from_those_of_the_other() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let take = |kind, n| store.use_up(kind, NOW, Uuid::from_u128(n), NOW).wait();
    let used = |kind| store.used(kind);
    for n in 1..=3 {
        take(TokenKind::Association, n).unwrap();
    }
    take(TokenKind::Scope, 4).unwrap();
    assert_eq!(used(TokenKind::Association).0, 3);
    assert_eq!(used(TokenKind::Scope).0, 1);
    // However it is used, it counts once.
    for kind in [TokenKind::Scope, TokenKind::Association] {
        for n in 1..=4 {
            assert!(matches!(take(kind, n), Err(StoreError::TokenUsed)));
        }
    }
}
