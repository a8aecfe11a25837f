//! Reads big-endian fields off a payload.

use crate::error::DecodeError;

/// A position in a payload. Nothing is allocated here, so that no claimed size can cost memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of a payload.
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// Checks that `len` bytes are left: headers are checked as a block (agent-tunnel 6.6).
    pub(crate) fn need(&self, len: usize) -> Result<(), DecodeError> {
        match self.rest.len() < len {
            true => Err(truncated(len)),
            false => Ok(()),
        }
    }

    /// Takes one byte.
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    /// Takes a `u16`.
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes a `u32`.
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Takes a `u64`.
    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| truncated(N))?;
        self.rest = rest;
        Ok(*head)
    }

    /// Takes a `string`: a `u32` length in bytes, then UTF-8 (agent-tunnel 5).
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.len()?;
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| truncated(len))?;
        self.rest = rest;
        str::from_utf8(head).map_err(|_| DecodeError::InvalidField {
            field: "string".into(),
            reason: "not UTF-8".into(),
        })
    }

    /// Takes a `u32` count of elements of at least `elem_len_min` bytes each.
    ///
    /// A count that the remaining bytes cannot hold is `Truncated`, so a caller may allocate by what it gets.
    pub(crate) fn count_of(&mut self, elem_len_min: usize) -> Result<usize, DecodeError> {
        let count = self.len()?;
        self.need(count.saturating_mul(elem_len_min))?;
        Ok(count)
    }

    fn len(&mut self) -> Result<usize, DecodeError> {
        // Where `usize` is narrower than the field, the largest one is still more than any payload has.
        Ok(usize::try_from(self.u32()?).unwrap_or(usize::MAX))
    }
}

fn truncated(expected: usize) -> DecodeError {
    DecodeError::Truncated {
        expected: u64::try_from(expected).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_big_endian() {
        let bytes: Vec<u8> = (1..=15).collect();
        let mut r = Reader::new(&bytes);
        assert_eq!(r.u8(), Ok(1));
        assert_eq!(r.u16(), Ok(0x0203));
        assert_eq!(r.u32(), Ok(0x0405_0607));
        assert_eq!(r.u64(), Ok(0x0809_0a0b_0c0d_0e0f));
        assert_eq!(r.u8(), Err(DecodeError::Truncated { expected: 1 }));
    }

    #[test]
    fn failed_read_takes_nothing() {
        let mut r = Reader::new(&[7]);
        assert_eq!(r.u16(), Err(DecodeError::Truncated { expected: 2 }));
        assert_eq!(r.u8(), Ok(7));
    }

    #[test]
    fn count_is_bounded_by_the_bytes_that_remain() {
        let with = |count: u32, rest: usize| {
            let mut bytes = count.to_be_bytes().to_vec();
            bytes.resize(4 + rest, 0);
            Reader::new(&bytes).count_of(5)
        };
        assert_eq!(with(0, 0), Ok(0));
        assert_eq!(with(2, 10), Ok(2));
        assert_eq!(with(2, 9), Err(DecodeError::Truncated { expected: 10 }));
        assert_eq!(
            with(u32::MAX, 40),
            Err(DecodeError::Truncated {
                expected: u64::from(u32::MAX) * 5
            })
        );
    }

    #[test]
    fn string_is_bounded_and_utf8() {
        let read = |bytes: &[u8]| Reader::new(bytes).string().map(str::to_owned);
        assert_eq!(read(&[0, 0, 0, 2, b'a', b'b', b'c']), Ok("ab".to_owned()));
        assert_eq!(read(&[0, 0, 0, 0]), Ok(String::new()));
        assert!(matches!(
            read(&[0xff, 0xff, 0xff, 0xff, b'a']),
            Err(DecodeError::Truncated {
                expected: 0xffff_ffff
            })
        ));
        assert!(matches!(
            read(&[0, 0, 0, 1, 0x80]),
            Err(DecodeError::InvalidField { field, .. }) if field == "string"
        ));
    }
}
