//! Reads one envelope off a stream, whatever pieces it comes in (peer-rpc 4.4).

use bytes::Bytes;

use super::{
    budget::{Budget, Charge},
    envelope::{EnvelopeError, Header, Layout, Unverified, total_len},
};
use crate::limits::ENVELOPE_BUFFER_FIRST;

/// Collects the bytes of one half of a stream, which is one envelope and its end.
///
/// The header is judged as soon as it is whole. From then on a budget is charged; memory grows with the bytes that come and
/// not with the length that the header declares. The charge ends with the last reference to the envelope's bytes, wherever
/// they have gone. An error is final: the stream is of no further use.
#[derive(Debug)]
pub struct EnvelopeReader {
    layout: Layout,
    budget: Budget,
    terms: Terms,
    buffer: Vec<u8>,
    declared: Option<Declared>,
}

/// What an envelope is charged for while it is read.
#[derive(Clone, Debug)]
pub enum Terms {
    /// The length that its header declares, so that what has begun can be read to its end.
    Declared,
    /// The memory that it takes: the word of one who has proved nothing is worth nothing. Until it is whole, and can be
    /// judged, this budget of all such senders is charged the same.
    Taken(Budget),
}

/// What is known of an envelope once its header is whole.
#[derive(Debug)]
struct Declared {
    /// Its length in bytes.
    total: usize,
    charge: Charge,
    of_strangers: Option<Charge>,
}

/// The bytes of an envelope.
struct Charged {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl EnvelopeReader {
    /// Starts at the first byte of a stream.
    #[must_use]
    pub fn new(layout: Layout, budget: Budget, terms: Terms) -> Self {
        Self {
            layout,
            budget,
            terms,
            buffer: Vec::new(),
            declared: None,
        }
    }

    /// Tells whether a byte has come: from then on the sender has so long, and no longer (peer-rpc 8).
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes the bytes that came.
    ///
    /// # Errors
    /// [`EnvelopeError::Version`] and [`EnvelopeError::InnerLenExceedsMax`] on the header alone,
    /// [`EnvelopeError::OverBudget`], and [`EnvelopeError::LengthMismatch`] for a byte behind the envelope.
    pub fn feed(&mut self, mut data: &[u8]) -> Result<(), EnvelopeError> {
        let header_len = self.layout.header_len();
        if self.declared.is_none() && self.buffer.is_empty() && data.len() > header_len {
            // The usual case: the header is judged where it lies, and room is made once. A header alone gets none.
            self.declared = Some(self.judge_header(data)?);
        } else if self.declared.is_none() {
            let missing = header_len.saturating_sub(self.buffer.len());
            let (head, rest) = data.split_at_checked(missing).unwrap_or((data, &[]));
            self.buffer.extend_from_slice(head);
            data = rest;
            if self.buffer.len() < header_len {
                return Ok(());
            }
            self.declared = Some(self.judge_header(&self.buffer)?);
        }
        let Some(Declared { total, .. }) = self.declared else {
            return Ok(());
        };
        let missing = total.saturating_sub(self.buffer.len());
        if data.len() > missing {
            let expected = u64::try_from(total).unwrap_or(u64::MAX);
            // The first byte too many; how many came with it hangs on how the stream was cut.
            let got = expected.saturating_add(1);
            return Err(EnvelopeError::LengthMismatch { expected, got });
        }
        self.make_room(total, data.len())?;
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// The stream has ended: gives the envelope, or nothing where no byte came.
    ///
    /// # Errors
    /// [`EnvelopeError::UnexpectedEnd`].
    pub fn finish(self) -> Result<Option<Unverified>, EnvelopeError> {
        let got = self.buffer.len();
        match self.declared {
            None if got == 0 => Ok(None),
            Some(declared) if got == declared.total => {
                let whole = Bytes::from_owner(Charged {
                    bytes: self.buffer,
                    _charge: declared.charge,
                });
                Unverified::parse(self.layout, whole).map(Some)
            }
            None | Some(_) => Err(EnvelopeError::UnexpectedEnd { got }),
        }
    }

    fn judge_header(&self, bytes: &[u8]) -> Result<Declared, EnvelopeError> {
        let (_, inner_len) = Header::decode(self.layout, bytes)?;
        let len = total_len(self.layout, inner_len);
        let over = EnvelopeError::OverBudget { len };
        let total = usize::try_from(len).map_err(|_| over)?;
        let (charged, strangers) = match &self.terms {
            Terms::Declared => (len, None),
            Terms::Taken(strangers) => (len.min(self.buffer.capacity() as u64), Some(strangers)),
        };
        let of_strangers = strangers.map(|budget| budget.charge(charged).ok_or(over));
        Ok(Declared {
            total,
            charge: self.budget.charge(charged).ok_or(over)?,
            of_strangers: of_strangers.transpose()?,
        })
    }

    /// Has the buffer grow by doubling, and at its end to the exact length.
    fn make_room(&mut self, total: usize, more: usize) -> Result<(), EnvelopeError> {
        let len = self.buffer.len();
        let needed = len.saturating_add(more);
        if needed > self.buffer.capacity() {
            let doubled = self.buffer.capacity().saturating_mul(2);
            let capacity = needed.max(doubled).max(ENVELOPE_BUFFER_FIRST).min(total);
            if let Some(declared) = &mut self.declared
                && let Some(of_strangers) = &mut declared.of_strangers
                && !(of_strangers.grow(capacity as u64) && declared.charge.grow(capacity as u64))
            {
                let len = total as u64;
                return Err(EnvelopeError::OverBudget { len });
            }
            self.buffer.reserve_exact(capacity.saturating_sub(len));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        limits::RPC_LEN_MAX,
        peer::{NodeId, key::MacKey},
    };

    fn sealed(inner: &[u8]) -> Bytes {
        let header = Header {
            from: NodeId(7),
            seq: 1,
            address: None,
        };
        let inner = Bytes::copy_from_slice(inner);
        let key = MacKey::new(&[3; 32]);
        header.seal([inner], &key, None).unwrap().to_bytes()
    }

    fn reader(budget: u64) -> EnvelopeReader {
        EnvelopeReader::new(Layout::Plain, Budget::new(budget), Terms::Declared)
    }

    fn header(inner_len: u32) -> [u8; 21] {
        let mut bytes = [0; 21];
        bytes[0] = 1;
        bytes[17..].copy_from_slice(&inner_len.to_le_bytes());
        bytes
    }

    #[test]
    fn the_header_is_judged_before_the_body_comes() {
        let mut bad = header(0);
        bad[0] = 2;
        let mut r = reader(1000);
        assert_eq!(r.feed(&bad[..20]), Ok(()));
        let version = EnvelopeError::Version {
            got: 2,
            expected: 1,
        };
        assert_eq!(r.feed(&bad[20..]), Err(version));
        let exceeds = EnvelopeError::InnerLenExceedsMax { len: 67_108_865 };
        assert_eq!(
            reader(u64::MAX).feed(&header(RPC_LEN_MAX + 1)),
            Err(exceeds)
        );
    }

    #[test]
    fn the_declared_length_is_charged_until_the_envelope_is_dropped() {
        let budget = Budget::new(200);
        let mut r = EnvelopeReader::new(Layout::Plain, budget.clone(), Terms::Declared);
        r.feed(&header(100)).unwrap();
        assert_eq!(budget.used(), 153);
        let mut second = EnvelopeReader::new(Layout::Plain, budget.clone(), Terms::Declared);
        assert_eq!(
            second.feed(&header(0)),
            Err(EnvelopeError::OverBudget { len: 53 })
        );
        r.feed(&[0; 132]).unwrap();
        let read = r.finish().unwrap().unwrap();
        assert_eq!(budget.used(), 153);
        drop(read);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_charge_goes_with_the_bytes() {
        let budget = Budget::new(200);
        let mut r = EnvelopeReader::new(Layout::Plain, budget.clone(), Terms::Declared);
        r.feed(&sealed(b"body")).unwrap();
        let envelope = r.finish().unwrap().unwrap();
        let ring = crate::peer::bed::ring();
        let Ok(message) = crate::peer::bound::Tags::plain().open(
            &ring,
            crate::peer::bound::Direction::Request,
            envelope,
            None,
        ) else {
            panic!("the ring's own key");
        };
        let body = message.inner.slice(1..3);
        drop(message);
        assert_eq!(budget.used(), 57);
        let again = body.clone();
        drop(body);
        assert_eq!((&again[..], budget.used()), (&b"od"[..], 57));
        drop(again);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn of_a_stranger_only_what_came_is_charged() {
        let first = ENVELOPE_BUFFER_FIRST as u64;
        let budget = Budget::new(3 * first);
        let strangers = Budget::new(2 * first + 1);
        let stranger = || {
            let terms = Terms::Taken(strangers.clone());
            EnvelopeReader::new(Layout::Plain, budget.clone(), terms)
        };
        let mut r = stranger();
        r.feed(&header(RPC_LEN_MAX)).unwrap();
        assert!(
            budget.used() <= 64,
            "nothing but the header: {}",
            budget.used()
        );
        r.feed(&[0]).unwrap();
        assert_eq!(budget.used(), first);
        r.feed(&vec![0; ENVELOPE_BUFFER_FIRST]).unwrap();
        assert_eq!(budget.used(), 2 * first);
        let len = u64::from(RPC_LEN_MAX) + 53;
        let over = Err(EnvelopeError::OverBudget { len });
        assert_eq!(r.feed(&vec![0; ENVELOPE_BUFFER_FIRST]), over);
        drop(r);
        assert_eq!((budget.used(), strangers.used()), (0, 0));
        let whole = sealed(&[7; 100]);
        let mut r = stranger();
        r.feed(&whole).unwrap();
        let len = whole.len() as u64;
        assert_eq!((budget.used(), strangers.used()), (len, len));
        let read = r.finish().unwrap();
        assert!(read.is_some());
        assert_eq!((budget.used(), strangers.used()), (len, 0));
    }

    #[test]
    fn a_stream_that_is_given_up_gives_its_charge_back() {
        let budget = Budget::new(200);
        let mut r = EnvelopeReader::new(Layout::Plain, budget.clone(), Terms::Declared);
        r.feed(&header(100)).unwrap();
        assert_eq!(
            r.finish().err(),
            Some(EnvelopeError::UnexpectedEnd { got: 21 })
        );
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn memory_grows_with_the_bytes_that_come() {
        let mut r = reader(u64::MAX);
        r.feed(&header(RPC_LEN_MAX)).unwrap();
        assert!(r.buffer.capacity() <= ENVELOPE_BUFFER_FIRST);
        r.feed(&[0; 1000]).unwrap();
        assert_eq!(r.buffer.capacity(), ENVELOPE_BUFFER_FIRST);
        r.feed(&vec![0; 100_000]).unwrap();
        assert!(r.buffer.capacity() <= 2 * 101_021);

        let whole = sealed(&[7; 100]);
        let mut r = reader(u64::MAX);
        r.feed(&whole[..30]).unwrap();
        assert_eq!(r.buffer.capacity(), whole.len());
    }

    #[test]
    fn a_byte_behind_the_envelope_is_an_error() {
        let mut whole = sealed(b"ab").to_vec();
        whole.push(0);
        let mismatch = EnvelopeError::LengthMismatch {
            expected: 55,
            got: 56,
        };
        assert_eq!(reader(1000).feed(&whole), Err(mismatch));
        let mut r = reader(1000);
        r.feed(&whole[..55]).unwrap();
        assert_eq!(r.feed(&[]), Ok(()));
        assert_eq!(r.feed(&[0]), Err(mismatch));
    }

    #[test]
    fn an_end_is_clean_before_the_first_byte_and_after_the_last() {
        let whole = sealed(b"ab");
        for cut in 0..=whole.len() {
            let mut r = reader(1000);
            r.feed(&whole[..cut]).unwrap();
            assert_eq!(r.has_begun(), cut > 0);
            match r.finish() {
                Ok(None) => assert_eq!(cut, 0),
                Ok(Some(_)) => assert_eq!(cut, whole.len()),
                Err(e) => assert_eq!(e, EnvelopeError::UnexpectedEnd { got: cut }),
            }
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            inner in vec(any::<u8>(), 0..300),
            sizes in vec(1_usize..50, 1..40),
        ) {
            let whole = sealed(&inner);
            let mut r = reader(1000);
            let mut rest = &whole[..];
            for size in sizes.iter().cycle() {
                let (piece, left) = rest.split_at(rest.len().min(*size));
                r.feed(piece).unwrap();
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            let read = r.finish().unwrap().unwrap();
            prop_assert_eq!(read, Unverified::parse(Layout::Plain, whole).unwrap());
        }

        #[test]
        fn any_split_of_any_bytes_ends_as_the_whole_does(
            mut bytes in vec(any::<u8>(), 0..120),
            small: bool,
            cut: prop::sample::Index,
        ) {
            if small && bytes.len() > 21 {
                bytes[..21].copy_from_slice(&header(20));
            }
            let cut = cut.index(bytes.len() + 1);
            let outcome = |pieces: &[&[u8]]| {
                let mut r = reader(1000);
                pieces.iter().try_for_each(|piece| r.feed(piece))?;
                r.finish()
            };
            let (whole, split) = (outcome(&[&bytes]), outcome(&[&bytes[..cut], &bytes[cut..]]));
            prop_assert_eq!(whole, split);
        }
    }
}
