//! Key exchange with secrets from the thread's stream.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use rustls::{
    Error, NamedGroup, PeerMisbehaved, ProtocolVersion,
    crypto::{
        ActiveKeyExchange, CompletedKeyExchange, SecureRandom, SharedSecret, SupportedKxGroup,
    },
    ffdhe_groups::FfdheGroup,
};

use super::random::ThreadStream;

/// X25519 (RFC 7748).
#[derive(Debug)]
pub(super) struct X25519;

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(ActiveX25519::draw()?))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// X25519 in the guise of X25519MLKEM768: the shares have its lengths and layout, but where ML-KEM's halves would
/// stand is filler from the stream. Packets are what the simulator is after, not secrecy.
#[derive(Debug)]
pub(super) struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let x25519 = ActiveX25519::draw()?;
        let share = hybrid_share(CLIENT_FILLER_LEN, &x25519.share)?;
        Ok(Box::new(ActiveHybrid { x25519, share }))
    }

    fn start_and_complete(&self, client_share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let x25519 = ActiveX25519::draw()?;
        let secret = x25519.agree(x25519_half(client_share, CLIENT_FILLER_LEN)?)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: hybrid_share(SERVER_FILLER_LEN, &x25519.share)?,
            secret: hybrid_secret(&secret),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

struct ActiveX25519 {
    secret: PrivateKey,
    share: [u8; X25519_LEN],
}

impl ActiveX25519 {
    fn draw() -> Result<Self, Error> {
        let mut secret = [0; X25519_LEN];
        ThreadStream.fill(&mut secret)?;
        let broken = || Error::General("X25519 refused a secret".into());
        let secret =
            PrivateKey::from_private_key(&agreement::X25519, &secret).map_err(|_| broken())?;
        let public = secret.compute_public_key().map_err(|_| broken())?;
        let share = public.as_ref().try_into().map_err(|_| broken())?;
        Ok(Self { secret, share })
    }

    fn agree(&self, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = Error::from(PeerMisbehaved::InvalidKeyShare);
        // aws-lc would take other encodings of a key too; TLS does not (RFC 8446 4.2.8.2).
        if peer.len() != X25519_LEN {
            return Err(invalid);
        }
        let peer = UnparsedPublicKey::new(&agreement::X25519, peer);
        agreement::agree(&self.secret, peer, invalid, |secret| {
            Ok(SharedSecret::from(secret))
        })
    }
}

impl ActiveKeyExchange for ActiveX25519 {
    fn complete(self: Box<Self>, peer_pub_key: &[u8]) -> Result<SharedSecret, Error> {
        self.agree(peer_pub_key)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct ActiveHybrid {
    x25519: ActiveX25519,
    share: Vec<u8>,
}

impl ActiveKeyExchange for ActiveHybrid {
    fn complete(self: Box<Self>, peer_pub_key: &[u8]) -> Result<SharedSecret, Error> {
        let peer = x25519_half(peer_pub_key, SERVER_FILLER_LEN)?;
        Ok(hybrid_secret(&self.x25519.agree(peer)?))
    }

    // As production's hybrid does, so that both shares are in the first flight.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((NamedGroup::X25519, &self.x25519.share))
    }

    fn complete_hybrid_component(
        self: Box<Self>,
        peer_pub_key: &[u8],
    ) -> Result<SharedSecret, Error> {
        self.x25519.agree(peer_pub_key)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

fn hybrid_share(filler_len: usize, x25519: &[u8; X25519_LEN]) -> Result<Vec<u8>, Error> {
    let mut share = vec![0; filler_len];
    ThreadStream.fill(&mut share)?;
    share.extend_from_slice(x25519);
    Ok(share)
}

fn x25519_half(share: &[u8], filler_len: usize) -> Result<&[u8], Error> {
    // The half's own length is checked where it is used.
    share
        .get(filler_len..)
        .ok_or_else(|| PeerMisbehaved::InvalidKeyShare.into())
}

/// Stretches X25519's secret to the length that both halves together have.
fn hybrid_secret(x25519: &SharedSecret) -> SharedSecret {
    let mut secret = vec![0; 2 * X25519_LEN];
    blake3::Hasher::new()
        .update(x25519.secret_bytes())
        .finalize_xof()
        .fill(&mut secret);
    SharedSecret::from(secret)
}

const X25519_LEN: usize = 32;
/// Length of ML-KEM-768's encapsulation key, which a client sends.
const CLIENT_FILLER_LEN: usize = 1184;
/// Length of ML-KEM-768's ciphertext, with which a server answers.
const SERVER_FILLER_LEN: usize = 1088;
