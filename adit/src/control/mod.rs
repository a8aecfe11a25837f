//! What operators see and change of a running gateway, whichever way they come in.

mod changes;

use std::{collections::BTreeMap, fmt, sync::Arc};

use adit_io_common::gateway::{GatewayHandle, SessionRow, Stopped};
use adit_proto_core::{
    gateway::info::AgentInfo,
    id::{AgentId, SessionId},
};
use tokio::sync::Mutex;
use uuid::Uuid;

pub use self::changes::{Deleted, Drained};
use crate::{
    process::unix_now,
    store::{AgentRecord, Store, StoreError, TokenRecord},
};

/// The way for operators to a running gateway and its store; cheap to clone.
///
/// Each change has one line in the log, once it is made: what, of whom, and by whom. Changes are made one at a time, and
/// to their end: whoever drops the future of one only does not learn how it went.
#[derive(Clone, Debug)]
pub struct Control {
    store: Store,
    gateway: GatewayHandle,
    /// Held while a change is made, so that store and gateway agree on the order of two.
    turn: Arc<Mutex<()>>,
}

/// Who asked for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A user of this machine, by the administration socket.
    LocalUser {
        /// The user's number, as the system tells it.
        uid: u32,
    },
    /// The bearer of a scope token, by the agents API.
    Token {
        /// The token's id.
        jti: Uuid,
    },
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalUser { uid } => write!(f, "uid {uid}"),
            Self::Token { jti } => write!(f, "token {jti}"),
        }
    }
}

/// Why an operator did not get what was asked for; nothing was changed, but for
/// [`Stopping`](Self::Stopping): what is written by then holds from the next start on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No agent has this id.
    #[error("no agent with the id {0} is enrolled; `adit agents list` lists them all")]
    UnknownAgent(AgentId),
    /// No agent has this name, and it is no id.
    #[error("no agent named {0:?} is enrolled; `adit agents list` lists them all")]
    UnknownName(String),
    /// Several agents have this name.
    #[error("{} agents are named {name:?}; give the id of one: {}", .ids.len(), joined(.ids))]
    AmbiguousName {
        /// The name.
        name: String,
        /// Their ids.
        ids: Vec<AgentId>,
    },
    /// No open session has this id.
    #[error(
        "no session with the id {0} is open; it may have ended. `adit sessions list` lists them all"
    )]
    UnknownSession(SessionId),
    /// No token has this id, or it has expired.
    #[error(
        "no token with the id {0} is known; it may have expired. `adit token list` lists them all"
    )]
    UnknownToken(Uuid),
    /// The token was used, so there is nothing left to revoke.
    #[error("the token {jti} was used already, by agent {by}; delete the agent to keep it out")]
    TokenUsed {
        /// The token.
        jti: Uuid,
        /// The agent that enrolled with it.
        by: AgentId,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

impl From<Stopped> for ControlError {
    fn from(_: Stopped) -> Self {
        Self::Stopping
    }
}

/// An enrolled agent with its live connections.
#[derive(Clone, Debug)]
pub struct AgentEntry {
    /// What is known of it from its enrolment.
    pub record: AgentRecord,
    /// It gets no new sessions by routing.
    pub drained: bool,
    /// Its connections, oldest first; none while it is offline.
    pub connections: Vec<AgentInfo>,
}

impl Control {
    /// Joins a running gateway and the store that its admission reads.
    #[must_use]
    pub fn new(store: Store, gateway: GatewayHandle) -> Self {
        Self {
            store,
            gateway,
            turn: Arc::default(),
        }
    }

    /// The running gateway.
    #[must_use]
    pub fn gateway(&self) -> &GatewayHandle {
        &self.gateway
    }

    /// Lists the enrolled agents by id, offline ones too.
    ///
    /// # Errors
    /// [`ControlError`], of the store or the gateway.
    pub async fn agents(&self) -> Result<Vec<AgentEntry>, ControlError> {
        let records = self.store.agents().await?;
        let mut live: BTreeMap<AgentId, Vec<AgentInfo>> = BTreeMap::new();
        for info in self.gateway.agents().await? {
            live.entry(info.identity.id).or_default().push(info);
        }
        let drained = self.store.directory().drained();
        let entry = |record: AgentRecord| AgentEntry {
            drained: drained.binary_search(&record.id).is_ok(),
            connections: live.remove(&record.id).unwrap_or_default(),
            record,
        };
        Ok(records.into_iter().map(entry).collect())
    }

    /// Finds the one agent that an id or a name stands for.
    ///
    /// # Errors
    /// See [`find`](Self::find).
    pub async fn agent(&self, which: &str) -> Result<AgentEntry, ControlError> {
        let record = self.find(which).await?;
        self.entry(record).await
    }

    /// Gives the agent with an id.
    ///
    /// # Errors
    /// [`ControlError::UnknownAgent`], or those of the store or the gateway.
    pub async fn agent_by_id(&self, id: AgentId) -> Result<AgentEntry, ControlError> {
        let record = self.store.agent(id).await?;
        self.entry(record.ok_or(ControlError::UnknownAgent(id))?)
            .await
    }

    async fn entry(&self, record: AgentRecord) -> Result<AgentEntry, ControlError> {
        Ok(AgentEntry {
            drained: self.store.directory().is_drained(record.id),
            connections: self.gateway.agent(record.id).await?,
            record,
        })
    }

    /// Finds the record of the one agent that an id or a name stands for.
    ///
    /// # Errors
    /// [`ControlError::UnknownAgent`], [`ControlError::UnknownName`], [`ControlError::AmbiguousName`], or the store's.
    pub async fn find(&self, which: &str) -> Result<AgentRecord, ControlError> {
        if let Ok(id) = which.parse()
            && let Some(record) = self.store.agent(AgentId(id)).await?
        {
            return Ok(record);
        }
        one(self.store.agents().await?, which)
    }

    /// Lists the open sessions, oldest first.
    ///
    /// # Errors
    /// [`ControlError::Stopping`].
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, ControlError> {
        Ok(self.gateway.sessions().await?)
    }

    /// Finds an open session.
    ///
    /// # Errors
    /// [`ControlError::UnknownSession`], [`ControlError::Stopping`].
    pub async fn session(&self, id: SessionId) -> Result<SessionRow, ControlError> {
        let sessions = self.gateway.sessions().await?;
        let found = sessions.into_iter().find(|row| row.info.id == id);
        found.ok_or(ControlError::UnknownSession(id))
    }

    /// Lists the tokens that have not expired, by id.
    ///
    /// # Errors
    /// [`ControlError::Store`].
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, ControlError> {
        Ok(self.store.tokens(unix_now().as_secs()).await?)
    }
}

/// An id stands before a name: an agent may be named like another one's id.
fn one(all: Vec<AgentRecord>, which: &str) -> Result<AgentRecord, ControlError> {
    let id = which.parse().ok().map(AgentId);
    let (mut by_id, rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|record| Some(record.id) == id);
    if let Some(found) = by_id.pop() {
        return Ok(found);
    }
    let named = |record: &AgentRecord| record.name == which;
    let mut named: Vec<AgentRecord> = rest.into_iter().filter(named).collect();
    match (named.pop(), id) {
        (Some(found), _) if named.is_empty() => Ok(found),
        (Some(last), _) => Err(ControlError::AmbiguousName {
            name: which.to_owned(),
            ids: named.iter().chain([&last]).map(|e| e.id).collect(),
        }),
        (None, Some(id)) => Err(ControlError::UnknownAgent(id)),
        (None, None) => Err(ControlError::UnknownName(which.to_owned())),
    }
}

fn joined(ids: &[AgentId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_or_a_name_stands_for_one_agent() {
        let (one_id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let all = || {
            vec![
                agent(one_id, "db"),
                agent(other, "db"),
                agent(Uuid::from_u128(3), "web"),
                // Named like the id of another one.
                agent(Uuid::from_u128(4), &one_id.to_string()),
            ]
        };
        let find = |which: &str| one(all(), which).map(|record| record.id.0);
        assert_eq!(find("web").unwrap(), Uuid::from_u128(3));
        assert_eq!(find(&one_id.to_string()).unwrap(), one_id);
        assert_eq!(find(&other.simple().to_string()).unwrap(), other);
        let error = find("db").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("2 agents are named \"db\"; give the id of one: {one_id}, {other}")
        );
        assert!(matches!(error, ControlError::AmbiguousName { ids, .. } if ids.len() == 2));
        for nobody in ["", "DB", "we", "w\n"] {
            let error = find(nobody).unwrap_err();
            assert!(matches!(&error, ControlError::UnknownName(name) if name == nobody));
            assert!(!error.to_string().contains('\n'));
        }
        let missing = Uuid::from_u128(9);
        let error = find(&missing.to_string()).unwrap_err();
        assert!(matches!(error, ControlError::UnknownAgent(id) if id.0 == missing));
    }

    fn agent(id: Uuid, name: &str) -> AgentRecord {
        AgentRecord {
            id: AgentId(id),
            name: name.to_owned(),
            spki_sha256: [0; 32],
            renewed_spki_sha256: None,
            fingerprint: [0; 32],
            hostname: None,
            enrolled_at: 0,
            not_after: 0,
            issuer_sha256: None,
            renewed_issuer_sha256: None,
            has_connected: false,
        }
    }
}
