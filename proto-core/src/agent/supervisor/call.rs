//! Everything that can be asked of a [`Supervisor`], as a value: for journals (design 8.17).

use std::{net::IpAddr, time::Instant};

use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};

use super::{
    DialId, GatewayIndex, KeptPairs, LossKind, Supervisor, SupervisorError, SupervisorStep, Swap,
};
use crate::{
    agent::dial::ResolveError,
    journal::{Begin, Journal, Recording, wait},
    target::Target,
};

/// One call of a supervisor by its owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Resolved(GatewayIndex, Result<Vec<IpAddr>, ResolveError>),
    Established(DialId),
    Closed(DialId, LossKind),
    Renewed(Swap),
    Adopted(bool),
    NetworkChange,
    Timeout,
    Shutdown,
}

impl Supervisor {
    /// Takes down from here on what happens; to be called at once after it was made.
    pub fn record_in(&mut self, journal: &Journal) {
        let (now, kept) = self.begun;
        let targets = self.gateways.iter().map(|gateway| gateway.target.clone());
        let begin = Begin::Supervisor {
            gateways: targets.collect(),
            kept,
            seed: self.rng.get_seed(),
        };
        self.recording = Recording::begin(journal, now, &begin);
    }

    /// Makes one that does again what another did.
    pub(crate) fn replay(
        now: Instant,
        gateways: Vec<Target>,
        kept: KeptPairs,
        seed: [u8; 32],
        recording: Recording,
    ) -> Result<Self, SupervisorError> {
        let rng = ChaCha12Rng::from_seed(seed);
        let mut supervisor = Self::begun(now, gateways, kept, rng)?;
        supervisor.recording = recording;
        Ok(supervisor)
    }

    /// Takes down a call, and when the next one was wished for until now.
    pub(super) fn called(&mut self, now: Option<Instant>, call: impl FnOnce() -> Call) {
        if self.recording.is_on() {
            let due = self.poll_timeout();
            self.recording.told(|last| wait(due, last));
            self.recording.call(now, call);
        }
    }

    pub(crate) fn recording(&mut self) -> &mut Recording {
        &mut self.recording
    }

    /// Does once more what was done.
    pub(crate) fn apply(&mut self, now: Instant, call: Call) {
        match call {
            Call::Resolved(gateway, answer) => self.handle_resolved(now, gateway, answer),
            Call::Established(dial) => self.handle_established(now, dial),
            Call::Closed(dial, why) => self.handle_closed(now, dial, why),
            Call::Renewed(swap) => self.handle_renewed(now, swap),
            Call::Adopted(adopted) => self.handle_adopted(now, adopted),
            Call::NetworkChange => self.handle_network_change(now),
            Call::Timeout => self.handle_timeout(now),
            Call::Shutdown => self.shutdown(),
        }
    }
}

/// What a journal says of a step, at `now`.
pub(crate) fn describe(step: &SupervisorStep, now: Instant) -> String {
    match step {
        SupervisorStep::Waiting {
            until,
            gateway,
            cause,
        } => {
            let wait = until.saturating_duration_since(now);
            format!("Waiting {{ {wait:?}, gateway: {gateway:?}, cause: {cause:?} }}")
        }
        step @ (SupervisorStep::Resolve { .. }
        | SupervisorStep::Connect { .. }
        | SupervisorStep::Close { .. }
        | SupervisorStep::Drain { .. }
        | SupervisorStep::Adopt
        | SupervisorStep::Discard
        | SupervisorStep::Revert
        | SupervisorStep::Up { .. }) => format!("{step:?}"),
    }
}
