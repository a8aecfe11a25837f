//! `/livez` and `/readyz`, for supervisors and load balancers.

use axum::{Router, routing::get};
use tokio::sync::watch;

use super::Refusal;
use crate::store::Store;

/// Whether the gateway takes users and agents; cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    condition: watch::Sender<Condition>,
    store: Store,
}

/// How far a gateway is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Not everything is open yet.
    Starting,
    /// Users and agents are served.
    Ready,
    /// Sessions may end; new ones are not taken.
    Stopping,
}

impl Health {
    /// Begins with [`Condition::Starting`]. Without its store a gateway is not ready.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            condition: watch::Sender::new(Condition::Starting),
            store,
        }
    }

    /// Enters a condition.
    pub fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }

    /// Gives the condition now.
    #[must_use]
    pub fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    /// Tells whether the gateway is to be sent users and agents: it serves, and its disk takes what they need written.
    ///
    /// # Errors
    /// [`Refusal::NotReady`], saying why not.
    pub(crate) fn ready(&self) -> Result<(), Refusal> {
        self.serving()?;
        if self.store.is_sound() {
            Ok(())
        } else {
            Err(Refusal::NotReady(UNSOUND))
        }
    }

    /// Tells whether users and agents are served; on a full disk they are, as far as nothing has to be written, and a
    /// restart would only make it worse.
    ///
    /// # Errors
    /// [`Refusal::NotReady`], saying why not.
    pub(crate) fn serving(&self) -> Result<(), Refusal> {
        match self.condition() {
            Condition::Ready if !self.store.is_running() => Err(Refusal::NotReady(
                "the gateway's store has stopped; restart the gateway",
            )),
            Condition::Ready => Ok(()),
            Condition::Starting => Err(Refusal::NotReady("the gateway is starting")),
            Condition::Stopping => Err(Refusal::NotReady("the gateway is stopping")),
        }
    }

    /// `/livez` answers whenever the process does, `/readyz` only while the gateway is to be sent users and agents.
    pub(super) fn router(&self) -> Router {
        let health = self.clone();
        let ready = async move || health.ready().map(|()| "ready\n");
        Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
    }
}

const UNSOUND: &str = "the disk of the gateway's store cannot be read or written, or does not answer; agents and sessions that are there go on, \
                       enrolments and changes are refused: see that the disk has room and is sound";
