//! The envelope: who sends, which number, and a tag over all of it (peer-rpc 4).
//!
//! An envelope is read as an [`Unverified`] first. Nothing of that may be acted on; `verify` makes a [`Verified`] of it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::{
    NodeId,
    key::{KeyId, KeyRing, MacKey, TAG_LEN, Tag},
};
use crate::limits::RPC_LEN_MAX;

/// Which of the two headers a connection's envelopes have; both sides know it from the version handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `env_ver` 1: the reference's 21 bytes (peer-rpc 4.1).
    Plain,
    /// `env_ver` 2: 30 bytes that name key and receiver, for tags that are bound to the connection (peer-rpc 11.1).
    Bound,
}

impl Layout {
    /// Bytes of the header.
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Self::Plain => 21,
            Self::Bound => 30,
        }
    }

    /// Bytes around the inner frame.
    #[must_use]
    pub const fn overhead(self) -> usize {
        self.header_len().saturating_add(TAG_LEN)
    }

    /// First byte of the header.
    #[must_use]
    pub const fn version(self) -> u8 {
        match self {
            Self::Plain => 1,
            Self::Bound => 2,
        }
    }
}

/// What stands before the inner frame, its length aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who sends this message.
    pub from: NodeId,
    /// The sender's number of it (peer-rpc 7.1).
    pub seq: u64,
    /// Key and receiver, in the layout [`Layout::Bound`].
    pub address: Option<Address>,
}

/// What the bound header has beyond the plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Key of the cluster from which the tag's key is derived.
    pub key_id: KeyId,
    /// Who is to read it.
    pub to: NodeId,
}

/// Bytes that are no envelope, or one that cannot be taken (peer-rpc 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Fewer bytes than header and tag have: the peer's fault.
    #[error("envelope of {len} bytes is too short")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// Another layout than the connection's: the peer's fault.
    #[error("envelope version {got}, not {expected}")]
    Version {
        /// First byte of the envelope.
        got: u8,
        /// What was agreed.
        expected: u8,
    },
    /// The inner frame is larger than [`RPC_LEN_MAX`]: the fault of whoever made it.
    #[error("inner frame of {len} bytes exceeds maximum of {RPC_LEN_MAX}")]
    InnerLenExceedsMax {
        /// Declared or real length, in bytes.
        len: u64,
    },
    /// Bytes are missing, or follow the tag: the peer's fault.
    #[error("envelope of {got} bytes, its header says {expected}")]
    LengthMismatch {
        /// What the header amounts to.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// The tag was not made with a key of this cluster over these bytes: the peer's fault, or a key is being exchanged.
    #[error("envelope tag does not verify")]
    Mac,
    /// The stream ended, or was reset, inside an envelope: the network's fault, as far as one can tell.
    #[error("stream ended after {got} bytes of an envelope")]
    UnexpectedEnd {
        /// Bytes that came.
        got: usize,
    },
    /// Too much is being read already: nobody's fault; the peer may try again.
    #[error("no room for an envelope of {len} bytes at the moment")]
    OverBudget {
        /// Declared length with header and tag, in bytes.
        len: u64,
    },
}

impl Header {
    /// Which layout it has.
    #[must_use]
    pub fn layout(&self) -> Layout {
        match self.address {
            None => Layout::Plain,
            Some(_) => Layout::Bound,
        }
    }

    /// Reads a header off its bytes, together with the length of the inner frame.
    ///
    /// # Errors
    /// [`EnvelopeError::TooShort`], [`EnvelopeError::Version`], [`EnvelopeError::InnerLenExceedsMax`], in this order.
    pub fn decode(layout: Layout, mut bytes: &[u8]) -> Result<(Self, u32), EnvelopeError> {
        if bytes.len() < layout.header_len() {
            return Err(EnvelopeError::TooShort { len: bytes.len() });
        }
        let got = bytes.get_u8();
        let expected = layout.version();
        if got != expected {
            return Err(EnvelopeError::Version { got, expected });
        }
        let header = match layout {
            Layout::Plain => Self {
                from: NodeId(bytes.get_u64_le()),
                seq: bytes.get_u64_le(),
                address: None,
            },
            Layout::Bound => {
                let key_id = KeyId(bytes.get_u8());
                let from = NodeId(bytes.get_u64_le());
                let to = NodeId(bytes.get_u64_le());
                Self {
                    from,
                    seq: bytes.get_u64_le(),
                    address: Some(Address { key_id, to }),
                }
            }
        };
        let inner_len = bytes.get_u32_le();
        match inner_len > RPC_LEN_MAX {
            true => Err(EnvelopeError::InnerLenExceedsMax {
                len: inner_len.into(),
            }),
            false => Ok((header, inner_len)),
        }
    }

    fn encode(&self, inner_len: u32, out: &mut BytesMut) {
        out.put_u8(self.layout().version());
        if let Some(address) = self.address {
            out.put_u8(address.key_id.0);
        }
        out.put_u64_le(self.from.0);
        if let Some(address) = self.address {
            out.put_u64_le(address.to.0);
        }
        out.put_u64_le(self.seq);
        out.put_u32_le(inner_len);
    }

    /// Makes an envelope around an inner frame, which is given in parts and not copied.
    ///
    /// `answered` is the tag of the request, for a response in the layout [`Layout::Bound`]: the tag covers it.
    ///
    /// # Errors
    /// [`EnvelopeError::InnerLenExceedsMax`], the caller's mistake.
    pub fn seal<const N: usize>(
        &self,
        inner: [Bytes; N],
        key: &MacKey,
        answered: Option<&Tag>,
    ) -> Result<Sealed, EnvelopeError> {
        let inner_len = inner_len(inner.iter().map(Bytes::len).sum())?;
        let mut head = BytesMut::with_capacity(self.layout().overhead());
        self.encode(inner_len, &mut head);
        let mut covered: SmallVec<[&[u8]; 5]> = SmallVec::new();
        covered.push(&head);
        covered.extend(inner.iter().map(AsRef::as_ref));
        covered.extend(answered.map(AsRef::as_ref));
        let tag = key.tag(&covered);
        drop(covered);
        // Header and tag share one allocation, with nothing between them.
        head.put_slice(&tag);
        let mut head = head.freeze();
        let foot = head.split_off(self.layout().header_len());
        let mut parts = SmallVec::new();
        parts.push(head);
        parts.extend(inner.into_iter().filter(|part| !part.is_empty()));
        parts.push(foot);
        Ok(Sealed { parts, tag })
    }

    /// The same of an inner frame that is copied: one piece costs the engine less than four.
    ///
    /// # Errors
    /// As of [`seal`](Self::seal).
    pub(super) fn seal_copied(
        &self,
        inner: &[&[u8]],
        key: &MacKey,
        answered: Option<&Tag>,
    ) -> Result<Sealed, EnvelopeError> {
        let len = inner.iter().map(|part| part.len()).sum::<usize>();
        let mut whole = BytesMut::with_capacity(self.layout().overhead().saturating_add(len));
        self.encode(inner_len(len)?, &mut whole);
        inner.iter().for_each(|part| whole.put_slice(part));
        let tag = key.tag(&[&whole, answered.map_or(&[], AsRef::as_ref)]);
        whole.put_slice(&tag);
        let mut parts = SmallVec::new();
        parts.push(whole.freeze());
        Ok(Sealed { parts, tag })
    }
}

fn inner_len(len: usize) -> Result<u32, EnvelopeError> {
    let exceeds = EnvelopeError::InnerLenExceedsMax {
        len: u64::try_from(len).unwrap_or(u64::MAX),
    };
    let fitting = u32::try_from(len).ok().filter(|&len| len <= RPC_LEN_MAX);
    fitting.ok_or(exceeds)
}

/// Payloads of so many bytes are copied when an envelope is made of them: what fits a datagram on any path.
pub(super) const COPIED_MAX: usize = 1_024;

/// An envelope to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its bytes in order: header, inner frame, tag.
    pub parts: SmallVec<[Bytes; 4]>,
    /// The tag once more: the answer in the layout [`Layout::Bound`] covers it.
    pub tag: Tag,
}

impl Sealed {
    /// The whole envelope in one piece, copied.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.parts.concat().into()
    }
}

/// A whole envelope whose tag nobody has checked. Its header serves to find the key, and for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    header: Header,
    /// Header, inner frame, tag; at least [`Layout::overhead`] bytes.
    bytes: Bytes,
}

/// An envelope that somebody with the key has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who says to have sent it, and the number.
    pub header: Header,
    /// The inner frame.
    pub inner: Bytes,
    /// The tag.
    pub tag: Tag,
}

impl Unverified {
    /// Takes exactly one envelope (peer-rpc 4.5, the tag aside).
    ///
    /// # Errors
    /// In this order: [`EnvelopeError::TooShort`], [`EnvelopeError::Version`], [`EnvelopeError::InnerLenExceedsMax`],
    /// [`EnvelopeError::LengthMismatch`].
    pub fn parse(layout: Layout, bytes: Bytes) -> Result<Self, EnvelopeError> {
        if bytes.len() < layout.overhead() {
            return Err(EnvelopeError::TooShort { len: bytes.len() });
        }
        let (header, inner_len) = Header::decode(layout, &bytes)?;
        let expected = total_len(layout, inner_len);
        let got = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match got == expected {
            true => Ok(Self { header, bytes }),
            false => Err(EnvelopeError::LengthMismatch { expected, got }),
        }
    }

    /// The header, for sizing and for finding the key.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the whole envelope, header and tag included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Checks the tag of a plain envelope with the keys of the cluster.
    ///
    /// # Errors
    /// [`EnvelopeError::Mac`].
    pub fn verify(self, keys: &KeyRing) -> Result<Verified, EnvelopeError> {
        self.verify_with(|parts, tag| keys.verifies(parts, tag), None)
    }

    /// Checks the tag with one key; `answered` is the tag of the request that a bound response answers.
    ///
    /// # Errors
    /// [`EnvelopeError::Mac`].
    pub fn verify_bound(
        self,
        key: &MacKey,
        answered: Option<&Tag>,
    ) -> Result<Verified, EnvelopeError> {
        self.verify_with(|parts, tag| key.verifies(parts, tag), answered)
    }

    fn verify_with(
        mut self,
        verifies: impl Fn(&[&[u8]], &Tag) -> bool,
        answered: Option<&Tag>,
    ) -> Result<Verified, EnvelopeError> {
        let covered_len = self.bytes.len().saturating_sub(TAG_LEN);
        let tag_bytes = self.bytes.split_off(covered_len);
        let tag: Tag = tag_bytes
            .as_ref()
            .try_into()
            .map_err(|_| EnvelopeError::Mac)?;
        let answered = answered.map_or(&[][..], |tag| &tag[..]);
        if !verifies(&[&self.bytes, answered], &tag) {
            return Err(EnvelopeError::Mac);
        }
        self.bytes.advance(self.header.layout().header_len());
        Ok(Verified {
            header: self.header,
            inner: self.bytes,
            tag,
        })
    }
}

/// Bytes of an envelope, header and tag included.
pub(super) fn total_len(layout: Layout, inner_len: u32) -> u64 {
    let overhead = u64::try_from(layout.overhead()).unwrap_or(u64::MAX);
    u64::from(inner_len).saturating_add(overhead)
}

#[cfg(test)]
mod tests;
