//! A request on its way in: every check, in an order in which nothing is touched for a stranger (peer-rpc 6.3).
//!
//! Header, tag, identity, replay window, epoch, frame. Each step takes what the former one gives, so that none can be
//! left out: [`Unverified`], [`Authentic`], [`Identified`], [`Request`].

use bytes::Bytes;

use super::{
    NodeId, PeerClose,
    bound::{ANYONE, ConnectionSecret, Direction, Tags, UNREAD_REQUEST},
    capabilities::Capabilities,
    envelope::{EnvelopeError, Layout, Unverified, Verified},
    epoch::{EpochHook, StaleEpoch},
    frame::{Frame, FrameError},
    identity::{BadLeaf, Leaf},
    key::{KeyRing, Tag},
    ledger::Windows,
    refusal::Refusal,
    rpc_type::{RpcType, RpcTypeError},
    verdict::{Accepted, IdentityError, Judge},
    window::{ReplayError, ReplayWindow},
};

/// This end of a connection that the peer dialled: what it must know of it to take requests.
#[derive(Debug)]
pub struct Callee {
    agreed: Capabilities,
    tags: Tags,
    leaf: Option<Result<Leaf, BadLeaf>>,
    bound: Option<NodeId>,
}

/// A message that somebody with the cluster's key has made.
#[derive(Debug)]
pub struct Authentic(Verified);

/// A message of the node that it names.
#[derive(Debug)]
pub struct Identified {
    message: Verified,
    accepted: Accepted,
}

/// A request to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub from: NodeId,
    /// How that was proved.
    pub accepted: Accepted,
    /// What is asked.
    pub kind: RpcType,
    /// The body.
    pub payload: Bytes,
    /// The tag, which the answer covers.
    pub tag: Tag,
}

/// Does what a join request says fit its certificate? Asked before anything is accepted, so without side effects.
pub trait JoinCheck {
    /// `payload` is the body of a join request from a node whose key is pre-authorised.
    fn allows(&self, from: NodeId, payload: &[u8], leaf: &Leaf) -> bool;
}

/// A request that is not executed, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub cause: ReceiveError,
    /// Tag of the request, which a typed refusal covers.
    pub tag: Tag,
}

/// Why a request is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// It is for another node: the peer's fault, or a stale address.
    #[error("the message is for {to}")]
    NotForUs {
        /// Whom it is for.
        to: NodeId,
    },
    /// The sender is not who it says.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The number.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// More nodes send than a cluster has: this node's limit.
    #[error("no room for the replay window of another node")]
    NoWindow,
    /// A reset of the window that does not say what this node remembers: the peer's fault, or it came too late.
    #[error("the window reset does not repeat {high}")]
    BadReset {
        /// What it had to repeat.
        high: u64,
    },
    /// The epoch, where it fences.
    #[error(transparent)]
    Epoch(#[from] StaleEpoch),
    /// The frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The kind is none that this node knows.
    #[error(transparent)]
    Kind(#[from] RpcTypeError),
    /// An answer in the place of a request: the peer's fault.
    #[error("{0:?} is no request")]
    NoRequest(RpcType),
}

/// What follows a refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The stream ends without a byte.
    EndStream,
    /// The stream ends with a typed refusal.
    Answer(Refusal),
    /// The connection is closed, where a refusal is given once that is written.
    Close(PeerClose, Option<Refusal>),
}

impl Callee {
    /// A connection whose version handshake has ended. `leaf_der` is the first certificate of the peer's chain.
    #[must_use]
    pub fn new(agreed: Capabilities, secret: ConnectionSecret, leaf_der: Option<&[u8]>) -> Self {
        Self {
            agreed,
            tags: Tags::new(agreed, secret),
            leaf: leaf_der.map(Leaf::from_der),
            bound: None,
        }
    }

    /// What makes the tags of the answers.
    pub fn tags(&mut self) -> &mut Tags {
        &mut self.tags
    }

    /// The node that the connection belongs to since its first accepted message.
    #[must_use]
    pub fn bound(&self) -> Option<NodeId> {
        self.bound
    }

    /// What the peer has shown in the handshake.
    pub(crate) fn leaf(&self) -> Option<&Result<Leaf, BadLeaf>> {
        self.leaf.as_ref()
    }

    /// All steps in one, for an owner that holds all windows.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn receive(
        &mut self,
        envelope: Unverified,
        keys: &KeyRing,
        judge: &Judge<'_>,
        joins: &dyn JoinCheck,
        (windows, epochs): (&mut Windows, &mut dyn EpochHook),
    ) -> Result<Request, Refused> {
        let authentic = self.verify(envelope, keys)?;
        let identified = self.identify(authentic, judge, joins)?;
        let no_window = identified.refused(ReceiveError::NoWindow);
        let window = windows.of(identified.from()).ok_or(no_window)?;
        self.admit(identified, window, epochs)
    }

    /// Checks the tag.
    ///
    /// # Errors
    /// [`ReceiveError::Envelope`]
    pub fn verify(&mut self, envelope: Unverified, keys: &KeyRing) -> Result<Authentic, Refused> {
        let opened = self.tags.open(keys, Direction::Request, envelope, None);
        opened.map(Authentic).map_err(|error| Refused {
            cause: error.into(),
            tag: UNREAD_REQUEST,
        })
    }

    /// Checks that the message is for this node and from the one that it names. Touches nothing.
    ///
    /// # Errors
    /// [`ReceiveError::NotForUs`], [`ReceiveError::Identity`]
    pub fn identify(
        &self,
        Authentic(message): Authentic,
        judge: &Judge<'_>,
        joins: &dyn JoinCheck,
    ) -> Result<Identified, Refused> {
        let header = message.header;
        let refused = |cause| Refused {
            cause,
            tag: message.tag,
        };
        if let Some(address) = header.address {
            let to = address.to;
            let to_anyone = to == ANYONE && kind_of(&message) == RpcType::Join.value();
            if to != judge.local && !to_anyone {
                return Err(refused(ReceiveError::NotForUs { to }));
            }
        }
        let fits = |leaf: &Leaf| match Frame::decode(message.inner.clone()) {
            Ok(frame) if frame.kind() == Ok(RpcType::Join) => {
                joins.allows(header.from, &frame.payload, leaf)
            }
            Ok(_) | Err(_) => false,
        };
        let accepted = judge
            .message(header.from, self.bound, self.leaf.as_ref(), fits)
            .map_err(|error| refused(error.into()))?;
        Ok(Identified { message, accepted })
    }

    /// Takes the number, binds the connection to the node, takes note of the epoch and reads the frame.
    ///
    /// # Errors
    /// All others of [`ReceiveError`]. The window and what the connection is bound to change only where the number is
    /// good, the epoch only where the frame is.
    pub fn admit(
        &mut self,
        identified: Identified,
        window: &mut ReplayWindow,
        epochs: &mut dyn EpochHook,
    ) -> Result<Request, Refused> {
        let tag = identified.message.tag;
        let admitted = self.try_admit(identified, window, epochs);
        admitted.map_err(|cause| Refused { cause, tag })
    }

    fn try_admit(
        &mut self,
        Identified { message, accepted }: Identified,
        window: &mut ReplayWindow,
        epochs: &mut dyn EpochHook,
    ) -> Result<Request, ReceiveError> {
        let from = message.header.from;
        // Another stream of this connection may have been first since the identity was judged.
        if let Some(bound) = self.bound.filter(|bound| *bound != from) {
            return Err(IdentityError::BoundTo { bound }.into());
        }
        let resets = self.agreed.has(Capabilities::WINDOW_RESET)
            && kind_of(&message) == RpcType::WindowReset.value();
        let seq = message.header.seq;
        match self.tags.layout() {
            Layout::Bound if resets => reset(window, &message)?,
            Layout::Bound => window.accept(seq)?,
            Layout::Plain => window.accept_plain(seq)?,
        }
        self.bound = Some(from);
        let frame = Frame::decode(message.inner)?;
        epochs.admit(frame.rpc_type, frame.epoch)?;
        let kind = frame.kind()?;
        if !kind.is_request() || (kind == RpcType::WindowReset && !resets) {
            return Err(ReceiveError::NoRequest(kind));
        }
        Ok(Request {
            from,
            accepted,
            kind,
            payload: frame.payload,
            tag: message.tag,
        })
    }

    /// What follows a refused request on this connection. `high` is the highest number of its sender.
    #[must_use]
    pub fn consequence(&self, refused: &Refused, high: u64) -> Consequence {
        let answer = |refusal| match self.agreed.has(Capabilities::REFUSALS) {
            true => Some(refusal),
            false => None,
        };
        let refusal = match refused.cause {
            ReceiveError::Identity(_) => {
                let refusal = answer(Refusal::Identity);
                return Consequence::Close(PeerClose::IdentityMismatch, refusal);
            }
            ReceiveError::Frame(error @ FrameError::UnsupportedVersion { .. }) => {
                return Consequence::Close(PeerClose::version(&error), None);
            }
            ReceiveError::Replay(_) | ReceiveError::BadReset { .. } => {
                answer(Refusal::Number { high })
            }
            // A bound answer names its receiver, and of a header that nobody verified none is taken.
            ReceiveError::Envelope(EnvelopeError::OverBudget { .. })
                if self.tags.layout() == Layout::Bound && self.bound.is_none() =>
            {
                None
            }
            ReceiveError::Envelope(EnvelopeError::OverBudget { .. }) | ReceiveError::NoWindow => {
                answer(Refusal::Overload {
                    retry_after_ms: RETRY_AFTER_MS,
                })
            }
            ReceiveError::Envelope(_)
            | ReceiveError::NotForUs { .. }
            | ReceiveError::Epoch(_)
            | ReceiveError::Frame(_)
            | ReceiveError::Kind(_)
            | ReceiveError::NoRequest(_) => None,
        };
        refusal.map_or(Consequence::EndStream, Consequence::Answer)
    }
}

impl Refused {
    /// A request that the reader gave up before it was whole.
    #[must_use]
    pub fn unread(error: EnvelopeError) -> Self {
        Self {
            cause: error.into(),
            tag: UNREAD_REQUEST,
        }
    }
}

impl Identified {
    /// Whose window is wanted.
    #[must_use]
    pub fn from(&self) -> NodeId {
        self.message.header.from
    }

    pub(super) fn refused(&self, cause: ReceiveError) -> Refused {
        Refused {
            cause,
            tag: self.message.tag,
        }
    }
}

/// The window begins anew at the message that repeats what this node remembers (docs/protocol-peer.md, "Window reset").
/// Only bound envelopes get here, so that nothing from another connection can come again.
fn reset(window: &mut ReplayWindow, message: &Verified) -> Result<(), ReceiveError> {
    let high = window.high();
    let seq = message.header.seq;
    if seq == 0 {
        return Err(ReplayError::Reserved.into());
    }
    let frame = Frame::decode(message.inner.clone())?;
    match *frame.payload == high.to_le_bytes() {
        true => {
            window.reset(seq);
            Ok(())
        }
        false => Err(ReceiveError::BadReset { high }),
    }
}

/// The kind as it stands in the frame, which has not been judged yet; 0, which no kind has, where there is none.
fn kind_of(message: &Verified) -> u8 {
    message.inner.get(1).copied().unwrap_or(0)
}

/// Advice in a refusal for load: a few round trips.
const RETRY_AFTER_MS: u64 = 100;

#[cfg(test)]
mod tests;
