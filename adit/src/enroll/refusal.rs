//! Why the gateway refuses an enrolment, as HTTP.

use axum::{
    Json,
    extract::rejection::JsonRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::wire::ErrorBody;
use crate::{pki::PkiError, store::StoreError, token::TokenError};

/// A refused enrolment. None of them consumes the token (design 3.9).
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
    /// The gateway could not answer in time.
    #[error("the gateway is busy; try again")]
    Busy,
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    NotFound,
    /// Something here is broken; the log says what.
    #[error("the gateway failed; its log says why")]
    Internal,
}

impl Refusal {
    /// Gives the HTTP status (agent-tunnel 14.3).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Token(e) => StatusCode::from_u16(e.status()).unwrap_or(StatusCode::UNAUTHORIZED),
            Self::Body { status, .. } => *status,
            Self::Sign(PkiError::BadAgentName | PkiError::BadHostname | PkiError::Csr(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Store(
                StoreError::TokenUsed | StoreError::TokenRevoked | StoreError::TokenReserved,
            ) => StatusCode::UNAUTHORIZED,
            Self::Store(StoreError::OtherKey) | Self::Connected => StatusCode::CONFLICT,
            Self::Store(StoreError::Busy | StoreError::NotReserved) | Self::Busy => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Sign(_) | Self::Store(_) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn word(&self) -> &'static str {
        match self.status() {
            StatusCode::BAD_REQUEST => "bad_request",
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::CONFLICT => "conflict",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            StatusCode::UNPROCESSABLE_ENTITY => "unprocessable",
            StatusCode::SERVICE_UNAVAILABLE => "busy",
            _ => "internal",
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
            tracing::error!(error = %self, "enrolment failed");
            Self::Internal.to_string()
        } else {
            tracing::info!(status = status.as_u16(), reason = %self, "enrolment refused");
            self.to_string()
        };
        let error = self.word().to_owned();
        (status, Json(ErrorBody { error, detail })).into_response()
    }
}
