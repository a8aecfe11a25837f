//! The state of one peer connection: who dialled, how far the version handshake is, which calls are under way.
//!
//! What moves bytes between this and the streams is `connection::peer`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    NodeId,
    calls::{Incoming, Outgoing},
    capabilities::Capabilities,
    config::PeerNode,
    fault::RpcFault,
    in_order::InOrder,
    interest::Interest,
    key::Tag,
    negotiate::{Acceptor, Dialler},
    receive::Callee,
    response::{Asked, Caller},
    rpc_type::RpcType,
};
use crate::{
    id::{CallId, Slot},
    limits,
    link::peer_tls::Vetting,
};

/// One end of a peer connection.
#[derive(Debug)]
pub(crate) struct PeerRole {
    pub(crate) node: Arc<PeerNode>,
    pub(crate) phase: Phase,
    /// What the certificate is to be held against besides, once the handshake is over: CAs and revocation lists that came
    /// in while it was under way, which TLS does not know.
    pub(crate) vetting: Option<Vetting>,
    /// Envelopes that the engine has not taken to their end, by their streams.
    pub(crate) writing: BTreeMap<Slot, Writing>,
    /// The peer has not ended its half of the first stream, on which nothing may follow.
    pub(crate) greeting_is_open: bool,
    pub(crate) farewell: Option<Farewell>,
}

/// How far the connection has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// TLS is under way on the side that dialled.
    Dialling { called: Option<NodeId> },
    /// The hello is being sent, and its answer is awaited.
    Greeting {
        called: Option<NodeId>,
        dialler: Dialler,
        /// What of the hello is not written; all of it while there is no stream.
        hello: Bytes,
        is_open: bool,
    },
    /// The hello is awaited.
    Accepting { acceptor: Acceptor, is_open: bool },
    /// Calls go out.
    Caller(Box<CallerSide>),
    /// Calls come in.
    Callee(Box<CalleeSide>),
}

/// The side that dialled.
#[derive(Debug)]
pub(crate) struct CallerSide {
    pub(crate) caller: Caller,
    pub(crate) agreed: Capabilities,
    pub(crate) outgoing: Outgoing,
    /// A call was answered, or refused for something else: the peer has taken this node for who it is.
    pub(crate) is_believed: bool,
    /// Calls without a stream, oldest first.
    pub(crate) waiting: VecDeque<Wanted>,
    /// Calls with one.
    pub(crate) under_way: InOrder<Slot, UnderWay>,
    pub(crate) slots: InOrder<CallId, Slot>,
}

/// A call that is to be made.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) call: CallId,
    pub(crate) kind: RpcType,
    pub(crate) payload: Bytes,
}

/// A call that was made.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) call: CallId,
    pub(crate) asked: Asked,
    pub(crate) since: Instant,
}

/// The side that was dialled.
#[derive(Debug)]
pub(crate) struct CalleeSide {
    pub(crate) callee: Callee,
    pub(crate) agreed: Capabilities,
    pub(crate) incoming: Incoming,
    /// Requests that wait for the application's answer.
    pub(crate) running: InOrder<Slot, Running>,
    /// A request must have been accepted by then; none once one was.
    pub(crate) prove_by: Option<Instant>,
}

/// What an answer needs of its request.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) from: NodeId,
    pub(crate) kind: RpcType,
    pub(crate) tag: Tag,
    pub(crate) interest: Interest,
}

/// An envelope on its way to the engine.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) parts: SmallVec<[Bytes; 4]>,
    /// A peer that does not take it by then does not get it; the caller's own deadline bounds a request.
    pub(crate) until: Option<Instant>,
}

/// The connection is to be closed.
#[derive(Debug)]
pub(crate) enum Farewell {
    /// Once nothing is under way, or its time is over.
    Drain { until: Instant },
    /// Once what was written has reached the peer, or its time is over.
    LastWords { fault: RpcFault, until: Instant },
}

impl Phase {
    /// The node at the other end: the one that was dialled, or the one whose first message was accepted.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match self {
            Self::Dialling { called } | Self::Greeting { called, .. } => *called,
            Self::Accepting { .. } => None,
            Self::Caller(side) => side.caller.called(),
            Self::Callee(side) => side.callee.bound(),
        }
    }
}

impl Farewell {
    fn until(&self) -> Instant {
        match self {
            Self::Drain { until } | Self::LastWords { until, .. } => *until,
        }
    }
}

impl PeerRole {
    /// The side that dialled, for this node where it is known.
    pub(crate) fn dialling(node: Arc<PeerNode>, called: Option<NodeId>) -> Self {
        Self::new(node, Phase::Dialling { called })
    }

    /// The side that accepted, at this moment (peer-rpc 3.4).
    pub(crate) fn accepting(now: Instant, node: Arc<PeerNode>) -> Self {
        let config = &node.config;
        let acceptor = Acceptor::new(now, config.versions, config.capabilities);
        let is_open = false;
        Self::new(node, Phase::Accepting { acceptor, is_open })
    }

    fn new(node: Arc<PeerNode>, phase: Phase) -> Self {
        Self {
            node,
            phase,
            vetting: None,
            writing: BTreeMap::new(),
            greeting_is_open: true,
            farewell: None,
        }
    }

    /// Calls are under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.writing.is_empty()
            || match &self.phase {
                Phase::Dialling { .. } | Phase::Greeting { .. } | Phase::Accepting { .. } => false,
                Phase::Caller(side) => !side.outgoing.is_empty(),
                Phase::Callee(side) => !side.incoming.is_empty(),
            }
    }

    /// Tells whether what the farewell waits for has come; `is_acked` is that everything ended was acknowledged.
    pub(crate) fn may_end(&self, now: Instant, is_acked: bool) -> bool {
        match &self.farewell {
            None => false,
            Some(farewell) if farewell.until() <= now => true,
            Some(Farewell::Drain { .. }) => is_acked && !self.is_busy(),
            Some(Farewell::LastWords { .. }) => is_acked && self.writing.is_empty(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Dialling { .. } => None,
            Phase::Greeting { dialler, .. } => dialler.poll_timeout(),
            Phase::Accepting { acceptor, .. } => acceptor.poll_timeout(),
            Phase::Caller(side) => side.outgoing.poll_timeout(),
            Phase::Callee(side) => side.poll_timeout(),
        };
        let writing = self.writing.values().filter_map(|writing| writing.until);
        let farewell = self.farewell.as_ref().map(Farewell::until);
        writing.chain(phase).chain(farewell).min()
    }

    /// Answers that the peer did not take in time.
    pub(crate) fn late_answers(&mut self, now: Instant) -> Vec<Slot> {
        let is_late = |writing: &Writing| writing.until.is_some_and(|until| until <= now);
        let late = self.writing.iter().filter(|(_, writing)| is_late(writing));
        let late: Vec<Slot> = late.map(|(slot, _)| *slot).collect();
        self.writing.retain(|_, writing| !is_late(writing));
        late
    }
}

impl CallerSide {
    pub(crate) fn new(caller: Caller, agreed: Capabilities, node: &PeerNode) -> Self {
        let budget = (node.ledger().unread_answers()).child(limits::RPC_UNREAD_PER_CONNECTION);
        Self {
            caller,
            agreed,
            outgoing: Outgoing::new(agreed.layout(), budget),
            is_believed: false,
            waiting: VecDeque::new(),
            under_way: InOrder::default(),
            slots: InOrder::default(),
        }
    }

    /// Forgets the stream of a call that is over.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<UnderWay> {
        let under_way = self.under_way.remove(&slot)?;
        self.slots.remove(&under_way.call);
        Some(under_way)
    }
}

impl CalleeSide {
    pub(crate) fn new(now: Instant, callee: Callee, agreed: Capabilities, node: &PeerNode) -> Self {
        let budget = (node.ledger().unread_requests()).child(limits::RPC_UNREAD_PER_CONNECTION);
        Self {
            callee,
            agreed,
            incoming: Incoming::new(agreed.layout(), budget, node.ledger().unread_of_strangers()),
            running: InOrder::default(),
            prove_by: now.checked_add(limits::PEER_PROOF_TIMEOUT),
        }
    }

    /// Nothing that it asked was accepted in all its time.
    pub(crate) fn is_unproved(&self, now: Instant) -> bool {
        self.prove_by.is_some_and(|until| until <= now)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [self.incoming.poll_timeout(), self.prove_by];
        deadlines.into_iter().flatten().min()
    }
}
