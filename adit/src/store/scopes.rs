//! Which scope and association tokens were used (agent-tunnel 15): each counts once, across restarts too.

use std::collections::{BTreeMap, BTreeSet};

use redb::{Database, Error, ReadableDatabase, ReadableTable, TableDefinition};
use uuid::Uuid;

use crate::token::LEEWAY_S;

/// The used tokens of one kind, as on disk: all that could still be taken, and those that have expired while there is
/// room.
pub(super) struct UsedTokens {
    table: Definition,
    max: usize,
    ends: BTreeMap<Uuid, u64>,
    by_end: BTreeSet<(u64, Uuid)>,
}

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenUse {
    /// This was its first use.
    First,
    /// It was used before.
    Again,
    /// No more can be remembered until some expire. None is forgotten early, as it could be used again then.
    Full,
}

impl UsedTokens {
    /// Reads them; from `max` on, no more are taken.
    pub(super) fn open(database: &Database, table: Definition, max: usize) -> Result<Self, Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(table)?;
        transaction.commit()?;
        let mut used = Self {
            table,
            max,
            ends: BTreeMap::new(),
            by_end: BTreeSet::new(),
        };
        for row in database.begin_read()?.open_table(table)?.iter()? {
            let (jti, end) = row?;
            used.insert(Uuid::from_bytes(*jti.value()), end.value());
        }
        Ok(used)
    }

    /// Uses a token, on disk when this returns. `now` and `expires_at` are Unix times in seconds.
    pub(super) fn take(
        &mut self,
        database: &Database,
        now: u64,
        jti: Uuid,
        expires_at: u64,
    ) -> Result<TokenUse, Error> {
        if self.knows(jti) {
            return Ok(TokenUse::Again);
        }
        let mut forgotten = Vec::new();
        // Only where room is needed: the clock may be ahead, and what is good once it is set right must not count again.
        if self.ends.len() >= self.max {
            let expired = |(end, _): &(u64, Uuid)| end.saturating_add(KEPT_S) < now;
            forgotten.extend(self.by_end.iter().copied().take_while(expired));
            if forgotten.is_empty() {
                return Ok(TokenUse::Full);
            }
        }
        let transaction = database.begin_write()?;
        {
            let mut rows = transaction.open_table(self.table)?;
            for (_, old) in &forgotten {
                rows.remove(old.as_bytes())?;
            }
            rows.insert(jti.as_bytes(), expires_at)?;
        }
        transaction.commit()?;
        for (end, old) in forgotten {
            self.by_end.remove(&(end, old));
            self.ends.remove(&old);
        }
        self.insert(jti, expires_at);
        Ok(TokenUse::First)
    }

    /// Whether it is remembered as used.
    pub(super) fn knows(&self, jti: Uuid) -> bool {
        self.ends.contains_key(&jti)
    }

    /// How many are remembered, those that may be forgotten with the next included, and how many can be.
    pub(super) fn usage(&self) -> (usize, usize) {
        (self.ends.len(), self.max)
    }

    fn insert(&mut self, jti: Uuid, end: u64) {
        self.ends.insert(jti, end);
        self.by_end.insert((end, jti));
    }
}

/// Time for which a used token is remembered after its end in any case, in seconds: as long as its signature could be
/// taken, and a margin, as one that was found good just before that may come here a little later.
const KEPT_S: u64 = LEEWAY_S + 60;
type Definition = TableDefinition<'static, &'static [u8; 16], u64>;
/// Scope tokens; association tokens, too, of versions that kept no table of their own for those.
pub(super) const SCOPES: Definition = TableDefinition::new("scopes");
pub(super) const ASSOCIATIONS: Definition = TableDefinition::new("associations");
/// Used tokens of one kind that are remembered at a time, about 100 bytes each: one call per second with tokens of a day.
pub(super) const USED_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_tokens_are_forgotten_only_when_they_have_expired() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::create(dir.path().join("db")).unwrap();
        let mut used = UsedTokens::open(&database, SCOPES, 3).unwrap();
        let mut take = |n, now, end| {
            let jti = Uuid::from_u128(n);
            used.take(&database, now, jti, end).unwrap()
        };
        for (n, end) in [(0, NOW + 10), (1, NOW + 20), (2, NOW + 20)] {
            assert_eq!(take(n, NOW, end), TokenUse::First);
        }
        assert_eq!(take(3, NOW, NOW), TokenUse::Full);
        let last = NOW + 10 + KEPT_S;
        assert_eq!(take(3, last, NOW), TokenUse::Full);
        assert_eq!(take(0, last, NOW + 10), TokenUse::Again);
        assert_eq!(take(3, last + 1, u64::MAX), TokenUse::First);
        assert_eq!(take(1, last + 1, NOW + 20), TokenUse::Again);
        assert_eq!(take(4, last + 1, NOW), TokenUse::Full);
        // What was forgotten is off the disk too; what was not, is not.
        let mut used = UsedTokens::open(&database, SCOPES, 3).unwrap();
        let mut take = |n| {
            let jti = Uuid::from_u128(n);
            used.take(&database, last + 1, jti, NOW).unwrap()
        };
        assert_eq!(take(0), TokenUse::Full);
        for n in [1, 2, 3] {
            assert_eq!(take(n), TokenUse::Again);
        }
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_while_makes_no_token_count_twice() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::create(dir.path().join("db")).unwrap();
        let mut used = UsedTokens::open(&database, SCOPES, 100).unwrap();
        let mut take = |n, now, end| {
            let jti = Uuid::from_u128(n);
            used.take(&database, now, jti, end).unwrap()
        };
        assert_eq!(take(1, NOW, NOW + 60), TokenUse::First);
        let ahead = NOW + 86_400;
        assert_eq!(take(2, ahead, ahead + 60), TokenUse::First);
        assert_eq!(take(1, NOW, NOW + 60), TokenUse::Again);
    }

    const NOW: u64 = 1_790_000_000;
}
