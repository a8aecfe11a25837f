//! The gateway's role on one connection: what the agent advertises, what is being opened.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{
    open::Open,
    record::{Advert, RouteRecord},
};
use crate::{
    close::PeerFault,
    id::{AttemptId, Slot},
    limits,
    output::Event,
    wire::control::{ControlMessage, RenewalResult},
};

/// State of the gateway's role; the connection moves the bytes for it.
#[derive(Debug)]
pub(crate) struct GatewayRole {
    record: RouteRecord,
    replacements: Replacements,
    /// Sessions whose request is out.
    pub(crate) opens: BTreeMap<Slot, Open>,
    /// Where an attempt is, for cancelling it.
    pub(crate) attempts: BTreeMap<AttemptId, Slot>,
    /// Opens that wait for stream credit, oldest first.
    pub(crate) waiting: VecDeque<Waiting>,
    /// Since when opens wait for credit although no session is left that could give it back.
    starved_since: Option<Instant>,
    /// The agent has asked for a renewal and not been answered.
    pub(crate) renewing: bool,
    /// When the next request for a renewal is passed on; none before the first.
    renewal_from: Option<Instant>,
}

/// An open that waits for stream credit.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) attempt: AttemptId,
    pub(crate) request: Bytes,
    pub(crate) deadline: Instant,
}

/// How many route sets the agent may still replace: a burst, then a steady rate.
#[derive(Debug)]
struct Replacements {
    /// When the whole burst is there again.
    full_at: Instant,
    /// Control is not read before.
    paused_until: Option<Instant>,
}

impl Replacements {
    fn new(now: Instant) -> Self {
        Self {
            full_at: now,
            paused_until: None,
        }
    }

    fn spend(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + limits::REPLACEMENT_INTERVAL;
        let next_at =
            self.full_at - limits::REPLACEMENT_INTERVAL * (limits::REPLACEMENTS_BURST - 1);
        self.paused_until = Some(next_at).filter(|at| *at > now);
    }

    fn may_read(&mut self, now: Instant) -> bool {
        self.paused_until = self.paused_until.filter(|at| *at > now);
        self.paused_until.is_none()
    }
}

/// What a control message leads to.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) event: Option<Event>,
    pub(crate) reply: Option<ControlMessage>,
}

impl GatewayRole {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            record: RouteRecord::new(now),
            replacements: Replacements::new(now),
            opens: BTreeMap::new(),
            attempts: BTreeMap::new(),
            waiting: VecDeque::new(),
            starved_since: None,
            renewing: false,
            renewal_from: None,
        }
    }

    /// Nothing that waits will be answered.
    pub(crate) fn handle_closed(&mut self) {
        self.opens.clear();
        self.attempts.clear();
        self.waiting.clear();
        self.starved_since = None;
    }

    /// Takes whether the connection carries anything.
    pub(crate) fn watch_credit(&mut self, now: Instant, carries: bool) {
        let is_starved = !carries && !self.waiting.is_empty();
        self.starved_since = is_starved.then(|| self.starved_since.unwrap_or(now));
    }

    /// Tells whether the agent has lost its streams: nothing is carried, and none comes back. A reference agent loses
    /// that of each session whose target waits for the end of its input (agent-tunnel 11.2).
    pub(crate) fn has_lost_credit(&self, now: Instant) -> bool {
        self.credit_timeout().is_some_and(|at| at <= now)
    }

    fn credit_timeout(&self) -> Option<Instant> {
        self.starved_since
            .map(|since| since + limits::CREDIT_PATIENCE)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.front().map(|waiting| waiting.deadline);
        let paused = self.replacements.paused_until;
        [waiting, paused, self.credit_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Tells whether the next control message may be read at `now`. An agent that replaces its routes too fast is not
    /// read for a while; what it sends meanwhile waits in its own window.
    pub(crate) fn may_read(&mut self, now: Instant) -> bool {
        self.replacements.may_read(now)
    }

    /// Takes a message of a version that is spoken here.
    pub(crate) fn handle_control(
        &mut self,
        now: Instant,
        message: ControlMessage,
    ) -> Result<Answer, PeerFault> {
        let answer = match message {
            ControlMessage::RouteAdvertise(advertise) => {
                let count = advertise.subnets.len() + advertise.domains.len();
                if count > limits::ROUTES_PER_AGENT_MAX {
                    return Err(PeerFault::TooManyRoutes {
                        count,
                        max: limits::ROUTES_PER_AGENT_MAX,
                    });
                }
                let epoch = advertise.epoch;
                let event = match self.record.handle_advertise(now, epoch) {
                    Advert::Accepted => {
                        self.replacements.spend(now);
                        Event::RoutesAccepted {
                            epoch,
                            routes: advertise.into_routes(),
                        }
                    }
                    Advert::Refreshed | Advert::Stale | Advert::TooMany => Event::Seen,
                };
                Answer {
                    event: Some(event),
                    reply: None,
                }
            }
            ControlMessage::Heartbeat { timestamp_ms, .. } => {
                let reply = ControlMessage::HeartbeatAck {
                    version: limits::VERSION_MAX,
                    timestamp_ms,
                };
                Answer {
                    event: Some(Event::Seen),
                    reply: Some(reply),
                }
            }
            ControlMessage::CertRenewalRequest { csr_pem, .. } => self.renewal(now, csr_pem),
            ControlMessage::HeartbeatAck { .. } | ControlMessage::CertRenewalResponse { .. } => {
                return Err(PeerFault::WrongDirection);
            }
        };
        Ok(answer)
    }

    fn renewal(&mut self, now: Instant, csr_pem: String) -> Answer {
        // One at a time: a second request before the answer is passed over.
        if self.renewing {
            return Answer::default();
        }
        if self.renewal_from.is_some_and(|from| now < from) {
            let result = RenewalResult::Refused {
                reason: RENEWAL_TOO_SOON.to_owned(),
            };
            let reply = ControlMessage::CertRenewalResponse {
                version: limits::VERSION_MAX,
                result,
            };
            return Answer {
                event: None,
                reply: Some(reply),
            };
        }
        self.renewing = true;
        self.renewal_from = Some(now + limits::RENEWAL_INTERVAL);
        Answer {
            event: Some(Event::RenewalRequested { csr_pem }),
            reply: None,
        }
    }
}

/// The answer to a request within [`limits::RENEWAL_INTERVAL`] of the one before.
const RENEWAL_TOO_SOON: &str = "asked again too soon; wait a minute";
