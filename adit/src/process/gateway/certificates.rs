//! The certificates of a running gateway: made again long before they end, and exchanged while it runs. Keys stay, and
//! with them the pins.

use std::{sync::Arc, time::Duration};

use adit_io_common::gateway::{GatewayHandle, SetTlsError};
use adit_proto_core::link::tls::Admission;
use rustls::ServerConfig;
use rustls_pki_types::UnixTime;

use super::{
    GatewayState,
    driver::{self, Watch},
};
use crate::{
    admin::CaView,
    control::Actor,
    enroll::listener::{ListenError, ListenerTls},
    live::Live,
    pki::{
        PkiError,
        ca::{BACKDATED, Ca, agents_not_after},
        hex,
        names::ServerNames,
        rotation::{Former, is_pending},
        server::{ServerCert, ServerRole},
    },
    process::unix_now,
    state::StateDir,
    store::{Store, StoreError},
};

/// Certificates, where they are kept, and who shows them.
pub(super) struct Certificates {
    dir: StateDir,
    names: ServerNames,
    store: Store,
    /// Signs what agents get.
    ca: Arc<Live<Ca>>,
    /// An authority that is on disk and has not taken over yet, as something failed.
    next: Option<Arc<Ca>>,
    /// A rotation is on disk and has not been carried out, as a file could not be written.
    is_begun: bool,
    shown: Shown,
    admission: Arc<dyn Admission>,
    gateway: GatewayHandle,
    /// What the HTTP listener shows, where that is a certificate of our own.
    https: Option<Arc<Live<ServerConfig>>>,
    clock: fn() -> UnixTime,
}

/// The certificates that are shown.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) tunnel: ServerCert,
    pub(super) https: ServerCert,
}

impl Shown {
    /// Reads both, making what is missing, ends soon, or was signed by another authority.
    pub(super) fn open(
        dir: &StateDir,
        ca: &Ca,
        names: &ServerNames,
        now: UnixTime,
    ) -> Result<Self, PkiError> {
        let cert = |role| ServerCert::open(dir, ca, role, names, now);
        Ok(Self {
            tunnel: cert(ServerRole::Tunnel)?,
            https: cert(ServerRole::Https)?,
        })
    }
}

/// Why certificates are not as they should be; the former ones stay in use.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificatesError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tls(#[from] SetTlsError),
    #[error(transparent)]
    Https(#[from] ListenError),
    #[error(
        "it is on disk, but not in force yet: {0}; trying again within an hour, and with the next start"
    )]
    NotYet(Box<Self>),
    #[error("internal error")]
    Panicked,
    #[error(
        "{count} enrolled agents may still have a certificate of the former CA and would have to enrol again; have \
         them renew with `adit agent renew`, or retire it all the same with --force"
    )]
    StillUsed { count: usize },
}

impl Certificates {
    pub(super) fn new(
        state: &GatewayState,
        watch: &Watch,
        gateway: GatewayHandle,
        https: Option<Arc<Live<ServerConfig>>>,
    ) -> Self {
        Self {
            dir: state.dir.clone(),
            names: state.names.clone(),
            store: state.store.clone(),
            ca: Arc::clone(&state.ca),
            next: None,
            is_begun: false,
            shown: state.shown.clone(),
            admission: watch.admission(),
            gateway,
            https,
            clock: unix_now,
        }
    }

    /// Does what is due: certificates that end within 30 days are made again, and a former authority whose last
    /// certificate has ended is retired. To be called at start and then every [`CHECK_INTERVAL`], which no step of the
    /// clock can put off.
    pub(super) async fn check(&mut self) {
        let outcome = self.try_check().await;
        if let Err(error) = outcome {
            tracing::error!(%error, "certificates could not be renewed; trying again within an hour");
        }
    }

    async fn try_check(&mut self) -> Result<(), CertificatesError> {
        if self.is_begun {
            self.exchange(|_, dir, now| Ca::open(dir, now)).await?;
            tracing::info!("the rotation of the CA that could not be carried out is complete");
            return Ok(());
        }
        let ca = self.latest();
        let now = self.unix_s();
        let over = |former: &Former| {
            let spare = i64::try_from(BACKDATED.as_secs()).unwrap_or_default();
            former.last_not_after().saturating_add(spare) < now
        };
        if ca.former().is_some_and(over) {
            self.exchange(Ca::retire).await?;
            tracing::info!(
                "the last certificate of the former CA has ended; it is trusted no more"
            );
            return Ok(());
        }
        self.show(ca).await
    }

    /// Makes another authority, by which agents are certified from now on.
    pub(super) async fn rotate(&mut self, by: Actor) -> Result<CaView, CertificatesError> {
        let known = self.store.agents().await?;
        let issued_now = agents_not_after((self.clock)());
        // A certificate that was issued while the clock was ahead may end later.
        let ends = known.iter().map(|agent| agent.not_after);
        let last = ends.fold(issued_now, i64::max);
        if self.is_begun {
            self.exchange(|_, dir, now| Ca::open(dir, now)).await?;
        } else {
            self.exchange(move |ca, dir, now| ca.rotate(dir, now, last))
                .await?;
        }
        tracing::info!(%by, agents = known.len(), "another CA signs from now on; the former one stays trusted until it is retired");
        self.view().await
    }

    /// Trusts the former authority no more.
    pub(super) async fn retire(
        &mut self,
        by: Actor,
        force: bool,
    ) -> Result<CaView, CertificatesError> {
        let count = self.view().await?.agents_on_former;
        if count > 0 && !force {
            return Err(CertificatesError::StillUsed { count });
        }
        self.exchange(Ca::retire).await?;
        tracing::info!(%by, agents = count, "the former CA is trusted no more");
        self.view().await
    }

    /// Tells of the authorities, and how many agents still need the former one.
    pub(super) async fn view(&self) -> Result<CaView, CertificatesError> {
        let ca = self.latest();
        let own = Some(ca.spki_sha256());
        let known = self.store.agents().await?;
        // One with a renewed certificate that it has not shown yet may fall back to what it had, or never have got it.
        let moved = known
            .iter()
            .filter(|agent| agent.issuer_sha256 == own && agent.renewed_spki_sha256.is_none());
        let moved = moved.count();
        let former = ca.former();
        Ok(CaView {
            key_sha256: hex(&ca.spki_sha256()),
            former_until_unix_s: former.map(Former::last_not_after),
            agents: known.len(),
            agents_on_former: former.map_or(0, |_| known.len() - moved),
        })
    }

    fn unix_s(&self) -> i64 {
        i64::try_from((self.clock)().as_secs()).unwrap_or(i64::MAX)
    }

    /// Exchanges the authority on disk, then in use.
    async fn exchange(
        &mut self,
        change: impl FnOnce(&Ca, &StateDir, UnixTime) -> Result<Ca, PkiError> + Send + 'static,
    ) -> Result<(), CertificatesError> {
        let (ca, dir) = (self.latest(), self.dir.clone());
        let now = (self.clock)();
        let changed = tokio::task::spawn_blocking(move || {
            let changed = change(&ca, &dir, now);
            (changed, is_pending(&dir))
        });
        let (changed, is_begun) = changed.await.map_err(|_| CertificatesError::Panicked)?;
        self.is_begun = is_begun;
        let changed = match changed {
            Err(error) if is_begun => {
                return Err(CertificatesError::NotYet(Box::new(error.into())));
            }
            changed => Arc::new(changed?),
        };
        self.next = Some(Arc::clone(&changed));
        let shown = self.show(changed).await;
        shown.map_err(|error| CertificatesError::NotYet(Box::new(error)))
    }

    /// The authority on disk.
    fn latest(&self) -> Arc<Ca> {
        self.next.clone().unwrap_or_else(|| self.ca.get())
    }

    /// Shows certificates of an authority, then lets it sign: whoever it certifies finds a gateway that knows it.
    async fn show(&mut self, ca: Arc<Ca>) -> Result<(), CertificatesError> {
        let (dir, names, signing) = (self.dir.clone(), self.names.clone(), Arc::clone(&ca));
        let now = (self.clock)();
        let open = move || Shown::open(&dir, &signing, &names, now);
        let opened = tokio::task::spawn_blocking(open).await;
        let shown = opened.map_err(|_| CertificatesError::Panicked)??;
        if self.next.is_some() || shown.tunnel.chain() != self.shown.tunnel.chain() {
            let tls = driver::tls(&shown.tunnel, &ca, Arc::clone(&self.admission));
            self.gateway.set_tls(tls).await?;
            tell("tunnel", &shown.tunnel);
        }
        if let Some(https) = &self.https
            && shown.https.chain() != self.shown.https.chain()
        {
            https.set(ListenerTls::own_config(&shown.https)?);
            tell("https", &shown.https);
        }
        self.shown = shown;
        if self.next.take().is_some() {
            self.ca.set_shared(ca);
        }
        Ok(())
    }
}

fn tell(which: &str, cert: &ServerCert) {
    tracing::info!(
        which,
        not_after_unix_s = cert.not_after(),
        "certificate of the gateway exchanged; its key stays"
    );
}

/// How often certificates are looked at. The clock is asked each time, so that a step of it delays nothing.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests;
