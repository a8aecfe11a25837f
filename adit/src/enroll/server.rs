//! The enrolment call, gateway side.
//!
//! A token is reserved, the certificate signed, and agent and use of the token written in one step; only then is it
//! consumed (design 3.9 and 8.11).

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use adit_proto_core::id::AgentId;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{HeaderMap, Uri, header::AUTHORIZATION},
    routing::{get, post},
};
use rustls_pki_types::UnixTime;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use uuid::Uuid;

use super::{
    ENROL_PATH, Refusal,
    wire::{EnrolAnswer, EnrolBody, Extras},
};
use crate::{
    pki::{
        ca::{Ca, IssuedCert},
        csr::CheckedCsr,
        hex,
    },
    store::{AgentRecord, Enrolment, Store},
    token::{EnrolmentClaims, TokenError, TokenKey},
};

/// What enrolments are made with.
#[derive(Clone, Debug)]
pub struct EnrolParts {
    /// Signs the agents' certificates.
    pub ca: Arc<Ca>,
    /// Checks the tokens.
    pub tokens: Arc<TokenKey>,
    /// Remembers agents and tokens.
    pub store: Store,
    /// Where agents are to connect, `host:port`; the host is a name of the tunnel's certificate.
    pub quic_endpoint: String,
    /// Pin of the tunnel's key.
    pub server_spki_sha256: [u8; 32],
}

/// Makes the router of the enrolment listener. `is_connected` tells whether an agent has a live connection.
pub fn router<F, C>(parts: EnrolParts, is_connected: F) -> Router
where
    F: Fn(AgentId) -> C + Send + Sync + 'static,
    C: Future<Output = bool> + Send + 'static,
{
    let service = Arc::new(Service {
        parts,
        is_connected: Box::new(move |id| Box::pin(is_connected(id))),
        requests: Semaphore::new(REQUESTS_MAX),
        signers: Arc::new(Semaphore::new(SIGNERS_MAX)),
    });
    Router::new()
        .route(ENROL_PATH, post(enrol))
        .route("/livez", get(async || "ok\n"))
        .fallback(async || Refusal::NotFound)
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(service)
}

type IsConnected = dyn Fn(AgentId) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

struct Service {
    parts: EnrolParts,
    is_connected: Box<IsConnected>,
    requests: Semaphore,
    signers: Arc<Semaphore>,
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
    let answer = async {
        let _permit = service.requests.acquire().await;
        service.enrol(request).await
    };
    match timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => answer.map(Json),
        Err(_) => Err(Refusal::Busy),
    }
}

impl Service {
    async fn enrol(&self, request: Request) -> Result<EnrolAnswer, Refusal> {
        let now = UnixTime::now();
        let token = bearer(request.headers(), request.uri()).ok_or(TokenError::Missing)?;
        let claims = self
            .off_the_data_path(move |parts| Ok(parts.tokens.verify(now, &token)?))
            .await?;
        // A used token is refused as such, whatever the body says.
        let reservation = Reservation::take(&self.parts.store, claims.jti).await?;
        let Json(body) = Json::<EnrolBody>::from_request(request, &()).await?;
        let id = AgentId(body.agent_id);
        if (self.is_connected)(id).await {
            return Err(Refusal::Connected);
        }
        let name = claims.agent_name.clone();
        let hostname = body.agent_hostname.clone();
        let issued = self
            .off_the_data_path(move |parts| {
                let csr =
                    CheckedCsr::from_pem(&body.csr_pem).map_err(crate::pki::PkiError::from)?;
                Ok(parts
                    .ca
                    .sign_agent(now, &csr, id, &name, hostname.as_deref())?)
            })
            .await?;
        let record = record_of(id, now, &claims, &issued, body.agent_hostname);
        reservation.commit(record, claims.expires_at).await?;
        tracing::info!(agent = %id, name = claims.agent_name, "agent enrolled");
        Ok(self.answer(id, issued))
    }

    fn answer(&self, id: AgentId, issued: IssuedCert) -> EnrolAnswer {
        EnrolAnswer {
            agent_id: id.0,
            client_cert_pem: issued.cert_pem,
            gateway_ca_cert_pem: self.parts.ca.cert_pem().to_owned(),
            quic_endpoint: self.parts.quic_endpoint.clone(),
            server_spki_sha256: hex(&self.parts.server_spki_sha256),
            adit: Some(Extras { renewal: 1 }),
        }
    }

    async fn off_the_data_path<T: Send + 'static>(
        &self,
        work: impl FnOnce(&EnrolParts) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.signers).acquire_owned().await;
        let parts = self.parts.clone();
        let done = spawn_blocking(move || {
            let _permit = permit;
            work(&parts)
        });
        done.await.unwrap_or(Err(Refusal::Internal))
    }
}

/// Holds a token while an enrolment is under way, and gives it back unless it was committed. A caller that hangs up
/// drops it too.
struct Reservation<'a> {
    store: &'a Store,
    jti: Uuid,
    is_held: bool,
}

impl<'a> Reservation<'a> {
    async fn take(store: &'a Store, jti: Uuid) -> Result<Self, Refusal> {
        store.reserve(jti).await?;
        Ok(Self {
            store,
            jti,
            is_held: true,
        })
    }

    async fn commit(mut self, agent: AgentRecord, token_expires_at: u64) -> Result<(), Refusal> {
        let enrolment = Enrolment {
            agent,
            jti: self.jti,
            token_expires_at,
        };
        let outcome = self.store.commit_enrolment(enrolment).await;
        self.is_held = false;
        Ok(outcome?)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.is_held {
            // Queued behind a commit that is under way, which makes it do nothing.
            drop(self.store.release(self.jti));
        }
    }
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
    }
}

fn bearer(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim().to_owned());
    }
    // A token holds no character that a query would escape.
    uri.query()?
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
        .map(str::to_owned)
}

/// A certificate signing request is a few KiB at most.
const BODY_LEN_MAX: usize = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const REQUESTS_MAX: usize = 64;
/// Signatures at a time: enrolments are rare, and the data path wants the processors.
const SIGNERS_MAX: usize = 2;
