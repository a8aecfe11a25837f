//! The one stream of randomness of a thread.

use std::cell::RefCell;

use rand_chacha::{
    ChaCha12Rng,
    rand_core::{Rng, SeedableRng},
};
use rustls::crypto::{GetRandomFailed, SecureRandom};

/// Seeds the calling thread's stream; a run does it once, at its start. All providers on this thread draw from it.
///
/// A stream per thread, because rustls wants its sources `'static`: a source per run would have to be leaked.
pub fn seed_thread(key: [u8; 32]) {
    STREAM.set(Some(ChaCha12Rng::from_seed(key)));
}

/// Draws from the calling thread's stream; fails where there is none.
#[derive(Debug)]
pub(super) struct ThreadStream;

impl SecureRandom for ThreadStream {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        STREAM.with_borrow_mut(|stream| {
            let stream = stream.as_mut().ok_or(GetRandomFailed)?;
            stream.fill_bytes(buf);
            Ok(())
        })
    }
}

thread_local! {
    static STREAM: RefCell<Option<ChaCha12Rng>> = const { RefCell::new(None) };
}
