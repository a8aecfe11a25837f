//! Join tokens: for one node, until a moment, signed with the cluster's secret (peer-rpc 11.2).

use bytes::Buf;

use super::{
    NodeId,
    key::{MacKey, TAG_LEN, Tag},
};

/// What a token says. It travels as hex on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// The node that may join.
    pub for_node: NodeId,
    /// Until when, in seconds of Unix time.
    pub expiry: u64,
}

/// Bytes that are no valid token: whoever gave it out, or it is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not 48 bytes.
    #[error("join token of {len} bytes, not {TOKEN_LEN}")]
    Len {
        /// How many.
        len: usize,
    },
    /// Not signed with this secret.
    #[error("join token is not from this cluster")]
    Mac,
    /// Its time is over.
    #[error("join token has expired")]
    Expired,
}

/// Bytes of a token.
pub const TOKEN_LEN: usize = SIGNED_LEN + TAG_LEN;

impl JoinToken {
    /// Signs it.
    #[must_use]
    pub fn encode(&self, key: &MacKey) -> [u8; TOKEN_LEN] {
        let signed = [self.for_node.0.to_le_bytes(), self.expiry.to_le_bytes()].concat();
        let tag = key.tag(&[&signed]);
        let mut token = [0; TOKEN_LEN];
        let bytes = signed.iter().chain(&tag);
        token
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        token
    }

    /// Reads and checks it. The signature comes first, so that nothing of a forged one is told.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn decode(token: &[u8], key: &MacKey, unix_s: u64) -> Result<Self, TokenError> {
        let len = TokenError::Len { len: token.len() };
        let (mut signed, tag) = token.split_at_checked(SIGNED_LEN).ok_or(len)?;
        let tag: &Tag = tag.try_into().map_err(|_| len)?;
        if !key.verifies(&[signed], tag) {
            return Err(TokenError::Mac);
        }
        let token = Self {
            for_node: NodeId(signed.get_u64_le()),
            expiry: signed.get_u64_le(),
        };
        match unix_s < token.expiry {
            true => Ok(token),
            false => Err(TokenError::Expired),
        }
    }
}

const SIGNED_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_cluster_one_node_and_a_time() {
        let key = MacKey::new(&[1; 32]);
        let token = JoinToken {
            for_node: NodeId(7),
            expiry: 100,
        };
        let bytes = token.encode(&key);
        assert_eq!(JoinToken::decode(&bytes, &key, 99), Ok(token));
        assert_eq!(
            JoinToken::decode(&bytes, &key, 100),
            Err(TokenError::Expired)
        );
        let other = MacKey::new(&[2; 32]);
        assert_eq!(JoinToken::decode(&bytes, &other, 99), Err(TokenError::Mac));
        for at in 0..TOKEN_LEN {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(JoinToken::decode(&bad, &key, 0), Err(TokenError::Mac));
        }
        for len in [0, 15, 16, 47] {
            let got = JoinToken::decode(&bytes[..len], &key, 0);
            assert_eq!(got, Err(TokenError::Len { len }));
        }
    }
}
