//! Why the gateway refuses a call, as HTTP (agent-tunnel 14.3 and 15).

use adit_io_common::lines::Lines;
use adit_proto_core::id::AgentId;
use axum::{
    extract::rejection::JsonRejection,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};

use crate::{
    control::ControlError, enroll::Problem, pki::PkiError, store::StoreError, token::TokenError,
};

/// A refused call. None of them consumes an enrolment token (design 3.9).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The token is not good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The body is not what is asked for; 400, 413, 415 or 422.
    #[error("{detail}")]
    Body {
        /// The status of agent-tunnel 14.3.
        status: StatusCode,
        /// What is wrong.
        detail: String,
    },
    /// The name, host name or request cannot be signed.
    #[error(transparent)]
    Sign(#[from] PkiError),
    /// The store refuses: a token that was used, an id that belongs to another key.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An agent with this id is connected.
    #[error("an agent with this id is connected; stop it first, or enrol with a fresh id")]
    Connected,
    /// The path should name an agent, or a session; whose id is said.
    #[error("the path must end with {0} id, a UUID")]
    BadId(&'static str),
    /// No agent has this id.
    #[error("no agent with the id {0} is enrolled")]
    UnknownAgent(AgentId),
    /// The gateway could not answer in time.
    #[error("the gateway is busy; try again")]
    Busy,
    /// The gateway does not serve users now.
    #[error("{0}")]
    NotReady(&'static str),
    /// The user's address may not come in.
    #[error("your address may not come in here")]
    Source,
    /// Every place is taken; which ones is said.
    #[error("{0}; try again later")]
    Full(&'static str),
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    NotFound,
    /// The path knows other methods.
    #[error("this path does not know the request's method")]
    Method,
    /// Something here is broken; the log says what.
    #[error("the gateway failed; its log says why")]
    Internal,
}

impl Refusal {
    /// Gives the HTTP status (agent-tunnel 14.3 and 15).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Token(e) => StatusCode::from_u16(e.status()).unwrap_or(StatusCode::UNAUTHORIZED),
            Self::Body { status, .. } => *status,
            Self::BadId(_)
            | Self::Sign(PkiError::BadAgentName | PkiError::BadHostname | PkiError::Csr(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Store(
                StoreError::TokenUsed | StoreError::TokenRevoked | StoreError::TokenReserved,
            ) => StatusCode::UNAUTHORIZED,
            Self::Store(StoreError::OtherKey) | Self::Connected => StatusCode::CONFLICT,
            Self::Store(StoreError::Busy | StoreError::UsedTokensFull)
            | Self::Busy
            | Self::Full(_)
            | Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Source => StatusCode::FORBIDDEN,
            Self::NotFound | Self::UnknownAgent(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Sign(_) | Self::Store(_) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Sums the refusal up in a word or two, for programs and for counters.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Token(e) => e.word(),
            Self::Store(StoreError::TokenUsed) => "used",
            Self::Store(StoreError::TokenRevoked) => "revoked",
            Self::Store(StoreError::TokenReserved) => "in_use",
            Self::Store(StoreError::UsedTokensFull) => "tokens_full",
            Self::Store(StoreError::OtherKey) => "other_key",
            Self::Connected => "connected",
            Self::NotReady(_) => "not_ready",
            Self::Source => "source",
            Self::Full(_) => "full",
            Self::BadId(_)
            | Self::UnknownAgent(_)
            | Self::Body { .. }
            | Self::Sign(_)
            | Self::Store(_)
            | Self::Busy
            | Self::NotFound
            | Self::Method
            | Self::Internal => match self.status() {
                StatusCode::BAD_REQUEST => "bad_request",
                StatusCode::NOT_FOUND => "not_found",
                StatusCode::METHOD_NOT_ALLOWED => "method",
                StatusCode::PAYLOAD_TOO_LARGE => "too_large",
                StatusCode::UNSUPPORTED_MEDIA_TYPE => "media_type",
                StatusCode::UPGRADE_REQUIRED => "upgrade",
                StatusCode::UNPROCESSABLE_ENTITY => "unprocessable",
                StatusCode::SERVICE_UNAVAILABLE => "busy",
                _ => "internal",
            },
        }
    }

    /// Whether it is for want of a good token: no other one would be refused.
    pub(super) fn is_of_token(&self) -> bool {
        let denied = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&self.status());
        denied && !matches!(self, Self::Source)
    }

    /// Which token is demanded, for the header `WWW-Authenticate` (RFC 6750, 3).
    fn challenge(&self) -> Option<&'static str> {
        match self.status() {
            _ if !self.is_of_token() => None,
            StatusCode::UNAUTHORIZED if matches!(self, Self::Token(TokenError::Missing)) => {
                Some("Bearer")
            }
            StatusCode::UNAUTHORIZED => Some("Bearer error=\"invalid_token\""),
            StatusCode::FORBIDDEN => Some("Bearer error=\"insufficient_scope\""),
            _ => None,
        }
    }

    /// Tells the log: `what` was refused, or has failed by a fault of ours.
    pub(crate) fn log(&self, what: &'static str, lines: &RefusalLines) {
        let status = self.status();
        if !lines.0.allow() {
            return;
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "{what} failed");
        } else {
            tracing::info!(status = status.as_u16(), reason = %self, "{what} refused");
        }
    }
}

/// Bounds the lines about refusals: anybody can cause them.
#[derive(Debug)]
pub(crate) struct RefusalLines(Lines);

impl Default for RefusalLines {
    fn default() -> Self {
        Self(Lines::new("a call was refused"))
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::UnknownAgent(id) => Self::UnknownAgent(id),
            ControlError::Store(error) => Self::Store(error),
            ControlError::Stopping => Self::NotReady("the gateway is stopping"),
            // Of questions that are not asked here.
            ControlError::UnknownName(_)
            | ControlError::AmbiguousName { .. }
            | ControlError::UnknownSession(_)
            | ControlError::UnknownToken(_)
            | ControlError::TokenUsed { .. } => Self::Internal,
        }
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::Body {
            status: rejection.status(),
            detail: rejection.body_text(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        // Paths and causes of our own failures are for the log, not for the caller.
        let detail = if status == StatusCode::INTERNAL_SERVER_ERROR {
            Self::Internal.to_string()
        } else {
            self.to_string()
        };
        let problem = Problem {
            kind: format!("urn:adit:problem:{}", self.word()),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail,
        };
        // It holds texts and a number, which JSON takes.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response =
            (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(demanded) = self.challenge() {
            let demanded = HeaderValue::from_static(demanded);
            response.headers_mut().insert(WWW_AUTHENTICATE, demanded);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_gateway_that_cannot_answer_now_says_why() {
        let stopping = Refusal::from(ControlError::Stopping);
        for (refusal, word) in [
            (stopping, "not_ready"),
            (Refusal::Store(StoreError::UsedTokensFull), "tokens_full"),
            (Refusal::Store(StoreError::Busy), "busy"),
            (Refusal::Busy, "busy"),
        ] {
            let detail = refusal.to_string();
            let (status, problem) = answered(refusal).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(problem.kind, format!("urn:adit:problem:{word}"));
            assert_eq!(problem.detail, detail);
        }
    }

    #[tokio::test]
    async fn a_fault_of_ours_keeps_paths_and_causes_to_itself() {
        let path = std::path::PathBuf::from("/srv/secret/store.redb");
        let cause = std::io::Error::other("disk is on fire");
        let cause = Box::new(redb::Error::Io(cause));
        let (unreadable, bad) = (path.clone(), path);
        for error in [
            StoreError::Unreadable {
                path: unreadable,
                cause,
            },
            StoreError::BadRecord { path: bad },
            StoreError::Stopped,
        ] {
            let (status, problem) = answered(Refusal::Store(error)).await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(problem.kind, "urn:adit:problem:internal");
            assert_eq!(problem.detail, "the gateway failed; its log says why");
        }
    }

    #[tokio::test]
    async fn an_address_that_may_not_come_in_says_nothing_of_the_token() {
        let counters = crate::http::HttpCounters::default();
        for (refusal, demands) in [
            (Refusal::Source, false),
            (Refusal::Token(TokenError::OtherSession), true),
        ] {
            counters.token(&refusal);
            let response = refusal.into_response();
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            let demanded = response.headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(demanded, demands);
        }
        let refused: Vec<_> = counters.tokens_refused.read().into_values().collect();
        assert_eq!(refused, [1]);
    }

    async fn answered(refusal: Refusal) -> (StatusCode, Problem) {
        let response = refusal.into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let status = response.status();
        let body = to_bytes(response.into_body(), 4_096).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}
