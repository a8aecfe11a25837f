//! The key that all gateways of a cluster share.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use adit_proto_core::{
    limits::REPLICA_KEY_LEN_MIN,
    peer::key::{ClusterSecret, KeyId, KeyRing},
    replica::{KeyError, Keys, ReplicaKey},
};
use zeroize::Zeroizing;

use crate::{
    pki::{fill_random, hex, parse_hex_32},
    regular,
    state::StateError,
};

/// A key as it is configured, judged. `Debug` hides it, and nothing writes it.
#[derive(Clone)]
pub struct ClusterKey {
    bytes: Zeroizing<Vec<u8>>,
    secret: ClusterSecret,
    replica: ReplicaKey,
}

/// A key that cannot be used: the operator's fault. None of it says anything of the key but its length.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterKeyError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Others than the owner may read or write the file.
    #[error("others may read it; run `chmod 600 {}`", .0.display())]
    Exposed(PathBuf),
    /// It is too short, or one character over and over.
    #[error("{}", advice(.0))]
    Weak(KeyError),
    /// Two keys that differ have one number, which tells them apart between gateways.
    #[error(
        "the previous key has the number of the current one; draw another current one with `adit peers genkey`"
    )]
    OneNumber,
}

impl ClusterKey {
    /// Takes a key: the bytes, without the end of the line behind a text.
    ///
    /// # Errors
    /// [`ClusterKeyError::Weak`].
    pub fn new(bytes: &[u8]) -> Result<Self, ClusterKeyError> {
        // 32 bytes that end like a line are a key of a reference gateway, which keeps it bare (peer-rpc 1.2).
        Self::exact(match bytes.len() == REPLICA_KEY_LEN_MIN {
            true => bytes,
            false => bytes.trim_ascii_end(),
        })
    }

    /// Takes a key that no line ends: every byte counts (replica-handshake 4.1 and 11).
    ///
    /// # Errors
    /// [`ClusterKeyError::Weak`].
    pub fn exact(bytes: &[u8]) -> Result<Self, ClusterKeyError> {
        let replica = ReplicaKey::new(bytes).map_err(ClusterKeyError::Weak)?;
        let one = |_| ClusterKeyError::Weak(KeyError::OneCharacter);
        let secret = ClusterSecret::new(*secret(bytes)).map_err(one)?;
        Ok(Self {
            bytes: Zeroizing::new(bytes.to_vec()),
            secret,
            replica,
        })
    }

    /// Reads a file that only its owner may read.
    ///
    /// # Errors
    /// [`ClusterKeyError`]
    pub fn read(path: &Path) -> Result<Self, ClusterKeyError> {
        let failed = |cause| ClusterKeyError::Read {
            path: path.to_owned(),
            cause,
        };
        let file = regular::open(path).map_err(failed)?;
        // Of the file that is open: what is at the path may be another one by now.
        if regular::mode(&file).map_err(failed)? & 0o077 != 0 {
            return Err(ClusterKeyError::Exposed(path.to_owned()));
        }
        Self::new(&regular::read_open(file).map_err(failed)?)
    }

    /// Reads a file whose access is the service manager's affair: a list of it shows as the group's mode.
    ///
    /// # Errors
    /// [`ClusterKeyError`]
    pub fn read_credential(path: &Path) -> Result<Self, ClusterKeyError> {
        let failed = |cause| ClusterKeyError::Read {
            path: path.to_owned(),
            cause,
        };
        Self::new(&regular::read(path).map_err(failed)?)
    }

    /// The number that tells keys apart in envelopes. It follows from the key, so that nobody has to configure it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(blake3::derive_key("adit peers v1 cluster key -> number", &self.bytes)[0])
    }
}

impl PartialEq for ClusterKey {
    fn eq(&self, other: &Self) -> bool {
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(&self.bytes, &other.bytes);
        same.is_ok()
    }
}

impl Eq for ClusterKey {}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(hidden)")
    }
}

/// The key that signs, and one that only verifies while keys are exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys {
    current: ClusterKey,
    previous: Option<ClusterKey>,
}

impl ClusterKeys {
    /// Joins both.
    ///
    /// # Errors
    /// [`ClusterKeyError::Weak`] where they are the same, and [`ClusterKeyError::OneNumber`].
    pub fn new(current: ClusterKey, previous: Option<ClusterKey>) -> Result<Self, ClusterKeyError> {
        if let Some(previous) = &previous {
            if *previous == current {
                return Err(ClusterKeyError::Weak(KeyError::PreviousIsCurrent));
            }
            if previous.id() == current.id() {
                return Err(ClusterKeyError::OneNumber);
            }
        }
        Ok(Self { current, previous })
    }

    /// The keys of the peer RPC and of forwarded sessions.
    #[must_use]
    pub fn ring(&self) -> KeyRing {
        let mut ring = KeyRing::new(self.current.id(), self.current.secret.clone());
        if let Some(previous) = &self.previous {
            // Room for it is there, and its number is another one.
            let added = ring.add(previous.id(), previous.secret.clone());
            debug_assert!(added.is_ok(), "two keys of different numbers");
        }
        ring
    }
}

/// The key of replica links that signs, and one that only verifies while keys are exchanged.
#[derive(Clone, Debug)]
pub struct ReplicaKeys {
    current: ClusterKey,
    previous: Option<ClusterKey>,
    keys: Keys,
}

impl ReplicaKeys {
    /// Joins both.
    ///
    /// # Errors
    /// [`ClusterKeyError::Weak`] where they are the same.
    pub fn new(current: ClusterKey, previous: Option<ClusterKey>) -> Result<Self, ClusterKeyError> {
        let other = previous.as_ref().map(|key| key.replica.clone());
        let keys = Keys::new(current.replica.clone(), other).map_err(ClusterKeyError::Weak)?;
        Ok(Self {
            current,
            previous,
            keys,
        })
    }

    /// What handshakes are made with.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }
}

impl PartialEq for ReplicaKeys {
    fn eq(&self, other: &Self) -> bool {
        self.current == other.current && self.previous == other.previous
    }
}

impl Eq for ReplicaKeys {}

/// Draws a key, as text: 64 hex digits.
///
/// # Errors
/// The system gives no randomness.
pub fn draw() -> Result<Zeroizing<String>, StateError> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill_random(bytes.as_mut_slice())?;
    Ok(Zeroizing::new(hex(bytes.as_slice())))
}

/// The 32 bytes of the peer RPC: those that 64 hex digits stand for, or that the key is; of any other text they are
/// derived.
fn secret(key: &[u8]) -> Zeroizing<[u8; 32]> {
    let digits = str::from_utf8(key).ok().and_then(parse_hex_32);
    let bare = || <[u8; 32]>::try_from(key).ok();
    let derive = || blake3::derive_key("adit peers v1 cluster key -> secret", key);
    Zeroizing::new(digits.or_else(bare).unwrap_or_else(derive))
}

fn advice(error: &KeyError) -> String {
    error
        .to_string()
        .replace("`openssl rand -hex 32`", "`adit peers genkey`")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const TEXT: &str = "an operator's own text, long enough";

    #[test]
    fn what_is_drawn_is_taken_and_no_two_are_alike() {
        let (one, other) = (draw().unwrap(), draw().unwrap());
        assert!(one.len() == 64 && one != other);
        let key = ClusterKey::new(one.as_bytes()).unwrap();
        assert_eq!(
            key,
            ClusterKey::new(format!("{}\n", *one).as_bytes()).unwrap()
        );
        assert_eq!(*secret(one.as_bytes()), parse_hex_32(&one).unwrap());
        assert_eq!(*secret(&[7; 32]), [7; 32]);
        assert_ne!(secret(TEXT.as_bytes())[..], TEXT.as_bytes()[..32]);
    }

    #[test]
    fn weak_keys_are_refused_without_being_told() {
        for bad in [&[b'a'; 31][..], &[b'a'; 64], b"", &[b'0'; 64], b"short\n"] {
            let error = ClusterKey::new(bad).unwrap_err().to_string();
            assert!(error.contains("adit peers genkey"), "{error}");
        }
        let key = ClusterKey::new(TEXT.as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), "ClusterKey(hidden)");
        let twice = ClusterKeys::new(key.clone(), Some(key.clone())).unwrap_err();
        assert!(twice.to_string().contains("previous"), "{twice}");
        assert!(!format!("{:?}", ClusterKeys::new(key, None).unwrap()).contains("operator"));
    }

    #[test]
    fn both_keys_are_in_the_ring() {
        let keys: Vec<_> = [
            "one, two, three, four, five, six",
            "seven, eight, nine, ten, eleven.",
        ]
        .iter()
        .map(|text| ClusterKey::new(text.as_bytes()).unwrap())
        .collect();
        assert_ne!(keys[0].id(), keys[1].id());
        let both = ClusterKeys::new(keys[0].clone(), Some(keys[1].clone())).unwrap();
        let mut ring = both.ring();
        assert!(ring.promote(keys[1].id()).is_ok());
    }

    #[test]
    fn a_file_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, TEXT).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = ClusterKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            ClusterKey::read(&path).unwrap(),
            ClusterKey::new(TEXT.as_bytes()).unwrap()
        );
        assert!(ClusterKey::read(&dir.path().join("none")).is_err());
    }
}
