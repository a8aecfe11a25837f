//! The end that opens the connection (replica-handshake 7).

use std::{sync::Arc, time::Instant};

use super::{
    Awaited, Binding, Command, Conduct, Config, Fault, Frame, Keys, Nonce, ReplicaId, Seal, Sealed,
    Signer, Status, Step, Transcript, exchange::Exchange, fault::Misfit, key::NO_NONCE,
};

/// One handshake of the replica that dialled.
///
/// The caller hands over what came, at most [`wanted`](Self::wanted) bytes at a time, and empties
/// [`poll_output`](Self::poll_output) after every call. Deadlines are for what comes; how long writing may take is
/// the caller's to bound.
#[derive(Debug)]
pub struct Dialer {
    config: Arc<Config>,
    binding: Binding,
    target: ReplicaId,
    seal: Seal,
    nonce: [u8; 32],
    exchange: Exchange,
}

/// A replica that is not to be dialled: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// It is not of the roster.
    #[error("replica {0} is not in the cluster's list of replicas")]
    NotInRoster(ReplicaId),
    /// The lower id dials (replica-handshake 2).
    #[error("replica {0} is the one to dial, or this replica itself")]
    NotHigher(ReplicaId),
}

impl Dialer {
    /// Says hello on a connection to `target` that has just been opened. Without keys that is all there is to it.
    ///
    /// # Errors
    /// If `target` is not of the roster, or is not for this replica to dial.
    pub fn new(
        now: Instant,
        config: Arc<Config>,
        binding: Binding,
        target: ReplicaId,
        nonce: Nonce,
    ) -> Result<Self, DialError> {
        let seal = config.roster.seal(target);
        let seal = seal.ok_or(DialError::NotInRoster(target))?;
        if config.conduct == Conduct::Strict && !config.dialling.allows(config.replica, target) {
            return Err(DialError::NotHigher(target));
        }
        let mut exchange = Exchange::new(now, config.profile, config.conduct);
        let mut hello = Frame::new(Command::Hello, config.cluster, config.replica);
        if config.keys.is_some() {
            hello.nonce = nonce.0;
            exchange.send(&hello);
            exchange.expect_frame(Awaited::Challenge);
        } else {
            exchange.send(&hello);
            exchange.announced(target);
        }
        Ok(Self {
            config,
            binding,
            target,
            seal,
            nonce: nonce.0,
            exchange,
        })
    }

    /// Bytes that are awaited, and may be read; none once the handshake is over. What follows them is of the stream.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.exchange.wanted()
    }

    /// Takes bytes from the peer and tells how many; the rest is of the stream behind the handshake.
    pub fn handle_bytes(&mut self, now: Instant, data: &[u8]) -> usize {
        let mut used = 0_usize;
        while let rest @ [_, ..] = data.get(used..).unwrap_or_default() {
            let (taken, frame) = self.exchange.handle_bytes(now, rest);
            if taken == 0 {
                break;
            }
            used = used.saturating_add(taken);
            let verdict = frame.map(|frame| self.handle_challenge(&frame));
            if let Some(Err(fault)) = verdict {
                self.exchange.fail(fault);
            }
        }
        used
    }

    /// Notes that the connection has ended, in whichever way.
    pub fn handle_end(&mut self) {
        self.exchange.handle_end();
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; none once the handshake is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.exchange.poll_timeout()
    }

    /// Ends the handshake if its time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.exchange.handle_timeout(now);
    }

    /// Gives the next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Step> {
        self.exchange.poll_output()
    }

    /// Judges the acceptor's answer, in the order of replica-handshake 7. Its cluster and replica fields are under no
    /// MAC and not looked at, but for the log.
    fn handle_challenge(&mut self, challenge: &Frame) -> Result<(), Fault> {
        if challenge.command != Command::Challenge {
            return Err(Fault::UnexpectedCommand {
                awaited: Awaited::Challenge,
                command: challenge.command,
            });
        }
        match Status::of(challenge.status) {
            Status::Ok => {}
            refusal @ (Status::UnknownCommand
            | Status::ClusterMismatch
            | Status::DirectionalRule
            | Status::AuthRequired
            | Status::MacMismatch) => return Err(Fault::Refused(refusal)),
        }
        let is_drawn = challenge.nonce != NO_NONCE && challenge.nonce != self.nonce;
        if self.config.conduct == Conduct::Strict && !is_drawn {
            return Err(Fault::NonceNotDrawn);
        }
        // A dialer without keys awaits nothing.
        let config = Arc::clone(&self.config);
        match &config.keys {
            Some(keys) => self.finish(keys, challenge),
            None => Ok(()),
        }
    }

    /// Verifies the acceptor's MAC, and only then shows the own one.
    fn finish(&mut self, keys: &Keys, challenge: &Frame) -> Result<(), Fault> {
        let (cluster, replica) = (self.config.cluster, self.config.replica);
        let profile = self.config.profile;
        let transcript = Transcript {
            cluster,
            dialer: replica,
            acceptor: self.target,
            nonce_d: self.nonce,
            nonce_a: challenge.nonce,
            binding: self.binding,
        };
        let mac = &challenge.mac;
        let Some((used, key)) = keys.verify(&transcript, profile, Signer::Acceptor, mac) else {
            let misfit = Misfit {
                keys,
                profile,
                signer: Signer::Acceptor,
                mac,
            };
            let hint = misfit.explain_as(&transcript, challenge.cluster, challenge.replica);
            return Err(Fault::MacMismatch(hint));
        };
        let mut finish = Frame::new(Command::Finish, cluster, replica);
        finish.mac = transcript.mac(profile, Signer::Dialer, keys.current().mac());
        let sealed = match self.seal {
            Seal::Require => Some(Sealed::derive(
                Signer::Dialer,
                keys.current(),
                key,
                &transcript,
            )),
            Seal::Never => None,
        };
        self.exchange
            .verified(Some(&finish), self.target, used, sealed);
        Ok(())
    }
}
