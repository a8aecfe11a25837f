//! What operators change. Each change has its line in the log.

use std::{future::Future, sync::Arc};

use adit_proto_core::id::{AgentId, SessionId};
use uuid::Uuid;

use super::{Actor, Control, ControlError};
use crate::store::{AgentRecord, TokenRecord, TokenState};

/// An agent was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// What was known of it.
    pub agent: AgentRecord,
    /// Connections of it that were closed, with every session on them.
    pub closed: usize,
}

/// An agent was drained, or takes new sessions again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// What is known of it.
    pub agent: AgentRecord,
    /// Sessions open and being opened through it, which go on.
    pub sessions: usize,
}

impl Control {
    /// Deletes an agent: when this returns that is on disk, no handshake of it is taken, the one under way neither,
    /// and its connections are being closed (design 3.8). It can enrol again with a new string.
    ///
    /// # Errors
    /// [`ControlError::UnknownAgent`] where none has this id; otherwise what the store or the gateway failed with.
    pub async fn delete_agent(&self, by: Actor, id: AgentId) -> Result<Deleted, ControlError> {
        self.change(move |control| control.delete(by, id)).await
    }

    async fn delete(self, by: Actor, id: AgentId) -> Result<Deleted, ControlError> {
        // The store first: the gateway looks there once more at each handshake that ends after this.
        let deleted = self.store.delete_agent(id).await?;
        // Also without a record, so that nothing depends on the two having agreed before.
        let closed = self.gateway.disconnect(id).await?;
        // Whoever enrols with this id later begins anew.
        self.gateway.set_drained(id, false).await?;
        let agent = deleted.ok_or(ControlError::UnknownAgent(id))?;
        tracing::info!(%by, agent = %id, name = agent.name, closed, "agent deleted");
        Ok(Deleted { agent, closed })
    }

    /// Keeps new sessions away from an agent, or ends that: on disk when this returns, across its connections and the
    /// gateway's restarts.
    ///
    /// # Errors
    /// [`ControlError::UnknownAgent`] where none has this id; otherwise what the store or the gateway failed with.
    pub async fn drain_agent(
        &self,
        by: Actor,
        id: AgentId,
        drained: bool,
    ) -> Result<Drained, ControlError> {
        self.change(move |control| control.drain(by, id, drained))
            .await
    }

    async fn drain(self, by: Actor, id: AgentId, drained: bool) -> Result<Drained, ControlError> {
        if !self.store.set_drained(id, drained).await? {
            return Err(ControlError::UnknownAgent(id));
        }
        self.gateway.set_drained(id, drained).await?;
        let entry = self.agent_by_id(id).await?;
        let what = if drained {
            "agent drained"
        } else {
            "agent takes new sessions again"
        };
        tracing::info!(%by, agent = %id, name = entry.record.name, "{what}");
        Ok(Drained {
            sessions: entry.connections.iter().map(|c| c.sessions).sum(),
            agent: entry.record,
        })
    }

    /// Ends an open session: its user and its target see a reset.
    ///
    /// # Errors
    /// [`ControlError::UnknownSession`] where none has this id; [`ControlError::Stopping`].
    pub async fn kill_session(&self, by: Actor, id: SessionId) -> Result<(), ControlError> {
        if !self.gateway.kill(id).await? {
            return Err(ControlError::UnknownSession(id));
        }
        tracing::info!(%by, session = %id, "session killed");
        Ok(())
    }

    /// Revokes a token that has not been used, on disk when this returns; once more changes nothing.
    ///
    /// # Errors
    /// [`ControlError::UnknownToken`], [`ControlError::TokenUsed`], or the store's.
    pub async fn revoke_token(&self, by: Actor, jti: Uuid) -> Result<TokenRecord, ControlError> {
        let before = self.store.revoke_token(jti).await?;
        let token = before.ok_or(ControlError::UnknownToken(jti))?;
        match token.state {
            TokenState::Used { by } => return Err(ControlError::TokenUsed { jti, by }),
            TokenState::Revoked => {}
            TokenState::Issued => {
                tracing::info!(%by, token = %jti, name = token.name, "token revoked");
            }
        }
        let state = TokenState::Revoked;
        Ok(TokenRecord { state, ..token })
    }

    /// Makes a change when its turn comes, in a task of its own: a caller that hangs up must not leave an agent deleted
    /// in the store and connected to the gateway.
    async fn change<T, F>(&self, make: impl FnOnce(Self) -> F) -> Result<T, ControlError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ControlError>> + Send + 'static,
    {
        let (turn, change) = (Arc::clone(&self.turn), make(self.clone()));
        let made = tokio::spawn(async move {
            let _turn = turn.lock().await;
            change.await
        });
        made.await.unwrap_or(Err(ControlError::Stopping))
    }
}
