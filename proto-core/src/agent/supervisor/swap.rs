//! Renewal: how the connection with a new key pair takes the place of the one with the old pair, and which pair stays
//! (design 8.6).

use std::time::Instant;

use super::{
    Call, Credentials, DialId, Phase, Supervisor, SupervisorStep, Swap, credentials::Verdict,
};
use crate::limits::{ADOPTION_RETRY, DRAINING_MAX, SWAP_PATIENCE};

impl Supervisor {
    /// Takes the news that a renewed key pair is stored. Whatever shows it next has to prove it.
    ///
    /// Not while [`is_renewing`](Self::is_renewing): a third pair in place of the second would lock the agent out where
    /// the gateway has come to know the second one only.
    pub fn handle_renewed(&mut self, now: Instant, swap: Swap) {
        self.called(Some(now), || Call::Renewed(swap));
        if !matches!(self.phase, Phase::Stopped) {
            self.swap = swap;
            self.pairs.stored();
            self.replace(now);
        }
    }

    /// Takes whether the pair that has proved itself is the current one: the answer to [`SupervisorStep::Adopt`] and
    /// [`SupervisorStep::Revert`]. Where it could not be put in its place, the step comes again after
    /// [`ADOPTION_RETRY`], and attempts go on to show the pair as before.
    pub fn handle_adopted(&mut self, now: Instant, adopted: bool) {
        self.called(Some(now), || Call::Adopted(adopted));
        if adopted {
            self.pairs.settled();
        }
        if let Some(live) = &mut self.up {
            match adopted {
                true => live.credentials = Credentials::Current,
                false => live.proof_at = Some(now + ADOPTION_RETRY),
            }
        }
    }

    /// Tells whether there are two key pairs, of which one has to prove itself.
    #[must_use]
    pub fn is_renewing(&self) -> bool {
        self.pairs.are_in_doubt()
    }

    /// Sees to it that the pair to be shown is shown, where a connection is up with the other one.
    pub(super) fn replace(&mut self, now: Instant) {
        let Some(live) = &self.up else {
            return;
        };
        let (dial, gateway) = (live.dial, live.gateway);
        match self.swap {
            Swap::Overlap => {
                self.end_round(None);
                self.begin(now, gateway);
            }
            Swap::WhenIdle => {
                self.steps.push_back(SupervisorStep::Drain { dial });
                self.close_by = Some((now + SWAP_PATIENCE, dial));
            }
        }
    }

    /// What has lasted tells which pair is good, and makes what it replaced superfluous.
    pub(super) fn prove(&mut self, now: Instant) {
        let Some(live) = &mut self.up else {
            return;
        };
        if live.proof_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let verdict = self.pairs.proved(live.credentials);
        self.steps.extend(verdict.map(|verdict| match verdict {
            Verdict::Adopt => SupervisorStep::Adopt,
            Verdict::Discard => SupervisorStep::Discard,
            Verdict::Revert => SupervisorStep::Revert,
        }));
        if let Some(former) = self.former.take() {
            self.drain(former.dial);
        }
    }

    pub(super) fn drain(&mut self, dial: DialId) {
        self.steps.push_back(SupervisorStep::Drain { dial });
        self.draining.push_back(dial);
        if self.draining.len() > DRAINING_MAX {
            let oldest = self.draining.pop_front();
            self.close_all(oldest);
        }
    }
}
