//! Credentials of one gateway and one agent, and the surroundings in which they are good.

use std::{fmt::Debug, sync::Arc};

use adit_proto_core::{
    env::{EndpointSecrets, Env, Seed, WallClock},
    identity::AgentIdentity,
    link::tls::{Admission, AgentTls, GatewayTls},
};
use rustls::crypto::CryptoProvider;

pub(crate) const CA: &[u8] = include_bytes!("../fixtures/ca.der");
pub(crate) const AGENT: &[u8] = include_bytes!("../fixtures/agent.der");
pub(crate) const AGENT_KEY: &[u8] = include_bytes!("../fixtures/agent-key.der");
pub(crate) const GATEWAY: &[u8] = include_bytes!("../fixtures/gateway.der");
pub(crate) const GATEWAY_KEY: &[u8] = include_bytes!("../fixtures/gateway-key.der");
pub(crate) const CSR: &[u8] = include_bytes!("../fixtures/agent-csr.pem");
/// What the gateway's certificate names.
pub(crate) const GATEWAY_NAME: &str = "gw.example.test";
/// 2030-01-01, within the certificates' lives.
pub(crate) const NOON_UNIX_S: u64 = 1_893_456_000;

pub(crate) fn gateway_tls(cert: &[u8], key: &[u8], root: &[u8]) -> GatewayTls {
    GatewayTls {
        cert_chain: vec![cert.to_vec()],
        key: key.to_vec().into(),
        agent_roots: vec![root.to_vec()],
        admission: Arc::new(Everyone),
    }
}

pub(crate) fn agent_tls(cert: &[u8], key: &[u8], root: &[u8]) -> AgentTls {
    AgentTls {
        cert_chain: vec![cert.to_vec()],
        key: key.to_vec().into(),
        gateway_roots: vec![root.to_vec()],
        gateway_pin: None,
    }
}

/// An environment without chance, except for what `crypto` draws.
pub(crate) fn env(crypto: Arc<CryptoProvider>) -> Env {
    Env {
        seed: Seed::new([7; 32]),
        wall_clock: Arc::new(Noon),
        crypto,
        secrets: EndpointSecrets::new([1; 32], [2; 32]),
    }
}

/// The value of what cannot fail with the credentials above.
///
/// # Panics
/// Where it does.
pub(crate) fn known<T, E: Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the fixtures are no good: {error:?}"),
    }
}

struct Noon;

impl WallClock for Noon {
    fn unix_ms(&self) -> u64 {
        NOON_UNIX_S * 1_000
    }
}

struct Everyone;

impl Admission for Everyone {
    fn admit(&self, _identity: &AgentIdentity) -> bool {
        true
    }
}
