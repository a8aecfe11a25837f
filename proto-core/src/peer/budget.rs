//! How many bytes of peers may be held (peer-rpc 4.4).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A bound on bytes, shared by whoever has a clone: one for a process, and below it one for each connection.
///
/// What is taken from a connection's budget is taken from the process's as well.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: u64,
    used: AtomicU64,
    above: Option<Budget>,
}

/// Bytes taken from a budget and those above it; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    amount: u64,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self::below(limit, None)
    }

    /// A budget of so many bytes within this one.
    #[must_use]
    pub fn child(&self, limit: u64) -> Self {
        Self::below(limit, Some(self.clone()))
    }

    /// Bytes taken at the moment.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Relaxed)
    }

    /// Takes bytes here and from every budget above; none anywhere where one of them has too few.
    #[must_use]
    pub fn charge(&self, amount: u64) -> Option<Charge> {
        self.take(amount).then(|| Charge {
            budget: self.clone(),
            amount,
        })
    }

    fn take(&self, amount: u64) -> bool {
        let Account { limit, used, above } = &*self.0;
        let more = |used: u64| used.checked_add(amount).filter(|sum| sum <= limit);
        if used.fetch_update(Relaxed, Relaxed, more).is_err() {
            return false;
        }
        let is_taken = above.as_ref().is_none_or(|above| above.take(amount));
        if !is_taken {
            used.fetch_sub(amount, Relaxed);
        }
        is_taken
    }

    fn give_back(&self, amount: u64) {
        self.0.used.fetch_sub(amount, Relaxed);
        if let Some(above) = &self.0.above {
            above.give_back(amount);
        }
    }

    fn below(limit: u64, above: Option<Self>) -> Self {
        Self(Arc::new(Account {
            limit,
            used: AtomicU64::new(0),
            above,
        }))
    }
}

impl Charge {
    /// Takes more, so that it is this much in all; nothing has changed where there is too little. It never shrinks.
    #[must_use]
    pub fn grow(&mut self, amount: u64) -> bool {
        let more = amount.saturating_sub(self.amount);
        let is_taken = self.budget.take(more);
        if is_taken {
            self.amount = self.amount.max(amount);
        }
        is_taken
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_counts_here_and_above_until_it_is_dropped() {
        let all = Budget::new(10);
        let (one, two) = (all.child(8), all.child(8));
        let held = one.charge(7).unwrap();
        assert_eq!((one.used(), two.used(), all.used()), (7, 0, 7));
        assert!(one.charge(2).is_none(), "beyond the connection's");
        assert!(two.charge(4).is_none(), "beyond the process's");
        assert_eq!((one.used(), two.used(), all.used()), (7, 0, 7));
        let more = two.charge(3).unwrap();
        assert_eq!(all.used(), 10);
        drop(held);
        drop(more);
        assert_eq!((one.used(), two.used(), all.used()), (0, 0, 0));
    }

    #[test]
    fn a_charge_grows_as_far_as_there_is_room_everywhere() {
        let all = Budget::new(10);
        let one = all.child(8);
        let mut held = one.charge(3).unwrap();
        assert!(held.grow(5) && held.grow(4), "less is no change");
        assert_eq!((one.used(), all.used()), (5, 5));
        let other = all.charge(4).unwrap();
        assert!(!held.grow(7), "beyond the process's");
        assert_eq!((one.used(), all.used()), (5, 9));
        drop(other);
        assert!(!held.grow(9), "beyond the connection's");
        drop(held);
        assert_eq!((one.used(), all.used()), (0, 0));
    }

    #[test]
    fn no_amount_overflows() {
        let all = Budget::new(u64::MAX);
        let _held = all.charge(u64::MAX).unwrap();
        assert!(all.charge(1).is_none() && all.charge(u64::MAX).is_none());
    }
}
