//! The agent's role on one connection: what is advertised, which sessions are asked for.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    accept::Accept,
    advertise::{AdvertiseStep, Advertiser, AdvertiserConfig, AdvertiserConfigError},
};
use crate::{
    close::PeerFault,
    error::EncodeError,
    id::Slot,
    limits,
    output::{Event, Renewed},
    route::RouteSet,
    wire::control::{Advertised, ControlMessage, RenewalResult},
};

/// State of the agent's role; the connection moves the bytes for it.
#[derive(Debug)]
pub(crate) struct AgentRole {
    config: AdvertiserConfig,
    routes: Arc<RouteSet>,
    /// From the handshake's end on.
    advertiser: Option<Advertiser>,
    /// Sessions asked for and not yet answered.
    pub(crate) accepts: BTreeMap<Slot, Accept>,
    renewal: Renewal,
}

#[derive(Debug)]
enum Renewal {
    Idle,
    Queued(String),
    Awaiting,
}

/// A route set that cannot be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoutesError {
    /// More routes than a gateway of this version takes.
    #[error("{count} routes, at most {max} are taken: advertise wider subnets or wildcards")]
    TooMany {
        /// Subnets and domains.
        count: usize,
        /// [`limits::ROUTES_PER_AGENT_MAX`].
        max: usize,
    },
    /// The set does not fit one control message.
    #[error("the routes do not fit one message: {0}")]
    TooLarge(EncodeError),
    /// The intervals of the advertiser are not usable.
    #[error(transparent)]
    Interval(AdvertiserConfigError),
}

impl AgentRole {
    pub(crate) fn new(
        config: AdvertiserConfig,
        routes: Arc<RouteSet>,
    ) -> Result<Self, RoutesError> {
        config.check().map_err(RoutesError::Interval)?;
        check_routes(&routes)?;
        Ok(Self {
            config,
            routes,
            advertiser: None,
            accepts: BTreeMap::new(),
            renewal: Renewal::Idle,
        })
    }

    pub(crate) fn handle_connected(&mut self, now: Instant) {
        // The intervals were checked at construction.
        self.advertiser = Advertiser::new(now, self.config, Arc::clone(&self.routes)).ok();
    }

    pub(crate) fn set_routes(
        &mut self,
        now: Instant,
        routes: Arc<RouteSet>,
    ) -> Result<(), RoutesError> {
        check_routes(&routes)?;
        self.routes = Arc::clone(&routes);
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.set_routes(now, routes);
        }
        Ok(())
    }

    /// Queues a request; one that was not answered is asked again by it.
    pub(crate) fn renew(&mut self, csr_pem: String) {
        self.renewal = Renewal::Queued(csr_pem);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.advertiser.as_ref().map(Advertiser::poll_timeout)
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.advertiser.as_ref()?.round_trip()
    }

    /// A control message of so many bytes was sent.
    pub(crate) fn handle_sent(&mut self, now: Instant, len: usize) {
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.handle_sent(now, len);
        }
    }

    /// Gives the next control message that is due at `now`. Without room for it the timers go on and the message
    /// waits; a repetition then replaces it.
    ///
    /// # Errors
    /// [`PeerFault::HeartbeatsUnanswered`] where the gateway does not answer any more.
    pub(crate) fn poll_control(
        &mut self,
        now: Instant,
        unix_ms: impl FnOnce() -> u64,
        sessions: u32,
        has_room: bool,
    ) -> Result<Option<ControlMessage>, PeerFault> {
        let Some(advertiser) = &mut self.advertiser else {
            return Ok(None);
        };
        advertiser.handle_timeout(now, unix_ms, sessions);
        if advertiser.is_unanswered() {
            return Err(PeerFault::HeartbeatsUnanswered);
        }
        if !has_room {
            return Ok(None);
        }
        let version = limits::VERSION_MAX;
        if let Some(step) = advertiser.poll_step() {
            return Ok(Some(match step {
                AdvertiseStep::Advertise { epoch, routes } => {
                    ControlMessage::RouteAdvertise(Advertised::new(epoch, &routes).message)
                }
                AdvertiseStep::Heartbeat {
                    timestamp_ms,
                    sessions,
                } => ControlMessage::Heartbeat {
                    version,
                    timestamp_ms,
                    active_stream_count: sessions,
                },
            }));
        }
        let Renewal::Queued(csr_pem) = &mut self.renewal else {
            return Ok(None);
        };
        let csr_pem = std::mem::take(csr_pem);
        self.renewal = Renewal::Awaiting;
        Ok(Some(ControlMessage::CertRenewalRequest {
            version,
            csr_pem,
        }))
    }

    /// Takes a message of a version that is spoken here.
    pub(crate) fn handle_control(
        &mut self,
        now: Instant,
        message: ControlMessage,
    ) -> Result<Option<Event>, PeerFault> {
        match message {
            ControlMessage::HeartbeatAck { timestamp_ms, .. } => {
                if let Some(advertiser) = &mut self.advertiser {
                    advertiser.handle_ack(now, timestamp_ms);
                }
                Ok(None)
            }
            ControlMessage::CertRenewalResponse { result, .. } => Ok(self.handle_renewal(result)),
            ControlMessage::RouteAdvertise(_)
            | ControlMessage::Heartbeat { .. }
            | ControlMessage::CertRenewalRequest { .. } => Err(PeerFault::WrongDirection),
        }
    }

    /// An answer that nobody asked for changes nothing.
    fn handle_renewal(&mut self, result: RenewalResult) -> Option<Event> {
        if !matches!(self.renewal, Renewal::Awaiting) {
            return None;
        }
        self.renewal = Renewal::Idle;
        Some(Event::RenewalAnswered(match result {
            RenewalResult::Granted {
                client_cert_pem,
                gateway_ca_cert_pem,
            } => Ok(Renewed {
                client_cert_pem,
                gateway_ca_pem: gateway_ca_cert_pem,
            }),
            RenewalResult::Refused { reason } => Err(reason),
        }))
    }
}

/// Tells whether a set can be advertised.
///
/// # Errors
/// [`RoutesError::TooMany`], [`RoutesError::TooLarge`].
pub fn check_routes(routes: &RouteSet) -> Result<(), RoutesError> {
    let count = routes.len();
    if count > limits::ROUTES_PER_AGENT_MAX {
        return Err(RoutesError::TooMany {
            count,
            max: limits::ROUTES_PER_AGENT_MAX,
        });
    }
    ControlMessage::RouteAdvertise(Advertised::new(1, routes).message)
        .encode()
        .map(drop)
        .map_err(RoutesError::TooLarge)
}
