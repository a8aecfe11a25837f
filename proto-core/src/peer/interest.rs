//! Whether anybody waits for the answer to a request.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// Says to whoever is to execute a request whether its answer is wanted still, on whatever thread that is. It may have been
/// given up a moment after it was asked.
#[derive(Clone, Debug)]
pub struct Interest(Arc<AtomicBool>);

impl Default for Interest {
    /// Of a request that has just come.
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Interest {
    /// The caller has not given the request up, and its connection has not ended.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Says that nobody waits any more: the caller has given the request up, or its connection has ended.
    pub fn end(&self) {
        self.0.store(false, Relaxed);
    }
}
