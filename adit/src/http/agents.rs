//! The agents API (agent-tunnel 15): list, show, delete, each call with a fresh scope token.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use adit_proto_core::{gateway::info, id::AgentId};
use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, Uri, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use rustls_pki_types::UnixTime;
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use super::{HttpCounters, Offload, Refusal, bearer};
use crate::{
    control::AgentEntry,
    pki::hex,
    presence::Presence,
    store::{AgentRecord, Store, TokenKind},
    token::{Scope, ScopeClaims, TokenError, TokenVerifier},
};

/// What a call comes to.
pub type Outcome<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// What the API answers from.
#[derive(Clone)]
pub struct AgentsParts {
    /// Checks the tokens.
    pub tokens: Arc<TokenVerifier>,
    /// Knows the tokens that were used.
    pub store: Store,
    /// Knows when agents that are gone were here.
    pub presence: Presence,
    /// Lists the enrolled agents with their connections.
    pub agents: Arc<dyn Fn() -> Outcome<Vec<AgentEntry>> + Send + Sync>,
    /// Finds one of them; fails with [`Refusal::UnknownAgent`].
    pub agent: Arc<dyn Fn(AgentId) -> Outcome<AgentEntry> + Send + Sync>,
    /// Deletes an agent and closes its connections, on behalf of the bearer of this token.
    pub delete: Arc<dyn Fn(Uuid, AgentId) -> Outcome<()> + Send + Sync>,
    /// Counts the calls.
    pub counters: Arc<HttpCounters>,
}

impl fmt::Debug for AgentsParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentsParts").finish_non_exhaustive()
    }
}

/// Makes the routes of the API.
pub fn router(parts: AgentsParts) -> Router {
    let service = Arc::new(Service {
        parts,
        offload: Offload::new(),
        calls: Semaphore::new(CALLS_MAX),
    });
    Router::new()
        .route(AGENTS_PATH, get(list))
        .route("/jet/tunnel/agents/{id}", get(show).delete(delete))
        .with_state(service)
}

struct Service {
    parts: AgentsParts,
    offload: Offload,
    calls: Semaphore,
}

type Named = Result<Path<Uuid>, PathRejection>;
/// When a token was looked at, and what it says.
type Checked = (UnixTime, ScopeClaims);

async fn list(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<impl IntoResponse, Refusal> {
    let check = service.check(bearer(&headers, &uri), Scope::AgentRead);
    let json = service.call(check, |checked| service.all(checked)).await?;
    Ok(([(CONTENT_TYPE, "application/json")], json))
}

async fn show(
    State(service): State<Arc<Service>>,
    id: Named,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<AgentBody>, Refusal> {
    let check = service.check_named(bearer(&headers, &uri), Scope::AgentRead, id);
    let shown = service.call(check, |(checked, id)| service.one(checked, id));
    shown.await.map(Json)
}

async fn delete(
    State(service): State<Arc<Service>>,
    id: Named,
    headers: HeaderMap,
    uri: Uri,
) -> Result<StatusCode, Refusal> {
    let check = service.check_named(bearer(&headers, &uri), Scope::AgentDelete, id);
    let deleted = service.call(check, |(checked, id)| service.delete(checked, id));
    deleted.await.map(|()| StatusCode::NO_CONTENT)
}

impl Service {
    /// Bounds all calls in number and each one in time until its token is used, counts it and logs a refusal.
    async fn call<C, T, F: Future<Output = Result<T, Refusal>>>(
        &self,
        check: impl Future<Output = Result<C, Refusal>>,
        carry_out: impl FnOnce(C) -> F,
    ) -> Result<T, Refusal> {
        let checked = async {
            let permit = self.calls.acquire().await;
            check.await.map(|checked| (permit, checked))
        };
        let outcome = match timeout(CALL_TIMEOUT, checked).await {
            // What the store is asked for it does: no answer before, or a refusal could have used the token up.
            Ok(Ok((_permit, checked))) => carry_out(checked).await,
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Busy),
        };
        self.parts.counters.call(&outcome);
        outcome.inspect_err(|refusal| {
            refusal.log("call of the agents API", &self.parts.counters.call_lines)
        })
    }

    /// Gives JSON: of thousands of agents, each with its routes, it takes too long to make beside users' bytes.
    async fn all(&self, (now, claims): Checked) -> Result<Vec<u8>, Refusal> {
        self.consume(now, claims).await?;
        let entries = (self.parts.agents)().await?;
        let presence = self.parts.presence.clone();
        let render = move || {
            let body = |entry| AgentBody::new(now, entry, &presence);
            let bodies: Vec<AgentBody> = entries.into_iter().map(body).collect();
            serde_json::to_vec(&bodies).map_err(|_| Refusal::Internal)
        };
        self.offload.run(render).await
    }

    async fn one(&self, (now, claims): Checked, id: AgentId) -> Result<AgentBody, Refusal> {
        self.consume(now, claims).await?;
        let entry = (self.parts.agent)(id).await?;
        Ok(AgentBody::new(now, entry, &self.parts.presence))
    }

    async fn delete(&self, (now, claims): Checked, id: AgentId) -> Result<(), Refusal> {
        self.consume(now, claims).await?;
        (self.parts.delete)(claims.jti, id).await
    }

    /// Looks at the token first, so that a stranger learns nothing else; it is not used up yet.
    async fn check(&self, token: Option<String>, needed: Scope) -> Result<Checked, Refusal> {
        let now = UnixTime::now();
        let token = token.ok_or(TokenError::Missing)?;
        let tokens = Arc::clone(&self.parts.tokens);
        let check = move || Ok(tokens.scope(now, &token, needed)?);
        Ok((now, self.offload.run(check).await?))
    }

    /// The same of a call that names an agent.
    async fn check_named(
        &self,
        token: Option<String>,
        needed: Scope,
        id: Named,
    ) -> Result<(Checked, AgentId), Refusal> {
        let checked = self.check(token, needed).await?;
        let id = id.map_err(|_| Refusal::BadId("an agent's"))?;
        Ok((checked, AgentId(id.0)))
    }

    async fn consume(&self, now: UnixTime, claims: ScopeClaims) -> Result<(), Refusal> {
        let (store, now) = (&self.parts.store, now.as_secs());
        let used = store.use_up(TokenKind::Scope, now, claims.jti, claims.expires_at);
        Ok(used.await?)
    }
}

/// The connection that new sessions of an agent go through; of equals the newest.
fn best(connections: &[info::AgentInfo]) -> Option<&info::AgentInfo> {
    let rank = |agent: &&info::AgentInfo| match agent.status {
        info::AgentStatus::Online => 2,
        info::AgentStatus::Suspect => 1,
        info::AgentStatus::Superseded => 0,
    };
    connections
        .iter()
        .max_by_key(|agent| (rank(agent), agent.conn))
}

/// One agent. Both `is_online` of the reference and `status` of its later versions are there (agent-tunnel 15, 17).
#[derive(Debug, Serialize)]
struct AgentBody {
    agent_id: Uuid,
    name: String,
    cert_fingerprint: String,
    is_online: bool,
    status: &'static str,
    last_seen_ms: u64,
    subnets: Vec<String>,
    domains: Vec<DomainBody>,
    route_epoch: u64,
}

#[derive(Debug, Serialize)]
struct DomainBody {
    domain: String,
    auto_detected: bool,
}

impl AgentBody {
    fn new(now: UnixTime, entry: AgentEntry, presence: &Presence) -> Self {
        match best(&entry.connections) {
            Some(agent) => Self::connected(now, agent),
            None => {
                let left = presence.left(entry.record.id);
                Self::offline(entry.record, left)
            }
        }
    }

    fn connected(now: UnixTime, agent: &info::AgentInfo) -> Self {
        let is_online = agent.status == info::AgentStatus::Online;
        let domain = |route: &adit_proto_core::route::DomainRoute| DomainBody {
            domain: route.pattern.to_string(),
            auto_detected: route.auto_detected,
        };
        let silent = u64::try_from(agent.silent.as_millis()).unwrap_or(u64::MAX);
        Self {
            agent_id: agent.identity.id.0,
            name: agent.identity.name.to_string(),
            cert_fingerprint: hex(&agent.identity.fingerprint),
            is_online,
            status: if is_online { "online" } else { "unresponsive" },
            last_seen_ms: now.as_secs().saturating_mul(1_000).saturating_sub(silent),
            subnets: agent
                .routes
                .subnets
                .iter()
                .map(ToString::to_string)
                .collect(),
            domains: agent.routes.domains.iter().map(domain).collect(),
            route_epoch: agent.epoch,
        }
    }

    /// One that is not connected was here when its last connection ended, or, where that was before the gateway's
    /// start, when it enrolled.
    fn offline(record: AgentRecord, left_ms: Option<u64>) -> Self {
        Self {
            agent_id: record.id.0,
            name: record.name,
            cert_fingerprint: hex(&record.fingerprint),
            is_online: false,
            status: "offline",
            last_seen_ms: left_ms.unwrap_or_else(|| record.enrolled_at.saturating_mul(1_000)),
            subnets: Vec::new(),
            domains: Vec::new(),
            route_epoch: 0,
        }
    }
}

/// Path of the list.
const AGENTS_PATH: &str = "/jet/tunnel/agents";
/// From the request to the use of its token.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CALLS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::{
        state::StateDir,
        token::{RevocationList, TokenKey},
    };

    #[tokio::test(start_paused = true)]
    async fn no_call_is_given_up_once_its_token_may_have_been_used() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        let service = service(&dir);
        let late = || async {
            // As long as it takes, which is too long.
            let _over = timeout(2 * CALL_TIMEOUT, pending::<()>()).await;
            Ok(())
        };
        service.call(ready(Ok(())), |()| late()).await.unwrap();
        let never = service.call(pending::<Result<(), _>>(), |()| late());
        assert!(matches!(never.await, Err(Refusal::Busy)));
    }

    fn service(dir: &StateDir) -> Service {
        let store = Store::open(dir).unwrap();
        let own = TokenKey::open(dir, None).unwrap();
        let tokens = TokenVerifier::new(&own, None, None, RevocationList::default());
        Service {
            parts: AgentsParts {
                tokens: Arc::new(tokens),
                presence: Presence::new(store.directory()),
                store,
                agents: Arc::new(|| Box::pin(pending())),
                agent: Arc::new(|_| Box::pin(pending())),
                delete: Arc::new(|_, _| Box::pin(pending())),
                counters: Arc::default(),
            },
            offload: Offload::new(),
            calls: Semaphore::new(CALLS_MAX),
        }
    }
}
