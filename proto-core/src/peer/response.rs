//! An answer on its way in: it must come from the node that was called, and answer what was asked (peer-rpc 6.1).

use bytes::Bytes;

use super::{
    NodeId, PeerClose,
    bound::{ConnectionSecret, Direction, Tags, UNREAD_REQUEST},
    capabilities::Capabilities,
    envelope::{EnvelopeError, Layout, Unverified, Verified},
    epoch::{EpochHook, StaleEpoch},
    frame::{Frame, FrameError},
    identity::{BadLeaf, Leaf},
    key::{KeyRing, Tag},
    ledger::{NumberRefused, Numbers},
    refusal::{Refusal, RefusalError},
    rpc_type::{RpcType, RpcTypeError},
    verdict::{IdentityError, Judge},
    window::ReplayError,
};

/// This end of a connection that it dialled: what it must know of it to take answers.
#[derive(Debug)]
pub struct Caller {
    agreed: Capabilities,
    tags: Tags,
    leaf: Option<Result<Leaf, BadLeaf>>,
    /// The node that was dialled; none until its first answer where only an address was known.
    called: Option<NodeId>,
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What was asked.
    pub kind: RpcType,
    /// Tag of the request.
    pub tag: Tag,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The body of the answer.
    Body(Bytes),
    /// A request that goes one way was taken.
    Taken,
    /// The peer says why it does not answer; nothing was executed.
    Refused(Refusal),
}

/// An answer that is none. Final, except [`ResponseError::Unanswered`], which is a failure of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The stream ended without a byte: the peer refused silently, or is going down.
    #[error("the peer ended the call without an answer")]
    Unanswered,
    /// The envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// It is for another node: the peer's fault.
    #[error("the answer is for {to}")]
    NotForUs {
        /// Whom it is for.
        to: NodeId,
    },
    /// It is from another node than the one called: the peer's fault.
    #[error("{from} answered in the place of {called}")]
    WrongSender {
        /// Who was called.
        called: NodeId,
        /// Who answered.
        from: NodeId,
    },
    /// The certificate is not that of the node that answers.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The number.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// More nodes answer than a cluster has: this node's limit.
    #[error("no room for the replay window of another node")]
    NoWindow,
    /// The epoch, where it fences.
    #[error(transparent)]
    Epoch(#[from] StaleEpoch),
    /// The frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The kind is none that this node knows.
    #[error(transparent)]
    Kind(#[from] RpcTypeError),
    /// It answers something else: the peer's fault.
    #[error("{got:?} does not answer {asked:?}")]
    WrongAnswer {
        /// What was asked.
        asked: RpcType,
        /// What came.
        got: RpcType,
    },
    /// A refusal that is none: the peer's fault.
    #[error(transparent)]
    Refusal(#[from] RefusalError),
}

impl From<NumberRefused> for ResponseError {
    fn from(refused: NumberRefused) -> Self {
        match refused {
            NumberRefused::Replay(error) => error.into(),
            NumberRefused::NoWindow => Self::NoWindow,
        }
    }
}

impl ResponseError {
    /// How the connection is closed, where it is not to be used any more.
    #[must_use]
    pub fn close(&self) -> Option<PeerClose> {
        match self {
            Self::Identity(_) | Self::WrongSender { .. } => Some(PeerClose::IdentityMismatch),
            Self::Unanswered
            | Self::Envelope(_)
            | Self::NotForUs { .. }
            | Self::Replay(_)
            | Self::NoWindow
            | Self::Epoch(_)
            | Self::Frame(_)
            | Self::Kind(_)
            | Self::WrongAnswer { .. }
            | Self::Refusal(_) => None,
        }
    }
}

impl Caller {
    /// A connection whose version handshake has ended. `leaf_der` is the server's certificate.
    #[must_use]
    pub fn new(
        agreed: Capabilities,
        secret: ConnectionSecret,
        leaf_der: Option<&[u8]>,
        called: Option<NodeId>,
    ) -> Self {
        Self {
            agreed,
            tags: Tags::new(agreed, secret),
            leaf: leaf_der.map(Leaf::from_der),
            called,
        }
    }

    /// The node at the other end, once it is known.
    #[must_use]
    pub fn called(&self) -> Option<NodeId> {
        self.called
    }

    /// What makes the tags of the requests.
    pub fn tags(&mut self) -> &mut Tags {
        &mut self.tags
    }

    /// Compares the server's certificate with the record of the node that was dialled. To be asked right after the
    /// handshake, before a request is written (peer-rpc 1.4).
    ///
    /// # Errors
    /// [`IdentityError`]; the connection is to be closed with [`PeerClose::IdentityMismatch`].
    pub fn check_dialled(&self, judge: &Judge<'_>) -> Result<(), IdentityError> {
        match self.called {
            Some(node) => judge.dialled(node, self.leaf.as_ref()).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Takes the whole answer to a request; none is a stream that ended without a byte.
    ///
    /// # Errors
    /// [`ResponseError`]
    pub fn receive(
        &mut self,
        envelope: Option<Unverified>,
        asked: &Asked,
        keys: &KeyRing,
        judge: &Judge<'_>,
        (numbers, epochs): (&mut impl Numbers, &mut dyn EpochHook),
    ) -> Result<Answer, ResponseError> {
        let Some(envelope) = envelope else {
            return match asked.kind.answer() {
                None => Ok(Answer::Taken),
                Some(_) => Err(ResponseError::Unanswered),
            };
        };
        let (message, covers) = self.open(envelope, asked, keys)?;
        self.check_sender(&message, judge)?;
        let from = message.header.from;
        // A bound answer covers the tag of its request, which no other has: it cannot have come before.
        if self.tags.layout() == Layout::Plain {
            numbers.accept(from, message.header.seq)?;
        }
        self.called = Some(from);
        let frame = Frame::decode(message.inner)?;
        epochs.admit(frame.rpc_type, frame.epoch)?;
        self.answer(&frame, asked, covers)
    }

    fn open(
        &mut self,
        envelope: Unverified,
        asked: &Asked,
        keys: &KeyRing,
    ) -> Result<(Verified, Covers), EnvelopeError> {
        let again = envelope.clone();
        let mut open = |envelope, tag| {
            self.tags
                .open(keys, Direction::Response, envelope, Some(tag))
        };
        match open(envelope, &asked.tag) {
            Ok(message) => Ok((message, Covers::Request)),
            Err(EnvelopeError::Mac) if self.agreed.has(REFUSES_UNREAD) => {
                open(again, &UNREAD_REQUEST).map(|message| (message, Covers::Nothing))
            }
            Err(error) => Err(error),
        }
    }

    fn check_sender(&self, message: &Verified, judge: &Judge<'_>) -> Result<(), ResponseError> {
        let from = message.header.from;
        if let Some(to) = message.header.address.map(|address| address.to)
            && to != judge.local
        {
            return Err(ResponseError::NotForUs { to });
        }
        if let Some(called) = self.called.filter(|called| *called != from) {
            return Err(ResponseError::WrongSender { called, from });
        }
        match judge.message(from, None, self.leaf.as_ref(), |_| false) {
            Ok(_) => Ok(()),
            // A node that joins has no topology yet; whom it calls is known by the cluster's CA and key alone.
            Err(IdentityError::Unknown) if judge.store.is_empty() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn answer(
        &self,
        frame: &Frame,
        asked: &Asked,
        covers: Covers,
    ) -> Result<Answer, ResponseError> {
        let got = frame.kind()?;
        let wrong = ResponseError::WrongAnswer {
            asked: asked.kind,
            got,
        };
        if got == RpcType::Refusal && self.agreed.has(Capabilities::REFUSALS) {
            let refusal = Refusal::decode(&frame.payload)?;
            return match (covers, refusal) {
                (Covers::Request, _) | (Covers::Nothing, Refusal::Overload { .. }) => {
                    Ok(Answer::Refused(refusal))
                }
                (Covers::Nothing, _) => Err(wrong),
            };
        }
        match (covers, asked.kind.answer() == Some(got)) {
            (Covers::Request, true) => Ok(Answer::Body(frame.payload.clone())),
            (Covers::Request | Covers::Nothing, _) => Err(wrong),
        }
    }
}

/// What the tag of an answer says about the request.
#[derive(Clone, Copy)]
enum Covers {
    Request,
    /// The peer did not read it to its end.
    Nothing,
}

const REFUSES_UNREAD: Capabilities = Capabilities::BOUND.with(Capabilities::REFUSALS);

#[cfg(test)]
mod tests;
