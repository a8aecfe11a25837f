//! Administration on the machine itself: a Unix socket for the verbs that ask a running gateway or agent.

mod agent;
mod client;
#[cfg(feature = "gateway")]
mod gateway;
mod protocol;
mod rows;
#[cfg(feature = "gateway")]
mod server;
mod socket;
mod threads;
#[cfg(feature = "gateway")]
mod views;

pub use agent::{AgentBackend, AgentOrder};
pub use client::{ClientError, call};
#[cfg(feature = "gateway")]
pub use gateway::{AdminBackend, CaOrder, GatewayOrder, PeerLister, TokenMaker};
pub use protocol::{
    AdminError, AgentStatus, Answer, CaView, ErrorKind, GatewayStatus, HealthView, LINE_LEN_MAX,
    Reloaded, RenewalView, Request, Response, TokenCreated, TokenRequest, VersionInfo,
};
pub use rows::{
    AgentDetails, AgentRow, CandidateRow, DeletedAgent, DrainedAgent, ExplanationView,
    PassedOverRow, PeerCandidateRow, PeerRow, PeersView, SessionRow, TokenRow, UsageRow,
};
#[cfg(feature = "gateway")]
pub use server::BoxFuture;
pub use socket::{AdminListener, BindError};
pub use threads::AdminServer;
