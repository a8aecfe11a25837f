//! Renewal as the agent's task performs it: files off the task, questions over the connection that is up.

use std::time::{Instant, SystemTime};

use adit_proto_core::{agent::renewal::RenewalStep, limits::REASON_LEN_MAX, output::Renewed};

use super::{
    AgentHost, AgentInput, KeyPairs, RenewalStatus, Swap, Validity,
    core::AgentCore,
    files::{FilesFault, Kind},
    role::AgentCommand,
};
use crate::commands::Command;

/// What came of a step.
#[derive(Debug)]
pub enum RenewalNews {
    /// A request was made.
    Requested(Result<String, String>),
    /// The gateway has answered.
    Answered(Result<Renewed, String>),
    /// What the gateway can take, where it is stored.
    Stored(Result<Swap, String>),
    /// The renewed pair is the current one.
    Adopted(Result<Validity, String>),
    /// The renewed pair was put aside.
    Discarded(Result<(), String>),
    /// The former pair is the current one again.
    Reverted(Result<Validity, String>),
}

impl AgentCore {
    /// The wall clock, in seconds.
    pub(super) fn unix_s(&self) -> i64 {
        i64::try_from(self.env.wall_clock.unix_ms() / 1_000).unwrap_or(i64::MAX)
    }

    pub(super) fn perform_renewal(
        &mut self,
        now: Instant,
        step: RenewalStep,
        host: &mut impl AgentHost,
    ) {
        match step {
            RenewalStep::Request => {
                self.tell_renewal(RenewalStatus::UnderWay);
                self.have_done(now, RenewalNews::Requested, |pairs| pairs.request());
            }
            RenewalStep::Ask { csr_pem } => match self.supervisor.connection() {
                Some(dial) => {
                    tracing::info!("asking the gateway for a new certificate");
                    self.tell_renewal(RenewalStatus::UnderWay);
                    self.command(dial, Command::Role(AgentCommand::Renew(csr_pem)), host);
                }
                None => {
                    self.renewal_failed(
                        "the connection was lost before the gateway could be asked",
                    );
                    self.renewal.handle_answer(now, None);
                }
            },
            RenewalStep::Store(renewed) => {
                let store = move |pairs: &dyn KeyPairs| pairs.store(renewed).map(|()| pairs.swap());
                self.have_done(now, RenewalNews::Stored, store);
            }
        }
    }

    /// Tells of a renewal that its machine has given up by itself, and when it tries again.
    pub(super) fn tell_rest(&mut self, now: Instant) {
        let (renewal, unix_s) = (&self.renewal, self.unix_s());
        self.status
            .renewal
            .rest(|| renewal.next_attempt(now, unix_s));
    }

    fn tell_renewal(&mut self, renewal: RenewalStatus) {
        self.status.renewal = renewal;
    }

    fn renewal_failed(&mut self, why: &str) {
        self.tell_renewal(RenewalStatus::Failed {
            at: SystemTime::now(),
            why: why.to_owned(),
            next_unix_s: None,
        });
    }

    pub(super) fn adopt(&mut self, now: Instant) {
        self.have_done(now, RenewalNews::Adopted, |pairs| pairs.adopt());
    }

    pub(super) fn discard(&mut self, now: Instant) {
        self.have_done(now, RenewalNews::Discarded, |pairs| pairs.discard());
    }

    pub(super) fn revert(&mut self, now: Instant) {
        self.have_done(now, RenewalNews::Reverted, |pairs| pairs.revert());
    }

    fn in_place(&mut self, now: Instant, placed: Result<Validity, String>) {
        let validity = match placed {
            Ok(validity) => validity,
            Err(error) => {
                tracing::error!(%error, "the certificate that works could not be put in its place; it stays beside the other one, and that is tried again");
                return self.supervisor.handle_adopted(now, false);
            }
        };
        self.supervisor.handle_adopted(now, true);
        if self.renewal.handle_adopted(now, self.unix_s(), validity) {
            tracing::warn!(
                "the certificate is due for renewal as it comes; look at the clocks of this machine and the gateway"
            );
        }
        if self.supervisor.connection().is_some() {
            self.renewal.handle_up(now, self.unix_s());
        }
    }

    pub(super) fn take_news(&mut self, now: Instant, news: RenewalNews) {
        match news {
            RenewalNews::Requested(made) => {
                if let Err(error) = &made {
                    tracing::error!(%error, "no certificate request could be made; trying again later");
                    self.renewal_failed(error);
                }
                self.renewal.handle_request(now, made.ok());
            }
            RenewalNews::Answered(answer) => {
                if let Err(reason) = &answer {
                    let reason = &reason[..reason.floor_char_boundary(REASON_LEN_MAX)];
                    tracing::warn!(
                        ?reason,
                        "the gateway does not renew the certificate; trying again later"
                    );
                    self.renewal_failed(reason);
                }
                self.renewal.handle_answer(now, answer.ok());
            }
            RenewalNews::Stored(stored) => {
                match &stored {
                    Ok(swap) => {
                        tracing::info!("certificate renewed; the next connection proves it");
                        self.supervisor.handle_renewed(now, *swap);
                    }
                    Err(error) => {
                        tracing::error!(%error, "renewed certificate not kept; trying again later");
                        self.renewal_failed(error);
                    }
                }
                self.renewal.handle_stored(now, stored.is_ok());
            }
            RenewalNews::Adopted(adopted) => {
                if let Ok(validity) = &adopted {
                    let not_after_unix_s = validity.not_after;
                    tracing::info!(not_after_unix_s, "renewed certificate in use");
                    self.tell_renewal(RenewalStatus::Done {
                        at: SystemTime::now(),
                    });
                }
                self.in_place(now, adopted);
            }
            RenewalNews::Reverted(reverted) => {
                tracing::warn!(
                    "the gateway takes the former certificate and not the present one, as after a restore from a backup"
                );
                self.renewal_failed("the gateway takes the former certificate only");
                self.in_place(now, reverted);
            }
            RenewalNews::Discarded(outcome) => {
                self.renewal_failed("the renewed certificate did not lead to a connection");
                match outcome {
                    Ok(()) => {
                        tracing::warn!(
                            "the renewed certificate did not lead to a connection; the former one stays"
                        );
                    }
                    Err(error) => {
                        tracing::error!(%error, "the renewed certificate did not lead to a connection, and could not be put aside");
                    }
                }
                self.renewal.handle_discarded(now);
            }
        }
    }

    /// Files are read and written, and keys made, on a thread for that. News come in any case, and in bounded time: the
    /// machines wait for them.
    fn have_done<T: 'static>(
        &mut self,
        now: Instant,
        news: fn(Result<T, String>) -> RenewalNews,
        act: impl FnOnce(&dyn KeyPairs) -> Result<T, String> + Send + 'static,
    ) {
        let told = move |done: Result<T, FilesFault>| {
            AgentInput::Renewal(news(done.map_err(|fault| fault.to_string())))
        };
        self.files.ask(now, Kind::Change, act, told);
    }
}

impl RenewalStatus {
    /// Takes when its machine, which rests, tries again: none while it does not rest. Tells whether this changes anything.
    /// A renewal that is under way where the machine rests was given up for want of an answer: all other ends are told.
    fn rest(&mut self, next: impl FnOnce() -> Option<i64>) -> bool {
        let next_unix_s = match self {
            Self::UnderWay
            | Self::Failed {
                next_unix_s: None, ..
            } => next(),
            Self::None | Self::Done { .. } | Self::Failed { .. } => None,
        };
        let Some(next) = next_unix_s else {
            return false;
        };
        if let Self::Failed { next_unix_s, .. } = self {
            *next_unix_s = Some(next);
        } else {
            tracing::warn!("{NO_ANSWER}; trying again later");
            *self = Self::Failed {
                at: SystemTime::now(),
                why: NO_ANSWER.to_owned(),
                next_unix_s,
            };
        }
        true
    }
}

const NO_ANSWER: &str = "the gateway has not answered the request for a new certificate in time";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adit_proto_core::{agent::renewal::Renewal, env::Seed, limits::RENEWAL_ANSWER_TIMEOUT};

    use super::*;

    #[test]
    fn a_renewal_without_an_answer_is_under_way_no_more() {
        let (now, due) = (Instant::now(), 300 * 86_400);
        let validity = Validity {
            not_before: 0,
            not_after: 365 * 86_400,
        };
        let mut machine = Renewal::new(now, validity, false, &Seed::new([1; 32]));
        let mut status = RenewalStatus::UnderWay;
        machine.handle_up(now, due);
        machine.handle_request(now, Some("csr".to_owned()));
        assert!(!status.rest(|| machine.next_attempt(now, due)));
        assert_eq!(status, RenewalStatus::UnderWay);
        let late = now + RENEWAL_ANSWER_TIMEOUT;
        machine.handle_timeout(late, due + 30);
        assert!(status.rest(|| machine.next_attempt(late, due + 30)));
        let RenewalStatus::Failed {
            why, next_unix_s, ..
        } = &status
        else {
            panic!("{status:?}");
        };
        assert_eq!(why, NO_ANSWER);
        let wait = machine.poll_timeout().unwrap() - late;
        let wait = i64::try_from(wait.as_secs()).unwrap();
        assert!(wait >= 60);
        assert_eq!(*next_unix_s, Some(due + 30 + wait));
        // Said once.
        assert!(!status.rest(|| machine.next_attempt(late + Duration::from_secs(1), due + 31)));
    }

    #[test]
    fn a_failure_that_was_told_keeps_its_cause() {
        let mut status = RenewalStatus::Failed {
            at: SystemTime::UNIX_EPOCH,
            why: "refused".to_owned(),
            next_unix_s: None,
        };
        assert!(status.rest(|| Some(7)));
        let told = RenewalStatus::Failed {
            at: SystemTime::UNIX_EPOCH,
            why: "refused".to_owned(),
            next_unix_s: Some(7),
        };
        assert_eq!(status, told);
        assert!(!RenewalStatus::None.rest(|| Some(7)));
    }
}
