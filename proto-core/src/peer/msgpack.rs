//! The part of MessagePack that the version handshake uses: arrays of unsigned integers (peer-rpc 3.2).
//!
//! Written by hand, because what is accepted is part of the protocol: any unsigned form that holds the value, and array
//! headers `9x` and `dc`; nothing else.

use super::hello::HelloError;

/// A position in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// Takes an array header of exactly so many elements.
    pub(super) fn array(&mut self, expected: u16) -> Result<(), HelloError> {
        let got = match self.byte()? {
            marker @ 0x90..=0x9f => u16::from(marker & 0x0f),
            0xdc => self.number().map(u16::from_be_bytes)?,
            marker => return Err(HelloError::Marker { marker }),
        };
        match got == expected {
            true => Ok(()),
            false => Err(HelloError::ArrayLen { expected, got }),
        }
    }

    /// Takes an unsigned integer in whatever length.
    pub(super) fn unsigned(&mut self) -> Result<u64, HelloError> {
        match self.byte()? {
            fixint @ 0x00..=0x7f => Ok(fixint.into()),
            0xcc => self.number().map(|b| u8::from_be_bytes(b).into()),
            0xcd => self.number().map(|b| u16::from_be_bytes(b).into()),
            0xce => self.number().map(|b| u32::from_be_bytes(b).into()),
            0xcf => self.number().map(u64::from_be_bytes),
            marker => Err(HelloError::Marker { marker }),
        }
    }

    /// Takes an unsigned integer that fits 16 bits.
    pub(super) fn unsigned16(&mut self) -> Result<u16, HelloError> {
        let value = self.unsigned()?;
        u16::try_from(value).map_err(|_| HelloError::OutOfRange { value })
    }

    /// The message must end here. The reference passes over what follows (peer-rpc 3.2).
    pub(super) fn end(&self) -> Result<(), HelloError> {
        match self.0.len() {
            0 => Ok(()),
            len => Err(HelloError::Trailing { len }),
        }
    }

    fn byte(&mut self) -> Result<u8, HelloError> {
        self.number().map(u8::from_be_bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(HelloError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }
}

/// Appends the header of an array of at most 15 elements.
pub(super) fn write_array(out: &mut Vec<u8>, len: u8) {
    out.push(0x90 | (len & 0x0f));
}

/// Appends an unsigned integer in its shortest form.
pub(super) fn write_unsigned(out: &mut Vec<u8>, value: u64) {
    if let Ok(small) = u8::try_from(value) {
        if small > 0x7f {
            out.push(0xcc);
        }
        out.push(small);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(0xcd);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0xce);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unsigned(bytes: &[u8]) -> Result<u64, HelloError> {
        let mut r = Reader::new(bytes);
        let value = r.unsigned()?;
        r.end()?;
        Ok(value)
    }

    #[test]
    fn longer_forms_are_read_and_shortest_written() {
        for form in [
            &[1][..],
            &[0xcc, 1],
            &[0xcd, 0, 1],
            &[0xce, 0, 0, 0, 1],
            &[0xcf, 0, 0, 0, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(unsigned(form), Ok(1));
        }
        for (value, form) in [
            (0x7f, &[0x7f][..]),
            (0x80, &[0xcc, 0x80]),
            (0xff, &[0xcc, 0xff]),
            (0x100, &[0xcd, 1, 0]),
            (0xffff, &[0xcd, 0xff, 0xff]),
            (0x1_0000, &[0xce, 0, 1, 0, 0]),
            (0xffff_ffff, &[0xce, 0xff, 0xff, 0xff, 0xff]),
            (0x1_0000_0000, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        ] {
            let mut out = Vec::new();
            write_unsigned(&mut out, value);
            assert_eq!(out, form);
        }
    }

    #[test]
    fn no_other_form_is_a_number() {
        // Map, array, string, nil, bool, bin, ext, floats, signed forms, negative fixint.
        for marker in (0x80..=0xcb).chain(0xd0..=0xff) {
            let bytes = [marker, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(unsigned(&bytes), Err(HelloError::Marker { marker }));
        }
        assert_eq!(unsigned(&[0xcd, 1]), Err(HelloError::Truncated));
        assert_eq!(unsigned(&[]), Err(HelloError::Truncated));
    }

    #[test]
    fn two_array_headers_are_read() {
        let array = |bytes: &[u8]| Reader::new(bytes).array(2);
        assert_eq!(array(&[0x92]), Ok(()));
        assert_eq!(array(&[0xdc, 0, 2]), Ok(()));
        let three = HelloError::ArrayLen {
            expected: 2,
            got: 3,
        };
        assert_eq!(array(&[0x93]), Err(three));
        for marker in [0xdd, 0x82, 0xde, 2, 0xc0] {
            let got = array(&[marker, 0, 0, 0, 2]);
            assert_eq!(got, Err(HelloError::Marker { marker }));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u64) {
            let mut out = Vec::new();
            write_unsigned(&mut out, value);
            prop_assert_eq!(unsigned(&out), Ok(value));
        }
    }
}
