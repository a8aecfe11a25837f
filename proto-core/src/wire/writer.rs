//! Writes big-endian fields of one frame.

use bytes::Bytes;

use crate::error::EncodeError;

/// Collects one payload behind its length prefix.
///
/// What goes beyond the limit is counted and not kept, so that a message far too large costs no memory.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The prefix, zero until the end, and the payload.
    frame: Vec<u8>,
    /// Payload bytes written, kept or not.
    size: usize,
    len_max: usize,
}

impl Writer {
    /// Starts a payload of at most `len_max` bytes.
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            frame: vec![0; size_of::<u32>()],
            size: 0,
            len_max,
        }
    }

    /// Appends bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.size = self.size.saturating_add(bytes.len());
        if self.size <= self.len_max {
            self.frame.extend_from_slice(bytes);
        }
    }

    /// Appends one byte.
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends a `u16`.
    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a `u32`.
    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a `u64`.
    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a number of elements or bytes that follow.
    pub(crate) fn count(&mut self, count: usize) {
        // A count that does not fit belongs to a message beyond every limit: `finish` refuses it.
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Appends a `string`: its length in bytes, then its UTF-8 (agent-tunnel 5).
    pub(crate) fn string(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    /// Fills in the prefix and gives the whole frame.
    pub(crate) fn finish(mut self) -> Result<Bytes, EncodeError> {
        let prefix = self.frame.first_chunk_mut();
        match (u32::try_from(self.size), prefix) {
            (Ok(size), Some(prefix)) if self.size <= self.len_max => {
                *prefix = size.to_be_bytes();
                Ok(self.frame.into())
            }
            _ => Err(EncodeError {
                size: self.size,
                max: self.len_max,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_big_endian_behind_their_length() {
        let mut w = Writer::new(100);
        w.u8(1);
        w.u16(0x0203);
        w.u32(0x0405_0607);
        w.u64(0x0809_0a0b_0c0d_0e0f);
        w.string("é");
        let expected = [
            0, 0, 0, 21, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0, 0, 2, 0xc3, 0xa9,
        ];
        assert_eq!(w.finish().unwrap(), expected.as_slice());
    }

    #[test]
    fn one_byte_above_the_limit_is_an_error_with_the_true_size() {
        for (len, expected) in [
            (4, None),
            (5, None),
            (6, Some(EncodeError { size: 6, max: 5 })),
        ] {
            let mut w = Writer::new(5);
            w.bytes(&vec![0; len]);
            assert_eq!(w.finish().err(), expected);
        }
    }

    #[test]
    fn bytes_beyond_the_limit_are_not_kept() {
        let mut w = Writer::new(5);
        for _ in 0..1000 {
            w.bytes(&[0; 3]);
        }
        assert_eq!(w.frame.len(), 4 + 3);
        assert_eq!(w.finish(), Err(EncodeError { size: 3000, max: 5 }));
    }
}
