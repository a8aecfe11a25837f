//! Who a node is: what its certificate shows, and what the cluster's topology says (peer-rpc 1.3).

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::NodeId;
use crate::limits::PINS_PER_NODE_MAX;

/// SHA-256 of a complete DER SubjectPublicKeyInfo: it stays when a certificate is renewed with the same key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpkiPin(pub [u8; 32]);

impl SpkiPin {
    /// The pin of a DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn of(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What counts of a leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its key.
    pub spki: SpkiPin,
    /// The first URI SAN, in the certificate's order, that begins with `spiffe://`; compared byte for byte.
    pub spiffe_id: Option<String>,
}

/// Bytes that are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the leaf certificate does not parse")]
pub struct BadLeaf;

/// Reads when a certificate ends, in seconds of Unix time. Nothing is verified here.
///
/// # Errors
/// [`BadLeaf`]
pub fn not_after(der: &[u8]) -> Result<i64, BadLeaf> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| BadLeaf)?;
    Ok(cert.validity().not_after.timestamp())
}

impl Leaf {
    /// Reads a certificate. Nothing is verified here: TLS has done that.
    ///
    /// # Errors
    /// [`BadLeaf`], also for bytes behind the certificate and for alternative names that do not parse.
    pub fn from_der(der: &[u8]) -> Result<Self, BadLeaf> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| BadLeaf)?;
        if !rest.is_empty() {
            return Err(BadLeaf);
        }
        let names = cert.subject_alternative_name().map_err(|_| BadLeaf)?;
        let mut names = names.iter().flat_map(|san| &san.value.general_names);
        let spiffe_id = names.find_map(|name| {
            let GeneralName::URI(uri) = name else {
                return None;
            };
            uri.starts_with(SPIFFE).then(|| (*uri).to_owned())
        });
        Ok(Self {
            spki: SpkiPin::of(cert.tbs_certificate.subject_pki.raw),
            spiffe_id,
        })
    }
}

/// What the topology says of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its id.
    pub node: NodeId,
    /// Keys that it may have: more than one while it changes its key.
    pub spki_pins: PinSet,
    /// The SPIFFE id that its certificate must have.
    pub spiffe_id: Option<String>,
    /// Where it listens, `host:port`.
    pub address: String,
}

/// At most [`PINS_PER_NODE_MAX`] pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinSet(Vec<SpkiPin>);

impl PinSet {
    /// Takes pins; those of one key count once.
    ///
    /// # Errors
    /// [`TooManyPins`].
    pub fn new(pins: impl IntoIterator<Item = SpkiPin>) -> Result<Self, TooManyPins> {
        let mut set = Self::default();
        for pin in pins {
            if set.holds(&pin) {
                continue;
            }
            if set.0.len() >= PINS_PER_NODE_MAX {
                return Err(TooManyPins);
            }
            set.0.push(pin);
        }
        Ok(set)
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether it holds a pin.
    #[must_use]
    pub fn holds(&self, pin: &SpkiPin) -> bool {
        self.0.contains(pin)
    }

    /// Its pins.
    pub fn iter(&self) -> impl Iterator<Item = &SpkiPin> {
        self.0.iter()
    }
}

/// The caller's mistake: a node does not have so many keys at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node has at most {PINS_PER_NODE_MAX} keys")]
pub struct TooManyPins;

/// The topology, as far as the transport asks: it reads and never writes. Called in TLS handshakes, so it may neither
/// block nor take long.
pub trait IdentityStore: Send + Sync {
    /// The record of a node.
    fn by_node(&self, node: NodeId) -> Option<Arc<NodeRecord>>;

    /// The record that holds a pin.
    fn by_spki(&self, pin: &SpkiPin) -> Option<Arc<NodeRecord>>;

    /// The record with a SPIFFE id.
    fn by_spiffe(&self, id: &str) -> Option<Arc<NodeRecord>>;

    /// Tells whether nothing is known of the topology, as on a node that has not joined.
    fn is_empty(&self) -> bool;

    /// Until when a key that no node owns may join, in milliseconds of Unix time; none where it may not.
    fn enrolment(&self, pin: &SpkiPin) -> Option<u64>;

    /// Tells whether nobody proves who they are: in the insecure mode only (peer-rpc 1.2).
    fn is_insecure(&self) -> bool {
        false
    }
}

/// The store of the insecure mode: it knows nobody, and everybody is believed (peer-rpc 1.2 and 1.3).
#[derive(Clone, Copy, Debug)]
pub struct NoIdentities;

impl IdentityStore for NoIdentities {
    fn by_node(&self, _node: NodeId) -> Option<Arc<NodeRecord>> {
        None
    }

    fn by_spki(&self, _pin: &SpkiPin) -> Option<Arc<NodeRecord>> {
        None
    }

    fn by_spiffe(&self, _id: &str) -> Option<Arc<NodeRecord>> {
        None
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn enrolment(&self, _pin: &SpkiPin) -> Option<u64> {
        None
    }

    fn is_insecure(&self) -> bool {
        true
    }
}

impl fmt::Debug for dyn IdentityStore + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityStore")
    }
}

const SPIFFE: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> (Vec<u8>, SpkiPin) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["nodedb".to_owned()]).unwrap();
        let names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(names);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let pin = SpkiPin::of(parsed.tbs_certificate.subject_pki.raw);
        (der, pin)
    }

    #[test]
    fn the_first_spiffe_name_counts_and_case_matters() {
        let uris = ["https://a/", "SPIFFE://a/1", "spiffe://a/2", "spiffe://a/3"];
        let (der, spki) = certificate(&uris);
        let spiffe_id = Some("spiffe://a/2".to_owned());
        assert_eq!(Leaf::from_der(&der), Ok(Leaf { spki, spiffe_id }));
        let (der, _) = certificate(&[]);
        assert_eq!(Leaf::from_der(&der).unwrap().spiffe_id, None);
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert_eq!(not_after(&der), Ok(1_893_542_400));
        assert_eq!(not_after(&der[..der.len() / 2]), Err(BadLeaf));
    }

    #[test]
    fn what_is_no_certificate_or_more_than_one_is_refused() {
        let (mut der, _) = certificate(&["spiffe://a/2"]);
        for cut in [0, 1, der.len() / 2, der.len() - 1] {
            assert_eq!(Leaf::from_der(&der[..cut]), Err(BadLeaf));
        }
        der.push(0);
        assert_eq!(Leaf::from_der(&der), Err(BadLeaf));
    }

    #[test]
    fn pins_are_few_and_counted_once() {
        let pin = |byte| SpkiPin([byte; 32]);
        let set = PinSet::new([1, 2, 1, 3, 2].map(pin)).unwrap();
        assert_eq!(set.iter().count(), 3);
        assert!(set.holds(&pin(2)) && !set.holds(&pin(4)));
        assert_eq!(PinSet::new([1, 2, 3, 4].map(pin)), Err(TooManyPins));
        assert!(PinSet::new([]).unwrap().is_empty());
    }
}
