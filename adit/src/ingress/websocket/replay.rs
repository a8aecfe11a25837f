//! Tokens that may be used again: those of RDP clients, from the address of their first use (agent-tunnel 15.1).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use crate::{
    store::{Store, StoreError, TokenKind},
    token::{Association, LEEWAY_S, Reuse},
};

/// Remembers who used a token first. Where it forgets, a token counts once, like any other.
#[derive(Debug, Default)]
pub(super) struct Replays {
    first: Mutex<BTreeMap<Uuid, First>>,
    /// Held from the question to the store to the note of its answer, so that whoever finds a token used finds the note.
    in_turn: tokio::sync::Mutex<()>,
}

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
        let may_return = token.reuse != Reuse::Never;
        let _turn = if may_return {
            Some(self.in_turn.lock().await)
        } else {
            None
        };
        let used = store.use_up(TokenKind::Association, now, token.jti, token.expires_at);
        match used.await {
            Ok(()) => self.note(now, token, from),
            Err(StoreError::TokenUsed) if self.allows(now, token, from) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Notes the first use of a token. `now` is Unix time in seconds.
    fn note(&self, now: u64, token: &Association, from: IpAddr) {
        let end = token.expires_at.saturating_add(LEEWAY_S);
        let until = match token.reuse {
            Reuse::Never => return,
            Reuse::For(window) => now.saturating_add(window.as_secs()).min(end),
            Reuse::WhileGood => end,
        };
        let mut known = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, first| first.until >= now);
        }
        if known.len() < KNOWN_MAX {
            known.insert(token.jti, First { from, until });
        }
    }

    /// Tells whether a token that was used may be used again.
    fn allows(&self, now: u64, token: &Association, from: IpAddr) -> bool {
        let known = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&token.jti)
            .is_some_and(|first| first.from == from && now <= first.until)
    }
}

/// Tokens that are remembered, about 100 bytes each.
const KNOWN_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::poll;

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

    #[test]
    fn a_token_comes_back_from_its_address_and_in_its_time() {
        let [home, away] = ["192.0.2.1", "192.0.2.2"].map(|ip| -> IpAddr { ip.parse().unwrap() });
        let replays = Replays::default();
        let window = token(1, Reuse::For(Duration::from_secs(60)));
        let good = token(2, Reuse::WhileGood);
        let once = token(3, Reuse::Never);
        let long = token(4, Reuse::For(Duration::from_secs(u64::MAX)));
        for token in [&window, &good, &once, &long] {
            assert!(!replays.allows(NOW, token, home));
            replays.note(NOW, token, home);
            assert!(!replays.allows(NOW, token, away));
        }
        let last = NOW + 1_000 + LEEWAY_S;
        for (token, end) in [(&window, NOW + 60), (&good, last), (&long, last)] {
            assert!(replays.allows(end, token, home));
            assert!(!replays.allows(end + 1, token, home));
        }
        assert!(!replays.allows(NOW, &once, home));
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
            let consume = || Box::pin(replays.consume(&store, NOW, &token, home));
            let (mut first, mut second) = (consume(), consume());
            for one in [&mut first, &mut second] {
                assert!(poll!(one).is_pending());
            }
            // The store has answered whoever has asked; the one who came second looks first.
            store.used_tokens(TokenKind::Association).await.unwrap();
            let (second, first) = tokio::join!(second, first);
            first.unwrap();
            assert_eq!(second.is_ok(), both, "{second:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let home: IpAddr = "192.0.2.1".parse().unwrap();
        let replays = Replays::default();
        let window = Reuse::For(Duration::from_secs(60));
        for n in 0..=KNOWN_MAX as u128 {
            replays.note(NOW, &token(n, window), home);
        }
        assert!(replays.allows(NOW, &token(0, window), home));
        let late = token(KNOWN_MAX as u128, window);
        assert!(!replays.allows(NOW, &late, home));
        replays.note(NOW + 61, &late, home);
        assert!(replays.allows(NOW + 61, &late, home));
        assert_eq!(replays.first.lock().unwrap().len(), 1);
    }
}
