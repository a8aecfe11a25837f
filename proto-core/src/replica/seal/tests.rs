//! Records of one direction, whole, in parts and tampered with.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::limits::REPLICA_REKEY_AFTER;

const SECRET: [u8; 32] = [0x5e; 32];

/// Both ends of a direction whose next record is `record`.
fn ends_at(record: u64) -> (Sealer, Opener) {
    let key = || RecordKey::new(Zeroizing::new(SECRET), record);
    (Sealer::new(key()), Opener::new(key()))
}

fn sealed(sealer: &mut Sealer, data: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    sealer.seal(data, &mut wire).unwrap();
    wire
}

/// All that an opener makes of some bytes, of which no more will come.
fn open_all(opener: &mut Opener, wire: &[u8]) -> (Vec<u8>, Result<(), OpenFault>) {
    let (mut wire, mut data, mut at) = (wire.to_vec(), Vec::new(), 0);
    loop {
        match opener.open(&mut wire[at..]) {
            Ok(Opened::Data { payload, used }) => {
                data.extend_from_slice(payload);
                at += used;
            }
            Ok(Opened::End { used: 0 } | Opened::Missing(_)) => return (data, opener.handle_end()),
            Ok(Opened::End { used }) => at += used,
            Err(fault) => return (data, Err(fault)),
        }
    }
}

#[test]
fn a_record_has_the_documented_form() {
    let (mut sealer, _) = ends_at(1);
    let record = sealed(&mut sealer, b"abc");
    assert_eq!(record.len(), 3 + RECORD_OVERHEAD);
    assert_eq!(record[..4], [3, 0, 2, 0]);
    let mut end = Vec::new();
    sealer.end(&mut end).unwrap();
    assert_eq!((end.len(), &end[..4]), (RECORD_OVERHEAD, &[0, 0, 3, 0][..]));
}

#[test]
fn long_data_goes_in_full_records() {
    let (mut sealer, mut opener) = ends_at(1);
    let data = vec![7; 2 * REPLICA_RECORD_LEN_MAX + 1];
    let wire = sealed(&mut sealer, &data);
    assert_eq!(wire.len(), data.len() + 3 * RECORD_OVERHEAD);
    assert_eq!(
        open_all(&mut opener, &wire),
        (data, Err(OpenFault::Truncated))
    );
    assert!(sealed(&mut sealer, b"").is_empty());
}

#[test]
fn an_end_without_its_record_is_a_cut() {
    let (mut sealer, mut opener) = ends_at(1);
    let mut wire = sealed(&mut sealer, b"abc");
    sealer.end(&mut wire).unwrap();
    for upto in 0..wire.len() {
        let (_, mut opener) = ends_at(1);
        let (data, end) = open_all(&mut opener, &wire[..upto]);
        assert_eq!(end, Err(OpenFault::Truncated), "{upto}");
        assert_eq!(data.is_empty(), upto < 3 + RECORD_OVERHEAD);
    }
    assert_eq!(open_all(&mut opener, &wire), (b"abc".to_vec(), Ok(())));
    assert_eq!(opener.open(&mut [0]), Err(OpenFault::BehindEnd));
    assert_eq!(opener.handle_end(), Err(OpenFault::BehindEnd));
}

#[test]
fn nothing_is_sealed_behind_the_end() {
    let (mut sealer, _) = ends_at(1);
    let mut wire = Vec::new();
    sealer.end(&mut wire).unwrap();
    let before = wire.clone();
    assert_eq!(sealer.seal(b"x", &mut wire), Err(SealError::Ended));
    assert_eq!(sealer.end(&mut wire), Err(SealError::Ended));
    assert_eq!(wire, before);
}

#[test]
fn records_that_are_moved_repeated_or_left_out_are_forged() {
    let (mut sealer, _) = ends_at(1);
    let [one, two] = [b"one", b"two"].map(|data| sealed(&mut sealer, data));
    let rows = [
        (vec![&two, &one], &b""[..], 1),
        (vec![&one, &one], b"one", 2),
        (vec![&one, &two, &two], b"onetwo", 3),
        (vec![&two], b"", 1),
    ];
    for (order, data, record) in rows {
        let (_, mut opener) = ends_at(1);
        let wire = order.into_iter().flatten().copied().collect::<Vec<u8>>();
        let fault = OpenFault::Forged { record };
        assert_eq!(open_all(&mut opener, &wire), (data.to_vec(), Err(fault)));
        // The verdict stands, whatever comes after.
        assert_eq!(opener.open(&mut one.clone()), Err(fault));
    }
}

#[test]
fn forms_that_are_none_are_refused_before_more_is_read() {
    let headers = [
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 2, 0],
        [1, 64, 2, 0],
        [1, 0, 3, 0],
        [1, 0, 1, 0],
        [1, 0, 4, 0],
        [1, 0, 2, 1],
    ];
    for mut header in headers {
        let (_, mut opener) = ends_at(1);
        let mut got = opener.open(&mut header).map(|_| ());
        if header == [0, 0, 1, 0] {
            // A second confirmation has the form of one, and no place.
            let (mut sealer, _) = ends_at(1);
            let mut wire = Vec::new();
            sealer.confirm(&mut wire).unwrap();
            got = opener.open(&mut wire).map(|_| ());
        }
        assert_eq!(got, Err(OpenFault::NotARecord), "{header:?}");
    }
}

#[test]
fn the_first_record_is_a_confirmation() {
    let first = |write: fn(&mut Sealer, &mut Vec<u8>) -> Result<(), SealError>| {
        let (mut sealer, mut opener) = ends_at(0);
        let mut wire = Vec::new();
        write(&mut sealer, &mut wire).unwrap();
        opener.confirm(wire.first_chunk_mut().unwrap())
    };
    assert_eq!(first(Sealer::confirm), Ok(()));
    assert_eq!(first(Sealer::end), Err(OpenFault::NotARecord));
    assert_eq!(
        first(|s, out| s.seal(b"x", out)),
        Err(OpenFault::NotARecord)
    );
}

#[test]
fn keys_follow_each_other() {
    let (mut sealer, mut opener) = ends_at(REPLICA_REKEY_AFTER - 1);
    let last = sealed(&mut sealer, b"abc");
    let next = sealed(&mut sealer, b"abc");
    assert_eq!(
        open_all(&mut opener, &[last, next.clone()].concat()).0,
        b"abcabc"
    );
    // An opener that keeps the former key reads nothing.
    let (_, mut stale) = ends_at(REPLICA_REKEY_AFTER + 1);
    let fault = OpenFault::Forged {
        record: REPLICA_REKEY_AFTER + 1,
    };
    assert_eq!(open_all(&mut stale, &next), (vec![], Err(fault)));
}

#[test]
fn numbers_never_wrap() {
    let (mut sealer, mut opener) = ends_at(REPLICA_RECORDS_MAX - 2);
    let mut wire = sealed(&mut sealer, b"abc");
    let before = wire.clone();
    // The last number is kept for the end.
    assert_eq!(sealer.seal(b"x", &mut wire), Err(SealError::Exhausted));
    assert_eq!(wire, before);
    sealer.end(&mut wire).unwrap();
    assert_eq!(open_all(&mut opener, &wire), (b"abc".to_vec(), Ok(())));

    let (_, mut opener) = ends_at(REPLICA_RECORDS_MAX);
    assert_eq!(open_all(&mut opener, &before).1, Err(OpenFault::Exhausted));
    let (mut sealer, _) = ends_at(REPLICA_RECORDS_MAX);
    assert_eq!(sealer.end(&mut wire), Err(SealError::Exhausted));
}

#[test]
fn too_much_at_once_leaves_nothing_behind() {
    let (mut sealer, _) = ends_at(REPLICA_RECORDS_MAX - 2);
    let mut wire = vec![9];
    let data = vec![0; REPLICA_RECORD_LEN_MAX + 1];
    assert_eq!(sealer.seal(&data, &mut wire), Err(SealError::Exhausted));
    assert_eq!(wire, [9]);
    assert!(sealer.seal(&data[1..], &mut wire).is_ok());
}

#[test]
fn neither_half_shows_a_key() {
    let (sealer, opener) = ends_at(1);
    assert_eq!(
        format!("{sealer:?} {opener:?}"),
        "Sealer { record: 1, is_over: false, .. } Opener { record: 1, state: Open, .. }"
    );
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40_000), 0..4),
        cut in 1..20_000_usize,
    ) {
        let (mut sealer, mut opener) = ends_at(1);
        let mut wire = Vec::new();
        for part in &parts {
            sealer.seal(part, &mut wire).unwrap();
        }
        sealer.end(&mut wire).unwrap();
        // Bytes come in pieces; the opener says how many are missing and is never asked to hold more than a record.
        let (mut held, mut data, mut is_over) = (Vec::new(), Vec::new(), false);
        for piece in wire.chunks(cut) {
            held.extend_from_slice(piece);
            loop {
                match opener.open(&mut held).unwrap() {
                    Opened::Data { payload, used } => {
                        data.extend_from_slice(payload);
                        held.drain(..used);
                    }
                    Opened::End { used } => {
                        is_over = true;
                        held.drain(..used);
                        break;
                    }
                    Opened::Missing(len) => {
                        prop_assert!(len > 0);
                        prop_assert!(held.len() + len <= REPLICA_RECORD_LEN_MAX + RECORD_OVERHEAD);
                        break;
                    }
                }
            }
        }
        prop_assert_eq!((data, is_over), (parts.concat(), true));
        prop_assert_eq!(opener.handle_end(), Ok(()));
    }

    #[test]
    fn any_changed_bit_is_noticed(
        data in proptest::collection::vec(any::<u8>(), 1..200),
        at: proptest::sample::Index,
        bit in 0..8_u32,
    ) {
        let (mut sealer, mut opener) = ends_at(1);
        let mut wire = sealed(&mut sealer, &data);
        sealer.end(&mut wire).unwrap();
        let at = at.index(wire.len());
        wire[at] ^= 1 << bit;
        let (got, end) = open_all(&mut opener, &wire);
        prop_assert!(end.is_err());
        prop_assert!(got.is_empty() || got == data);
    }

    #[test]
    fn noise_is_no_record(mut noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, mut opener) = ends_at(1);
        match opener.open(&mut noise) {
            Ok(Opened::Missing(len)) => prop_assert!(len > 0 && len <= REPLICA_RECORD_LEN_MAX + RECORD_OVERHEAD),
            Ok(other) => prop_assert!(false, "{:?}", other),
            Err(_) => {}
        }
    }
}
