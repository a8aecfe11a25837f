//! Keys of the cluster: what tags are made with, and how a key is exchanged while nodes run (peer-rpc 4.2).

use std::{fmt, iter, mem};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::limits::CLUSTER_KEYS_MAX;

/// The 32 bytes that all nodes of a cluster share. They are wiped when dropped, and never shown.
#[derive(Clone)]
pub struct ClusterSecret(Zeroizing<[u8; 32]>);

impl ClusterSecret {
    /// Takes the secret.
    ///
    /// # Errors
    /// [`KeyError::AllZero`]: that is the key of the insecure mode, which must be asked for by its name.
    pub fn new(bytes: [u8; 32]) -> Result<Self, KeyError> {
        match bytes == [0; 32] {
            true => Err(KeyError::AllZero),
            false => Ok(Self(Zeroizing::new(bytes))),
        }
    }

    /// The all-zero secret that everybody knows: nodes in insecure mode check tags with it (peer-rpc 1.2).
    #[must_use]
    pub fn insecure() -> Self {
        Self(Zeroizing::new([0; 32]))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// Names a key within a cluster. It travels in bound envelopes only; in plain ones it is this node's own affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u8);

/// An HMAC-SHA256 tag.
pub type Tag = [u8; TAG_LEN];

/// Bytes of a tag.
pub const TAG_LEN: usize = 32;

/// An HMAC-SHA256 key, ready to use: both of its padded blocks are hashed already. Wiped when dropped.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    /// Takes the key's bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        // A key that is shorter than a block is followed by zeros (RFC 2104 2).
        let mut block = Zeroizing::new([0; 64]);
        let (head, _zeros) = block.split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        Self(Hmac::new((&*block).into()))
    }

    /// The tag over parts, as if they were one piece.
    #[must_use]
    pub fn tag(&self, parts: &[&[u8]]) -> Tag {
        self.over(parts).finalize().into_bytes().into()
    }

    /// Tells in constant time whether a tag is the one over these parts.
    #[must_use]
    pub fn verifies(&self, parts: &[&[u8]], tag: &Tag) -> bool {
        self.over(parts).verify(tag.into()).is_ok()
    }

    fn over(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

/// The keys of a node: one that it signs with, and others that it still, or already, accepts.
///
/// A key is exchanged without a pause in three steps, each finished on all nodes before the next begins: [`KeyRing::add`]
/// the new key, [`KeyRing::promote`] it, [`KeyRing::retire`] the old one. Each step takes effect with the next message.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: RingKey,
    others: Vec<RingKey>,
}

/// A key in a ring.
#[derive(Clone, Debug)]
pub(crate) struct RingKey {
    pub(crate) id: KeyId,
    pub(crate) secret: ClusterSecret,
    pub(crate) mac: MacKey,
}

/// What a ring cannot do: the caller's mistake; the ring is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is all zero.
    #[error("the cluster secret is all zero; insecure mode must be chosen explicitly")]
    AllZero,
    /// The ring holds as many keys as it may.
    #[error("the key ring is full; retire a key first")]
    Full,
    /// The ring has a key of this id.
    #[error("the key ring already has key {}", .0.0)]
    Duplicate(KeyId),
    /// The ring has no key of this id.
    #[error("the key ring has no key {}", .0.0)]
    Unknown(KeyId),
    /// The key signs, so it cannot be retired.
    #[error("key {} signs; promote another one first", .0.0)]
    Current(KeyId),
}

impl KeyRing {
    /// A ring of one key, which signs.
    #[must_use]
    pub fn new(id: KeyId, secret: ClusterSecret) -> Self {
        Self {
            current: RingKey::new(id, secret),
            others: Vec::new(),
        }
    }

    /// Adds a key that is accepted and does not sign.
    ///
    /// # Errors
    /// [`KeyError::Duplicate`], and [`KeyError::Full`] beyond [`CLUSTER_KEYS_MAX`] keys.
    pub fn add(&mut self, id: KeyId, secret: ClusterSecret) -> Result<(), KeyError> {
        if self.by_id(id).is_some() {
            return Err(KeyError::Duplicate(id));
        }
        if self.others.len() >= CLUSTER_KEYS_MAX - 1 {
            return Err(KeyError::Full);
        }
        self.others.push(RingKey::new(id, secret));
        Ok(())
    }

    /// Makes a key the one that signs; the former one is accepted still.
    ///
    /// # Errors
    /// [`KeyError::Unknown`].
    pub fn promote(&mut self, id: KeyId) -> Result<(), KeyError> {
        if self.current.id != id {
            let other = self.others.iter_mut().find(|key| key.id == id);
            mem::swap(&mut self.current, other.ok_or(KeyError::Unknown(id))?);
        }
        Ok(())
    }

    /// Takes a key out: what is tagged with it is refused from here on.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], and [`KeyError::Current`] for the key that signs.
    pub fn retire(&mut self, id: KeyId) -> Result<(), KeyError> {
        if self.current.id == id {
            return Err(KeyError::Current(id));
        }
        let before = self.others.len();
        self.others.retain(|key| key.id != id);
        match self.others.len() < before {
            true => Ok(()),
            false => Err(KeyError::Unknown(id)),
        }
    }

    /// Tells whether it signs with the key that everybody knows.
    pub(crate) fn is_insecure(&self) -> bool {
        self.current.secret.bytes() == &[0; 32]
    }

    /// The key that signs.
    pub(crate) fn current(&self) -> &RingKey {
        &self.current
    }

    pub(crate) fn by_id(&self, id: KeyId) -> Option<&RingKey> {
        self.keys().find(|key| key.id == id)
    }

    /// Tells whether one of the keys made a tag; the one that signs is tried first.
    pub(crate) fn verifies(&self, parts: &[&[u8]], tag: &Tag) -> bool {
        self.keys().any(|key| key.mac.verifies(parts, tag))
    }

    fn keys(&self) -> impl Iterator<Item = &RingKey> {
        iter::once(&self.current).chain(&self.others)
    }
}

impl RingKey {
    fn new(id: KeyId, secret: ClusterSecret) -> Self {
        Self {
            id,
            mac: MacKey::new(secret.bytes()),
            secret,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> ClusterSecret {
        ClusterSecret::new([byte; 32]).unwrap()
    }

    fn signed_by(byte: u8) -> Tag {
        MacKey::new(&[byte; 32]).tag(&[b"m"])
    }

    #[test]
    fn parts_are_one_piece() {
        let key = MacKey::new(&[7; 32]);
        assert_eq!(key.tag(&[b"ab", b"", b"c"]), key.tag(&[b"abc"]));
        assert!(key.verifies(&[b"abc"], &key.tag(&[b"a", b"bc"])));
        assert!(!key.verifies(&[b"abd"], &key.tag(&[b"abc"])));
    }

    #[test]
    fn rfc_4231_case_2_in_a_key_of_32_bytes() {
        // The padding to the block is with zeros, so a key of 32 bytes that ends with zeros is the short one.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let tag = MacKey::new(&key).tag(&[b"what do ya want ", b"for nothing?"]);
        assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(tag[28..], [0x64, 0xec, 0x38, 0x43]);
    }

    #[test]
    fn a_key_is_exchanged_without_a_message_lost() {
        let mut ring = KeyRing::new(KeyId(1), secret(1));
        assert!(!ring.verifies(&[b"m"], &signed_by(2)));
        ring.add(KeyId(2), secret(2)).unwrap();
        assert!(ring.verifies(&[b"m"], &signed_by(1)) && ring.verifies(&[b"m"], &signed_by(2)));
        assert_eq!(ring.current().mac.tag(&[b"m"]), signed_by(1));
        ring.promote(KeyId(2)).unwrap();
        assert!(ring.verifies(&[b"m"], &signed_by(1)) && ring.verifies(&[b"m"], &signed_by(2)));
        assert_eq!(ring.current().mac.tag(&[b"m"]), signed_by(2));
        ring.retire(KeyId(1)).unwrap();
        assert!(!ring.verifies(&[b"m"], &signed_by(1)) && ring.verifies(&[b"m"], &signed_by(2)));
    }

    #[test]
    fn a_ring_has_bounds_and_always_a_key() {
        let mut ring = KeyRing::new(KeyId(1), secret(1));
        assert_eq!(ring.retire(KeyId(1)), Err(KeyError::Current(KeyId(1))));
        assert_eq!(ring.retire(KeyId(9)), Err(KeyError::Unknown(KeyId(9))));
        assert_eq!(ring.promote(KeyId(9)), Err(KeyError::Unknown(KeyId(9))));
        assert_eq!(
            ring.add(KeyId(1), secret(2)),
            Err(KeyError::Duplicate(KeyId(1)))
        );
        for id in 2..=4 {
            ring.add(KeyId(id), secret(id)).unwrap();
        }
        assert_eq!(ring.add(KeyId(5), secret(5)), Err(KeyError::Full));
    }

    #[test]
    fn the_insecure_secret_has_a_name_of_its_own() {
        assert_eq!(ClusterSecret::new([0; 32]).err(), Some(KeyError::AllZero));
        assert_eq!(ClusterSecret::insecure().bytes(), &[0; 32]);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let ring = KeyRing::new(KeyId(1), secret(0x5a));
        let shown = format!("{ring:?} {:?}", secret(0x5a)).to_lowercase();
        assert!(!shown.contains("90") && !shown.contains("5a"), "{shown}");
    }
}
