//! The embedded certificate authority.

use std::{fmt, time::Duration};

use adit_proto_core::{id::AgentId, identity::AgentIdentity};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::{
    PkiError,
    csr::CheckedCsr,
    fill_random, first_certificate, hex, is_agent_name,
    names::{ServerNames, is_hostname},
    parse,
    rotation::{Exchange, Former, Kept},
    sha256, spki_sha256,
};
use crate::state::StateDir;

/// The authority that vouches for this gateway and its agents; key and certificate live in the state folder. Beside it
/// may stand the one that it took over from, which is still trusted.
pub struct Ca {
    cert_pem: String,
    der: CertificateDer<'static>,
    spki_sha256: [u8; 32],
    issuer: Issuer<'static, KeyPair>,
    former: Option<Former>,
}

impl Ca {
    /// Reads the authority, making it at first use. An exchange that was cut short is carried out.
    ///
    /// # Errors
    /// [`PkiError::BadFile`] when a file is damaged or the key is gone: a lost authority is never replaced in silence,
    /// since every agent trusts it.
    pub fn open(dir: &StateDir, now: UnixTime) -> Result<Self, PkiError> {
        Exchange::recover(dir, agents_not_after(now))?;
        let bad = |name: &str, what| PkiError::BadFile {
            path: dir.file(name),
            what,
        };
        let cert_pem = dir.read_text(CERT_FILE)?;
        let key = match (dir.read_secret_text(KEY_FILE)?, &cert_pem) {
            (Some(pem), _) => {
                KeyPair::from_pem(&pem).map_err(|_| bad(KEY_FILE, "holds no usable private key"))?
            }
            (None, Some(_)) => return Err(bad(KEY_FILE, "is missing beside its certificate")),
            (None, None) => new_key(dir, KEY_FILE)?,
        };
        let cert_pem = match cert_pem {
            Some(pem) => pem,
            None => {
                let pem = params_of(now, CA_NAME)?.self_signed(&key)?.pem();
                dir.write(CERT_FILE, pem.as_bytes())?;
                pem
            }
        };
        let bad_cert = |_| bad(CERT_FILE, "holds no usable certificate");
        let der = first_certificate(&cert_pem).map_err(bad_cert)?;
        let spki = spki_sha256(parse(&der).map_err(bad_cert)?.public_key().raw);
        if spki != spki_sha256(&key.subject_public_key_info()) {
            return Err(bad(CERT_FILE, "does not belong to the authority's key"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self {
            cert_pem,
            der,
            spki_sha256: spki,
            issuer,
            former: Former::load(dir)?,
        })
    }

    /// Makes another authority in place of this one, which stays trusted: it is the former one of what this gives, until
    /// that is [retired](Self::retire). `last_not_after` is the Unix time in seconds by which every certificate ends
    /// that this one has signed. A crash leaves this authority or the whole exchange.
    ///
    /// # Errors
    /// [`PkiError::FormerStays`] where this one has a former one itself, else what failed; nothing has changed then, or
    /// the next [`open`](Self::open) ends what was begun.
    pub fn rotate(
        &self,
        dir: &StateDir,
        now: UnixTime,
        last_not_after: i64,
    ) -> Result<Self, PkiError> {
        if self.former.is_some() {
            return Err(PkiError::FormerStays);
        }
        let key = KeyPair::generate()?;
        let spki = spki_sha256(&key.subject_public_key_info());
        // Names tell authorities apart where a chain is looked for.
        let name = format!("{CA_NAME} {}", hex(&spki[..4]));
        let params = params_of(now, &name)?;
        let certificate = params.self_signed(&key)?.pem();
        // As long as the present one's own: it is of no use to anybody once the former one is retired.
        let cross = params_of(now, &name)?.signed_by(&key, &self.issuer)?.pem();
        let former = Kept {
            certificate: self.cert_pem.clone(),
            cross,
            last_not_after,
        };
        let key = key.serialize_pem();
        Exchange {
            key,
            certificate,
            former,
        }
        .commit(dir)?;
        Self::open(dir, now)
    }

    /// Trusts the former authority no more.
    ///
    /// # Errors
    /// [`PkiError::NoFormer`] where there is none, else what failed.
    pub fn retire(&self, dir: &StateDir, now: UnixTime) -> Result<Self, PkiError> {
        if self.former.is_none() {
            return Err(PkiError::NoFormer);
        }
        Former::remove(dir)?;
        Self::open(dir, now)
    }

    /// Gives the authority that this one took over from, while it is trusted.
    #[must_use]
    pub fn former(&self) -> Option<&Former> {
        self.former.as_ref()
    }

    /// Gives the certificate that agents keep as their only root.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Gives the hash of its key.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.spki_sha256
    }

    /// Gives the roots that agents' certificates may lead to.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let former = self.former.as_ref().map(|former| &former.der);
        [&self.der].into_iter().chain(former)
    }

    /// Gives what a server sends behind its own certificate (agent-tunnel 3): this authority's, or in its place, while
    /// the former one is trusted, the one by which that vouches for it. Whoever knows either root can follow.
    pub(super) fn link(&self) -> &CertificateDer<'static> {
        let cross = self.former.as_ref().map(|former| &former.cross);
        cross.unwrap_or(&self.der)
    }

    /// Issues an agent's first certificate, for the key of the request.
    ///
    /// # Errors
    /// [`PkiError::BadAgentName`], [`PkiError::BadHostname`], [`PkiError::Generate`].
    pub fn sign_agent(
        &self,
        now: UnixTime,
        csr: &CheckedCsr,
        id: AgentId,
        name: &str,
        hostname: Option<&str>,
    ) -> Result<IssuedCert, PkiError> {
        if !is_agent_name(name) {
            return Err(PkiError::BadAgentName);
        }
        let mut params = base_params(now, AGENT_DAYS)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("urn:uuid:{}", id.0);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        if let Some(hostname) = hostname {
            if !is_hostname(hostname) {
                return Err(PkiError::BadHostname);
            }
            let dns = SanType::DnsName(hostname.try_into()?);
            params.subject_alt_names.push(dns);
        }
        self.issue(&params, csr.key())
    }

    /// Issues the next certificate of an agent that proved who it is; the request gives the key only.
    ///
    /// # Errors
    /// [`PkiError::Csr`], else as [`Ca::sign_agent`].
    pub fn sign_renewal(
        &self,
        now: UnixTime,
        agent: &AgentIdentity,
        csr_pem: &str,
    ) -> Result<IssuedCert, PkiError> {
        let csr = CheckedCsr::from_pem(csr_pem)?;
        self.sign_agent(now, &csr, agent.id, &agent.name, None)
    }

    pub(super) fn sign_server(
        &self,
        now: UnixTime,
        key: &KeyPair,
        names: &ServerNames,
    ) -> Result<IssuedCert, PkiError> {
        let mut params = base_params(now, SERVER_DAYS)?;
        params
            .distinguished_name
            .push(DnType::CommonName, names.common_name());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names.to_sans()?;
        self.issue(&params, key)
    }

    /// Whether a certificate was signed with the authority's key.
    pub(super) fn has_signed(&self, certificate: &X509Certificate<'_>) -> bool {
        parse(&self.der).is_ok_and(|ca| {
            ca.subject() == certificate.issuer()
                && certificate.verify_signature(Some(ca.public_key())).is_ok()
        })
    }

    fn issue(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<IssuedCert, PkiError> {
        IssuedCert::new(&params.signed_by(key, &self.issuer)?, self.spki_sha256)
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

/// A certificate that the authority has just signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCert {
    /// The certificate.
    pub cert_pem: String,
    /// SHA-256 of its DER.
    pub fingerprint: [u8; 32],
    /// SHA-256 of the DER SubjectPublicKeyInfo inside.
    pub spki_sha256: [u8; 32],
    /// Unix time of its end, in seconds.
    pub not_after: i64,
    /// SHA-256 of the authority's DER SubjectPublicKeyInfo.
    pub issuer_sha256: [u8; 32],
}

impl IssuedCert {
    fn new(certificate: &Certificate, issuer_sha256: [u8; 32]) -> Result<Self, PkiError> {
        let parsed = parse(certificate.der())?;
        Ok(Self {
            cert_pem: certificate.pem(),
            fingerprint: sha256(certificate.der()),
            spki_sha256: spki_sha256(parsed.public_key().raw),
            not_after: parsed.validity().not_after.timestamp(),
            issuer_sha256,
        })
    }
}

/// Makes a P-256 key and keeps it in the state folder.
pub(crate) fn new_key(dir: &StateDir, name: &str) -> Result<KeyPair, PkiError> {
    let key = KeyPair::generate()?;
    dir.write_secret(name, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

fn params_of(now: UnixTime, name: &str) -> Result<CertificateParams, PkiError> {
    let mut params = base_params(now, CA_DAYS)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Gives the Unix time in seconds by which an agent's certificate ends that is signed now.
#[must_use]
pub fn agents_not_after(now: UnixTime) -> i64 {
    let end = now.as_secs().saturating_add(AGENT_DAYS * DAY_S);
    i64::try_from(end).unwrap_or(i64::MAX)
}

pub(crate) fn base_params(now: UnixTime, days: u64) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; 16];
    fill_random(&mut serial)?;
    // A serial number is positive; a set second bit keeps its length at 16 bytes.
    serial[0] = serial[0] & 0x7f | 0x40;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = Duration::from_secs(now.as_secs());
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATED);
    params.not_after = epoch + since_epoch + Duration::from_secs(days * DAY_S);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

pub(super) const CERT_FILE: &str = "ca-cert.pem";
pub(super) const KEY_FILE: &str = "ca-key.pem";
const CA_NAME: &str = "adit agent CA";
const CA_DAYS: u64 = 3650;
const SERVER_DAYS: u64 = 365;
/// Life of an agent's certificate.
const AGENT_DAYS: u64 = 365;
const DAY_S: u64 = 86_400;
/// How far a peer's clock may be behind and still accept a certificate made this second (design 3.7): a day that this
/// clock is ahead, a day that the other one is behind, and one to spare.
pub const BACKDATED: Duration = Duration::from_secs(3 * DAY_S);

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use x509_parser::extensions::GeneralName;

    use super::*;

    #[test]
    fn authority_is_made_once_and_read_again() {
        let (_root, dir) = scratch();
        let made = Ca::open(&dir, NOW).unwrap();
        let read = Ca::open(&dir, later(100)).unwrap();
        assert_eq!(made.cert_pem, read.cert_pem);
        let der = first_certificate(read.cert_pem()).unwrap();
        let cert = parse(&der).unwrap();
        assert_eq!(cert.subject().to_string(), "CN=adit agent CA");
        assert!(cert.basic_constraints().unwrap().unwrap().value.ca);
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign());
        assert!(cert.extended_key_usage().unwrap().is_none());
        assert_eq!(lifetime(&cert), ((3650 + 3) * DAY_S) as i64);
        assert!(read.has_signed(&cert));
    }

    #[test]
    fn lost_or_foreign_key_is_an_error() {
        let (_root, dir) = scratch();
        Ca::open(&dir, NOW).unwrap();
        new_key(&dir, KEY_FILE).unwrap();
        let error = Ca::open(&dir, NOW).unwrap_err();
        assert!(error.to_string().contains(CERT_FILE), "{error}");
        dir.remove(KEY_FILE).unwrap();
        let error = Ca::open(&dir, NOW).unwrap_err();
        assert!(error.to_string().contains(KEY_FILE), "{error}");
        dir.write_secret(KEY_FILE, b"torn").unwrap();
        assert!(Ca::open(&dir, NOW).is_err());
    }

    #[test]
    fn key_without_certificate_gets_one() {
        let (_root, dir) = scratch();
        Ca::open(&dir, NOW).unwrap();
        let key = dir.read_secret(KEY_FILE).unwrap();
        dir.remove(CERT_FILE).unwrap();
        Ca::open(&dir, NOW).unwrap();
        assert_eq!(dir.read_secret(KEY_FILE).unwrap(), key);
    }

    #[test]
    fn agent_certificate_has_uri_first_and_nothing_of_the_request() {
        let (_root, dir) = scratch();
        let ca = Ca::open(&dir, NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = CheckedCsr::from_pem(&request(&key)).unwrap();
        let id = AgentId(Uuid::from_u128(7));
        let issued = ca
            .sign_agent(NOW, &csr, id, "site a", Some("host-1.corp"))
            .unwrap();
        let der = first_certificate(&issued.cert_pem).unwrap();
        let cert = parse(&der).unwrap();
        assert!(ca.has_signed(&cert));
        assert_eq!(cert.subject().to_string(), "CN=site a");
        let uri = format!("urn:uuid:{id}");
        assert_eq!(
            cert.subject_alternative_name()
                .unwrap()
                .unwrap()
                .value
                .general_names,
            [GeneralName::URI(&uri), GeneralName::DNSName("host-1.corp")]
        );
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(cert.basic_constraints().unwrap().is_none());
        assert_eq!(lifetime(&cert), ((365 + 3) * DAY_S) as i64);
        assert_eq!(
            issued.spki_sha256,
            spki_sha256(&key.subject_public_key_info())
        );
        assert_eq!(issued.spki_sha256, csr.spki_sha256());
        assert_eq!(issued.fingerprint, sha256(&der));
    }

    #[test]
    fn renewal_takes_identity_from_the_connection_and_a_fresh_serial() {
        let (_root, dir) = scratch();
        let ca = Ca::open(&dir, NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let agent = AgentIdentity {
            id: AgentId(Uuid::from_u128(9)),
            name: "proved".into(),
            fingerprint: [0; 32],
            spki_sha256: [0; 32],
        };
        let pems = [0, 1].map(|_| {
            let issued = ca.sign_renewal(NOW, &agent, &request(&key)).unwrap();
            first_certificate(&issued.cert_pem).unwrap()
        });
        let [first, second] = pems.each_ref().map(|der| parse(der).unwrap());
        assert_eq!(first.subject().to_string(), "CN=proved");
        assert_ne!(first.raw_serial(), second.raw_serial());
        assert!(ca.sign_renewal(NOW, &agent, "noise").is_err());
    }

    #[test]
    fn bad_names_are_refused() {
        let (_root, dir) = scratch();
        let ca = Ca::open(&dir, NOW).unwrap();
        let csr = CheckedCsr::from_pem(&request(&KeyPair::generate().unwrap())).unwrap();
        let id = AgentId(Uuid::nil());
        let sign = |name, host| ca.sign_agent(NOW, &csr, id, name, host);
        assert!(matches!(sign("", None), Err(PkiError::BadAgentName)));
        assert!(matches!(sign("é", None), Err(PkiError::BadAgentName)));
        assert!(matches!(sign("a", Some("a b")), Err(PkiError::BadHostname)));
        assert!(matches!(sign("a", Some("")), Err(PkiError::BadHostname)));
    }

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_000));

    fn later(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs() + seconds))
    }

    fn lifetime(cert: &X509Certificate<'_>) -> i64 {
        cert.validity().not_after.timestamp() - cert.validity().not_before.timestamp()
    }

    fn request(key: &KeyPair) -> String {
        let mut params = CertificateParams::new(["other.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "other");
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn scratch() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        (root, dir)
    }
}
