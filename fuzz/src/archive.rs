//! A corpus in one file: its inputs in the order of their hashes, each behind its length, so that equal corpora are
//! equal files.

use std::collections::BTreeMap;

/// Joins inputs; equal ones count once.
#[must_use]
pub fn pack(inputs: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let keyed = inputs.into_iter().map(|input| (name(&input), input));
    let sorted: BTreeMap<_, _> = keyed.collect();
    let mut packed = Vec::new();
    for input in sorted.values() {
        let len = u32::try_from(input.len()).unwrap_or(u32::MAX);
        packed.extend_from_slice(&len.to_be_bytes());
        packed.extend_from_slice(input);
    }
    packed
}

/// Splits an archive; none where it is damaged.
#[must_use]
pub fn unpack(packed: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut rest, mut inputs) = (packed, Vec::new());
    while !rest.is_empty() {
        let (len, body) = rest.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (input, behind) = body.split_at_checked(len)?;
        inputs.push(input);
        rest = behind;
    }
    Some(inputs)
}

/// The name of an input as a file: from its content, so that two runs agree.
#[must_use]
pub fn name(input: &[u8]) -> String {
    blake3::hash(input).to_hex()[..32].to_owned()
}

/// What a corpus is known by in the log: changes with every input, not with their order.
#[must_use]
pub fn hash(inputs: impl IntoIterator<Item = Vec<u8>>) -> String {
    blake3::hash(&pack(inputs)).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_once_and_in_one_order() {
        let inputs = [b"b".to_vec(), Vec::new(), b"a".to_vec(), b"b".to_vec()];
        let packed = pack(inputs.clone());
        let mut unpacked = unpack(&packed).unwrap();
        assert_eq!(pack(inputs.into_iter().rev()), packed);
        unpacked.sort_unstable();
        assert_eq!(unpacked, [b"".as_slice(), b"a", b"b"]);
        assert_eq!(unpack(&packed[..packed.len() - 1]), None);
    }
}
