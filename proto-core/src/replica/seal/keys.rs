//! The key of one direction of a sealed link, and the number of its next record.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::Zeroizing;

use super::{OpenFault, SealError};
use crate::{
    limits::{REPLICA_RECORDS_MAX, REPLICA_REKEY_AFTER},
    replica::{Profile, ReplicaKey, Signer, Transcript, key::derive},
};

/// The first secret of a signer's direction: from what both pre-shared keys are good for, and everything that the
/// handshake has proven. The bytes are those of profile B, whichever one the MACs have.
pub(super) fn traffic_secret(
    dialer: &ReplicaKey,
    acceptor: &ReplicaKey,
    transcript: &Transcript,
    signer: Signer,
) -> Zeroizing<[u8; 32]> {
    let bound_to = transcript.encode(Profile::B, signer);
    derive(
        TRAFFIC_CONTEXT,
        &[dialer.seal(), acceptor.seal(), &bound_to],
    )
}

/// A direction's key. Each record has its number as nonce, so no number is ever used twice.
pub(super) struct RecordKey {
    secret: Zeroizing<[u8; 32]>,
    cipher: LessSafeKey,
    record: u64,
}

impl RecordKey {
    /// The key whose next record is `record`; `secret` is that of this record.
    pub(super) fn new(secret: Zeroizing<[u8; 32]>, record: u64) -> Self {
        Self {
            cipher: cipher(&secret),
            secret,
            record,
        }
    }

    /// The number of the next record.
    pub(super) fn record(&self) -> u64 {
        self.record
    }

    /// Encrypts a payload in place and gives its tag.
    pub(super) fn seal(&mut self, header: &[u8], payload: &mut [u8]) -> Result<Tag, SealError> {
        let nonce = self.next().ok_or(SealError::Exhausted)?;
        let sealed = self
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::from(header), payload);
        sealed.map_err(|_| SealError::Cipher)
    }

    /// Decrypts a payload, behind which its tag stands, in place.
    pub(super) fn open<'a>(
        &mut self,
        header: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], OpenFault> {
        let record = self.record;
        let nonce = self.next().ok_or(OpenFault::Exhausted)?;
        match self.cipher.open_in_place(nonce, Aad::from(header), sealed) {
            Ok(payload) => Ok(payload),
            Err(_) => Err(OpenFault::Forged { record }),
        }
    }

    /// The nonce of the next record, under the key of its time.
    fn next(&mut self) -> Option<Nonce> {
        let record = self.record;
        if record >= REPLICA_RECORDS_MAX {
            return None;
        }
        if record > 0 && record.is_multiple_of(REPLICA_REKEY_AFTER) {
            self.secret = derive(NEXT_CONTEXT, &[&*self.secret]);
            self.cipher = cipher(&self.secret);
        }
        self.record = record.saturating_add(1);
        let [a, b, c, d, e, f, g, h] = record.to_le_bytes();
        let nonce = [0, 0, 0, 0, a, b, c, d, e, f, g, h];
        Some(Nonce::assume_unique_for_key(nonce))
    }
}

#[expect(
    clippy::expect_used,
    reason = "fails only for a key of another length, and the array has the right one"
)]
fn cipher(secret: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).expect("a key of 32 bytes"))
}

/// Bytes of a tag.
pub(super) const TAG_LEN: usize = 16;
const TRAFFIC_CONTEXT: &str = "adit replica-seal v1 handshake->traffic-secret";
const NEXT_CONTEXT: &str = "adit replica-seal v1 traffic-secret->next";
