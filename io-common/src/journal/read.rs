//! Reads a journal back.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use super::{CHUNK_MAX, Chain, MAGIC};

/// A journal that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The version of adit that wrote it.
    pub version: String,
    /// The records of each machine.
    pub streams: BTreeMap<u64, Vec<u8>>,
    /// It has its end: neither was it ended before its time, nor was the process.
    pub is_whole: bool,
}

/// Why a file is no journal, or not the one that was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The disk.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as one.
    #[error("it is no journal of adit, or of another format than 1")]
    NoJournal,
    /// Its bytes are not those that were written.
    #[error(
        "it was changed, or the disk has damaged it: the chunk at byte {at} does not belong there"
    )]
    Changed {
        /// Offset in the file, in bytes.
        at: u64,
    },
}

/// Reads a journal. It takes as much memory as the file has bytes.
///
/// # Errors
/// [`ReadError`].
pub fn read(from: &mut impl Read) -> Result<Recorded, ReadError> {
    let mut head = vec![0; MAGIC.len()];
    from.read_exact(&mut head)
        .map_err(|_| ReadError::NoJournal)?;
    if head != MAGIC {
        return Err(ReadError::NoJournal);
    }
    while head.last() != Some(&b'\n') {
        let mut byte = [0];
        from.read_exact(&mut byte)
            .map_err(|_| ReadError::NoJournal)?;
        head.push(byte[0]);
        if head.len() > HEAD_MAX {
            return Err(ReadError::NoJournal);
        }
    }
    let version = String::from_utf8_lossy(&head[MAGIC.len()..]);
    let mut recorded = Recorded {
        version: version.trim_end().to_owned(),
        ..Recorded::default()
    };
    let mut chain = Chain::begin(&head);
    let mut at = head.len() as u64;
    while let Some(Chunk {
        stream,
        records,
        hash,
    }) = chunk(from, at)?
    {
        if chain.carry_on(stream, &records) != hash {
            return Err(ReadError::Changed { at });
        }
        at += (records.len() + super::OVERHEAD) as u64;
        if records.is_empty() {
            recorded.is_whole = true;
            break;
        }
        recorded.streams.entry(stream).or_default().extend(records);
    }
    if recorded.is_whole && from.read(&mut [0])? > 0 {
        return Err(ReadError::Changed { at });
    }
    Ok(recorded)
}

struct Chunk {
    stream: u64,
    records: Vec<u8>,
    hash: [u8; 16],
}

/// The next chunk; none where the file ends, be it in the middle of one.
fn chunk(from: &mut impl Read, at: u64) -> Result<Option<Chunk>, ReadError> {
    let (mut len, mut stream, mut hash) = ([0; 4], [0; 8], [0; 16]);
    if !filled(from, &mut len)? || !filled(from, &mut stream)? {
        return Ok(None);
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > CHUNK_MAX {
        return Err(ReadError::Changed { at });
    }
    let mut records = Vec::new();
    from.take(len as u64).read_to_end(&mut records)?;
    if records.len() < len || !filled(from, &mut hash)? {
        return Ok(None);
    }
    Ok(Some(Chunk {
        stream: u64::from_le_bytes(stream),
        records,
        hash,
    }))
}

fn filled(from: &mut impl Read, buf: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buf) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes of the first line.
const HEAD_MAX: usize = 64;
