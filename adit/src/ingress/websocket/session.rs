//! One user from the upgrade to the end.

use std::{sync::Arc, time::Duration};

use adit_io_common::gateway::OpenRequest;
use adit_io_tokio::Pipe;
use adit_proto_core::{gateway::OpenError, id::SessionId, target::Target};
use axum::extract::ws::WebSocket;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::{
    super::{bump, establish::Ended},
    Leg, NAME, NEXT_TARGET, NO_TLS, Place, Service,
    frames::{Farewell, User, UserEnd, code},
    target_tls::TargetTlsError,
};
use crate::{http::Ends, token::Association};

/// A user who was admitted.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) service: Arc<Service>,
    pub(super) ends: Ends,
    pub(super) association: Association,
    pub(super) leg: Leg,
    pub(super) _place: Place,
}

/// What a session's bytes go through.
enum Way {
    Plain(Pipe),
    Tls(Box<TlsStream<Pipe>>),
}

impl Visit {
    /// Opens the session, carries its bytes, and tells the user how it ended.
    pub(super) async fn run(self, socket: WebSocket) {
        let mut user = User::new(socket, self.service.ping);
        let farewell = within(self.association.lifetime, self.serve(&mut user)).await;
        user.dismiss(farewell).await;
    }

    async fn serve(&self, user: &mut User) -> Option<Farewell> {
        let opened = tokio::select! {
            biased;
            opened = self.open() => opened,
            end = user.departure() => return self.departed(end),
        };
        let way = match opened {
            Ok(way) => way,
            Err(farewell) => return Some(farewell),
        };
        bump(&self.service.door.counters.opened);
        match way {
            Way::Plain(pipe) => {
                let reset = pipe.until_reset();
                user.carry(pipe, reset).await
            }
            Way::Tls(tls) => {
                let reset = tls.get_ref().0.until_reset();
                user.carry(*tls, reset).await
            }
        }
    }

    fn departed(&self, end: UserEnd) -> Option<Farewell> {
        let (ended, farewell) = match end {
            UserEnd::Closed | UserEnd::Lost => (Ended::UserLeft, None),
            UserEnd::Fault(farewell) => {
                let ended = Ended::Handshake("what the user sends is no byte stream");
                (ended, Some(farewell))
            }
        };
        let target = self.association.targets.first();
        self.service.door.note(self.ends.user, target, &ended);
        farewell
    }

    /// Tries the targets in turn; gives the way to the first that is reached, or what the user is told.
    async fn open(&self) -> Result<Way, Farewell> {
        let targets = &self.association.targets;
        let went_on = |target: &Target, failure: &Failure| {
            if self.service.lines.next_target.allow() {
                tracing::info!(session = %self.association.id, %target, error = %failure, "{NEXT_TARGET}");
            }
        };
        match in_turn(targets, |target| self.reach(target), went_on).await {
            Ok(way) => Ok(way),
            Err((None, _)) => Err(Farewell::new(code::FAILED, "the token names no target")),
            Err((Some((target, failure)), reasons)) => {
                let code = failure.code();
                match failure {
                    Failure::Open(error) => self.note(target, error),
                    Failure::Late => self.note(target, OpenError::TimedOut),
                    // Told already.
                    Failure::Tls(_) => bump(&self.service.door.counters.refused),
                }
                Err(Farewell::new(code, reasons))
            }
        }
    }

    fn note(&self, target: &Target, error: OpenError) {
        let ended = Ended::Refused(error);
        self.service.door.note(self.ends.user, Some(target), &ended);
    }

    /// Reaches one target. A session whose target fails in TLS may still be in the books while the next one opens, which
    /// then has another id.
    async fn reach(&self, target: &Target) -> Result<Way, Failure> {
        let request = OpenRequest {
            association: Some(SessionId(self.association.id)),
            target: target.clone(),
            agent: self.association.agent,
            user: self.ends.user,
            account: None,
            ingress: NAME.into(),
        };
        let session = self.service.gateway.open(request).await?;
        let (near, far) = Pipe::pair();
        let entrance = self.service.entrance.get();
        session.attach(far, entrance.preface(self.ends.user, self.ends.local));
        if self.leg == Leg::Tcp {
            return Ok(Way::Plain(near));
        }
        let hash = self.association.target_cert;
        let tls = self.service.target_tls.connect(&target.host, hash, near);
        let tls = tls.await.inspect_err(|error| {
            let (session, user) = (self.association.id, self.ends.user);
            if self.service.lines.no_tls.allow() {
                tracing::info!(%session, %user, ingress = NAME, %target, reason = %error, "{NO_TLS}");
            }
        });
        Ok(Way::Tls(Box::new(tls?)))
    }
}

/// Why a target was not reached.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Tls(#[from] TargetTlsError),
    #[error("no answer in its share of the time")]
    Late,
}

impl Failure {
    fn code(&self) -> u16 {
        match self {
            Self::Open(error) => close_code(error),
            Self::Tls(_) | Self::Late => code::BAD_GATEWAY,
        }
    }
}

/// Goes through the targets until one is reached or one fails for a reason that is not its own, within [`OPEN_TIMEOUT`] in
/// all: each has an equal share of what is left, so that one that is silent leaves time for the others. Gives the last
/// one with its failure, and all failures as a text.
async fn in_turn<'a, W, F: Future<Output = Result<W, Failure>>>(
    targets: &'a [Target],
    reach: impl Fn(&'a Target) -> F,
    went_on: impl Fn(&Target, &Failure),
) -> Result<W, (Option<(&'a Target, Failure)>, String)> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    let mut reasons = Vec::new();
    let mut last = None;
    for (target, to_come) in targets.iter().zip((1..=targets.len()).rev()) {
        if let Some((former, failure)) = last.take() {
            went_on(former, &failure);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(to_come).unwrap_or(u32::MAX);
        let reached = timeout(share, reach(target)).await;
        let failure = match reached.unwrap_or(Err(Failure::Late)) {
            Ok(way) => return Ok(way),
            Err(failure) => failure,
        };
        reasons.push(format!("{target}: {failure}"));
        let is_its_own = failure.code() == code::BAD_GATEWAY;
        last = Some((target, failure));
        if !is_its_own {
            break;
        }
    }
    Err((last, reasons.join("; ")))
}

/// Ends a session that lasts too long: dropping it resets it.
async fn within(
    lifetime: Option<Duration>,
    session: impl Future<Output = Option<Farewell>>,
) -> Option<Farewell> {
    let Some(lifetime) = lifetime else {
        return session.await;
    };
    let late = "the session has lasted as long as its token allows (jet_ttl)";
    let ended = timeout(lifetime, session).await;
    ended.unwrap_or_else(|_| Some(Farewell::new(code::FAILED, late)))
}

/// Whether the target could not be reached, or the gateway has not even tried (agent-tunnel 15.1).
fn close_code(error: &OpenError) -> u16 {
    match error {
        OpenError::NoRoute
        | OpenError::AgentUnknown(_)
        | OpenError::NoneOnline
        | OpenError::AllFailed(_)
        | OpenError::TimedOut => code::BAD_GATEWAY,
        OpenError::TooMany | OpenError::Stopping => code::FAILED,
        _ => code::FAILED,
    }
}

/// From the upgrade until a target is reached, TLS with it included: the user hears nothing meanwhile.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_targets_together_have_one_deadline_and_each_has_its_turn() {
        let targets: Vec<_> = (1..=16)
            .map(|port| Target::new("127.0.0.1", port).unwrap())
            .collect();
        let start = Instant::now();
        let silent = |_: &Target| pending::<Result<(), _>>();
        let told = std::cell::Cell::new(0);
        let went_on = |_: &Target, _: &Failure| told.set(told.get() + 1);
        let (last, reasons) = in_turn(&targets, silent, went_on).await.unwrap_err();
        assert_eq!(start.elapsed(), OPEN_TIMEOUT);
        assert_eq!(last.unwrap().0, &targets[15]);
        assert_eq!(reasons.matches("no answer").count(), 16);
        assert_eq!(told.get(), 15);
        // What those before have not used is there for the last one.
        let start = Instant::now();
        let last_is_silent = async |target: &Target| match target.port {
            16 => pending().await,
            _ => Err::<(), _>(Failure::Open(OpenError::NoRoute)),
        };
        assert!(in_turn(&targets, last_is_silent, went_on).await.is_err());
        assert_eq!(start.elapsed(), OPEN_TIMEOUT);
        // A gateway that is full says so at once.
        let full = |_: &Target| ready(Err::<(), _>(Failure::Open(OpenError::TooMany)));
        let (last, _) = in_turn(&targets, full, went_on).await.unwrap_err();
        assert_eq!(last.unwrap().0, &targets[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_lasts_as_long_as_its_token_allows() {
        let minute = Duration::from_secs(60);
        let start = Instant::now();
        let late = within(Some(minute), pending()).await.unwrap();
        assert_eq!(start.elapsed(), minute);
        assert!(format!("{late:?}").contains("1011"), "{late:?}");
        let told = || ready(Some(Farewell::new(code::NORMAL, "")));
        for lifetime in [Some(minute), None] {
            assert_eq!(within(lifetime, told()).await, told().await);
        }
    }
}
