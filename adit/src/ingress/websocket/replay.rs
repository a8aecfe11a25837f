//! Tokens that may be used again: those of RDP clients, from the address of their first use (agent-tunnel 15.1).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use uuid::Uuid;

use crate::{
    store::{Store, StoreError, TokenKind},
    token::{Association, LEEWAY_S, Reuse},
};

/// Remembers who used a token first. Where it forgets, a token counts once, like any other.
#[derive(Debug, Default)]
pub(super) struct Replays {
    first: Arc<Firsts>,
    /// Each for the tokens whose ids end alike. Held from the question to the store to the note of its answer, so that
    /// whoever finds a token used finds the note.
    turns: [Arc<tokio::sync::Mutex<()>>; TURNS],
}

/// First uses by token.
#[derive(Debug, Default)]
struct Firsts(Mutex<BTreeMap<Uuid, First>>);

#[derive(Debug)]
struct First {
    from: IpAddr,
    /// Unix time, in seconds.
    until: u64,
}

impl Replays {
    /// Uses a token up, or lets it be used again. `now` is Unix time in seconds.
    ///
    /// # Errors
    /// [`StoreError::TokenUsed`] where it counts no more, and what else keeps the store from telling.
    pub(super) async fn consume(
        &self,
        store: &Store,
        now: u64,
        token: &Association,
        from: IpAddr,
    ) -> Result<(), StoreError> {
        let jti = token.jti;
        let use_up = || store.use_up(TokenKind::Association, now, jti, token.expires_at);
        let Some(until) = end_of_reuse(now, token) else {
            return use_up().await;
        };
        let turn = &self.turns[usize::from(jti.as_bytes()[15]) % TURNS];
        let turn = Arc::clone(turn).lock_owned().await;
        let (used, first) = (use_up(), Arc::clone(&self.first));
        // The store answers also those who have left: without the note they could not come back. No more of these tasks
        // than turns.
        let noted = tokio::spawn(async move {
            let _turn = turn;
            match used.await {
                Ok(()) => first.note(now, jti, First { from, until }),
                Err(StoreError::TokenUsed) if first.allows(now, jti, from) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        });
        noted.await.unwrap_or(Err(StoreError::Stopped))
    }
}

impl Firsts {
    /// Notes the first use of a token. `now` is Unix time in seconds.
    fn note(&self, now: u64, jti: Uuid, first: First) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, first| first.until >= now);
        }
        if known.len() < KNOWN_MAX {
            known.insert(jti, first);
        }
    }

    /// Tells whether a token that was used may be used again.
    fn allows(&self, now: u64, jti: Uuid, from: IpAddr) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&jti)
            .is_some_and(|first| first.from == from && now <= first.until)
    }
}

/// Until when a token that is used first now may be used again, in Unix seconds; none where it may not.
fn end_of_reuse(now: u64, token: &Association) -> Option<u64> {
    let end = token.expires_at.saturating_add(LEEWAY_S);
    match token.reuse {
        Reuse::Never => None,
        Reuse::For(window) => Some(now.saturating_add(window.as_secs()).min(end)),
        Reuse::WhileGood => Some(end),
    }
}

/// Tokens that are remembered, about 100 bytes each.
const KNOWN_MAX: usize = 10_000;
/// More than users begin at once.
const TURNS: usize = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{future::maybe_done, poll};

    use super::*;
    use crate::state::StateDir;

    const NOW: u64 = 1_790_000_000;

    fn token(jti: u128, reuse: Reuse) -> Association {
        Association {
            jti: Uuid::from_u128(jti),
            expires_at: NOW + 1_000,
            id: Uuid::nil(),
            targets: Vec::new(),
            agent: None,
            lifetime: None,
            target_cert: None,
            reuse,
        }
    }

    fn note(replays: &Replays, now: u64, token: &Association, from: IpAddr) {
        if let Some(until) = end_of_reuse(now, token) {
            replays.first.note(now, token.jti, First { from, until });
        }
    }

    fn allows(replays: &Replays, now: u64, token: &Association, from: IpAddr) -> bool {
        replays.first.allows(now, token.jti, from)
    }

    #[test]
    fn a_token_comes_back_from_its_address_and_in_its_time() {
        let [home, away] = ["192.0.2.1", "192.0.2.2"].map(|ip| -> IpAddr { ip.parse().unwrap() });
        let replays = Replays::default();
        let window = token(1, Reuse::For(Duration::from_secs(60)));
        let good = token(2, Reuse::WhileGood);
        let once = token(3, Reuse::Never);
        let long = token(4, Reuse::For(Duration::from_secs(u64::MAX)));
        for token in [&window, &good, &once, &long] {
            assert!(!allows(&replays, NOW, token, home));
            note(&replays, NOW, token, home);
            assert!(!allows(&replays, NOW, token, away));
        }
        let last = NOW + 1_000 + LEEWAY_S;
        for (token, end) in [(&window, NOW + 60), (&good, last), (&long, last)] {
            assert!(allows(&replays, end, token, home));
            assert!(!allows(&replays, end + 1, token, home));
        }
        assert!(!allows(&replays, NOW, &once, home));
    }

    #[tokio::test]
    async fn those_who_come_at_once_are_let_in_if_the_token_may_be_used_again() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&StateDir::open(root.path().join("s")).unwrap()).unwrap();
        let home: IpAddr = "192.0.2.1".parse().unwrap();
        let replays = Replays::default();
        for (token, both) in [
            (token(1, Reuse::For(Duration::from_secs(60))), true),
            (token(2, Reuse::Never), false),
        ] {
            let consume = || Box::pin(maybe_done(replays.consume(&store, NOW, &token, home)));
            let (mut first, mut second) = (consume(), consume());
            for one in [&mut first, &mut second] {
                let _answered_already = poll!(one);
            }
            // The store has answered whoever has asked; the one who came second looks first.
            store.used_tokens(TokenKind::Association).await.unwrap();
            tokio::join!(&mut second, &mut first);
            first.as_mut().take_output().unwrap().unwrap();
            let second = second.as_mut().take_output().unwrap();
            assert_eq!(second.is_ok(), both, "{second:?}");
        }
    }

    #[tokio::test]
    async fn one_who_leaves_before_the_answer_may_come_back() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&StateDir::open(root.path().join("s")).unwrap()).unwrap();
        let home: IpAddr = "192.0.2.1".parse().unwrap();
        let replays = Replays::default();
        for rounds in 0..4 {
            let token = token(rounds, Reuse::WhileGood);
            let mut leaves = Box::pin(maybe_done(replays.consume(&store, NOW, &token, home)));
            let _answered_already = poll!(&mut leaves);
            for _ in 0..rounds {
                tokio::task::yield_now().await;
            }
            drop(leaves);
            replays.consume(&store, NOW, &token, home).await.unwrap();
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let home: IpAddr = "192.0.2.1".parse().unwrap();
        let replays = Replays::default();
        let window = Reuse::For(Duration::from_secs(60));
        for n in 0..=KNOWN_MAX as u128 {
            note(&replays, NOW, &token(n, window), home);
        }
        assert!(allows(&replays, NOW, &token(0, window), home));
        let late = token(KNOWN_MAX as u128, window);
        assert!(!allows(&replays, NOW, &late, home));
        note(&replays, NOW + 61, &late, home);
        assert!(allows(&replays, NOW + 61, &late, home));
        assert_eq!(replays.first.0.lock().unwrap().len(), 1);
    }
}
