//! The journal of a process as a file: [`JournalFile`] writes it, [`read`] reads it (design 8.17).
//!
//! A file begins with a line: [`MAGIC`] and what [`Head`] tells of the process. What follows are chunks: a `u32` length of
//! records, a `u64` number of the machine's stream, the records, and 16 bytes of a BLAKE3 hash over the hash before, the
//! number and the records. Integers are little-endian. A chunk without records is the orderly end; without it the file was
//! cut.
//!
//! The hashes show what a disk or a copy has damaged, be it changed, moved or left out. They have no key: whoever means to
//! forge a journal computes them anew.

mod file;
mod head;
mod place;
mod queue;
mod read;
#[cfg(test)]
mod tests;

pub use self::{
    file::JournalFile,
    head::Head,
    place::{CreateError, KEPT, check},
    read::{ReadError, Recorded, read},
};

/// What a journal of any format begins with.
const KIND: &[u8] = b"adit journal ";

/// What a journal begins with; the number is that of the format.
pub const MAGIC: &[u8] = b"adit journal 1 ";

/// Bytes that wait for the disk; as many again are being written.
const WAITING_MAX: usize = 16 << 20;

/// Records of one chunk, in bytes. A record is a control message at most; what comes at once is some of them.
const CHUNK_MAX: usize = 4 << 20;

/// Bytes of a chunk beside its records.
const OVERHEAD: usize = 4 + 8 + 16;

/// The hash that each chunk carries on.
struct Chain([u8; 16]);

impl Chain {
    fn begin(head: &[u8]) -> Self {
        Self(start(&blake3::hash(head)))
    }

    fn carry_on(&mut self, stream: u64, records: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(&stream.to_le_bytes());
        self.0 = start(&hasher.update(records).finalize());
        self.0
    }
}

fn start(hash: &blake3::Hash) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    bytes
}
