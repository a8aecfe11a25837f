//! The request: who asks whom to carry which session where.

use std::cmp::Ordering;

use bytes::{Buf, Bytes};
use uuid::Uuid;

use super::{AnswerReader, Answering, ForwardError, VERSION, key};
use crate::{
    id::{AgentId, SessionId},
    limits::{FORWARD_ORIGIN_LEN_MAX, FORWARD_TARGET_LEN_MAX},
    peer::{
        NodeId,
        bound::{ConnectionSecret, Direction},
        key::{KeyId, KeyRing, TAG_LEN, Tag},
    },
    target::Target,
};

/// A session that its gateway hands to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The gateway that has the user.
    pub from: NodeId,
    /// The gateway that has the agent.
    pub to: NodeId,
    /// The session at the first gateway, for both logs. The peer opens a session of its own for it.
    pub session: SessionId,
    /// The agent that the user asked for by its id. The nil UUID names none.
    pub agent: Option<AgentId>,
    /// Where the session goes.
    pub target: Target,
    /// Who the user is, for logs only: anything printable or not, at most [`FORWARD_ORIGIN_LEN_MAX`] bytes. What is
    /// longer is cut.
    pub origin: Box<str>,
}

impl Forward {
    /// Writes the header, and gives what reads its answer.
    ///
    /// # Errors
    /// [`ForwardError::Mac`] where no key can be derived. It does not happen with a ring and an exported secret.
    pub fn seal(
        &self,
        keys: &KeyRing,
        connection: &ConnectionSecret,
    ) -> Result<(Bytes, AnswerReader), ForwardError> {
        let key_id = keys.current().id;
        let of = |direction, nodes| key(keys, connection, key_id, direction, nodes);
        let request = of(Direction::Request, (self.from, self.to)).ok_or(ForwardError::Mac)?;
        let response = of(Direction::Response, (self.to, self.from)).ok_or(ForwardError::Mac)?;
        let mut header = self.unsigned(key_id);
        let tag = request.tag(&[&header]);
        header.extend_from_slice(&tag);
        Ok((header.into(), AnswerReader::new(response, tag)))
    }

    /// Writes the header as the one record that it is on a sealed link, whose own proof it is under.
    #[must_use]
    pub fn to_record(&self) -> Bytes {
        self.unsigned(NO_KEY).into()
    }

    /// Reads the header off the first record of a sealed link. `peer` is the node that the link's handshake has verified,
    /// `local` this node.
    ///
    /// # Errors
    /// [`ForwardError::Version`], [`ForwardError::Hop`], [`ForwardError::TargetLen`], [`ForwardError::OriginLen`];
    /// [`ForwardError::KeyId`], [`ForwardError::From`], [`ForwardError::To`]; [`ForwardError::Truncated`] or
    /// [`ForwardError::Behind`] where the record is not the header and nothing else; [`ForwardError::NotUtf8`] and
    /// [`ForwardError::Target`].
    pub fn from_record(record: &[u8], peer: NodeId, local: NodeId) -> Result<Self, ForwardError> {
        if let Some(&got) = record.first().filter(|version| **version != VERSION) {
            return Err(ForwardError::Version { got });
        }
        let (fixed, texts) = record.split_first_chunk().ok_or(ForwardError::Truncated)?;
        let fixed = Fixed::read(fixed)?;
        if fixed.key_id != NO_KEY {
            return Err(ForwardError::KeyId {
                got: fixed.key_id.0,
            });
        }
        fixed.is_between(peer, local)?;
        match record.len().cmp(&fixed.unsigned_len()) {
            Ordering::Less => Err(ForwardError::Truncated),
            Ordering::Greater => Err(ForwardError::Behind),
            Ordering::Equal => fixed.with_texts(texts),
        }
    }

    fn unsigned(&self, key_id: KeyId) -> Vec<u8> {
        let target = self.target.to_string();
        let origin_len = self.origin.floor_char_boundary(FORWARD_ORIGIN_LEN_MAX);
        let (origin, _) = self.origin.split_at(origin_len);
        let mut header = vec![VERSION, key_id.0, HOP];
        header.extend_from_slice(&self.from.0.to_le_bytes());
        header.extend_from_slice(&self.to.0.to_le_bytes());
        header.extend_from_slice(self.session.0.as_bytes());
        let agent = self.agent.map_or(Uuid::nil(), |agent| agent.0);
        header.extend_from_slice(agent.as_bytes());
        for text in [target.as_str(), origin] {
            // Both are bounded far below: a target by its type, the origin above.
            let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
            header.extend_from_slice(&len.to_le_bytes());
        }
        header.extend_from_slice(target.as_bytes());
        header.extend_from_slice(origin.as_bytes());
        header
    }
}

/// Reads one header off a stream, whatever pieces it comes in, and leaves every byte behind it where it is.
///
/// The fixed part is judged as soon as it is whole, so that at most [`HEADER_LEN_MAX`] bytes are held of somebody who
/// has not proved anything. An error is final.
#[derive(Debug, Default)]
pub struct ForwardReader {
    buffer: Vec<u8>,
    /// Bytes of the whole header, once its fixed part was judged.
    len: Option<usize>,
}

/// A whole header whose tag was not looked at. Nothing of it may be acted on.
#[derive(Clone, Debug)]
pub struct Unverified {
    header: Vec<u8>,
    fixed: Fixed,
}

/// The fields in front of the texts.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    key_id: KeyId,
    from: NodeId,
    to: NodeId,
    session: SessionId,
    agent: Option<AgentId>,
    target_len: usize,
    origin_len: usize,
}

impl ForwardReader {
    /// Takes what it needs off the front of `data`. What is left there once the header is whole is the session's.
    ///
    /// # Errors
    /// [`ForwardError::Version`], [`ForwardError::Hop`], [`ForwardError::TargetLen`], [`ForwardError::OriginLen`].
    pub fn feed(&mut self, data: &mut Bytes) -> Result<Option<Unverified>, ForwardError> {
        if self.is_done() {
            return Ok(None);
        }
        self.take(data, FIXED_LEN);
        if let Some(&version) = self.buffer.first().filter(|version| **version != VERSION) {
            return Err(ForwardError::Version { got: version });
        }
        let Some(fixed) = self.buffer.first_chunk().map(Fixed::read).transpose()? else {
            return Ok(None);
        };
        let len = fixed.header_len();
        self.len = Some(len);
        self.take(data, len);
        Ok((self.buffer.len() == len).then(|| Unverified {
            header: std::mem::take(&mut self.buffer),
            fixed,
        }))
    }

    /// Bytes that it can take; never beyond the header, since the session's own follow it.
    pub(crate) fn wanted(&self) -> usize {
        let len = self.len.unwrap_or(FIXED_LEN);
        match self.is_done() {
            true => 0,
            false => len.saturating_sub(self.buffer.len()),
        }
    }

    /// Takes the end of the peer's half, or the stream's.
    ///
    /// # Errors
    /// [`ForwardError::Truncated`]: it was not whole before.
    pub fn finish(&self) -> Result<(), ForwardError> {
        match self.is_done() {
            true => Ok(()),
            false => Err(ForwardError::Truncated),
        }
    }

    /// The buffer goes where the header goes.
    fn is_done(&self) -> bool {
        self.len.is_some() && self.buffer.is_empty()
    }

    fn take(&mut self, data: &mut Bytes, len: usize) {
        let missing = len.saturating_sub(self.buffer.len()).min(data.len());
        self.buffer.extend_from_slice(&data.split_to(missing));
    }
}

impl Unverified {
    /// Checks tag, sender and receiver, in this order, then reads the texts. `peer` is the node whose certificate the
    /// connection has, `local` this node.
    ///
    /// # Errors
    /// [`ForwardError::Mac`], [`ForwardError::From`], [`ForwardError::To`], [`ForwardError::NotUtf8`] and
    /// [`ForwardError::Target`].
    pub fn verify(
        self,
        keys: &KeyRing,
        connection: &ConnectionSecret,
        peer: NodeId,
        local: NodeId,
    ) -> Result<(Forward, Answering), ForwardError> {
        let Self { header, fixed } = self;
        let Fixed { from, to, .. } = fixed;
        let of = |direction, nodes| key(keys, connection, fixed.key_id, direction, nodes);
        let request = of(Direction::Request, (from, to)).ok_or(ForwardError::Mac)?;
        let (signed, tag): (_, &Tag) = header.split_last_chunk().ok_or(ForwardError::Mac)?;
        if !request.verifies(&[signed], tag) {
            return Err(ForwardError::Mac);
        }
        fixed.is_between(peer, local)?;
        let response = of(Direction::Response, (to, from)).ok_or(ForwardError::Mac)?;
        let forward = fixed.with_texts(signed.get(FIXED_LEN..).unwrap_or_default())?;
        Ok((forward, Answering::new(response, *tag)))
    }
}

impl Fixed {
    fn read(bytes: &[u8; FIXED_LEN]) -> Result<Self, ForwardError> {
        let mut bytes = bytes.as_slice();
        let got = bytes.get_u8();
        if got != VERSION {
            return Err(ForwardError::Version { got });
        }
        let key_id = KeyId(bytes.get_u8());
        let got = bytes.get_u8();
        if got != HOP {
            return Err(ForwardError::Hop { got });
        }
        let (from, to) = (NodeId(bytes.get_u64_le()), NodeId(bytes.get_u64_le()));
        let session = SessionId(Uuid::from_u128(bytes.get_u128()));
        let agent = Uuid::from_u128(bytes.get_u128());
        let (target, origin) = (bytes.get_u16_le(), bytes.get_u16_le());
        let (target_len, origin_len) = (usize::from(target), usize::from(origin));
        if !(1..=FORWARD_TARGET_LEN_MAX).contains(&target_len) {
            return Err(ForwardError::TargetLen { got: target });
        }
        if origin_len > FORWARD_ORIGIN_LEN_MAX {
            return Err(ForwardError::OriginLen { got: origin });
        }
        Ok(Self {
            key_id,
            from,
            to,
            session,
            agent: (!agent.is_nil()).then_some(AgentId(agent)),
            target_len,
            origin_len,
        })
    }

    /// Checks sender and receiver.
    fn is_between(&self, peer: NodeId, local: NodeId) -> Result<(), ForwardError> {
        if self.from != peer {
            let (got, expected) = (self.from, peer);
            return Err(ForwardError::From { got, expected });
        }
        if self.to != local {
            let (got, expected) = (self.to, local);
            return Err(ForwardError::To { got, expected });
        }
        Ok(())
    }

    fn with_texts(&self, mut texts: &[u8]) -> Result<Forward, ForwardError> {
        let target = text(&mut texts, self.target_len)?.parse()?;
        let origin = text(&mut texts, self.origin_len)?.into();
        Ok(Forward {
            from: self.from,
            to: self.to,
            session: self.session,
            agent: self.agent,
            target,
            origin,
        })
    }

    /// Bytes up to the tag: the sum of three small numbers.
    fn unsigned_len(&self) -> usize {
        FIXED_LEN
            .saturating_add(self.target_len)
            .saturating_add(self.origin_len)
    }

    fn header_len(&self) -> usize {
        self.unsigned_len().saturating_add(TAG_LEN)
    }
}

fn text<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a str, ForwardError> {
    let (text, behind) = rest.split_at_checked(len).ok_or(ForwardError::Truncated)?;
    *rest = behind;
    str::from_utf8(text).map_err(|_| ForwardError::NotUtf8)
}

/// Longest header, in bytes.
pub const HEADER_LEN_MAX: usize =
    FIXED_LEN + FORWARD_TARGET_LEN_MAX + FORWARD_ORIGIN_LEN_MAX + TAG_LEN;

/// Version, key id, hop, two nodes, session, agent, two lengths.
const FIXED_LEN: usize = 3 + 2 * 8 + 2 * 16 + 2 * 2;

/// The only hop there is: the receiver opens the session with an agent of its own.
const HOP: u8 = 1;

/// What stands for the key's number where there is no tag.
const NO_KEY: KeyId = KeyId(0);
