//! The durable count of a gateway's starts (peer-rpc 7.3).

use crate::state::{StateDir, StateError};

/// Why there is no count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootEpochError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file is no number. A lower one would be refused by every peer that knows the former.
    #[error(
        "{path} is damaged; write a number into it that is higher than this gateway's count of starts ever was"
    )]
    Damaged {
        /// The file.
        path: String,
    },
    /// All counts are spent.
    #[error("the count of starts is at its end")]
    Spent,
}

/// Counts a start, and gives the count once it is on disk: 1 for the first. It is never given twice; a start that fails
/// after it leaves a gap, which does no harm.
///
/// # Errors
/// [`BootEpochError`]
pub fn next(dir: &StateDir) -> Result<u64, BootEpochError> {
    above(dir, 0)
}

/// Gives a count above a start that a peer knows of, once it is on disk, where the count was lost. How far peers lift it is
/// bounded by the catalogue that asks for it.
///
/// # Errors
/// [`BootEpochError`]; nothing has changed then.
pub fn lift(dir: &StateDir, known: u64) -> Result<u64, BootEpochError> {
    above(dir, known)
}

fn above(dir: &StateDir, known: u64) -> Result<u64, BootEpochError> {
    let damaged = || BootEpochError::Damaged {
        path: dir.file(FILE).display().to_string(),
    };
    let last: u64 = match dir.read(FILE)? {
        None => 0,
        Some(bytes) => {
            let text = str::from_utf8(&bytes).map_err(|_| damaged())?;
            text.trim_end().parse().map_err(|_| damaged())?
        }
    };
    let next = last.max(known).checked_add(1).filter(|next| *next <= MAX);
    let next = next.ok_or(BootEpochError::Spent)?;
    dir.write(FILE, format!("{next}\n").as_bytes())?;
    Ok(next)
}

const FILE: &str = "peers-boot-epoch";

/// Numbers of messages begin at the count times 2^44, in 64 bits (peer-rpc 7.3).
const MAX: u64 = (1 << 20) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_the_next_number() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        assert_eq!([next(&dir).unwrap(), next(&dir).unwrap()], [1, 2]);
        let again = StateDir::open(dir.path()).unwrap();
        assert_eq!(next(&again).unwrap(), 3);
    }

    #[test]
    fn peers_lift_a_count_that_was_lost() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        next(&dir).unwrap();
        assert_eq!(lift(&dir, 90).unwrap(), 91);
        assert_eq!(lift(&dir, 90).unwrap(), 92, "none is given twice");
        assert_eq!(next(&dir).unwrap(), 93);
        for known in [MAX, u64::MAX - 1] {
            assert!(matches!(lift(&dir, known), Err(BootEpochError::Spent)));
        }
        assert_eq!(next(&dir).unwrap(), 94);
    }

    #[test]
    fn a_damaged_count_is_no_first_start() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        for bad in [&b""[..], b"x", b"-1", b"1 2", b"\xff"] {
            dir.write(FILE, bad).unwrap();
            let error = next(&dir).unwrap_err().to_string();
            assert!(error.contains(FILE), "{error}");
        }
        dir.write(FILE, b"1048574").unwrap();
        assert_eq!(next(&dir).unwrap(), MAX);
        assert!(matches!(next(&dir), Err(BootEpochError::Spent)));
    }
}
