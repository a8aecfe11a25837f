//! What the connection sees of its path, and what follows from that (design 8.3).

use std::time::Instant;

use super::Connection;
use crate::{
    close::{CODE_PATH_DEAD, Closed},
    liveness::{Liveness, LivenessStep, PathSample},
    output::Event,
};

impl Connection {
    pub(super) fn path_timeout(&self) -> Option<Instant> {
        self.liveness.as_ref().and_then(Liveness::poll_timeout)
    }

    pub(super) fn check_path(&mut self, now: Instant) {
        if self.path_timeout().is_none_or(|at| at > now) {
            return;
        }
        let sample = PathSample {
            acked: self.link.acked(),
            received: self.link.received(),
            sessions_open: self.carries(),
            unacked: self.control.is_sending(),
            heard_at: self.heard_at,
        };
        let Some(liveness) = &mut self.liveness else {
            return;
        };
        liveness.handle_tick(now, sample);
        while let Some(step) = self.liveness.as_mut().and_then(Liveness::poll_step) {
            match step {
                LivenessStep::Ping => self.link.ping(now),
                LivenessStep::Suspect => self.events.push_back(Event::PathSuspect),
                LivenessStep::Recovered => self.events.push_back(Event::PathRecovered),
                LivenessStep::Dead => {
                    // Peers know three codes only (peer-rpc 2).
                    let code = if self.is_peer() { 0 } else { CODE_PATH_DEAD };
                    self.shut(now, code, "path dead", Closed::PathDead);
                }
            }
        }
    }
}
