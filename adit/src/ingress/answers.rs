//! What a user is told when a session cannot be opened: one table for every ingress protocol.

use adit_proto_core::{
    gateway::{AttemptError, OpenError},
    ingress::socks5::Reply,
};

/// The answer to a failed open in the words of each protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// SOCKS5 reply field (RFC 1928 section 6).
    pub socks: Reply,
    /// HTTP status code.
    pub http: u16,
}

/// To a user who may not open the target.
pub(super) const NOT_ALLOWED: Answer = Answer {
    socks: Reply::NotAllowed,
    http: 403,
};

/// Looks up what to answer.
#[must_use]
pub fn answer(error: &OpenError) -> Answer {
    let of = |socks, http| Answer { socks, http };
    match error {
        OpenError::NoRoute => of(Reply::NotAllowed, 403),
        OpenError::AgentUnknown(_) | OpenError::NoneOnline => of(Reply::HostUnreachable, 503),
        OpenError::AllFailed(list) => {
            let causes = list.iter().map(|f| &f.cause);
            let telling = causes.map(attempt).min_by_key(|(weight, _)| *weight);
            telling.map_or_else(|| of(Reply::GeneralFailure, 502), |(_, answer)| answer)
        }
        OpenError::TimedOut => of(Reply::TtlExpired, 504),
        OpenError::TooMany | OpenError::Stopping => of(Reply::GeneralFailure, 503),
        _ => of(Reply::GeneralFailure, 502),
    }
}

/// One candidate's failure, and its weight: of several the lowest one speaks, for it knows most about the target.
fn attempt(cause: &AttemptError) -> (u8, Answer) {
    let of = |weight, socks, http| (weight, Answer { socks, http });
    match cause {
        AttemptError::Refused(_) => of(0, Reply::ConnectionRefused, 502),
        AttemptError::Dial(_) => of(1, Reply::HostUnreachable, 502),
        AttemptError::TimedOut => of(2, Reply::TtlExpired, 504),
        AttemptError::NoCredit => of(3, Reply::GeneralFailure, 503),
        AttemptError::ConnectionLost | AttemptError::Malformed(_) | AttemptError::PeerLost => {
            of(4, Reply::GeneralFailure, 502)
        }
        _ => of(5, Reply::GeneralFailure, 502),
    }
}

#[cfg(test)]
mod tests {
    use adit_proto_core::{error::DecodeError, gateway::AttemptFailure, id::AgentId};

    use super::*;

    #[test]
    fn every_failure_has_its_answer() {
        use AttemptError as A;
        let all = |causes: Vec<A>| {
            let one = |cause| AttemptFailure {
                agent: None,
                peer: None,
                cause,
            };
            OpenError::AllFailed(causes.into_iter().map(one).collect())
        };
        let refused = || A::Refused("no".into());
        for (error, socks, http) in [
            (OpenError::NoRoute, 2, 403),
            (OpenError::AgentUnknown(AgentId(uuid::Uuid::nil())), 4, 503),
            (OpenError::TimedOut, 6, 504),
            (OpenError::TooMany, 1, 503),
            (OpenError::Stopping, 1, 503),
            (all(vec![]), 1, 502),
            (all(vec![refused()]), 5, 502),
            (all(vec![A::Dial("x".into())]), 4, 502),
            (all(vec![A::TimedOut]), 6, 504),
            (all(vec![A::NoCredit]), 1, 503),
            (all(vec![A::ConnectionLost]), 1, 502),
            (all(vec![A::PeerLost]), 1, 502),
            (all(vec![A::Malformed(DecodeError::UnexpectedEnd)]), 1, 502),
            (all(vec![A::ConnectionLost, A::TimedOut]), 6, 504),
            (all(vec![A::TimedOut, refused(), A::NoCredit]), 5, 502),
        ] {
            let got = answer(&error);
            assert_eq!((got.socks.code(), got.http), (socks, http), "{error}");
        }
    }
}
