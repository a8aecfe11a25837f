//! Why a token is refused.

/// Why a token is refused; the text is for the person who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// No token was sent.
    #[error("no token: send one in the header `Authorization: Bearer TOKEN`")]
    Missing,
    /// Not a JWS with JSON inside.
    #[error("the token is not a signed token; paste it whole")]
    Malformed,
    /// Signed with a kind of signature that no key here makes.
    #[error(
        "the token's signature algorithm is not accepted; it must be the one of a key that this gateway knows"
    )]
    Algorithm,
    /// Signed by someone else, or altered.
    #[error(
        "the token was signed neither by this gateway nor by its provisioner; paste it whole, or create a new one"
    )]
    BadSignature,
    /// It names a key; keys with names sign neither enrolments nor scopes.
    #[error("a token for this purpose names no key (kid)")]
    KeyId,
    /// It demands what is not understood here.
    #[error("the token demands an extension (crit) that this gateway does not know")]
    Critical,
    /// Its time has passed.
    #[error(
        "the token has expired; create a new one, and if it is new compare the clocks of the gateway and of the token's \
         maker"
    )]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; check the clocks of the gateway and of the token's maker")]
    NotYetValid,
    /// A required claim is absent or of the wrong type.
    #[error("the token lacks a usable claim {0}; create a new one")]
    MissingClaim(&'static str),
    /// Neither header nor claims say what the token is for.
    #[error("the token's content type is unknown; create one for this purpose")]
    UnknownType,
    /// Made for another gateway.
    #[error("the token is for another gateway (jet_gw_id)")]
    OtherGateway,
    /// A claim of it stands on the gateway's revocation list.
    #[error("the token is revoked; create a new one")]
    Revoked,
    /// A good token for another purpose.
    #[error("the token is good, but for another purpose; this needs one of type {0}")]
    WrongType(&'static str),
    /// A good token for another session than the one that is asked for.
    #[error("the path must end with the token's session id (jet_aid)")]
    OtherSession,
    /// A good token that demands what this gateway cannot do.
    #[error("the token demands {0}, which this gateway cannot do")]
    Unsupported(&'static str),
    /// A good token whose scope does not cover the call.
    #[error("the token's scope does not allow this; it needs {0} or *")]
    Scope(&'static str),
}

impl TokenError {
    /// Gives the HTTP status (agent-tunnel 14.3 and 15).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::WrongType(_) | Self::Scope(_) | Self::OtherSession | Self::Unsupported(_) => 403,
            Self::Missing
            | Self::Malformed
            | Self::Algorithm
            | Self::BadSignature
            | Self::KeyId
            | Self::Critical
            | Self::Expired
            | Self::NotYetValid
            | Self::MissingClaim(_)
            | Self::UnknownType
            | Self::OtherGateway
            | Self::Revoked => 401,
        }
    }

    /// Sums the error up in one word, for programs and for counters.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::BadSignature => "bad_signature",
            Self::KeyId => "key_id",
            Self::Critical => "critical",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::MissingClaim(_) => "missing_claim",
            Self::UnknownType => "unknown_type",
            Self::OtherGateway => "other_gateway",
            Self::Revoked => "revoked",
            Self::WrongType(_) => "wrong_type",
            Self::Scope(_) => "wrong_scope",
            Self::OtherSession => "other_session",
            Self::Unsupported(_) => "unsupported",
        }
    }
}
