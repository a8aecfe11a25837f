//! The real connection under watch: an application that does what a script says, and what the connection told it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use adit_proto_core::{
    agent::advertise::AdvertiserConfig,
    close::{CloseReason, Closed},
    connection::Connection,
    endpoint::{AgentConfig, Endpoint, EndpointLimits},
    gateway::AttemptError,
    id::{AttemptId, SessionId, Slot},
    limits::{DIAL_TIMEOUT, OPEN_TIMEOUT},
    output::{Event, Input, Output, PathMeta, Renewed, Routed, SessionEnd, TransmitBuf},
    route::RouteSet,
    session::Read,
    target::Target,
};
use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::env;
use crate::{fixtures, input};

/// One endpoint with one connection.
pub(super) struct Watched {
    endpoint: Endpoint,
    pub(super) conn: Option<Connection>,
    buf: TransmitBuf,
    pub(super) deadline: Option<Instant>,
    pub(super) said: Said,
}

/// Everything that the connection said, judged against what it said before.
#[derive(Default)]
pub(super) struct Said {
    pub(super) is_up: bool,
    pub(super) closed: Option<Closed>,
    pub(super) has_closed: bool,
    /// The path was suspect at some time.
    pub(super) is_suspect: bool,
    /// Attempts by their number: what was asked for.
    pub(super) asked: Vec<Target>,
    /// Attempts without an outcome, and when they began.
    pub(super) attempts: BTreeMap<AttemptId, Instant>,
    /// Requests that came, with what they asked for.
    pub(super) requests: BTreeMap<Slot, (SessionId, Target)>,
    /// Requests without an answer, and when they came.
    pub(super) undecided: BTreeMap<Slot, Instant>,
    pub(super) flows: BTreeMap<Slot, Flow>,
    pub(super) routes: Vec<(u64, RouteSet)>,
    pub(super) renewal_asked: u64,
    ended: BTreeSet<Slot>,
}

/// The bytes of an open session.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) sent: Vec<u8>,
    /// The application has ended its half cleanly.
    pub(super) finished: bool,
    /// It has abandoned the session.
    pub(super) abandoned: bool,
    pub(super) got: Vec<u8>,
    pub(super) got_end: bool,
}

impl Watched {
    pub(super) fn gateway() -> Self {
        let tls = fixtures::gateway_tls(fixtures::GATEWAY, fixtures::GATEWAY_KEY, fixtures::CA);
        let endpoint = Endpoint::gateway(&tls, EndpointLimits::default(), &env());
        Self::new(fixtures::known(endpoint), None)
    }

    pub(super) fn agent(now: Instant, remote: SocketAddr, routes: RouteSet) -> Self {
        let tls = fixtures::agent_tls(fixtures::AGENT, fixtures::AGENT_KEY, fixtures::CA);
        let config = AgentConfig {
            tls: Arc::new(tls),
            routes: Arc::new(routes),
            intervals: AdvertiserConfig::default(),
        };
        let mut endpoint = Endpoint::agent(&env());
        let conn = endpoint.connect(now, &config, remote, fixtures::GATEWAY_NAME, &env());
        Self::new(endpoint, Some(fixtures::known(conn)))
    }

    fn new(endpoint: Endpoint, conn: Option<Connection>) -> Self {
        Self {
            endpoint,
            conn,
            buf: TransmitBuf::new(1),
            deadline: None,
            said: Said::default(),
        }
    }

    /// Tells whether nothing is left of the connection.
    pub(super) fn is_gone(&self) -> bool {
        self.endpoint.connections() == 0 && self.conn.as_ref().is_none_or(Connection::is_drained)
    }

    pub(super) fn receive(&mut self, now: Instant, remote: SocketAddr, data: BytesMut) {
        let path = PathMeta {
            remote,
            local_ip: None,
            ecn: None,
        };
        match self
            .endpoint
            .handle_datagram(now, path, data, &mut Vec::new())
        {
            Routed::Existing(id, message) => {
                if let Some(conn) = self.conn.as_mut().filter(|conn| conn.id() == id) {
                    conn.handle_input(now, Input::FromEndpoint(message));
                }
            }
            Routed::New(conn) => {
                assert!(self.conn.is_none(), "a second connection");
                self.conn = Some(*conn);
            }
            Routed::Reply(_) | Routed::Dropped => {}
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if let Some(conn) = &mut self.conn {
            conn.handle_input(now, Input::Timeout);
        }
    }

    /// Polls until the connection waits, and gives the datagrams that are ready.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<BytesMut> {
        let mut datagrams = Vec::new();
        while let Some(conn) = &mut self.conn {
            match conn.poll_output(now, &mut self.buf) {
                Output::Notice(notice) => {
                    if let Some(message) = self.endpoint.handle_notice(notice) {
                        conn.handle_input(now, Input::FromEndpoint(message));
                    }
                }
                Output::Event(event) => self.said.take(now, event),
                Output::Transmit(_) => {
                    datagrams.push(self.buf.bytes().into());
                    self.buf.clear();
                }
                Output::Wait(deadline) => {
                    self.deadline = deadline;
                    break;
                }
            }
        }
        datagrams
    }

    pub(super) fn open(&mut self, now: Instant, target: Target) {
        let nth = self.said.asked.len() as u64;
        let attempt = AttemptId(nth);
        if let Some(mut gateway) = self.conn.as_mut().and_then(Connection::as_gateway) {
            gateway.open_session(now, attempt, session_id(nth), &target);
            self.said.asked.push(target);
            self.said.attempts.insert(attempt, now);
        }
    }

    pub(super) fn cancel(&mut self, nth: usize) {
        let waiting = self.said.attempts.len().max(1);
        let Some(attempt) = self.said.attempts.keys().nth(nth % waiting).copied() else {
            return;
        };
        if let Some(mut gateway) = self.conn.as_mut().and_then(Connection::as_gateway) {
            gateway.cancel(attempt);
            self.said.attempts.remove(&attempt);
        }
    }

    pub(super) fn decide(&mut self, nth: usize, accept: bool) {
        let undecided = self.said.undecided.len().max(1);
        let Some(slot) = self.said.undecided.keys().nth(nth % undecided).copied() else {
            return;
        };
        let Some(mut agent) = self.conn.as_mut().and_then(Connection::as_agent) else {
            return;
        };
        let answered = match accept {
            true => agent.accept(slot),
            false => agent.refuse(slot, "no"),
        };
        let is_over = self.said.closed.is_some() || self.said.ended.contains(&slot);
        assert!(answered.is_ok() || is_over, "{slot}: {answered:?}");
        self.said.undecided.remove(&slot);
        if accept && answered.is_ok() {
            self.said.flows.insert(slot, Flow::default());
        }
    }

    pub(super) fn renew(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        if let Some(mut agent) = conn.as_agent() {
            self.said.renewal_asked += u64::from(agent.renew("csr".to_owned()).is_ok());
        } else if let Some(mut gateway) = conn.as_gateway() {
            let renewed = Renewed {
                client_cert_pem: "cert".to_owned(),
                gateway_ca_pem: "ca".to_owned(),
            };
            let was_awaited = gateway.answer_renewal(Ok(renewed));
            assert!(!was_awaited || self.said.renewal_asked > 0);
            self.said.renewal_asked -= u64::from(was_awaited);
        }
    }

    pub(super) fn advertise(&mut self, now: Instant, routes: RouteSet) {
        if let Some(mut agent) = self.conn.as_mut().and_then(Connection::as_agent) {
            fixtures::known(agent.set_routes(now, Arc::new(routes)));
        }
    }

    /// Moves bytes of the session whose number a script gives: reads up to `max`, writes as many.
    pub(super) fn pump(&mut self, nth: usize, max: usize) {
        let Some((slot, flow)) = self.said.nth_flow(nth) else {
            return;
        };
        let Some(conn) = &mut self.conn else { return };
        let Some(mut session) = conn.session(slot) else {
            return;
        };
        let mut chunks = VecDeque::new();
        let state = session.read(max, &mut chunks);
        flow.got.extend(chunks.iter().flatten());
        flow.got_end |= state == Ok(Read::End);
        let Some(mut session) = conn.session(slot) else {
            return;
        };
        let from = flow.sent.len();
        let bytes: Vec<u8> = (from..from + max).map(|at| pattern(slot.0, at)).collect();
        let mut chunk = Bytes::from(bytes.clone());
        if session.write(&mut chunk).is_ok() {
            flow.sent.extend_from_slice(&bytes[..max - chunk.len()]);
        }
    }

    /// Reads all that has come.
    pub(super) fn read_all(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        for (slot, flow) in &mut self.said.flows {
            while let Some(mut session) = conn.session(*slot) {
                let mut chunks = VecDeque::new();
                let state = session.read(1 << 20, &mut chunks);
                flow.got.extend(chunks.iter().flatten());
                flow.got_end |= state == Ok(Read::End);
                if state != Ok(Read::More) {
                    break;
                }
            }
        }
    }

    /// Ends the session whose number a script gives, cleanly or not.
    pub(super) fn end(&mut self, nth: usize, clean: bool) {
        let Some((slot, flow)) = self.said.nth_flow(nth) else {
            return;
        };
        let Some(mut session) = self.conn.as_mut().and_then(|conn| conn.session(slot)) else {
            return;
        };
        if clean {
            flow.finished |= session.finish().is_ok();
        } else {
            session.reset(1);
            flow.abandoned = true;
        }
    }

    pub(super) fn close(&mut self, now: Instant) {
        if let Some(conn) = &mut self.conn {
            conn.close(now, &CloseReason::Redundant);
            self.said.has_closed = true;
        }
    }
}

impl Said {
    fn nth_flow(&mut self, nth: usize) -> Option<(Slot, &mut Flow)> {
        let count = self.flows.len().max(1);
        self.flows
            .iter_mut()
            .nth(nth % count)
            .map(|(slot, flow)| (*slot, flow))
    }

    fn take(&mut self, now: Instant, event: Event) {
        assert!(self.closed.is_none(), "after the last event: {event:?}");
        assert!(
            self.is_up || matches!(event, Event::Established { .. } | Event::Closed(_)),
            "before the handshake's end: {event:?}"
        );
        match event {
            Event::Established { .. } => {
                assert!(!self.is_up, "established twice");
                self.is_up = true;
            }
            Event::RoutesAccepted { epoch, routes } => self.routes.push((epoch, routes)),
            Event::SessionRequested {
                slot,
                session,
                target,
            } => {
                let known = self.requests.insert(slot, (session, target));
                assert!(known.is_none(), "{slot} asked for twice");
                self.undecided.insert(slot, now);
            }
            Event::SessionOpened { attempt, slot } => {
                assert!(self.attempts.remove(&attempt).is_some(), "{attempt} opened");
                let known = self.flows.insert(slot, Flow::default());
                assert!(known.is_none(), "{slot} opened twice");
            }
            Event::SessionRefused { attempt, cause } => {
                let since = self.attempts.remove(&attempt);
                let waited = since.map(|since| now - since);
                assert!(waited.is_some(), "{attempt} failed without being asked for");
                let is_late = matches!(cause, AttemptError::TimedOut | AttemptError::NoCredit);
                assert!(!is_late || waited == Some(OPEN_TIMEOUT), "{cause:?}");
            }
            Event::SessionReadable(slot) | Event::SessionWritable(slot) => {
                let is_open = self.flows.contains_key(&slot) && !self.ended.contains(&slot);
                assert!(is_open, "{event:?}");
            }
            Event::SessionRest { slot, ref rest } => {
                assert!(!self.ended.contains(&slot), "{event:?}");
                let flow = self.flows.get_mut(&slot);
                let flow = flow.filter(|flow| flow.finished && !flow.got_end);
                let flow = fixtures::known(flow.ok_or("bytes of a session that is not open"));
                flow.got.extend(rest.iter().flatten());
                flow.got_end = true;
            }
            Event::SessionEnded { slot, how } => {
                assert!(self.ended.insert(slot), "{slot} ended twice");
                let undecided = self.undecided.remove(&slot);
                assert!(undecided.is_some() || self.flows.contains_key(&slot));
                if how == SessionEnd::Unanswered {
                    let waited = undecided.map(|since| now - since);
                    assert!(waited >= Some(DIAL_TIMEOUT), "{waited:?}");
                }
            }
            Event::RenewalRequested { .. } => {
                assert_eq!(self.renewal_asked, 0, "asked again before the answer");
                self.renewal_asked += 1;
            }
            Event::RenewalAnswered(_) => {
                assert!(self.renewal_asked > 0, "an answer that nobody asked for");
                self.renewal_asked -= 1;
            }
            Event::PathSuspect => self.is_suspect = true,
            Event::Seen | Event::PathRecovered => {}
            Event::Peer(_) => panic!("a tunnel says nothing of peers"),
            Event::Closed(closed) => self.closed = Some(closed),
        }
    }
}

/// What stands at a place of a session's bytes; a byte that is lost, doubled, moved or another session's shows.
pub(super) fn pattern(salt: u64, at: usize) -> u8 {
    let mixed = (at as u64 + 977 * salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[0]
}

pub(super) fn session_id(nth: u64) -> SessionId {
    SessionId(Uuid::from_u128(nth.into()))
}

/// The routes that a script draws, as far as a message can carry them.
pub(super) fn routes(script: &mut input::Input<'_>) -> RouteSet {
    let mut routes = crate::routing::routes(script);
    routes.subnets.retain(|net| net.addr().is_ipv4());
    routes
}
