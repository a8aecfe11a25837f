//! What the driver is given: certificates, admission, bounds, and answers to renewals.

use std::{sync::Arc, time::Duration};

use adit_io_common::{
    gateway::{GatewayConfig as DriverConfig, Hooks},
    lines::Lines,
};
use adit_proto_core::{
    endpoint::EndpointLimits,
    gateway::dispatch::DispatchConfig,
    identity::AgentIdentity,
    journal::Journal,
    limits,
    link::tls::{Admission, GatewayTls},
    output::Renewed,
};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

use super::GatewayState;
use crate::{
    config::GatewayConfig,
    http::{Causes, HttpCounters, Offload},
    pki::{
        ca::{Ca, IssuedCert},
        server::ServerCert,
    },
    presence::Presence,
    process::unix_now,
    store::{AgentDirectory, Renewal, Store},
};

/// What the directory of enrolled agents says of a certificate.
struct Enrolled {
    directory: AgentDirectory,
    refused: Arc<Causes>,
    lines: Lines,
}

impl Admission for Enrolled {
    fn admit(&self, identity: &AgentIdentity) -> bool {
        self.directory
            .admit(identity)
            .inspect_err(|error| {
                self.refused.add(error.word());
                if self.lines.allow() {
                    tracing::warn!(agent = %identity.id, name = %identity.name, %error, "agent refused");
                }
            })
            .is_ok()
    }

    fn admits_still(&self, identity: &AgentIdentity) -> bool {
        self.directory.admit(identity).is_ok()
    }
}

/// What is kept of agents that come and go.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// When they left.
    pub(super) presence: Presence,
    /// Why they were refused.
    pub(super) refused: Arc<Causes>,
    /// Counts renewals.
    counters: Arc<HttpCounters>,
    directory: AgentDirectory,
    lines: Lines,
}

impl Watch {
    pub(super) fn new(state: &GatewayState, counters: Arc<HttpCounters>) -> Self {
        Self {
            presence: Presence::new(state.store.directory()),
            refused: Arc::default(),
            counters,
            directory: state.store.directory(),
            lines: Lines::new("agent refused"),
        }
    }

    /// Who may connect.
    pub(super) fn admission(&self) -> Arc<dyn Admission> {
        Arc::new(Enrolled {
            directory: self.directory.clone(),
            refused: Arc::clone(&self.refused),
            lines: self.lines.clone(),
        })
    }
}

/// What the driver is started with.
pub(super) fn config(
    config: &GatewayConfig,
    state: &GatewayState,
    watch: &Watch,
    journal: Option<Journal>,
) -> DriverConfig {
    DriverConfig {
        listen: config.tunnel.listen,
        tls: tls(&state.shown.tunnel, &state.ca.get(), watch.admission()),
        limits: endpoint_limits(config),
        dispatch: dispatch(config),
        sessions: config.limits.sessions,
        drained: state.store.directory().drained(),
        hooks: hooks(state, watch),
        journal,
        threads: config.threads.get() as usize,
    }
}

/// What the tunnel shows and whom it trusts.
pub(super) fn tls(cert: &ServerCert, ca: &Ca, admission: Arc<dyn Admission>) -> GatewayTls {
    let chain = cert.chain().iter().map(|der| der.to_vec());
    GatewayTls {
        cert_chain: chain.collect(),
        key: Zeroizing::new(cert.key().secret_der().to_vec()),
        agent_roots: ca.roots().map(|der| der.to_vec()).collect(),
        admission,
    }
}

pub(super) fn endpoint_limits(config: &GatewayConfig) -> EndpointLimits {
    let handshakes = config.limits.handshakes.get() as usize;
    EndpointLimits {
        connections: config.limits.agents.get() as usize,
        handshakes,
        // However few places there are, half of them are for clients that have proved their address.
        handshakes_retry: (handshakes / 2).min(limits::HANDSHAKES_RETRY),
        handshakes_per_source: config.limits.handshakes_per_source.get() as usize,
        unread: u64::from(config.limits.unread_per_agent.get()) << 20,
        unread_in_all: u64::from(config.limits.unread.get()) << 20,
    }
}

pub(super) fn dispatch(config: &GatewayConfig) -> DispatchConfig {
    DispatchConfig {
        direct: config.direct.clone(),
        opens_max: config.limits.opening.get() as usize,
        sessions_per_agent: config.limits.sessions_per_agent.get() as usize,
    }
}

fn hooks(state: &GatewayState, watch: &Watch) -> Hooks {
    let (presence, counters) = (watch.presence.clone(), Arc::clone(&watch.counters));
    let (ca, store) = (Arc::clone(&state.ca), state.store.clone());
    let offload = Offload::new();
    // The driver may call from a thread of its own.
    let runtime = Handle::current();
    let renewing = runtime.clone();
    let (confirming, directory) = (state.store.clone(), state.store.directory());
    Hooks {
        renew: Arc::new(move |identity, csr_pem, answer| {
            let (ca, store, counters) = (ca.get(), store.clone(), Arc::clone(&counters));
            let offload = offload.clone();
            renewing.spawn(async move {
                let renewed = renew(offload, ca, store, identity, csr_pem).await;
                let word = if renewed.is_ok() {
                    "granted"
                } else {
                    "refused"
                };
                counters.renewals.add(word);
                answer(renewed);
            });
        }),
        is_renewed: Arc::new(move |identity| directory.awaits_confirmation(identity)),
        confirm: Arc::new(move |identity| {
            // The first connection is what makes the token of the enrolment useless, the first with a renewed key what
            // makes the old key useless (design 8.6), and the first with a certificate of another CA what makes the
            // former CA useless to that agent.
            let reply = confirming.confirm(identity.clone());
            let agent = identity.id;
            runtime.spawn(async move {
                if let Err(error) = reply.await {
                    tracing::error!(%agent, %error, "not recorded that the agent has its present certificate; what it had before, a former one or the enrolment string, stays valid until it connects again");
                }
            });
        }),
        left: Arc::new(move |identity| {
            presence.note(identity.id, unix_now().as_secs().saturating_mul(1_000));
        }),
    }
}

/// Signs and writes down off the data path (design 8.11), few at a time however many ask: a fleet that renews at once
/// waits, and neither takes the processors from users nor fills the store's queue.
async fn renew(
    offload: Offload,
    ca: Arc<Ca>,
    store: Store,
    identity: AgentIdentity,
    csr_pem: String,
) -> Result<Renewed, String> {
    in_time(&offload, RENEWAL_TIMEOUT, move || {
        let signed = ca.sign_renewal(unix_now(), &identity, &csr_pem);
        let issued = signed.map_err(|error| error.to_string())?;
        written(&ca, &store, identity, issued)
    })
    .await
}

/// Has a renewal carried out, or tells within `patience` why not; a fifth of that is for the work itself. One that was
/// begun and does not end keeps its thread, so that few lines tell of a disk that hangs.
async fn in_time<T: Send + 'static>(
    offload: &Offload,
    patience: Duration,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let end = Instant::now() + patience;
    let turn = timeout(patience * 4 / 5, offload.turn()).await;
    let turn = turn.map_err(|_| NO_TURN.to_owned())?;
    let begun = Instant::now();
    match timeout_at(end, turn.run(move || Ok(work()))).await {
        Ok(done) => done.map_err(|refusal| refusal.to_string())?,
        Err(_) => {
            tracing::error!(
                waited_s = begun.elapsed().as_secs(),
                "a renewal was begun and is not written down; see that the disk of the state folder is sound"
            );
            Err(HUNG.to_owned())
        }
    }
}

fn written(
    ca: &Ca,
    store: &Store,
    identity: AgentIdentity,
    issued: IssuedCert,
) -> Result<Renewed, String> {
    let renewal = Renewal {
        spki_sha256: issued.spki_sha256,
        fingerprint: issued.fingerprint,
        not_after: issued.not_after,
        issuer_sha256: issued.issuer_sha256,
    };
    let written = store.renew(identity, renewal);
    written.map_err(|error| error.to_string())?;
    Ok(Renewed {
        client_cert_pem: issued.cert_pem,
        gateway_ca_pem: ca.cert_pem().to_owned(),
    })
}

/// For which a renewal waits for its turn and is carried out; the agent is still there to hear of it.
const RENEWAL_TIMEOUT: Duration =
    limits::RENEWAL_ANSWER_TIMEOUT.saturating_sub(Duration::from_secs(5));
const NO_TURN: &str = "the gateway did not come to this renewal: there are too many at once, or it cannot write those before; \
     asking again later helps, and the gateway's log tells of its disk";
const HUNG: &str = "the gateway's disk does not answer; asking again later helps once it does";

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_and_those_who_hang_are_told_apart() {
        let offload = Offload::new();
        let (short, long) = (Duration::from_millis(100), Duration::from_secs(60));
        assert_eq!(in_time(&offload, long, || Ok(1)).await, Ok(1));
        let bad = in_time(&offload, long, || Err::<(), _>("bad".to_owned()));
        assert_eq!(bad.await, Err("bad".to_owned()));
        // The disk hangs, until the senders go.
        let (mut disk, mut told) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (recovers, hangs) = channel::<()>();
            let work = move || hangs.recv().map_err(|e| e.to_string());
            told.push(in_time(&offload, short, work).await.unwrap_err());
            disk.push(recovers);
        }
        assert_eq!(told, [HUNG, HUNG, NO_TURN]);
        drop(disk);
        assert_eq!(in_time(&offload, long, || Ok(2)).await, Ok(2));
    }
}
