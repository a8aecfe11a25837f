//! How the tags of one connection are made and checked: plainly with the cluster's key, or with keys that are bound to
//! the connection, the direction and both nodes (peer-rpc 4.2 and 11.1; docs/protocol-peer.md, "Bound envelopes").

use std::{collections::VecDeque, fmt};

use aws_lc_rs::hkdf;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{
    NodeId,
    capabilities::Capabilities,
    envelope::{Address, COPIED_MAX, EnvelopeError, Header, Layout, Sealed, Unverified, Verified},
    frame::{Frame, FrameError},
    key::{ClusterSecret, KeyId, KeyRing, MacKey, Tag},
};

/// Label with which TLS exports the secret of a connection; the context is empty and the length 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"peer-rpc/1";

/// In the place of the receiver: whoever answers. Only a node that does not know whom it calls, to join, says so.
pub const ANYONE: NodeId = NodeId(0);

/// In the place of a request's tag, under an answer to a request that was not read to its end.
pub const UNREAD_REQUEST: Tag = [0; 32];

/// The 32 bytes that only the two ends of a TLS connection have.
#[derive(Clone)]
pub struct ConnectionSecret(Zeroizing<[u8; 32]>);

impl ConnectionSecret {
    /// Takes what TLS exported by [`EXPORTER_LABEL`].
    #[must_use]
    pub fn new(exported: [u8; 32]) -> Self {
        Self(Zeroizing::new(exported))
    }
}

impl fmt::Debug for ConnectionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionSecret(..)")
    }
}

/// Which way a message goes. Whoever dialled sends requests and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the side that dialled.
    Request,
    /// From the side that was dialled.
    Response,
}

/// Makes and checks the tags of one connection.
#[derive(Debug)]
pub struct Tags {
    secret: Option<ConnectionSecret>,
    /// Keys derived lately, the latest last: a connection has one of each direction, and more while a key is exchanged.
    derived: VecDeque<Derived>,
}

#[derive(Debug)]
struct Derived {
    of: (KeyId, Direction, NodeId, NodeId),
    from: ClusterSecret,
    key: MacKey,
}

/// Who sends a message to whom, by which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The sender.
    pub from: NodeId,
    /// The receiver, or [`ANYONE`].
    pub to: NodeId,
    /// The sender's number.
    pub seq: u64,
}

/// A message that is too large: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Its payload.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its inner frame.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

impl Tags {
    /// Of a connection with these capabilities. `secret` is asked for, and kept, only where they say so.
    #[must_use]
    pub fn new(agreed: Capabilities, secret: ConnectionSecret) -> Self {
        Self {
            secret: (agreed.layout() == Layout::Bound).then_some(secret),
            derived: VecDeque::new(),
        }
    }

    /// Of a connection to a reference peer.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            secret: None,
            derived: VecDeque::new(),
        }
    }

    /// The layout of the connection's envelopes.
    #[must_use]
    pub fn layout(&self) -> Layout {
        match self.secret {
            None => Layout::Plain,
            Some(_) => Layout::Bound,
        }
    }

    /// Makes an envelope. `answered` is the tag of the request, for a response; plain tags do not cover it.
    ///
    /// # Errors
    /// [`EnvelopeError::InnerLenExceedsMax`], the caller's mistake.
    pub fn seal<const N: usize>(
        &mut self,
        keys: &KeyRing,
        direction: Direction,
        route: Route,
        inner: [Bytes; N],
        answered: Option<&Tag>,
    ) -> Result<Sealed, EnvelopeError> {
        let answered = answered.filter(|_| self.layout() == Layout::Bound);
        let (header, key) = self.sealing(keys, direction, route)?;
        header.seal(inner, key, answered)
    }

    /// Makes an envelope around a frame.
    ///
    /// # Errors
    /// [`SealError`], the caller's mistake.
    pub fn seal_frame(
        &mut self,
        keys: &KeyRing,
        direction: Direction,
        route: Route,
        frame: Frame,
        answered: Option<&Tag>,
    ) -> Result<Sealed, SealError> {
        if frame.payload.len() > COPIED_MAX {
            return Ok(self.seal(keys, direction, route, frame.encode()?, answered)?);
        }
        let answered = answered.filter(|_| self.layout() == Layout::Bound);
        let head = frame.header()?;
        let (header, key) = self.sealing(keys, direction, route)?;
        Ok(header.seal_copied(&[&head, &frame.payload], key, answered)?)
    }

    /// The header of an envelope, and the key of its tag.
    fn sealing<'a>(
        &'a mut self,
        keys: &'a KeyRing,
        direction: Direction,
        route: Route,
    ) -> Result<(Header, &'a MacKey), EnvelopeError> {
        let current = keys.current();
        let mut header = Header {
            from: route.from,
            seq: route.seq,
            address: None,
        };
        if self.layout() == Layout::Plain {
            return Ok((header, &current.mac));
        }
        let key_id = current.id;
        header.address = Some(Address {
            key_id,
            to: route.to,
        });
        let key = self.key(keys, key_id, direction, route.from, route.to);
        Ok((header, key.ok_or(EnvelopeError::Mac)?))
    }

    /// Checks the tag of an envelope.
    ///
    /// # Errors
    /// [`EnvelopeError::Mac`], also for a key that the ring does not have.
    pub fn open(
        &mut self,
        keys: &KeyRing,
        direction: Direction,
        envelope: Unverified,
        answered: Option<&Tag>,
    ) -> Result<Verified, EnvelopeError> {
        let header = *envelope.header();
        match (self.layout(), header.address) {
            (Layout::Plain, None) => envelope.verify(keys),
            (Layout::Bound, Some(Address { key_id, to })) => {
                let key = self.key(keys, key_id, direction, header.from, to);
                envelope.verify_bound(key.ok_or(EnvelopeError::Mac)?, answered)
            }
            (layout, _) => Err(EnvelopeError::Version {
                got: header.layout().version(),
                expected: layout.version(),
            }),
        }
    }

    fn key(
        &mut self,
        keys: &KeyRing,
        key_id: KeyId,
        direction: Direction,
        from: NodeId,
        to: NodeId,
    ) -> Option<&MacKey> {
        let cluster = &keys.by_id(key_id)?.secret;
        let of = (key_id, direction, from, to);
        let known = |d: &Derived| d.of == of && d.from.bytes() == cluster.bytes();
        if let Some(at) = self.derived.iter().position(known) {
            return self.derived.get(at).map(|derived| &derived.key);
        }
        let connection = self.secret.as_ref()?;
        let key = derive(cluster, connection, key_id, direction, from, to)?;
        if self.derived.len() >= DERIVED_MAX {
            self.derived.pop_front();
        }
        self.derived.push_back(Derived {
            of,
            from: cluster.clone(),
            key,
        });
        self.derived.back().map(|derived| &derived.key)
    }
}

/// `HKDF-SHA256(ikm = cluster secret, salt = exporter, info = key id, direction, sender, receiver)`, 32 bytes.
pub(super) fn derive(
    cluster: &ClusterSecret,
    connection: &ConnectionSecret,
    key_id: KeyId,
    direction: Direction,
    from: NodeId,
    to: NodeId,
) -> Option<MacKey> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &*connection.0);
    let prk = salt.extract(cluster.bytes());
    let way = match direction {
        Direction::Request => 0,
        Direction::Response => 1,
    };
    let (head, from, to) = ([key_id.0, way], from.0.to_le_bytes(), to.0.to_le_bytes());
    let info = [&head[..], &from, &to];
    let okm = prk.expand(&info, hkdf::HKDF_SHA256).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    okm.fill(&mut *key).ok()?;
    Some(MacKey::new(&key))
}

/// Two directions, with the keys before and after an exchange.
const DERIVED_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(id: u8) -> KeyRing {
        KeyRing::new(KeyId(id), ClusterSecret::new([3; 32]).unwrap())
    }

    fn tags(exported: u8) -> Tags {
        Tags::new(Capabilities::BOUND, ConnectionSecret::new([exported; 32]))
    }

    const ROUTE: Route = Route {
        from: NodeId(1),
        to: NodeId(2),
        seq: 7,
    };

    fn request(tags: &mut Tags) -> Sealed {
        let inner = [Bytes::from_static(b"inner")];
        tags.seal(&ring(4), Direction::Request, ROUTE, inner, None)
            .unwrap()
    }

    fn read(sealed: &Sealed) -> Unverified {
        Unverified::parse(Layout::Bound, sealed.to_bytes()).unwrap()
    }

    #[test]
    fn both_ends_of_a_connection_agree() {
        let sealed = request(&mut tags(1));
        let got = tags(1).open(&ring(4), Direction::Request, read(&sealed), None);
        let got = got.unwrap();
        assert_eq!(got.inner, "inner");
        let address = Address {
            key_id: KeyId(4),
            to: NodeId(2),
        };
        assert_eq!(got.header.address, Some(address));
    }

    #[test]
    fn no_other_connection_direction_or_key_accepts() {
        let sealed = request(&mut tags(1));
        let refused = |tags: &mut Tags, id, direction| {
            let got = tags.open(&ring(id), direction, read(&sealed), None);
            assert_eq!(got.err(), Some(EnvelopeError::Mac));
        };
        refused(&mut tags(2), 4, Direction::Request);
        refused(&mut tags(1), 4, Direction::Response);
        refused(&mut tags(1), 5, Direction::Request);
    }

    #[test]
    fn a_response_covers_its_request() {
        let (mut server, mut client) = (tags(1), tags(1));
        let asked = request(&mut client).tag;
        let back = Route {
            from: ROUTE.to,
            to: ROUTE.from,
            seq: 9,
        };
        let sealed = server
            .seal(&ring(4), Direction::Response, back, [], Some(&asked))
            .unwrap();
        let mut open = |asked| client.open(&ring(4), Direction::Response, read(&sealed), asked);
        assert!(open(Some(&asked)).is_ok());
        assert!(open(Some(&UNREAD_REQUEST)).is_err() && open(None).is_err());
    }

    #[test]
    fn layouts_are_not_mixed() {
        let inner = [Bytes::from_static(b"inner")];
        let plain = Tags::plain().seal(&ring(4), Direction::Request, ROUTE, inner, None);
        let plain = Unverified::parse(Layout::Plain, plain.unwrap().to_bytes()).unwrap();
        let got = tags(1).open(&ring(4), Direction::Request, plain.clone(), None);
        assert!(matches!(got, Err(EnvelopeError::Version { got: 1, .. })));
        let mut none = Tags::new(Capabilities::NONE, ConnectionSecret::new([1; 32]));
        assert!(none.secret.is_none());
        assert!(none.open(&ring(4), Direction::Request, plain, None).is_ok());
    }

    #[test]
    fn keys_that_were_derived_are_few_and_follow_the_ring() {
        let mut tags = tags(1);
        for key_id in 0..20 {
            let inner = [Bytes::new()];
            tags.seal(&ring(key_id), Direction::Request, ROUTE, inner, None)
                .unwrap();
        }
        assert_eq!(tags.derived.len(), DERIVED_MAX);
        let other = KeyRing::new(KeyId(19), ClusterSecret::new([8; 32]).unwrap());
        let sealed = tags
            .seal(&other, Direction::Request, ROUTE, [], None)
            .unwrap();
        let got = tags.open(&ring(19), Direction::Request, read(&sealed), None);
        assert_eq!(got.err(), Some(EnvelopeError::Mac));
    }
}
