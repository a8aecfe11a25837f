//! Administration on the machine itself: a Unix socket for the verbs that ask a running gateway or agent.

mod client;
mod protocol;
mod server;

pub use client::{ClientError, call};
pub use protocol::{
    AdminError, AgentRow, AgentStatus, Answer, CandidateRow, ErrorKind, ExplanationView,
    GatewayStatus, LINE_LEN_MAX, Request, Response, SessionRow, TokenCreated, TokenRequest,
    VersionInfo,
};
pub use server::{AdminBackend, AdminListener, Backend, BindError, BoxFuture, TokenMaker};
