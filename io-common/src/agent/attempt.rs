//! An attempt to connect, from the wish to the connection.

use std::{fmt, net::SocketAddr, time::Instant};

use adit_proto_core::{
    agent::supervisor::{Credentials, DialId, LossKind},
    link::tls::AgentTls,
};

use super::{
    AgentHost, AgentInput,
    core::AgentCore,
    files::{FilesFault, Kind},
};

/// An attempt whose key pair has been read.
pub struct Attempt {
    wish: Wish,
    tls: Result<AgentTls, FilesFault>,
}

/// What is to be attempted.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) dial: DialId,
    pub(super) addr: SocketAddr,
    pub(super) server_name: Box<str>,
    pub(super) credentials: Credentials,
}

impl AgentCore {
    /// Begins an attempt with reading the key pair: a disk that hangs holds up this attempt and nothing else.
    pub(super) fn read_pair(&mut self, now: Instant, wish: Wish) {
        self.reading.insert(wish.dial);
        let credentials = wish.credentials;
        self.files.ask(
            now,
            Kind::Read,
            move |pairs| pairs.tls(credentials),
            move |tls| {
                let wish = wish.clone();
                AgentInput::Attempt(Box::new(Attempt { wish, tls }))
            },
        );
    }

    /// Goes on with an attempt; one that was given up meanwhile is forgotten.
    pub(super) fn attempt(&mut self, now: Instant, attempt: Attempt, host: &mut impl AgentHost) {
        let Attempt { wish, tls } = attempt;
        if !self.reading.remove(&wish.dial) {
            return;
        }
        let tls = tls.map_err(|fault| {
            let why = match fault {
                FilesFault::Files(_) => LossKind::PairUnusable,
                // That says nothing of this pair.
                FilesFault::Panicked | FilesFault::Hung => LossKind::LocalError,
            };
            (why, fault.to_string())
        });
        let made = tls.and_then(|tls| self.connect(now, &wish, tls, host));
        if let Err((why, error)) = made {
            let Wish {
                addr, credentials, ..
            } = wish;
            tracing::error!(%addr, ?credentials, %error, "cannot connect to the gateway");
            self.status.ended(false, error);
            self.supervisor.handle_closed(now, wish.dial, why);
        }
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attempt").field(&self.wish.dial).finish()
    }
}
