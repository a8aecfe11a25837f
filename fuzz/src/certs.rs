//! Certificates, keys, signing requests and enrolment tokens: whatever the bytes are, the answer is a value or an error.

use std::{sync::Arc, time::Instant};

use adit::pki::{certificate_spki_sha256, csr::CheckedCsr};
use adit_proto_core::{
    agent::advertise::AdvertiserConfig,
    endpoint::{AgentConfig, Endpoint, EndpointLimits},
    env::Env,
    link::tls::identity_of,
    route::RouteSet,
};

use crate::{
    fixtures::{self, AGENT, AGENT_KEY, CA, CSR, GATEWAY, GATEWAY_KEY},
    input::{Input, start},
    tokens,
};

/// The first byte says what the rest is; a rest that begins with [`PATCH`] changes bytes of a good one.
pub fn certs(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.below(12);
    match kind {
        0 => identity(&subject(&input, AGENT)),
        1 => csr(&subject(&input, CSR)),
        2 => {
            let der = subject(&input, AGENT);
            // The binary refuses bytes behind a certificate, the core ignores them.
            if let (Ok(spki), Some(identity)) = (certificate_spki_sha256(&der), identity_of(&der)) {
                assert_eq!(spki, identity.spki_sha256);
            }
        }
        3 => _ = gateway(&subject(&input, GATEWAY), GATEWAY_KEY, CA),
        4 => _ = gateway(GATEWAY, &subject(&input, GATEWAY_KEY), CA),
        5 => _ = gateway(GATEWAY, GATEWAY_KEY, &subject(&input, CA)),
        6 => _ = agent(&subject(&input, AGENT), AGENT_KEY, CA),
        7 => _ = agent(AGENT, &subject(&input, AGENT_KEY), CA),
        8 => _ = agent(AGENT, AGENT_KEY, &subject(&input, CA)),
        _ => token(kind, input.rest()),
    }
}

/// The rest of the input, or a good object with some bytes changed: a place in two bytes, then the new byte.
fn subject(input: &Input<'_>, good: &[u8]) -> Vec<u8> {
    let Some(patches) = input.rest().strip_prefix(&[PATCH]) else {
        return input.rest().to_vec();
    };
    let mut changed = good.to_vec();
    for patch in patches.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([patch[0], patch[1]])) % changed.len();
        changed[at] = patch[2];
    }
    changed
}

fn identity(der: &[u8]) {
    let Some(identity) = identity_of(der) else {
        return;
    };
    assert!(!identity.name.is_empty() && !identity.name.contains(char::is_control));
    assert_eq!(identity_of(der), Some(identity));
}

fn csr(pem: &[u8]) {
    if let Ok(text) = str::from_utf8(pem) {
        drop(CheckedCsr::from_pem(text));
    }
}

fn token(kind: usize, text: &[u8]) {
    match (kind, str::from_utf8(text)) {
        (9, Ok(text)) => tokens::raw(text),
        (10 | 11, Ok(text)) => tokens::signed(kind == 10, text),
        (_, Ok(_) | Err(_)) => {}
    }
}

/// Tells whether an endpoint could be made.
fn gateway(cert: &[u8], key: &[u8], root: &[u8]) -> bool {
    let tls = fixtures::gateway_tls(cert, key, root);
    Endpoint::gateway(&tls, EndpointLimits::default(), &env()).is_ok()
}

/// Tells whether a connection could be begun.
fn agent(cert: &[u8], key: &[u8], root: &[u8]) -> bool {
    let config = AgentConfig {
        tls: Arc::new(fixtures::agent_tls(cert, key, root)),
        routes: Arc::new(RouteSet::default()),
        intervals: AdvertiserConfig::default(),
    };
    let now: Instant = start();
    let remote = ([192, 0, 2, 1], 4433).into();
    let mut endpoint = Endpoint::agent(&env());
    endpoint
        .connect(now, &config, remote, fixtures::GATEWAY_NAME, &env())
        .is_ok()
}

/// The cryptography of production: its readers are what is tried.
fn env() -> Env {
    fixtures::env(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Begins no DER and no PEM.
const PATCH: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixtures_are_good() {
        assert!(gateway(GATEWAY, GATEWAY_KEY, CA));
        assert!(agent(AGENT, AGENT_KEY, CA));
        assert!(identity_of(AGENT).is_some() && identity_of(GATEWAY).is_none());
        assert!(CheckedCsr::from_pem(str::from_utf8(CSR).unwrap()).is_ok());
        assert!(!gateway(GATEWAY, AGENT_KEY, CA));
    }
}
