//! The state of a connection that carries forwarded sessions.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    Answer, AnswerReader, Answering, Forward, ForwardError, ForwardReader, Status, Unverified,
};
use crate::{
    gateway::AttemptError,
    id::{AttemptId, Slot},
    peer::{
        NodeId,
        bound::ConnectionSecret,
        config::PeerNode,
        identity::{BadLeaf, Leaf},
        verdict::IdentityError,
    },
};

/// One end of such a connection. The node at the other end is known by its certificate from the first moment on.
#[derive(Debug)]
pub(crate) struct ForwardRole {
    pub(crate) node: Arc<PeerNode>,
    pub(crate) peer: NodeId,
    pub(crate) secret: ConnectionSecret,
    pub(crate) side: ForwardSide,
}

#[derive(Debug)]
pub(crate) enum ForwardSide {
    /// It dialled, and opens sessions.
    Opener(Opener),
    /// It takes them.
    Taker(BTreeMap<Slot, Taking>),
}

#[derive(Debug, Default)]
pub(crate) struct Opener {
    /// Sessions whose header is out.
    pub(crate) opens: BTreeMap<Slot, Opening>,
    /// Where an attempt is, for cancelling it.
    pub(crate) attempts: BTreeMap<AttemptId, Slot>,
    /// Opens that wait for stream credit, oldest first.
    pub(crate) waiting: VecDeque<Wanted>,
}

#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) attempt: AttemptId,
    pub(crate) deadline: Instant,
    pub(crate) reader: AnswerReader,
}

#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) attempt: AttemptId,
    pub(crate) forward: Forward,
    pub(crate) deadline: Instant,
}

/// A session that the peer hands over.
#[derive(Debug)]
pub(crate) struct Taking {
    pub(crate) deadline: Instant,
    pub(crate) state: TakingState,
}

#[derive(Debug)]
pub(crate) enum TakingState {
    Reading(ForwardReader),
    /// The application decides.
    Deciding(Box<Answering>),
}

impl ForwardRole {
    pub(crate) fn new(
        node: Arc<PeerNode>,
        peer: NodeId,
        secret: ConnectionSecret,
        is_dialler: bool,
    ) -> Self {
        let side = match is_dialler {
            true => ForwardSide::Opener(Opener::default()),
            false => ForwardSide::Taker(BTreeMap::new()),
        };
        Self {
            node,
            peer,
            secret,
            side,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.side {
            ForwardSide::Opener(opener) => opener.waiting.front().map(|wanted| wanted.deadline),
            ForwardSide::Taker(_) => None,
        }
    }

    /// The answer to this one is awaited.
    pub(crate) fn is_opening(&self, slot: Slot) -> bool {
        match &self.side {
            ForwardSide::Opener(opener) => opener.opens.contains_key(&slot),
            ForwardSide::Taker(_) => false,
        }
    }

    pub(crate) fn handle_closed(&mut self) {
        match &mut self.side {
            ForwardSide::Opener(opener) => *opener = Opener::default(),
            ForwardSide::Taker(takings) => takings.clear(),
        }
    }

    /// Checks tag and nodes of a header.
    pub(crate) fn verify(&self, header: Unverified) -> Result<(Forward, Answering), ForwardError> {
        let keys = self.node.ledger().keys();
        header.verify(&keys, &self.secret, self.peer, self.node.local)
    }
}

/// The node whose certificate a connection has: the one that was dialled, or the one that the topology says.
///
/// # Errors
/// [`IdentityError`]
pub(crate) fn node_of(
    node: &PeerNode,
    called: Option<NodeId>,
    leaf: Option<&Result<Leaf, BadLeaf>>,
) -> Result<NodeId, IdentityError> {
    let judge = node.judge();
    let shown = leaf.ok_or(IdentityError::NoCertificate)?.as_ref();
    let shown = shown.map_err(|bad| *bad)?;
    let by_spiffe = || {
        let id = shown.spiffe_id.as_ref()?;
        judge.store.by_spiffe(id)
    };
    let record = judge.store.by_spki(&shown.spki).or_else(by_spiffe);
    let owner = called.or_else(|| record.map(|record| record.node));
    let owner = owner.ok_or(IdentityError::Unknown)?;
    judge.dialled(owner, leaf)?;
    Ok(owner)
}

/// What an answer means for the attempt; a session that is open is no error.
pub(crate) fn outcome(answer: Answer) -> Result<(), AttemptError> {
    match answer.status {
        Status::Open => Ok(()),
        Status::Refused | Status::NoRoute | Status::Denied | Status::Stopping => {
            Err(AttemptError::Refused(answer.reason.into()))
        }
        Status::TimedOut => Err(AttemptError::TimedOut),
        Status::Overload => Err(AttemptError::NoCredit),
        Status::Lost => Err(AttemptError::ConnectionLost),
    }
}
