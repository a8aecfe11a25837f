//! The files of a renewal (design 8.6): a renewed pair stands beside the current one until it has proved itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_io_common::agent::{Credentials, KeptPairs, KeyPairs, Swap, Validity};
use adit_proto_core::{link::tls::AgentTls, output::Renewed};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use zeroize::Zeroizing;

use super::{
    files::{AgentFiles, FilesError},
    pair::{KeyPairFile, PairName},
};
use crate::state::StateDir;

/// The key pairs of an enrolled agent, in its state folder.
///
/// A crash at any moment leaves a current pair, and perhaps a next one beside it; which of them the gateway knows is found
/// out by showing them. The current pair is exchanged by one rename.
#[derive(Debug)]
pub struct AgentPairs {
    dir: StateDir,
    /// Key of the latest request.
    requested: Mutex<Option<Zeroizing<String>>>,
    /// Certificate of the previous pair that was shown last, the one that [`revert`](KeyPairs::revert) brings back.
    shown_previous: Mutex<Option<String>>,
}

impl AgentPairs {
    /// Looks at an enrolment.
    #[must_use]
    pub fn new(dir: StateDir) -> Self {
        Self {
            dir,
            requested: Mutex::default(),
            shown_previous: Mutex::default(),
        }
    }

    fn beside(&self, name: PairName) -> Result<KeyPairFile, FilesError> {
        KeyPairFile::load(&self.dir, name)?.ok_or_else(|| FilesError::Damaged(name.file()))
    }

    fn try_request(&self) -> Result<String, FilesError> {
        let files = AgentFiles::load(&self.dir)?;
        // A reference gateway certifies the present key (agent-tunnel 12).
        let key = match files.renews_with_new_key {
            true => KeyPair::generate(),
            false => KeyPair::from_pem(&files.pair.key_pem),
        };
        let key = key.map_err(FilesError::Key)?;
        let csr_pem = signing_request(&key, &files.name).map_err(FilesError::Key)?;
        *lock(&self.requested) = Some(Zeroizing::new(key.serialize_pem()));
        Ok(csr_pem)
    }

    fn try_store(&self, renewed: Renewed) -> Result<(), FilesError> {
        let key_pem = lock(&self.requested)
            .take()
            .ok_or(FilesError::NotRequested)?;
        let pair = KeyPairFile {
            key_pem,
            cert_pem: renewed.client_cert_pem,
            ca_pem: renewed.gateway_ca_pem,
        };
        pair.check().map_err(|_| FilesError::BadRenewal)?;
        pair.save(&self.dir, PairName::Next)
    }

    fn try_adopt(&self) -> Result<Validity, FilesError> {
        let Some(next) = KeyPairFile::load(&self.dir, PairName::Next)? else {
            // It is in its place, and only the folder was not synced.
            self.dir.sync()?;
            return self.current_validity();
        };
        let validity = next.validity();
        let validity = validity.map_err(|_| FilesError::Damaged(PairName::Next.file()))?;
        // A full disk must not keep a pair that works from its place.
        if let Err(error) = self.keep_current() {
            tracing::warn!(%error, "the former key pair is not kept");
        }
        self.dir
            .rename(PairName::Next.file(), PairName::Current.file())?;
        Ok(validity)
    }

    fn keep_current(&self) -> Result<(), FilesError> {
        match KeyPairFile::load(&self.dir, PairName::Current)? {
            Some(current) => current.save(&self.dir, PairName::Previous),
            None => Ok(()),
        }
    }

    /// By way of the next pair, so that what a crash leaves is found by showing it. It may be asked again after it was done,
    /// or half done, by a call that was given up and ended late.
    fn try_revert(&self) -> Result<Validity, FilesError> {
        if self.was_shown(PairName::Current) {
            self.dir.sync()?;
            return self.current_validity();
        }
        if !self.was_shown(PairName::Next) && self.has(PairName::Previous) {
            self.dir
                .rename(PairName::Previous.file(), PairName::Next.file())?;
        }
        self.try_adopt()
    }

    /// Tells whether this is the pair that was shown last as the previous one.
    fn was_shown(&self, name: PairName) -> bool {
        let shown = lock(&self.shown_previous);
        let pair = KeyPairFile::load(&self.dir, name).ok().flatten();
        pair.is_some_and(|pair| shown.as_ref() == Some(&pair.cert_pem))
    }

    fn show_previous(&self) -> Result<KeyPairFile, FilesError> {
        let pair = self.beside(PairName::Previous)?;
        *lock(&self.shown_previous) = Some(pair.cert_pem.clone());
        Ok(pair)
    }

    fn current_validity(&self) -> Result<Validity, FilesError> {
        let validity = AgentFiles::load(&self.dir)?.pair.validity();
        validity.map_err(|_| FilesError::Damaged(PairName::Current.file()))
    }

    /// One that cannot be read at the moment may be the one that the gateway knows; a damaged one is of no use.
    fn has(&self, name: PairName) -> bool {
        match KeyPairFile::load(&self.dir, name) {
            Ok(pair) => pair.is_some(),
            Err(FilesError::Damaged(file)) => {
                tracing::warn!(file, "a damaged key pair is left alone");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a key pair cannot be read");
                true
            }
        }
    }
}

impl KeyPairs for AgentPairs {
    fn tls(&self, which: Credentials) -> Result<AgentTls, String> {
        let files = AgentFiles::load(&self.dir).map_err(text)?;
        let pair = match which {
            Credentials::Current => files.pair,
            Credentials::Next => self.beside(PairName::Next).map_err(text)?,
            Credentials::Previous => self.show_previous().map_err(text)?,
        };
        pair.tls(files.server_spki_sha256)
    }

    fn validity(&self) -> Result<Validity, String> {
        self.current_validity().map_err(text)
    }

    fn kept(&self) -> KeptPairs {
        KeptPairs {
            next: self.has(PairName::Next),
            previous: self.has(PairName::Previous),
        }
    }

    fn swap(&self) -> Swap {
        match AgentFiles::load(&self.dir) {
            Ok(files) if files.renews_with_new_key => Swap::Overlap,
            Ok(_) | Err(_) => Swap::WhenIdle,
        }
    }

    fn request(&self) -> Result<String, String> {
        self.try_request().map_err(text)
    }

    fn store(&self, renewed: Renewed) -> Result<(), String> {
        self.try_store(renewed).map_err(text)
    }

    fn adopt(&self) -> Result<Validity, String> {
        self.try_adopt().map_err(text)
    }

    fn discard(&self) -> Result<(), String> {
        let (next, previous) = (PairName::Next.file(), PairName::Previous.file());
        match self.dir.file(next).try_exists() {
            Ok(false) => Ok(()),
            Ok(true) | Err(_) => self.dir.rename(next, previous).map_err(|e| e.to_string()),
        }
    }

    fn revert(&self) -> Result<Validity, String> {
        self.try_revert().map_err(text)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a certificate signing request: the key, and the agent's name as its subject (agent-tunnel 3).
pub(super) fn signing_request(key: &KeyPair, name: &str) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serialize_request(key)?.pem()
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: FilesError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use adit_proto_core::id::AgentId;
    use rcgen::CertificateParams;
    use uuid::Uuid;

    use super::*;
    use crate::pki::{certificate_spki_sha256, csr::CheckedCsr, first_certificate};

    #[test]
    fn a_renewed_pair_stands_beside_the_current_one_until_it_is_adopted() {
        let bed = Bed::new(true);
        let before = bed.key(Credentials::Current);
        bed.renew().unwrap();
        assert!(bed.pairs.kept().next);
        assert_eq!(bed.key(Credentials::Current), before);
        let next = bed.key(Credentials::Next);
        assert_ne!(next, before, "a key of its own");
        bed.pairs.adopt().unwrap();
        assert!(!bed.pairs.kept().next);
        assert_eq!(bed.key(Credentials::Current), next);
        let previous = KeyPairFile::load(&bed.dir, PairName::Previous)
            .unwrap()
            .unwrap();
        assert_eq!(spki(&previous.cert_pem), before);
        assert_eq!(bed.pairs.swap(), Swap::Overlap);
    }

    #[test]
    fn a_reference_gateway_is_asked_for_the_same_key() {
        let bed = Bed::new(false);
        bed.renew().unwrap();
        assert_eq!(bed.key(Credentials::Next), bed.key(Credentials::Current));
        assert_eq!(bed.pairs.swap(), Swap::WhenIdle);
    }

    #[test]
    fn what_does_not_fit_the_request_is_refused_and_not_kept() {
        let bed = Bed::new(true);
        let unasked = bed
            .pairs
            .store(bed.certified(&KeyPair::generate().unwrap()));
        assert!(unasked.unwrap_err().contains("no renewal was asked for"));
        bed.pairs.request().unwrap();
        let other = bed
            .pairs
            .store(bed.certified(&KeyPair::generate().unwrap()));
        assert!(other.unwrap_err().contains("does not fit"));
        for (cert, ca) in [("", "x"), ("garbage", "garbage")] {
            bed.pairs.request().unwrap();
            let renewed = Renewed {
                client_cert_pem: cert.to_owned(),
                gateway_ca_pem: ca.to_owned(),
            };
            assert!(bed.pairs.store(renewed).is_err());
        }
        assert!(!bed.pairs.kept().next);
    }

    #[test]
    fn a_torn_next_pair_is_as_none_and_a_discarded_one_is_put_aside() {
        let bed = Bed::new(true);
        bed.renew().unwrap();
        let path = bed.dir.file(PairName::Next.file());
        let whole = fs::read(&path).unwrap();
        for len in [0, 1, whole.len() / 2, whole.len() - 2] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(!bed.pairs.kept().next, "{len} bytes");
            assert!(bed.pairs.tls(Credentials::Next).is_err());
            assert!(bed.pairs.tls(Credentials::Current).is_ok());
        }
        fs::write(&path, &whole).unwrap();
        let next = bed.key(Credentials::Next);
        bed.pairs.discard().unwrap();
        bed.pairs.discard().unwrap();
        assert!(!path.exists());
        assert_eq!(bed.key(Credentials::Previous), next);
    }

    #[test]
    fn a_former_pair_comes_back_and_the_other_one_is_kept() {
        let bed = Bed::new(true);
        let first = bed.key(Credentials::Current);
        bed.renew().unwrap();
        bed.pairs.adopt().unwrap();
        let second = bed.key(Credentials::Current);
        // A crash after the first step leaves it as the next one, and a second attempt goes on from there.
        bed.dir
            .rename(PairName::Previous.file(), PairName::Next.file())
            .unwrap();
        assert_eq!(
            bed.pairs.kept(),
            KeptPairs {
                next: true,
                previous: false
            }
        );
        bed.pairs.revert().unwrap();
        assert_eq!(bed.key(Credentials::Current), first);
        assert_eq!(bed.key(Credentials::Previous), second);
        bed.pairs.revert().unwrap();
        assert_eq!(bed.key(Credentials::Current), second);
        assert_eq!(bed.key(Credentials::Previous), first);
        assert!(!bed.pairs.kept().next);
        // What is in its place already stays there.
        bed.pairs.adopt().unwrap();
        assert_eq!(bed.key(Credentials::Current), second);
    }

    #[test]
    fn a_pair_that_came_back_stays_however_often_that_is_asked() {
        let bed = Bed::new(true);
        let first = bed.key(Credentials::Current);
        bed.renew().unwrap();
        bed.pairs.adopt().unwrap();
        let second = bed.key(Credentials::Current);
        // The gateway took it; the first answer came too late.
        assert_eq!(bed.key(Credentials::Previous), first);
        for _ in 0..2 {
            bed.pairs.revert().unwrap();
            assert_eq!(bed.key(Credentials::Current), first);
        }
        // The disk had failed half-way: the one that goes was copied, and nothing exchanged.
        let of = |name| KeyPairFile::load(&bed.dir, name).unwrap().unwrap();
        of(PairName::Current)
            .save(&bed.dir, PairName::Next)
            .unwrap();
        of(PairName::Previous)
            .save(&bed.dir, PairName::Current)
            .unwrap();
        bed.pairs.revert().unwrap();
        assert_eq!(bed.key(Credentials::Current), first);
        assert_eq!(bed.key(Credentials::Previous), second);
    }

    #[test]
    fn a_full_or_read_only_disk_leaves_what_was_there() {
        let bed = Bed::new(true);
        let before = bed.key(Credentials::Current);
        bed.renew().unwrap();
        let next = bed.key(Credentials::Next);
        // Nothing can be written where the folder is gone; as root no mode forbids it.
        let away = bed.dir.path().with_extension("away");
        fs::rename(bed.dir.path(), &away).unwrap();
        assert!(bed.pairs.adopt().is_err());
        fs::rename(&away, bed.dir.path()).unwrap();
        assert_eq!(bed.key(Credentials::Current), before);
        assert_eq!(bed.key(Credentials::Next), next);
        // The previous pair cannot be kept: its name is a folder's.
        fs::create_dir(bed.dir.file(PairName::Previous.file())).unwrap();
        bed.pairs.adopt().unwrap();
        assert_eq!(bed.key(Credentials::Current), next, "all the same");
    }

    struct Bed {
        _root: tempfile::TempDir,
        dir: StateDir,
        pairs: AgentPairs,
    }

    impl Bed {
        fn new(renews_with_new_key: bool) -> Self {
            let root = tempfile::tempdir().unwrap();
            let dir = StateDir::open(root.path().join("s")).unwrap();
            let key = KeyPair::generate().unwrap();
            let cert = CertificateParams::default().self_signed(&key).unwrap();
            let files = AgentFiles {
                id: AgentId(Uuid::from_u128(1)),
                name: "branch".to_owned(),
                quic_endpoints: vec!["gw:4433".to_owned()],
                server_spki_sha256: [1; 32],
                renews_with_new_key,
                gateway_url: "https://gw".to_owned(),
                pair: KeyPairFile {
                    key_pem: Zeroizing::new(key.serialize_pem()),
                    cert_pem: cert.pem(),
                    ca_pem: cert.pem(),
                },
            };
            files.save(&dir).unwrap();
            Self {
                _root: root,
                pairs: AgentPairs::new(dir.clone()),
                dir,
            }
        }

        fn certified(&self, key: &KeyPair) -> Renewed {
            let cert = CertificateParams::default().self_signed(key).unwrap();
            Renewed {
                client_cert_pem: cert.pem(),
                gateway_ca_pem: cert.pem(),
            }
        }

        /// Asks, and certifies the key of the request.
        fn renew(&self) -> Result<(), String> {
            let csr = self.pairs.request().unwrap();
            let asked = CheckedCsr::from_pem(&csr).unwrap().spki_sha256();
            let key = KeyPair::from_pem(lock(&self.pairs.requested).as_ref().unwrap()).unwrap();
            let renewed = self.certified(&key);
            assert_eq!(spki(&renewed.client_cert_pem), asked);
            self.pairs.store(renewed)
        }

        fn key(&self, which: Credentials) -> [u8; 32] {
            let tls = self.pairs.tls(which).unwrap();
            certificate_spki_sha256(&tls.cert_chain[0]).unwrap()
        }
    }

    fn spki(cert_pem: &str) -> [u8; 32] {
        certificate_spki_sha256(&first_certificate(cert_pem).unwrap()).unwrap()
    }
}
