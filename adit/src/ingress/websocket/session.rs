//! One user from the upgrade to the end.

use std::{sync::Arc, time::Duration};

use adit_io_tokio::{OpenRequest, PendingSession, Pipe};
use adit_proto_core::{gateway::OpenError, id::SessionId, target::Target};
use axum::extract::ws::WebSocket;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::{
    super::{bump, establish::Ended},
    Leg, NAME, NEXT_TARGET, NO_TLS, Place, Service,
    frames::{Farewell, User, UserEnd, code},
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
        let mut reasons = Vec::new();
        let mut targets = self.association.targets.iter().peekable();
        while let Some(target) = targets.next() {
            let request = OpenRequest {
                association: Some(SessionId(self.association.id)),
                target: target.clone(),
                agent: self.association.agent,
                user: self.ends.user,
                account: None,
                ingress: NAME.into(),
            };
            let error = match self.service.gateway.open(request).await {
                Ok(session) => return self.enter(session, target).await,
                Err(error) => error,
            };
            reasons.push(format!("{target}: {error}"));
            let code = close_code(&error);
            if code == code::BAD_GATEWAY && targets.peek().is_some() {
                if self.service.lines.next_target.allow() {
                    tracing::info!(session = %self.association.id, %target, %error, "{NEXT_TARGET}");
                }
                continue;
            }
            let user = self.ends.user;
            let ended = Ended::Refused(error);
            self.service.door.note(user, Some(target), &ended);
            return Err(Farewell::new(code, reasons.join("; ")));
        }
        Err(Farewell::new(code::FAILED, "the token names no target"))
    }

    async fn enter(&self, session: PendingSession, target: &Target) -> Result<Way, Farewell> {
        let (near, far) = Pipe::pair();
        let entrance = self.service.entrance.get();
        session.attach(far, entrance.preface(self.ends.user, self.ends.local));
        if self.leg == Leg::Tcp {
            return Ok(Way::Plain(near));
        }
        let hash = self.association.target_cert;
        let tls = self.service.target_tls.connect(&target.host, hash, near);
        match tls.await {
            Ok(tls) => Ok(Way::Tls(Box::new(tls))),
            Err(error) => {
                bump(&self.service.door.counters.refused);
                let (session, user) = (self.association.id, self.ends.user);
                if self.service.lines.no_tls.allow() {
                    tracing::info!(%session, %user, ingress = NAME, %target, reason = %error, "{NO_TLS}");
                }
                let reason = format!("{target}: {error}");
                Err(Farewell::new(code::BAD_GATEWAY, reason))
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

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
