//! One record, and the stream of them that is read back. They are postcard's bytes, one after the other.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A record of a machine after its beginning.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Entry<C, A> {
    /// It was called: so many nanoseconds after the call before, or before it, and with what.
    Call(i64, C),
    /// It asked and was answered.
    Answer(A),
    /// It gave an output; the start of the hash of all outputs with this one.
    Output([u8; 8]),
}

/// What a machine without questions is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NoAnswer {}

/// Records that are read back.
#[derive(Debug)]
pub(crate) struct Records<C, A> {
    bytes: Vec<u8>,
    at: usize,
    kinds: PhantomData<fn() -> Entry<C, A>>,
}

impl<C: DeserializeOwned, A: DeserializeOwned> Records<C, A> {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            at: 0,
            kinds: PhantomData,
        }
    }

    /// How far it is read, in bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_read(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What lies between two places.
    pub(super) fn between(&self, from: usize, to: usize) -> &[u8] {
        self.bytes.get(from..to).unwrap_or_default()
    }

    /// The next record; none where there is none, or what is there is no record.
    pub(crate) fn peek(&self) -> Option<Entry<C, A>> {
        self.decode().map(|(entry, _)| entry)
    }

    /// Takes the next record.
    pub(crate) fn next(&mut self) -> Option<Entry<C, A>> {
        let (entry, left) = self.decode()?;
        self.at = self.bytes.len() - left;
        Some(entry)
    }

    fn decode(&self) -> Option<(Entry<C, A>, usize)> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (entry, rest) = postcard::take_from_bytes(rest).ok()?;
        Some((entry, rest.len()))
    }
}
