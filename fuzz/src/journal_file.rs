//! Journals as files: what a disk or a copy may have done to one is noticed, and nothing is made of it that was not there.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use adit_io_common::journal::{MAGIC, ReadError, Recorded, read};

use crate::input::{Input, pieces};

/// The first byte is the number of chunks; then two bytes for each, its stream and its length; then places in two bytes, each
/// with the byte that stands there, up to which a file is changed. A place behind the end cuts it to that byte's share. With
/// [`WHOLE`] in front the rest is the file.
pub fn journal_file(data: &[u8]) {
    if let Some(file) = data.strip_prefix(&[WHOLE]) {
        return drop(check(file));
    }
    let mut input = Input::new(data);
    let count = input.byte() % (CHUNKS_MAX + 1);
    let chunks: Vec<(u64, Vec<u8>)> = (0..count)
        .map(|n| (u64::from(input.byte()), vec![n; 1 + input.below(256)]))
        .collect();
    let written = write(&chunks);
    let mut file = written.clone();
    for patch in input.rest().chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([patch[0], patch[1]]));
        match file.get_mut(at) {
            Some(byte) => *byte = patch[2],
            None => file.truncate(file.len() * usize::from(patch[2]) / 256),
        }
    }
    let Ok(recorded) = check(&file) else {
        assert!(file != written, "what was written can be read");
        return;
    };
    assert_eq!(recorded.is_whole, file == written);
    // Chunks from the first on, none left out, and as they were.
    let is_some_of_it =
        (0..=chunks.len()).any(|count| recorded.streams == streams(&chunks[..count]));
    assert!(is_some_of_it);
}

/// However the bytes come, the same is read, and never more than there was.
fn check(file: &[u8]) -> Result<Recorded, ReadError> {
    let one = read(&mut &*file);
    let seed = file.len().to_le_bytes()[0];
    let mut in_pieces = Pieces(pieces(file, seed), &[]);
    match (&one, read(&mut in_pieces)) {
        (Ok(one), Ok(other)) => assert_eq!(*one, other),
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        (one, other) => panic!("{one:?}, but in pieces {other:?}"),
    }
    if let Ok(recorded) = &one {
        let kept: usize = recorded.streams.values().map(Vec::len).sum();
        assert!(kept <= file.len());
    }
    one
}

/// Gives a file piece by piece.
struct Pieces<'a, I>(I, &'a [u8]);

impl<'a, I: Iterator<Item = &'a [u8]>> Read for Pieces<'a, I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.next().unwrap_or_default();
        }
        self.1.read(buf)
    }
}

/// A journal after the description of its format, by another hand than the one that writes it.
fn write(chunks: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = [MAGIC, b"0.1.0 gateway mio 5\n"].concat();
    let mut hash = blake3::hash(&file);
    for (stream, records) in chunks.iter().chain([&(0, Vec::new())]) {
        let told = [&hash.as_bytes()[..16], &stream.to_le_bytes(), records].concat();
        hash = blake3::hash(&told);
        let len = u32::try_from(records.len()).unwrap_or(u32::MAX);
        file.extend(len.to_le_bytes());
        file.extend(&told[16..]);
        file.extend(&hash.as_bytes()[..16]);
    }
    file
}

/// What is to be read of these.
fn streams(chunks: &[(u64, Vec<u8>)]) -> BTreeMap<u64, Vec<u8>> {
    let mut streams = BTreeMap::<_, Vec<u8>>::new();
    for (stream, records) in chunks {
        streams.entry(*stream).or_default().extend(records);
    }
    streams
}

const CHUNKS_MAX: u8 = 6;
const WHOLE: u8 = 0xff;
