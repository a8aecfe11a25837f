//! The enrolment call, gateway side.
//!
//! A token is reserved, the certificate signed, and agent and use of the token written in one step; only then is it
//! consumed (design 3.9 and 8.11). Until it has connected, the agent that consumed it may ask again with the same key, as its
//! answer may have been lost.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use adit_io_common::lines::Lines;
use adit_proto_core::id::AgentId;
use axum::{
    Json, Router,
    extract::{FromRequest, Request, State},
    routing::post,
};
use rustls_pki_types::UnixTime;
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use super::{
    ENROL_PATH,
    wire::{EnrolAnswer, EnrolBody, Extras},
};
use crate::{
    http::{HttpCounters, Offload, Refusal, bearer},
    live::Live,
    pki::{
        ca::{Ca, IssuedCert},
        csr::CheckedCsr,
        hex,
    },
    store::{AgentRecord, Enrolment, Reservation, Store, StoreError},
    token::{EnrolmentClaims, TokenError, TokenVerifier},
};

/// What enrolments are made with.
#[derive(Clone, Debug)]
pub struct EnrolParts {
    /// Signs the agents' certificates.
    pub ca: Arc<Live<Ca>>,
    /// Checks the tokens.
    pub tokens: Arc<TokenVerifier>,
    /// Remembers agents and tokens.
    pub store: Store,
    /// Where agents are to connect, `host:port`; the host is a name of the tunnel's certificate.
    pub quic_endpoint: String,
    /// Pin of the tunnel's key.
    pub server_spki_sha256: [u8; 32],
    /// Counts the enrolments.
    pub counters: Arc<HttpCounters>,
}

/// Makes the route of the enrolment call. `is_connected` tells whether an agent has a live connection.
pub fn router<F, C>(parts: EnrolParts, is_connected: F) -> Router
where
    F: Fn(AgentId) -> C + Send + Sync + 'static,
    C: Future<Output = bool> + Send + 'static,
{
    let service = Arc::new(Service {
        parts,
        is_connected: Box::new(move |id| Box::pin(is_connected(id))),
        requests: Semaphore::new(REQUESTS_MAX),
        offload: Offload::new(),
        repeats: Lines::new(ENROLLED_AGAIN),
    });
    Router::new()
        .route(ENROL_PATH, post(enrol))
        .with_state(service)
}

type IsConnected = dyn Fn(AgentId) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

struct Service {
    parts: EnrolParts,
    is_connected: Box<IsConnected>,
    requests: Semaphore,
    offload: Offload,
    /// Bounds the lines of those that ask again, which spend no token.
    repeats: Lines,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

async fn enrol(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Json<EnrolAnswer>, Refusal> {
    let signed = async {
        let _permit = service.requests.acquire().await;
        service.sign(request).await
    };
    let outcome = match timeout(REQUEST_TIMEOUT, signed).await {
        // What the store was asked for it does: no answer before, or a refusal could have consumed the token.
        Ok(Ok(signed)) => service.commit(signed).await,
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::Busy),
    };
    service.parts.counters.enrolment(&outcome);
    outcome
        .map(Json)
        .inspect_err(|refusal| refusal.log("enrolment", &service.parts.counters.enrolment_lines))
}

impl Service {
    async fn sign(&self, request: Request) -> Result<Signed, Refusal> {
        let now = UnixTime::now();
        let token = bearer(request.headers(), request.uri()).ok_or(TokenError::Missing)?;
        let claims = self
            .off_the_data_path(move |parts| Ok(parts.tokens.enrolment(now, &token)?))
            .await?;
        let (reservation, body, again) = self.reserve(claims.jti, request).await?;
        let id = AgentId(body.agent_id);
        let name = claims.agent_name.clone();
        let hostname = body.agent_hostname.clone();
        // One authority for certificate and root, whatever is exchanged meanwhile.
        let ca = self.parts.ca.get();
        let signing = Arc::clone(&ca);
        let issued = self
            .off_the_data_path(move |_| {
                let csr =
                    CheckedCsr::from_pem(&body.csr_pem).map_err(crate::pki::PkiError::from)?;
                Ok(signing.sign_agent(now, &csr, id, &name, hostname.as_deref())?)
            })
            .await?;
        let enrolment = Enrolment {
            agent: record_of(id, now, &claims, &issued, body.agent_hostname),
            token_expires_at: claims.expires_at,
        };
        Ok(Signed {
            reservation,
            enrolment,
            issued,
            ca,
            again,
        })
    }

    /// Takes the token for the agent that the body names, and tells whether that has used it already. A used token is
    /// refused as such, whatever the body says, but for the agent that used it: it may have lost the answer. One that has
    /// connected, now or ever since, did not.
    async fn reserve(
        &self,
        jti: Uuid,
        request: Request,
    ) -> Result<(Reservation, EnrolBody, bool), Refusal> {
        let store = &self.parts.store;
        let reserved = match store.reserve(jti).await {
            Ok(reservation) => Some(reservation),
            Err(StoreError::TokenUsed) => None,
            Err(error) => return Err(error.into()),
        };
        let used = || Refusal::from(StoreError::TokenUsed);
        let body = Json::<EnrolBody>::from_request(request, &()).await;
        let Json(body) = body.map_err(|e| if reserved.is_some() { e.into() } else { used() })?;
        let id = AgentId(body.agent_id);
        let is_connected = (self.is_connected)(id).await;
        match reserved {
            Some(_) if is_connected => Err(Refusal::Connected),
            Some(reservation) => Ok((reservation, body, false)),
            None if is_connected || store.directory().has_connected(id) => Err(used()),
            None => Ok((store.reserve_again(jti, id).await?, body, true)),
        }
    }

    async fn commit(&self, signed: Signed) -> Result<EnrolAnswer, Refusal> {
        let AgentRecord { id, ref name, .. } = signed.enrolment.agent;
        let name = name.clone();
        let store = &self.parts.store;
        let written = store.commit_enrolment(signed.reservation, signed.enrolment);
        written.await?;
        if !signed.again {
            tracing::info!(agent = %id, name, "agent enrolled");
        } else if self.repeats.allow() {
            tracing::info!(agent = %id, name, "{ENROLLED_AGAIN}");
        }
        Ok(self.answer(id, signed.issued, &signed.ca))
    }

    fn answer(&self, id: AgentId, issued: IssuedCert, ca: &Ca) -> EnrolAnswer {
        EnrolAnswer {
            agent_id: id.0,
            client_cert_pem: issued.cert_pem,
            gateway_ca_cert_pem: ca.cert_pem().to_owned(),
            quic_endpoint: self.parts.quic_endpoint.clone(),
            server_spki_sha256: hex(&self.parts.server_spki_sha256),
            adit: Some(Extras { renewal: 1 }),
        }
    }

    async fn off_the_data_path<T: Send + 'static>(
        &self,
        work: impl FnOnce(&EnrolParts) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let parts = self.parts.clone();
        self.offload.run(move || work(&parts)).await
    }
}

/// An enrolment that only waits to be written. Dropping it gives the token back; so does a caller that hangs up.
struct Signed {
    reservation: Reservation,
    enrolment: Enrolment,
    issued: IssuedCert,
    /// Who signed it.
    ca: Arc<Ca>,
    /// The agent had used the token already.
    again: bool,
}

fn record_of(
    id: AgentId,
    now: UnixTime,
    claims: &EnrolmentClaims,
    issued: &IssuedCert,
    hostname: Option<String>,
) -> AgentRecord {
    AgentRecord {
        id,
        name: claims.agent_name.clone(),
        spki_sha256: issued.spki_sha256,
        renewed_spki_sha256: None,
        fingerprint: issued.fingerprint,
        hostname,
        enrolled_at: now.as_secs(),
        not_after: issued.not_after,
        issuer_sha256: Some(issued.issuer_sha256),
        renewed_issuer_sha256: None,
        has_connected: false,
    }
}

const ENROLLED_AGAIN: &str =
    "agent enrolled again with the token that it had used, as it has not connected since";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const REQUESTS_MAX: usize = 64;
