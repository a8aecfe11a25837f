//! Keys, wiped when dropped and never shown, and nonces.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Mac, Profile, Signer, Transcript};
use crate::limits::REPLICA_KEY_LEN_MIN;

/// A pre-shared key, of which only what is derived from it is kept.
#[derive(Clone)]
pub struct ReplicaKey {
    mac: MacKey,
    seal: Zeroizing<[u8; 32]>,
}

/// A key that cannot be used: the operator's fault. None of it says anything of the key but its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is shorter than [`REPLICA_KEY_LEN_MIN`].
    #[error(
        "the shared secret has {0} bytes and needs 32 or more: take the output of `openssl rand -hex 32`"
    )]
    TooShort(usize),
    /// It is one character over and over.
    #[error("the shared secret repeats one character: take the output of `openssl rand -hex 32`")]
    OneCharacter,
    /// The previous key is the current one.
    #[error(
        "the previous shared secret equals the current one: remove it, or set it to the one before"
    )]
    PreviousIsCurrent,
}

impl ReplicaKey {
    /// Takes the key as it is configured: its bytes, neither trimmed nor decoded (replica-handshake 4.1).
    ///
    /// # Errors
    /// If it is too short, or one character repeated.
    pub fn new(psk: &[u8]) -> Result<Self, KeyError> {
        if psk.len() < REPLICA_KEY_LEN_MIN {
            return Err(KeyError::TooShort(psk.len()));
        }
        if is_one_character(psk) {
            return Err(KeyError::OneCharacter);
        }
        Ok(Self {
            mac: MacKey::derive(psk),
            seal: derive(SEAL_KEY_CONTEXT, &[psk]),
        })
    }

    pub(super) fn mac(&self) -> &MacKey {
        &self.mac
    }

    /// What keys of sealed links are derived from.
    pub(super) fn seal(&self) -> &[u8; 32] {
        &self.seal
    }
}

impl fmt::Debug for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplicaKey(hidden)")
    }
}

/// The key under the MACs (replica-handshake 4.2). Of a pre-shared key of any length: [`ReplicaKey`] is what judges it.
#[derive(Clone)]
pub struct MacKey(pub(super) Zeroizing<[u8; 32]>);

impl MacKey {
    /// Derives it from the bytes of a pre-shared key.
    #[must_use]
    pub fn derive(psk: &[u8]) -> Self {
        Self(derive(MAC_KEY_CONTEXT, &[psk]))
    }

    /// Takes a key that was derived elsewhere.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl PartialEq for MacKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for MacKey {}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(hidden)")
    }
}

/// The keys of a replica: the current one signs, and both verify (replica-handshake 11.1).
#[derive(Clone, Debug)]
pub struct Keys {
    current: ReplicaKey,
    previous: Option<ReplicaKey>,
}

/// Which key a peer's MAC was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUsed {
    /// The one that signs here, too.
    Current,
    /// The one that only verifies: the peer has yet to change its key.
    Previous,
}

impl Keys {
    /// Takes the current key and, while keys are being changed, the previous one.
    ///
    /// # Errors
    /// If both are the same.
    pub fn new(current: ReplicaKey, previous: Option<ReplicaKey>) -> Result<Self, KeyError> {
        match &previous {
            Some(previous) if previous.mac == current.mac => Err(KeyError::PreviousIsCurrent),
            Some(_) | None => Ok(Self { current, previous }),
        }
    }

    /// The key that signs.
    pub(super) fn current(&self) -> &ReplicaKey {
        &self.current
    }

    /// The key that made a MAC over a transcript. Every key is tried, so that time tells nothing.
    pub(super) fn verify(
        &self,
        transcript: &Transcript,
        profile: Profile,
        signer: Signer,
        mac: &Mac,
    ) -> Option<(KeyUsed, &ReplicaKey)> {
        let fits = |key: &ReplicaKey| transcript.mac(profile, signer, &key.mac) == *mac;
        let current = fits(&self.current).then_some((KeyUsed::Current, &self.current));
        let previous = self.previous.as_ref().filter(|key| fits(key));
        let previous = previous.map(|key| (KeyUsed::Previous, key));
        current.or(previous)
    }
}

/// A nonce that is sent once: 32 bytes from a cryptographic source, drawn for one handshake and used up by it.
#[derive(Debug)]
pub struct Nonce(pub(super) [u8; 32]);

/// The source of randomness gave zeros: it is broken, and no handshake may be made with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the source of random bytes gave 32 zeros, which stand for \"no nonce\"")]
pub struct NonceError;

impl Nonce {
    /// Takes what was drawn.
    ///
    /// # Errors
    /// If it is all zeros, which on the wire is no nonce (replica-handshake 4.4).
    pub fn new(drawn: [u8; 32]) -> Result<Self, NonceError> {
        match drawn == NO_NONCE {
            true => Err(NonceError),
            false => Ok(Self(drawn)),
        }
    }
}

/// Derives 32 bytes from the parts of one key material.
pub(super) fn derive(context: &str, material: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in material {
        hasher.update(part);
    }
    Zeroizing::new(*hasher.finalize().as_bytes())
}

fn is_one_character(psk: &[u8]) -> bool {
    match str::from_utf8(psk) {
        Ok(text) => {
            let mut characters = text.chars();
            let first = characters.next();
            characters.all(|c| Some(c) == first)
        }
        Err(_) => psk.iter().all(|byte| Some(byte) == psk.first()),
    }
}

/// What stands in a frame without a nonce.
pub(super) const NO_NONCE: [u8; 32] = [0; 32];
const MAC_KEY_CONTEXT: &str = "apache-iggy replica-auth v1 psk->mac-key";
const SEAL_KEY_CONTEXT: &str = "adit replica-seal v1 psk->seal-key";

#[cfg(test)]
mod tests {
    use super::*;

    const PSK: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn weak_keys_are_refused() {
        let error = |psk: &[u8]| ReplicaKey::new(psk).err();
        assert_eq!(error(PSK), None);
        assert_eq!(error(&PSK[1..]), Some(KeyError::TooShort(31)));
        assert_eq!(error(b""), Some(KeyError::TooShort(0)));
        assert_eq!(error(&[b'a'; 64]), Some(KeyError::OneCharacter));
        assert_eq!(
            error("é".repeat(16).as_bytes()),
            Some(KeyError::OneCharacter)
        );
        assert_eq!(error(&[0xff; 32]), Some(KeyError::OneCharacter));
        assert_eq!(error("aé".repeat(11).as_bytes()), None);
        // 31 bytes of characters, however many characters they are.
        assert_eq!(
            error("é".repeat(15).as_bytes()),
            Some(KeyError::TooShort(30))
        );
    }

    #[test]
    fn the_previous_key_is_another_one() {
        let key = |psk: &[u8]| ReplicaKey::new(psk).unwrap();
        let other = key(b"0123456789abcdef0123456789abcdeX");
        assert!(Keys::new(key(PSK), Some(other)).is_ok());
        let same = Keys::new(key(PSK), Some(key(PSK)));
        assert_eq!(same.err(), Some(KeyError::PreviousIsCurrent));
    }

    #[test]
    fn no_key_is_ever_shown() {
        let keys = Keys::new(ReplicaKey::new(PSK).unwrap(), None).unwrap();
        let shown = format!("{keys:?} {:?}", MacKey::derive(PSK));
        assert_eq!(
            shown,
            "Keys { current: ReplicaKey(hidden), previous: None } MacKey(hidden)"
        );
    }

    #[test]
    fn no_nonce_is_no_nonce() {
        assert_eq!(Nonce::new([0; 32]).err(), Some(NonceError));
        let mut last_bit = [0; 32];
        last_bit[31] = 1;
        assert!(Nonce::new(last_bit).is_ok());
    }
}
