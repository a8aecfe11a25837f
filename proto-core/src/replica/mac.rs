//! The bytes under a MAC, and the MAC (replica-handshake 4.3).

use std::fmt;

use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use super::{ClusterId, MacKey, ReplicaId};

/// Everything that both MACs of one handshake cover.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// The cluster, as the end that computes has it configured.
    pub cluster: ClusterId,
    /// The end that opened the connection.
    pub dialer: ReplicaId,
    /// The end that accepted it.
    pub acceptor: ReplicaId,
    /// The dialer's nonce.
    pub nonce_d: [u8; 32],
    /// The acceptor's nonce.
    pub nonce_a: [u8; 32],
    /// What carries the connection.
    pub binding: Binding,
}

/// Which bytes are under the MAC. Two ends of different profiles exchange good frames and fail at the MAC
/// (replica-handshake 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// 110 bytes, without the channel: what the reference had for five days.
    A,
    /// 143 bytes, with the channel.
    #[default]
    B,
}

/// What carries the connection; profile A does not tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// TCP.
    Plaintext,
    /// TLS over TCP, and what its session exports under the label `iggy replica psk binding` (replica-handshake 12).
    Tls([u8; 32]),
}

/// Whose MAC it is; the last byte under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// `mac_d`, in the finish.
    Dialer,
    /// `mac_a`, in the challenge.
    Acceptor,
}

/// A MAC, compared in constant time.
#[derive(Clone, Copy)]
pub struct Mac(pub [u8; 32]);

impl Transcript {
    /// The bytes under a signer's MAC.
    #[must_use]
    pub fn encode(&self, profile: Profile, signer: Signer) -> SmallVec<[u8; TRANSCRIPT_LEN]> {
        let mut bytes = SmallVec::new();
        bytes.extend_from_slice(DOMAIN_TAG);
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&[self.dialer.0, self.acceptor.0]);
        bytes.extend_from_slice(&self.nonce_d);
        bytes.extend_from_slice(&self.nonce_a);
        match (profile, self.binding) {
            (Profile::A, _) => {}
            (Profile::B, Binding::Plaintext) => bytes.extend_from_slice(&[0; 33]),
            (Profile::B, Binding::Tls(exporter)) => {
                bytes.push(1);
                bytes.extend_from_slice(&exporter);
            }
        }
        bytes.push(match signer {
            Signer::Dialer => 1,
            Signer::Acceptor => 2,
        });
        bytes
    }

    /// The MAC that a signer makes.
    #[must_use]
    pub fn mac(&self, profile: Profile, signer: Signer, key: &MacKey) -> Mac {
        let hash = blake3::keyed_hash(&key.0, &self.encode(profile, signer));
        Mac(*hash.as_bytes())
    }
}

impl Signer {
    /// The other end.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

impl Profile {
    /// The profile that a peer with another MAC may have.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl PartialEq for Mac {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Mac {}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac(..)")
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plaintext => "Plaintext",
            Self::Tls(_) => "Tls(..)",
        })
    }
}

const DOMAIN_TAG: &[u8; 27] = b"apache-iggy replica-auth v1";
/// Length of a transcript in profile B.
const TRANSCRIPT_LEN: usize = 143;

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript() -> Transcript {
        Transcript {
            cluster: ClusterId::of("iggy-cluster"),
            dialer: ReplicaId(0),
            acceptor: ReplicaId(1),
            nonce_d: [0x11; 32],
            nonce_a: [0x22; 32],
            binding: Binding::Plaintext,
        }
    }

    #[test]
    fn lengths_tell_the_profiles_apart() {
        let len = |profile| transcript().encode(profile, Signer::Dialer).len();
        assert_eq!((len(Profile::A), len(Profile::B)), (110, TRANSCRIPT_LEN));
    }

    #[test]
    fn a_worked_example() {
        // replica-handshake 16
        let key = MacKey::derive(b"0123456789abcdef0123456789abcdef");
        let mac = |profile, signer| {
            let mac = transcript().mac(profile, signer, &key);
            mac.0.iter().map(|b| format!("{b:02x}")).collect::<String>()
        };
        assert_eq!(
            mac(Profile::B, Signer::Dialer),
            "a883c0ee40ebada280ceb697aba6e4555ccf902d9f033f2691ab08708cb2cd08"
        );
        assert_eq!(
            mac(Profile::B, Signer::Acceptor),
            "044b521980f2163017c3fa3730ab0587838513d52fe697b0c6f947a3e8d33b48"
        );
        assert_eq!(
            mac(Profile::A, Signer::Dialer),
            "441f131b99195f98336bf79ddffd001260f10c2fe59db226c7e37fe1449b2b42"
        );
        assert_eq!(
            mac(Profile::A, Signer::Acceptor),
            "ba5bc4ca5b8f1c523508fcff8c8a478171148060c9c8f0d891486f0ed8e02e35"
        );
    }

    #[test]
    fn a_tls_session_of_zeros_is_no_plaintext() {
        let key = MacKey::derive(b"k");
        let tls = Transcript {
            binding: Binding::Tls([0; 32]),
            ..transcript()
        };
        let mac = |t: &Transcript, profile| t.mac(profile, Signer::Dialer, &key);
        assert_ne!(mac(&tls, Profile::B), mac(&transcript(), Profile::B));
        assert_eq!(mac(&tls, Profile::A), mac(&transcript(), Profile::A));
    }
}
