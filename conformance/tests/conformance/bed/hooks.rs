//! What a gateway asks of whoever keeps its certificates, in memory.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use adit_io_common::gateway::Hooks;
use adit_proto_core::{identity::AgentIdentity, link::tls::Admission};

use super::pki::PKI;

/// Everybody whom the authority has certified.
pub(crate) struct Admitted;

impl Admission for Admitted {
    fn admit(&self, _identity: &AgentIdentity) -> bool {
        true
    }
}

/// Signs renewals, and knows the keys that it has signed until they are confirmed. Clones share them: it outlives its
/// gateway, as a store does.
#[derive(Clone, Default)]
pub(crate) struct Office {
    renewed: Arc<Mutex<BTreeSet<[u8; 32]>>>,
}

impl Office {
    pub(crate) fn hooks(&self) -> Hooks {
        let (signs, looks, confirms) = (self.clone(), self.clone(), self.clone());
        Hooks {
            renew: Arc::new(move |identity, csr_pem, answer| {
                let signed = PKI.renew(identity.id.0, &identity.name, &csr_pem);
                answer(signed.map(|(renewed, spki)| {
                    signs.renewed.lock().unwrap().insert(spki);
                    renewed
                }));
            }),
            is_renewed: Arc::new(move |identity| {
                looks
                    .renewed
                    .lock()
                    .unwrap()
                    .contains(&identity.spki_sha256)
            }),
            confirm: Arc::new(move |identity| {
                confirms
                    .renewed
                    .lock()
                    .unwrap()
                    .remove(&identity.spki_sha256);
            }),
            left: Arc::new(|_| {}),
        }
    }
}
