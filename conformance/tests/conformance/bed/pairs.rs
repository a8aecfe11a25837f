//! An agent's key pairs, in memory.

use std::{
    sync::{Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use adit_io_common::agent::{Credentials, KeptPairs, KeyPairs, Swap, Validity};
use adit_proto_core::{link::tls::AgentTls, output::Renewed};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::pki::{PKI, Pair};

/// Keeps what an agent's folder would.
pub(crate) struct MemoryPairs(Mutex<State>);

struct State {
    current: Pair,
    next: Option<Pair>,
    previous: Option<Pair>,
    /// The key of the latest request; DER.
    asked: Option<Vec<u8>>,
}

impl MemoryPairs {
    pub(crate) fn new(current: Pair) -> Self {
        Self(Mutex::new(State {
            current,
            next: None,
            previous: None,
            asked: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl KeyPairs for MemoryPairs {
    fn tls(&self, which: Credentials) -> Result<AgentTls, String> {
        let state = self.lock();
        let pair = match which {
            Credentials::Current => Some(&state.current),
            Credentials::Next => state.next.as_ref(),
            Credentials::Previous => state.previous.as_ref(),
        };
        pair.map(|pair| PKI.agent_tls(pair))
            .ok_or_else(|| format!("there is no {which:?} pair"))
    }

    fn validity(&self) -> Result<Validity, String> {
        Ok(validity())
    }

    fn kept(&self) -> KeptPairs {
        let state = self.lock();
        KeptPairs {
            next: state.next.is_some(),
            previous: state.previous.is_some(),
        }
    }

    fn swap(&self) -> Swap {
        Swap::Overlap
    }

    fn request(&self) -> Result<String, String> {
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let request = CertificateParams::default()
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(|e| e.to_string())?;
        self.lock().asked = Some(key.serialize_der());
        Ok(request)
    }

    fn store(&self, renewed: Renewed) -> Result<(), String> {
        let cert = CertificateDer::from_pem_slice(renewed.client_cert_pem.as_bytes())
            .map_err(|e| e.to_string())?;
        let mut state = self.lock();
        let key = state.asked.take().ok_or("nothing was asked for")?;
        state.next = Some(Pair {
            cert: cert.to_vec(),
            key,
        });
        Ok(())
    }

    fn adopt(&self) -> Result<Validity, String> {
        let mut state = self.lock();
        if let Some(next) = state.next.take() {
            state.previous = Some(std::mem::replace(&mut state.current, next));
        }
        Ok(validity())
    }

    fn discard(&self) -> Result<(), String> {
        let mut state = self.lock();
        if let Some(next) = state.next.take() {
            state.previous = Some(next);
        }
        Ok(())
    }

    fn revert(&self) -> Result<Validity, String> {
        let mut state = self.lock();
        state.next = None;
        if let Some(previous) = state.previous.take() {
            state.previous = Some(std::mem::replace(&mut state.current, previous));
        }
        Ok(validity())
    }
}

/// A year from now: nothing is due.
fn validity() -> Validity {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    Validity {
        not_before: now - 60,
        not_after: now + 365 * 86_400,
    }
}
