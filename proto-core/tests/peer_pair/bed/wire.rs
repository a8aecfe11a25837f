//! A connection of a member, and what the member's application does with what it says.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::Closed,
    connection::Connection,
    id::{CallId, Slot},
    output::{Event, TransmitBuf},
    peer::{
        NodeId, event::PeerEvent, interest::Interest, negotiate::Agreed, retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use crate::forward::Forwards;

/// What a member's application does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// Sends the body back.
    Echo,
    /// Leaves them.
    Hold,
    Fail,
    Refuse,
}

/// A connection and all that it said.
pub(crate) struct Wire {
    pub(crate) conn: Connection,
    pub(super) buf: TransmitBuf,
    pub(super) deadline: Option<Instant>,
    /// Times in a row that it fired and was due again at once.
    past: u32,
    pub(crate) agreed: Option<Agreed>,
    bound: Option<NodeId>,
    pub(crate) answers: BTreeMap<CallId, Result<Bytes, Failure>>,
    pub(crate) requests: Vec<(Slot, NodeId, RpcType, Bytes)>,
    pub(crate) given_up: Vec<Slot>,
    /// Of the requests, in their order.
    pub(crate) interest: Vec<Interest>,
    pub(crate) closed: Option<Closed>,
    pub(crate) suspect_at: Option<Instant>,
    pub(crate) forwards: Forwards,
}

impl Wire {
    pub(super) fn new(conn: Connection) -> Self {
        Self {
            conn,
            buf: TransmitBuf::new(10),
            deadline: None,
            past: 0,
            agreed: None,
            bound: None,
            answers: BTreeMap::new(),
            requests: Vec::new(),
            given_up: Vec::new(),
            interest: Vec::new(),
            closed: None,
            suspect_at: None,
            forwards: Forwards::default(),
        }
    }

    /// No busy loop. Where the path's round-trip time was forgotten the engine's probe may be due a moment before, once.
    pub(super) fn has_fired(&mut self, at: Instant) {
        let is_past = self.deadline.is_some_and(|next| next <= at);
        self.past = if is_past { self.past + 1 } else { 0 };
        assert!(self.past < 3, "waits for the past");
    }

    pub(super) fn take(&mut self, now: Instant, app: App, event: Event, executed: &mut Vec<Bytes>) {
        assert!(self.closed.is_none(), "event after Closed: {event:?}");
        match event {
            Event::Peer(PeerEvent::Up { agreed, .. }) => {
                assert!(self.agreed.replace(agreed).is_none(), "up twice");
            }
            Event::Peer(PeerEvent::Bound { node }) => {
                assert!(self.bound.replace(node).is_none(), "bound twice");
            }
            Event::Peer(PeerEvent::Answered { call, outcome }) => {
                let again = self.answers.insert(call, outcome);
                assert!(again.is_none(), "{call} answered twice");
            }
            Event::Peer(PeerEvent::Requested {
                slot,
                from,
                kind,
                payload,
                interest,
                ..
            }) => {
                assert!(interest.lasts());
                self.interest.push(interest);
                assert!(self.agreed.is_some(), "a call before the handshake");
                assert_eq!(self.bound, Some(from));
                self.requests.push((slot, from, kind, payload.clone()));
                executed.push(payload.clone());
                let mut peer = self.conn.as_peer().unwrap();
                match app {
                    App::Echo => peer.answer(now, slot, payload).unwrap(),
                    App::Hold => {}
                    App::Fail => peer.fail(slot).unwrap(),
                    App::Refuse => peer.refuse(now, slot, Duration::from_millis(7)).unwrap(),
                }
            }
            Event::Peer(PeerEvent::GivenUp(slot)) => self.given_up.push(slot),
            Event::PathSuspect => self.suspect_at = Some(now),
            Event::PathRecovered => self.suspect_at = None,
            Event::Closed(closed) => self.closed = Some(closed),
            other => self.forwards.take(other),
        }
    }
}
