//! The operating system's clock and randomness, for the core.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use adit_proto_core::{
    env::{EndpointSecrets, Env, Seed, WallClock},
    link::provider::default_provider,
};

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The environment of a real process: randomness, clock and cryptography of the machine. Without secrets to keep, the
/// endpoint gets fresh ones: they must be unknown to others, or anybody could forge its stateless resets.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn system_env(secrets: Option<EndpointSecrets>) -> std::io::Result<Env> {
    let crypto = default_provider();
    let random = || -> std::io::Result<[u8; 32]> {
        let mut bytes = [0; 32];
        let filled = crypto.secure_random.fill(&mut bytes);
        filled.map_err(|_| std::io::Error::other("the operating system gives no randomness"))?;
        Ok(bytes)
    };
    let seed = Seed::new(random()?);
    let secrets = match secrets {
        Some(secrets) => secrets,
        None => EndpointSecrets::new(random()?, random()?),
    };
    Ok(Env {
        seed,
        wall_clock: Arc::new(SystemClock),
        crypto: Arc::new(crypto),
        secrets,
    })
}
