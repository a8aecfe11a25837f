//! Reads a journal back.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use super::{CHUNK_MAX, Chain, Head, MAGIC};

/// A journal that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Who wrote it.
    pub head: Head,
    /// The records of each machine.
    pub streams: BTreeMap<u64, Vec<u8>>,
    /// It has its end: everything is in it that machines told until it was finished, neither was it ended before its time nor
    /// the process killed. A machine that was still at work then may have done more.
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
    /// Its bytes are not those that were written. That no byte is found so is no proof against forgery.
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
    let line = first_line(from)?;
    let mut recorded = Recorded {
        head: Head::parse(&line).ok_or(ReadError::NoJournal)?,
        ..Recorded::default()
    };
    let mut chain = Chain::begin(&line);
    let mut at = line.len() as u64;
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

/// The line that a journal begins with, read no further than one goes.
fn first_line(from: &mut impl Read) -> Result<Vec<u8>, ReadError> {
    let mut line = vec![0; MAGIC.len()];
    if !filled(from, &mut line)? || line != MAGIC {
        return Err(ReadError::NoJournal);
    }
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        if line.len() == HEAD_MAX || !filled(from, &mut byte)? {
            return Err(ReadError::NoJournal);
        }
        line.extend(byte);
    }
    Ok(line)
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
const HEAD_MAX: usize = 128;
