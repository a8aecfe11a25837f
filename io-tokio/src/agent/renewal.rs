//! Renewal as the agent's task performs it: files off the task, questions over the connection that is up.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use adit_proto_core::{agent::renewal::RenewalStep, limits::REASON_LEN_MAX, output::Renewed};

use super::{AgentInput, KeyPairs, RenewalStatus, Validity, role::AgentCommand, task::AgentTask};
use crate::connection_task::Command;

/// What came of a step.
#[derive(Debug)]
pub(crate) enum RenewalNews {
    Requested(Result<String, String>),
    Answered(Result<Renewed, String>),
    Stored(Result<(), String>),
    Adopted(Result<Validity, String>),
    Discarded(Result<(), String>),
    Reverted(Result<Validity, String>),
}

impl AgentTask {
    /// The wall clock, in seconds.
    pub(super) fn unix_s(&self) -> i64 {
        i64::try_from(self.env.wall_clock.unix_ms() / 1_000).unwrap_or(i64::MAX)
    }

    pub(super) fn perform_renewal(&mut self, now: Instant, step: RenewalStep) {
        match step {
            RenewalStep::Request => {
                self.tell_renewal(RenewalStatus::UnderWay);
                self.off_the_task(|pairs| RenewalNews::Requested(pairs.request()));
            }
            RenewalStep::Ask { csr_pem } => match self.supervisor.connection() {
                Some(dial) => {
                    tracing::info!("asking the gateway for a new certificate");
                    self.command(dial, Command::Role(AgentCommand::Renew(csr_pem)));
                }
                None => {
                    self.renewal_failed(
                        "the connection was lost before the gateway could be asked",
                    );
                    self.renewal.handle_answer(now, None);
                }
            },
            RenewalStep::Store(renewed) => {
                self.off_the_task(move |pairs| RenewalNews::Stored(pairs.store(renewed)));
            }
        }
    }

    fn tell_renewal(&self, renewal: RenewalStatus) {
        self.status.send_modify(|status| status.renewal = renewal);
    }

    fn renewal_failed(&self, why: &str) {
        self.tell_renewal(RenewalStatus::Failed {
            at: SystemTime::now(),
            why: why.to_owned(),
        });
    }

    pub(super) fn adopt(&self) {
        self.off_the_task(|pairs| RenewalNews::Adopted(pairs.adopt()));
    }

    pub(super) fn discard(&self) {
        self.off_the_task(|pairs| RenewalNews::Discarded(pairs.discard()));
    }

    pub(super) fn revert(&self) {
        self.off_the_task(|pairs| RenewalNews::Reverted(pairs.revert()));
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
                    Ok(()) => {
                        tracing::info!("certificate renewed; the next connection proves it");
                        self.supervisor
                            .handle_renewed(now, self.config.pairs.swap());
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

    /// Files are read and written, and keys made, on a thread for that.
    fn off_the_task(&self, act: impl FnOnce(&dyn KeyPairs) -> RenewalNews + Send + 'static) {
        let (pairs, own) = (Arc::clone(&self.config.pairs), self.own.clone());
        tokio::task::spawn_blocking(move || {
            own.push_or_stop(AgentInput::Renewal(act(&*pairs)));
        });
    }
}
