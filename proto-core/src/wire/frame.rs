//! The length prefix around every message of the agent tunnel (agent-tunnel 5).

use std::mem;

use bytes::Bytes;
use smallvec::SmallVec;

use super::writer::Writer;
use crate::error::{DecodeError, EncodeError};

/// Cuts a stream of bytes into the payloads of its frames.
///
/// It never takes a byte beyond the frame at hand: raw session bytes follow a `ConnectResponse` (agent-tunnel 7).
/// Memory grows with the bytes that came, not with the length that a prefix claims.
#[derive(Debug)]
pub struct FrameDecoder {
    len_max: usize,
    prefix: SmallVec<[u8; PREFIX_LEN]>,
    body: Vec<u8>,
}

impl FrameDecoder {
    /// Starts at a frame border; payloads above `len_max` bytes are refused.
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        Self {
            len_max,
            prefix: SmallVec::new(),
            body: Vec::new(),
        }
    }

    /// Bytes that can be taken without reading past the current frame: the rest of the prefix, then the rest of the
    /// payload. At least 1, except after an error, when nothing more is wanted.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match self.body_len() {
            Ok(None) => PREFIX_LEN.saturating_sub(self.prefix.len()),
            Ok(Some(len)) => len.saturating_sub(self.body.len()),
            Err(_) => 0,
        }
    }

    /// Takes bytes and tells how many, together with the payload if the frame is complete.
    ///
    /// Bytes behind the frame stay with the caller, to be fed again or used otherwise.
    ///
    /// # Errors
    /// [`DecodeError::MessageTooLarge`] on the prefix alone, and again on every later call.
    pub fn feed(&mut self, data: &[u8]) -> Result<(usize, Option<Vec<u8>>), DecodeError> {
        let (head, rest) = split(data, PREFIX_LEN.saturating_sub(self.prefix.len()));
        self.prefix.extend_from_slice(head);
        let Some(len) = self.body_len()? else {
            return Ok((head.len(), None));
        };
        let (body, _) = split(rest, len.saturating_sub(self.body.len()));
        self.body.extend_from_slice(body);
        let used = head.len().saturating_add(body.len());
        if self.body.len() < len {
            return Ok((used, None));
        }
        self.prefix.clear();
        Ok((used, Some(mem::take(&mut self.body))))
    }

    /// Tells whether the stream may end here.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`] inside a frame, prefix included.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.prefix.is_empty() {
            true => Ok(()),
            false => Err(DecodeError::UnexpectedEnd),
        }
    }

    /// Length of the payload, once the prefix is whole.
    fn body_len(&self) -> Result<Option<usize>, DecodeError> {
        let Some(prefix) = self.prefix.first_chunk() else {
            return Ok(None);
        };
        let size = u32::from_be_bytes(*prefix);
        usize::try_from(size)
            .ok()
            .filter(|&len| len <= self.len_max)
            .map(Some)
            .ok_or_else(|| DecodeError::MessageTooLarge {
                size: size.into(),
                max: u64::try_from(self.len_max).unwrap_or(u64::MAX),
            })
    }
}

/// Makes one complete frame out of what `fill` writes.
pub(super) fn encode_frame(
    len_max: usize,
    fill: impl FnOnce(&mut Writer),
) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new(len_max);
    fill(&mut writer);
    writer.finish()
}

fn split(data: &[u8], len_max: usize) -> (&[u8], &[u8]) {
    data.split_at_checked(len_max).unwrap_or((data, &[]))
}

/// Bytes of the length prefix.
const PREFIX_LEN: usize = size_of::<u32>();

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn bytes_behind_the_frame_stay_with_the_caller() {
        let mut d = FrameDecoder::new(10);
        let stream = [0, 0, 0, 2, 7, 8, 9, 9, 9];
        assert_eq!(d.feed(&stream), Ok((6, Some(vec![7, 8]))));
        assert_eq!(d.end(), Ok(()));
    }

    #[test]
    fn wanted_ends_with_the_frame() {
        let mut d = FrameDecoder::new(10);
        let mut wanted = Vec::new();
        for byte in [0, 0, 0, 2, 7, 8] {
            wanted.push(d.wanted());
            d.feed(&[byte]).unwrap();
        }
        assert_eq!(wanted, [4, 3, 2, 1, 2, 1]);
        assert_eq!(d.wanted(), 4);
    }

    #[test]
    fn empty_payload_is_a_frame() {
        let mut d = FrameDecoder::new(10);
        assert_eq!(d.feed(&[0; 4]), Ok((4, Some(Vec::new()))));
    }

    #[test]
    fn length_is_judged_on_the_prefix_alone() {
        let too_large = DecodeError::MessageTooLarge { size: 11, max: 10 };
        let mut d = FrameDecoder::new(10);
        assert_eq!(d.feed(&[0, 0, 0]), Ok((3, None)));
        assert_eq!(d.feed(&[11]), Err(too_large.clone()));
        assert_eq!(d.wanted(), 0);
        assert_eq!(d.feed(&[0; 20]), Err(too_large));
        assert_eq!(d.feed(&[]).ok(), None);

        assert_eq!(FrameDecoder::new(10).feed(&[0, 0, 0, 10]), Ok((4, None)));
    }

    #[test]
    fn end_is_clean_only_at_a_border() {
        let frame = [0, 0, 0, 1, 7];
        for cut in 0..=frame.len() {
            let mut d = FrameDecoder::new(10);
            d.feed(&frame[..cut]).unwrap();
            let border = cut == 0 || cut == frame.len();
            assert_eq!(d.end().is_ok(), border, "after {cut} bytes");
        }
    }

    #[test]
    fn claimed_length_costs_no_memory() {
        let mut d = FrameDecoder::new(1 << 20);
        d.feed(&[0, 0x10, 0, 0, 7]).unwrap();
        assert!(d.body.capacity() < 64, "{}", d.body.capacity());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            payloads in vec(vec(any::<u8>(), 0..20), 0..6),
            sizes in vec(1_usize..9, 1..40),
        ) {
            let mut stream = Vec::new();
            for p in &payloads {
                stream.extend(encode_frame(20, |w| w.bytes(p)).unwrap());
            }
            let mut d = FrameDecoder::new(20);
            let mut got = Vec::new();
            let mut rest = stream.as_slice();
            let mut sizes = sizes.iter().cycle();
            while !rest.is_empty() {
                let mut piece = &rest[..rest.len().min(*sizes.next().unwrap())];
                rest = &rest[piece.len()..];
                while !piece.is_empty() {
                    let (used, payload) = d.feed(piece).unwrap();
                    prop_assert!(used > 0 && used <= piece.len());
                    piece = &piece[used..];
                    got.extend(payload);
                }
            }
            prop_assert_eq!(got, payloads);
            prop_assert_eq!(d.end(), Ok(()));
        }

        #[test]
        fn any_split_of_any_bytes_ends_as_the_whole_does(
            stream in stream(),
            sizes in vec(1_usize..9, 1..40),
        ) {
            let (frames, rest, bad) = naive(&stream, 20);
            let mut d = FrameDecoder::new(20);
            let (mut got, mut left) = (Vec::new(), &stream[..]);
            let mut sizes = sizes.iter().cycle();
            while !left.is_empty() && d.wanted() > 0 {
                let piece = &left[..left.len().min(*sizes.next().unwrap())];
                match d.feed(piece) {
                    Ok((used, payload)) => {
                        prop_assert!(used > 0 && used <= piece.len());
                        left = &left[used..];
                        got.extend(payload);
                    }
                    Err(error) => {
                        let too_large = matches!(error, DecodeError::MessageTooLarge { .. });
                        prop_assert!(too_large && d.wanted() == 0, "{error}");
                    }
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert_eq!(d.wanted() == 0, bad);
            prop_assert_eq!(d.end().is_ok(), rest.is_empty());
        }

        #[test]
        fn whoever_reads_what_is_wanted_reads_nothing_behind_a_frame(
            payload in vec(any::<u8>(), 0..20),
            behind in vec(any::<u8>(), 0..20),
        ) {
            let frame = encode_frame(20, |w| w.bytes(&payload)).unwrap();
            let stream = [&frame[..], &behind].concat();
            let (mut d, mut at) = (FrameDecoder::new(20), 0);
            let got = loop {
                let wanted = d.wanted();
                let (used, got) = d.feed(&stream[at..at + wanted]).unwrap();
                prop_assert_eq!(used, wanted);
                at += used;
                if let Some(got) = got {
                    break got;
                }
            };
            prop_assert_eq!((got, at), (payload, frame.len()));
        }
    }

    /// Frames of which some are too long, and at the end perhaps a piece of one.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let prefix = prop_oneof![18 => 0_u32..21, 1 => 21_u32..23, 1 => any::<u32>()];
        let frame = (prefix, vec(any::<u8>(), 20)).prop_map(|(len, body)| {
            let body = &body[..body.len().min(usize::try_from(len).unwrap())];
            [&len.to_be_bytes(), body].concat()
        });
        (vec(frame, 0..6), vec(any::<u8>(), 0..6))
            .prop_map(|(frames, end)| [frames.concat(), end].concat())
    }

    /// The model: payloads, what is no whole frame, and whether it can become none.
    fn naive(stream: &[u8], len_max: usize) -> (Vec<Vec<u8>>, &[u8], bool) {
        let (mut frames, mut rest) = (Vec::new(), stream);
        while let Some(prefix) = rest.first_chunk() {
            let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap();
            if len > len_max {
                return (frames, rest, true);
            }
            let Some(body) = rest.get(4..4 + len) else {
                break;
            };
            frames.push(body.to_vec());
            rest = &rest[4 + len..];
        }
        (frames, rest, false)
    }
}
