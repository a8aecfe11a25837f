//! Users who come in over the enrolment listener by WebSocket, each with an association token (agent-tunnel 15.1).
//!
//! Everything about the token is judged before the upgrade, with a status and a body that say why. The target is tried
//! after it, and what becomes of the session is told by the code of the Close.

mod frames;
mod replay;
mod session;
mod target_tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adit_io_common::{gateway::GatewayHandle, lines::Lines};
use axum::{
    Extension, Router,
    extract::{
        Path, State, WebSocketUpgrade, rejection::PathRejection,
        ws::rejection::WebSocketUpgradeRejection,
    },
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
    routing::get,
};
use rustls_pki_types::UnixTime;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use uuid::Uuid;

use super::{Counters, Door, bump};
use crate::{
    config::{Entrance, WebSocketConfig},
    http::{Ends, HttpCounters, Offload, Refusal, bearer, health::Health},
    live::Live,
    share::{Share, Shares},
    store::Store,
    token::{Association, TokenError, TokenVerifier},
};
use replay::Replays;
use session::Visit;
use target_tls::TargetTls;

/// Name of this way in, in logs, listings and metrics.
pub const NAME: &str = "websocket";

/// What users are served from.
#[derive(Debug)]
pub struct WebSocketParts {
    /// Checks the tokens.
    pub tokens: Arc<TokenVerifier>,
    /// Knows the tokens that were used.
    pub store: Store,
    /// Opens the sessions.
    pub gateway: GatewayHandle,
    /// Whether users are taken.
    pub health: Health,
    /// What the operator has set.
    pub config: WebSocketConfig,
    /// Counts refused tokens.
    pub http: Arc<HttpCounters>,
}

/// The way in by WebSocket; cheap to clone.
#[derive(Clone, Debug)]
pub struct WebSockets(Arc<Service>);

#[derive(Debug)]
struct Service {
    door: Door,
    entrance: Live<Entrance>,
    tokens: Arc<TokenVerifier>,
    store: Store,
    gateway: GatewayHandle,
    health: Health,
    http: Arc<HttpCounters>,
    offload: Offload,
    places: Arc<Semaphore>,
    places_max: usize,
    shares: Shares,
    replays: Replays,
    target_tls: TargetTls,
    ping: Option<Duration>,
    lines: VisitLines,
}

/// Bounds the lines about users who were admitted, each kind by itself.
#[derive(Debug)]
struct VisitLines {
    admitted: Lines,
    next_target: Lines,
    no_tls: Lines,
}

impl Default for VisitLines {
    fn default() -> Self {
        Self {
            admitted: Lines::new(ADMITTED),
            next_target: Lines::new(NEXT_TARGET),
            no_tls: Lines::new(NO_TLS),
        }
    }
}

/// What a user has while here; given back when dropped.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// What is spoken to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    /// The user's bytes as they are.
    Tcp,
    /// TLS, of which the user knows nothing.
    Tls,
}

impl WebSockets {
    /// Makes it; nobody comes in before the HTTPS listener serves it.
    #[must_use]
    pub fn new(parts: WebSocketParts) -> Self {
        let places_max = parts.config.sessions.get() as usize;
        Self(Arc::new(Service {
            door: Door {
                name: NAME.into(),
                counters: Arc::default(),
            },
            entrance: Live::new(parts.config.entrance),
            tokens: parts.tokens,
            store: parts.store,
            gateway: parts.gateway,
            health: parts.health,
            http: parts.http,
            offload: Offload::new(),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            shares: Shares::of(places_max),
            replays: Replays::default(),
            target_tls: TargetTls::new(parts.config.target_roots),
            ping: parts.config.ping,
            lines: VisitLines::default(),
        }))
    }

    /// The paths of agent-tunnel 15.1. Requests need the extension [`Ends`].
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/jet/fwd/tcp/{id}", get(tcp))
            .route("/jet/fwd/tls/{id}", get(tls))
            .with_state(Arc::clone(&self.0))
    }

    /// Goes by other rules for those who come from now on.
    pub fn set_entrance(&self, entrance: Entrance) {
        self.0.entrance.set(entrance);
    }

    /// What has happened here.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.0.door.counters)
    }

    /// Users who are here, and how many may be.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let free = self.0.places.available_permits();
        (self.0.places_max.saturating_sub(free), self.0.places_max)
    }

    /// Tells whether a user is here, or still has to be told the last of a session.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.places.available_permits() < self.0.places_max
    }
}

type Named = Result<Path<Uuid>, PathRejection>;
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn tcp(
    State(service): State<Arc<Service>>,
    Extension(ends): Extension<Ends>,
    id: Named,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let token = bearer(&headers, &uri);
    service.enter(Leg::Tcp, ends, id, token, upgrade).await
}

async fn tls(
    State(service): State<Arc<Service>>,
    Extension(ends): Extension<Ends>,
    id: Named,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let token = bearer(&headers, &uri);
    service.enter(Leg::Tls, ends, id, token, upgrade).await
}

impl Service {
    async fn enter(
        self: Arc<Self>,
        leg: Leg,
        ends: Ends,
        id: Named,
        token: Option<String>,
        upgrade: Upgrade,
    ) -> Result<Response, Refusal> {
        bump(&self.door.counters.accepted);
        let admitted = self.admit(ends.user, id, token, upgrade).await;
        let (association, upgrade, place) =
            admitted.inspect_err(|refusal| self.note(ends.user, refusal))?;
        if self.lines.admitted.allow() {
            tracing::info!(
                session = %association.id, jti = %association.jti, user = %ends.user, ingress = NAME,
                "{ADMITTED}"
            );
        }
        let visit = Visit {
            service: self,
            ends,
            association,
            leg,
            _place: place,
        };
        Ok(frames::bounded(upgrade).on_upgrade(|socket| visit.run(socket)))
    }

    /// The token first, so that a stranger learns nothing else; it is used up last, so that nothing else can spoil it.
    async fn admit(
        &self,
        user: SocketAddr,
        id: Named,
        token: Option<String>,
        upgrade: Upgrade,
    ) -> Result<(Association, WebSocketUpgrade, Place), Refusal> {
        let now = UnixTime::now();
        let judged = self.judge(now, user, id, token, upgrade);
        let judged = timeout(ADMISSION_TIMEOUT, judged).await;
        let (association, upgrade, place) = judged.unwrap_or(Err(Refusal::Busy))?;
        // What the store is asked for it does: no answer before, or the refusal could have used the token up.
        self.consume(now.as_secs(), &association, user).await?;
        Ok((association, upgrade, place))
    }

    async fn judge(
        &self,
        now: UnixTime,
        user: SocketAddr,
        id: Named,
        token: Option<String>,
        upgrade: Upgrade,
    ) -> Result<(Association, WebSocketUpgrade, Place), Refusal> {
        // Not only whether it serves: the use of the token has to be written.
        self.health.ready()?;
        if !self.entrance.get().admits(user.ip()) {
            return Err(Refusal::Source);
        }
        let token = token.ok_or(TokenError::Missing)?;
        let tokens = Arc::clone(&self.tokens);
        let check = move || Ok(tokens.association(now, &token)?);
        let association = self.offload.run(check).await?;
        let Path(id) = id.map_err(|_| Refusal::BadId("a session's"))?;
        if id != association.id {
            return Err(TokenError::OtherSession.into());
        }
        let upgrade = upgrade.map_err(|rejection| Refusal::Body {
            status: rejection.status(),
            detail: rejection.body_text(),
        })?;
        let place = self.place(user)?;
        Ok((association, upgrade, place))
    }

    fn place(&self, user: SocketAddr) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let Ok(permit) = permit else {
            bump(&self.door.counters.handshakes_full);
            return Err(Refusal::Full("as many users as allowed are here"));
        };
        let Some(share) = self.shares.take(user.ip()) else {
            bump(&self.door.counters.share_full);
            return Err(Refusal::Full(
                "as many users as allowed are here from your address",
            ));
        };
        Ok(Place {
            _permit: permit,
            _share: share,
        })
    }

    async fn consume(
        &self,
        now: u64,
        association: &Association,
        user: SocketAddr,
    ) -> Result<(), Refusal> {
        let from = user.ip().to_canonical();
        let used = self.replays.consume(&self.store, now, association, from);
        Ok(used.await?)
    }

    /// Counts a user who was not admitted, and logs it in one line.
    fn note(&self, user: SocketAddr, refusal: &Refusal) {
        self.http.token(refusal);
        let counters = &self.door.counters;
        let status = refusal.status();
        let lines = match (refusal, status) {
            (Refusal::Source, _) => {
                bump(&counters.source_refused);
                &counters.lines.refused
            }
            (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                bump(&counters.unauthorised);
                &counters.lines.unauthorised
            }
            // Counted where it was found.
            (Refusal::Full(_), _) => &counters.lines.refused,
            (_, _) => {
                bump(&counters.handshakes_failed);
                &counters.lines.handshakes
            }
        };
        if lines.allow() {
            let status = status.as_u16();
            tracing::info!(%user, ingress = NAME, status, reason = %refusal, "no session");
        }
    }
}

const ADMITTED: &str = "association token used";
const NEXT_TARGET: &str = "target not reached; trying the next one";
const NO_TLS: &str = "no TLS with the target";

/// From the request to the use of its token; in between is the check of a signature.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);
