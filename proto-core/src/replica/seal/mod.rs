//! Sealed records: the stream behind the handshake, encrypted and counted, with an end that cannot be forged (design
//! 8.16). Laid out to the byte in `docs/protocol-peer.md`.

mod keys;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vector_tests;

use std::fmt;

use super::{ReplicaKey, Signer, Transcript};
use crate::limits::{REPLICA_RECORD_LEN_MAX, REPLICA_RECORDS_MAX};

use keys::{RecordKey, TAG_LEN, traffic_secret};

/// Both directions of one sealed link: keys and counters as one value, which goes where the socket goes, together with
/// bytes that were read and not opened.
#[derive(Debug)]
#[must_use = "a sealed link without its keys is lost"]
pub struct Sealed {
    /// The direction to the peer.
    pub sealer: Sealer,
    /// The direction from the peer.
    pub opener: Opener,
}

/// The direction to the peer: bytes in, records out.
pub struct Sealer {
    key: RecordKey,
    is_over: bool,
}

/// The direction from the peer: records in, bytes out, in place.
pub struct Opener {
    key: RecordKey,
    state: Opening,
}

/// What stands at the front of the bytes that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Part of a record: at least so many more bytes have to come before anything can be said.
    Missing(usize),
    /// A record of the stream.
    Data {
        /// The bytes it carries, 1 to 16,384, where they stood.
        payload: &'a [u8],
        /// Bytes of the whole record, which are done with.
        used: usize,
    },
    /// The end of the stream, said by the peer. Nothing may follow.
    End {
        /// Bytes of the record.
        used: usize,
    },
}

/// Why nothing can be sealed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The stream was ended: the caller's fault.
    #[error("the sealed stream has been ended")]
    Ended,
    /// [`REPLICA_RECORDS_MAX`] records were sealed.
    #[error("the link has sealed all records that one handshake is good for: connect anew")]
    Exhausted,
    /// The cipher refuses what it can always do: a defect.
    #[error("the cipher failed")]
    Cipher,
}

/// Why the peer's bytes cannot be trusted. The link is over: what was opened before stands, nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenFault {
    /// They have no record's form, or the record may not stand there.
    #[error("bytes that are no sealed record")]
    NotARecord,
    /// Made without the key, changed, repeated, left out or put elsewhere.
    #[error("sealed record {record} is not what the peer sent")]
    Forged {
        /// The record's number in its direction, from 0.
        record: u64,
    },
    /// The connection ended before the peer said so: bytes may be missing.
    #[error("the sealed stream was cut off")]
    Truncated,
    /// Bytes behind the end that the peer had said.
    #[error("bytes behind the end of the sealed stream")]
    BehindEnd,
    /// The peer seals more records than one handshake is good for.
    #[error("the peer seals more records than one handshake is good for")]
    Exhausted,
}

impl Sealed {
    /// Derives both directions for one end. Each end signed with a key of its own, which may differ while keys are being
    /// changed, and both know either.
    pub(super) fn derive(
        own: Signer,
        dialer: &ReplicaKey,
        acceptor: &ReplicaKey,
        transcript: &Transcript,
    ) -> Self {
        let key = |signer| {
            let secret = traffic_secret(dialer, acceptor, transcript, signer);
            RecordKey::new(secret, 0)
        };
        Self {
            sealer: Sealer::new(key(own)),
            opener: Opener::new(key(own.peer())),
        }
    }
}

impl Sealer {
    fn new(key: RecordKey) -> Self {
        Self {
            key,
            is_over: false,
        }
    }

    /// Appends records that carry `data`, in pieces of at most [`REPLICA_RECORD_LEN_MAX`].
    ///
    /// # Errors
    /// If the stream was ended, or too many records were sealed. `out` is as it was then.
    pub fn seal(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let records = data.len().div_ceil(REPLICA_RECORD_LEN_MAX);
        // One number is left for the end.
        let after = self.key.record().saturating_add(records as u64);
        if after >= REPLICA_RECORDS_MAX {
            return Err(SealError::Exhausted);
        }
        let start = out.len();
        out.reserve(
            data.len()
                .saturating_add(records.saturating_mul(RECORD_OVERHEAD)),
        );
        for payload in data.chunks(REPLICA_RECORD_LEN_MAX) {
            if let Err(error) = self.append(Kind::Data, payload, out) {
                out.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Appends the record that ends the stream. Whoever closes the connection without it has cut the stream off.
    ///
    /// # Errors
    /// If the stream was ended before.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), SealError> {
        self.append(Kind::End, &[], out)?;
        self.is_over = true;
        Ok(())
    }

    /// Appends the first record, which shows the peer that the link is sealed.
    pub(super) fn confirm(&mut self, out: &mut Vec<u8>) -> Result<(), SealError> {
        self.append(Kind::Confirmation, &[], out)
    }

    fn append(&mut self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if self.is_over {
            return Err(SealError::Ended);
        }
        let header = header(kind, payload.len());
        let start = out.len();
        out.extend_from_slice(&header);
        let body = out.len();
        out.extend_from_slice(payload);
        match self
            .key
            .seal(&header, out.get_mut(body..).unwrap_or_default())
        {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                Ok(())
            }
            Err(error) => {
                // Plaintext never stays in what is to be sent, nor does a number go twice.
                out.truncate(start);
                self.is_over = true;
                Err(error)
            }
        }
    }
}

impl Opener {
    fn new(key: RecordKey) -> Self {
        Self {
            key,
            state: Opening::Open,
        }
    }

    /// Opens the record at the front of `bytes`, in place. Bytes of a part of a record are to be handed over again, with
    /// what follows them, at most [`REPLICA_RECORD_LEN_MAX`] and [`RECORD_OVERHEAD`] in all.
    ///
    /// # Errors
    /// If they are not what the peer sealed. Every later call gives the same error.
    pub fn open<'a>(&mut self, bytes: &'a mut [u8]) -> Result<Opened<'a>, OpenFault> {
        match self.state {
            Opening::Open => {}
            Opening::Ended if bytes.is_empty() => return Ok(Opened::End { used: 0 }),
            Opening::Ended => return self.fail(OpenFault::BehindEnd),
            Opening::Failed(fault) => return Err(fault),
        }
        match self.record(bytes) {
            Ok(Parsed::Missing(len)) => Ok(Opened::Missing(len)),
            Ok(Parsed::Record(Kind::Data, payload)) => {
                let used = payload.len().saturating_add(RECORD_OVERHEAD);
                Ok(Opened::Data { payload, used })
            }
            Ok(Parsed::Record(Kind::End, _)) => {
                self.state = Opening::Ended;
                let used = RECORD_OVERHEAD;
                Ok(Opened::End { used })
            }
            // The first record was taken by the handshake.
            Ok(Parsed::Record(Kind::Confirmation, _)) => self.fail(OpenFault::NotARecord),
            Err(fault) => self.fail(fault),
        }
    }

    /// Judges the end of the connection.
    ///
    /// # Errors
    /// If the peer had not ended the stream: what came is good, and may not be all.
    pub fn handle_end(&self) -> Result<(), OpenFault> {
        match self.state {
            Opening::Ended => Ok(()),
            Opening::Open => Err(OpenFault::Truncated),
            Opening::Failed(fault) => Err(fault),
        }
    }

    /// Judges the first record.
    pub(super) fn confirm(&mut self, record: &mut [u8; RECORD_OVERHEAD]) -> Result<(), OpenFault> {
        match self.record(record) {
            Ok(Parsed::Record(Kind::Confirmation, _)) => Ok(()),
            Ok(Parsed::Record(Kind::Data | Kind::End, _) | Parsed::Missing(_)) => {
                self.fail(OpenFault::NotARecord)
            }
            Err(fault) => self.fail(fault),
        }
    }

    fn record<'a>(&mut self, bytes: &'a mut [u8]) -> Result<Parsed<'a>, OpenFault> {
        let missing = RECORD_OVERHEAD.saturating_sub(bytes.len());
        let Some((header, rest)) = bytes.split_first_chunk_mut() else {
            return Ok(Parsed::Missing(missing));
        };
        let (kind, len) = parse(*header)?;
        let sealed = len.saturating_add(TAG_LEN);
        let missing = sealed.saturating_sub(rest.len());
        match rest.split_at_mut_checked(sealed) {
            Some((body, _)) => Ok(Parsed::Record(kind, self.key.open(header, body)?)),
            None => Ok(Parsed::Missing(missing)),
        }
    }

    fn fail<T>(&mut self, fault: OpenFault) -> Result<T, OpenFault> {
        self.state = Opening::Failed(fault);
        Err(fault)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("record", &self.key.record())
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("record", &self.key.record())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum Opening {
    Open,
    Ended,
    Failed(OpenFault),
}

enum Parsed<'a> {
    Missing(usize),
    Record(Kind, &'a [u8]),
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The first of each direction.
    Confirmation = 1,
    Data = 2,
    /// The last of each direction.
    End = 3,
}

/// The bytes in front of a record, which its tag covers.
fn header(kind: Kind, len: usize) -> [u8; RECORD_HEAD] {
    let [low, high, ..] = len.to_le_bytes();
    [low, high, kind as u8, 0]
}

/// Kind and length of the payload. Only data has one.
fn parse(header: [u8; RECORD_HEAD]) -> Result<(Kind, usize), OpenFault> {
    let [low, high, kind, zero] = header;
    let len = usize::from(u16::from_le_bytes([low, high]));
    match (kind, zero, len) {
        (1, 0, 0) => Ok((Kind::Confirmation, 0)),
        (2, 0, 1..=REPLICA_RECORD_LEN_MAX) => Ok((Kind::Data, len)),
        (3, 0, 0) => Ok((Kind::End, 0)),
        _ => Err(OpenFault::NotARecord),
    }
}

/// Bytes that a record has beside its payload: four in front, the tag behind.
pub const RECORD_OVERHEAD: usize = RECORD_HEAD + TAG_LEN;
/// Bytes in front of a record's payload.
pub const RECORD_HEAD: usize = 4;
