//! A value that may be exchanged while others read it.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// Holds a value. Readers take the present one and go on with it; nobody waits for them.
pub struct Live<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    /// Begins with a value.
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// Takes the present value.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Exchanges the value for those who ask from now on.
    pub fn set(&self, value: T) {
        self.set_shared(Arc::new(value));
    }

    /// The same with a value that others hold already.
    pub fn set_shared(&self, value: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_keeps_what_was_there() {
        let live = Live::new(1);
        let before = live.get();
        live.set(2);
        assert_eq!((*before, *live.get()), (1, 2));
    }
}
