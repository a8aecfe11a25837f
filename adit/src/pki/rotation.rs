//! One authority takes over from another: what is kept of the former one, and how a crash on the way is mended.
//!
//! The former authority's key is gone with the exchange. What stays is its certificate, by which agents that it certified
//! are still known, and a cross-certificate: the former authority vouches for the present one, so that agents which
//! trust only the former one can verify a gateway certified by the present one.

use std::fmt;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    PkiError,
    ca::{CERT_FILE, KEY_FILE},
    first_certificate, parse,
};
use crate::state::StateDir;

/// An authority that signs nothing any more, and is trusted until its last certificate has ended or it is retired.
pub struct Former {
    pub(super) der: CertificateDer<'static>,
    pub(super) cross: CertificateDer<'static>,
    last_not_after: i64,
}

impl Former {
    /// Gives the Unix time in seconds by which the last certificate that it signed ends.
    #[must_use]
    pub fn last_not_after(&self) -> i64 {
        self.last_not_after
    }

    /// Reads what is kept of a former authority, if there is one.
    pub(super) fn load(dir: &StateDir) -> Result<Option<Self>, PkiError> {
        let Some(text) = dir.read_text(FORMER_FILE)? else {
            return Ok(None);
        };
        let bad = || PkiError::BadFile {
            path: dir.file(FORMER_FILE),
            what: "cannot be read",
        };
        let kept: Kept = serde_json::from_str(&text).map_err(|_| bad())?;
        let read = |pem: &str| {
            let der = first_certificate(pem).map_err(|_| bad())?;
            parse(&der).map_err(|_| bad())?;
            Ok::<_, PkiError>(der)
        };
        Ok(Some(Self {
            der: read(&kept.certificate)?,
            cross: read(&kept.cross)?,
            last_not_after: kept.last_not_after,
        }))
    }

    /// Forgets it.
    pub(super) fn remove(dir: &StateDir) -> Result<(), PkiError> {
        Ok(dir.remove(FORMER_FILE)?)
    }
}

impl fmt::Debug for Former {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Former")
            .field("last_not_after", &self.last_not_after)
            .finish_non_exhaustive()
    }
}

/// Everything that an exchange of authorities writes. It is on disk in one piece before any of it takes effect, so that
/// whoever opens the folder after a crash finds either nothing or all there is to do.
#[derive(Serialize, Deserialize)]
pub(super) struct Exchange {
    pub(super) key: String,
    pub(super) certificate: String,
    pub(super) former: Kept,
}

/// What is kept of a former authority.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) certificate: String,
    pub(super) cross: String,
    pub(super) last_not_after: i64,
}

impl Exchange {
    /// Carries the exchange out.
    pub(super) fn commit(self, dir: &StateDir) -> Result<(), PkiError> {
        let json = Zeroizing::new(serde_json::to_vec(&self).map_err(|_| unwritable(dir))?);
        dir.write_secret(EXCHANGE_FILE, &json)?;
        self.apply(dir)
    }

    /// Ends an exchange that a crash or a failure has cut short; `agents_not_after` is the Unix time in seconds by which
    /// a certificate ends that is signed now. Until now the former authority may have signed on.
    pub(super) fn recover(dir: &StateDir, agents_not_after: i64) -> Result<(), PkiError> {
        match Self::pending(dir)? {
            Some(mut exchange) => {
                let former = &mut exchange.former;
                former.last_not_after = former.last_not_after.max(agents_not_after);
                exchange.apply(dir)
            }
            None => Ok(()),
        }
    }

    fn pending(dir: &StateDir) -> Result<Option<Self>, PkiError> {
        let Some(text) = dir.read_secret_text(EXCHANGE_FILE)? else {
            return Ok(None);
        };
        let read = serde_json::from_str(&text).map_err(|_| PkiError::BadFile {
            path: dir.file(EXCHANGE_FILE),
            what: "cannot be read",
        });
        read.map(Some)
    }

    fn apply(self, dir: &StateDir) -> Result<(), PkiError> {
        let key = Zeroizing::new(self.key);
        let former = serde_json::to_vec_pretty(&self.former).map_err(|_| unwritable(dir))?;
        dir.write(FORMER_FILE, &former)?;
        dir.write_secret(KEY_FILE, key.as_bytes())?;
        dir.write(CERT_FILE, self.certificate.as_bytes())?;
        Ok(dir.remove(EXCHANGE_FILE)?)
    }
}

/// Reads the certificates of the authorities that are trusted, in PEM: the present one, then the former one. A gateway may
/// be running, or not.
///
/// # Errors
/// [`PkiError::NoAuthority`] where none was made, else what cannot be read.
pub fn certificates(dir: &StateDir) -> Result<Vec<String>, PkiError> {
    if let Some(exchange) = Exchange::pending(dir)? {
        return Ok(vec![exchange.certificate, exchange.former.certificate]);
    }
    let present = dir.read_text(CERT_FILE)?;
    let present = present.ok_or_else(|| PkiError::NoAuthority(dir.path().to_owned()))?;
    let mut all = vec![present];
    if let Some(text) = dir.read_text(FORMER_FILE)? {
        let kept: Kept = serde_json::from_str(&text).map_err(|_| PkiError::BadFile {
            path: dir.file(FORMER_FILE),
            what: "cannot be read",
        })?;
        all.push(kept.certificate);
    }
    Ok(all)
}

/// Tells whether an exchange has been begun that will be carried out when the authority is opened again.
pub(crate) fn is_pending(dir: &StateDir) -> bool {
    dir.file(EXCHANGE_FILE).exists()
}

fn unwritable(dir: &StateDir) -> PkiError {
    PkiError::BadFile {
        path: dir.file(EXCHANGE_FILE),
        what: "cannot be made",
    }
}

const FORMER_FILE: &str = "ca-former.json";
const EXCHANGE_FILE: &str = "ca-exchange.json";

#[cfg(test)]
mod tests;
