//! The end that accepted the connection (replica-handshake 6).

use std::{sync::Arc, time::Instant};

use super::{
    Awaited, Binding, Command, Conduct, Config, Fault, Frame, Keys, Nonce, Seal, Sealed, Signer,
    Step, Transcript, exchange::Exchange, fault::Misfit, key::NO_NONCE,
};

/// One handshake of the replica that accepted.
///
/// The caller hands over what came, at most [`wanted`](Self::wanted) bytes at a time, and empties
/// [`poll_output`](Self::poll_output) after every call. Deadlines are for what comes; how long writing may take is
/// the caller's to bound.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<Config>,
    binding: Binding,
    nonce: [u8; 32],
    /// What both MACs are over, once the hello has come.
    transcript: Option<Transcript>,
    exchange: Exchange,
}

impl Acceptor {
    /// Waits for the hello on a connection that has just been accepted.
    #[must_use]
    pub fn new(now: Instant, config: Arc<Config>, binding: Binding, nonce: Nonce) -> Self {
        let mut exchange = Exchange::new(now, config.profile, config.conduct);
        exchange.expect_frame(Awaited::Hello);
        Self {
            config,
            binding,
            nonce: nonce.0,
            transcript: None,
            exchange,
        }
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
            let Some(frame) = frame else {
                continue;
            };
            let verdict = match self.transcript.take() {
                None => self.handle_hello(&frame),
                Some(transcript) => self.handle_finish(&frame, &transcript),
            };
            if let Err(fault) = verdict {
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

    /// Judges the first frame in the order of replica-handshake 6, which a peer can tell by the status.
    fn handle_hello(&mut self, hello: &Frame) -> Result<(), Fault> {
        let config = Arc::clone(&self.config);
        let peer = hello.replica;
        let has_nonce = hello.nonce != NO_NONCE;
        if let Err(fault) = self.admits(hello) {
            // Only a peer that sent a nonce is known to wait for an answer (replica-handshake 8).
            if config.keys.is_some() && has_nonce {
                self.refuse(hello, fault);
            }
            return Err(fault);
        }
        let Some(keys) = &config.keys else {
            self.exchange.announced(peer);
            return Ok(());
        };
        if !has_nonce {
            return Err(Fault::AuthRequired(peer));
        }
        let transcript = Transcript {
            cluster: config.cluster,
            dialer: peer,
            acceptor: config.replica,
            nonce_d: hello.nonce,
            nonce_a: self.nonce,
            binding: self.binding,
        };
        let mut challenge = Frame::new(Command::Challenge, config.cluster, config.replica);
        challenge.nonce = self.nonce;
        let key = keys.current().mac();
        challenge.mac = transcript.mac(config.profile, Signer::Acceptor, key);
        self.exchange.send(&challenge);
        self.exchange.expect_frame(Awaited::Finish);
        self.transcript = Some(transcript);
        Ok(())
    }

    fn admits(&self, hello: &Frame) -> Result<(), Fault> {
        let config = &self.config;
        if hello.command != Command::Hello {
            Err(Fault::UnexpectedCommand {
                awaited: Awaited::Hello,
                command: hello.command,
            })
        } else if hello.cluster != config.cluster {
            Err(Fault::ClusterMismatch(hello.cluster))
        } else if config.roster.seal(hello.replica).is_none()
            || !config.dialling.allows(hello.replica, config.replica)
        {
            Err(Fault::DirectionalRule(hello.replica))
        } else {
            Ok(())
        }
    }

    /// Tells the peer why. The cluster field is the peer's own: whoever is not known to be of the cluster does not
    /// learn its id here.
    fn refuse(&mut self, hello: &Frame, fault: Fault) {
        let Some(status) = fault.status() else {
            return;
        };
        let cluster = match self.config.conduct {
            Conduct::Strict => hello.cluster,
            Conduct::Reference => self.config.cluster,
        };
        let mut refusal = Frame::new(Command::Challenge, cluster, self.config.replica);
        refusal.status = status.byte();
        self.exchange.send(&refusal);
    }

    /// Judges the second frame. It never gets an answer: the peer has begun to speak on the stream. Nothing of it counts
    /// but command and MAC, as the peer is the one that the hello named and the MAC covers.
    fn handle_finish(&mut self, finish: &Frame, transcript: &Transcript) -> Result<(), Fault> {
        if finish.command != Command::Finish {
            return Err(Fault::UnexpectedCommand {
                awaited: Awaited::Finish,
                command: finish.command,
            });
        }
        let config = Arc::clone(&self.config);
        match &config.keys {
            Some(keys) => self.verify(keys, finish, transcript),
            // An acceptor without keys awaits no finish.
            None => Ok(()),
        }
    }

    fn verify(
        &mut self,
        keys: &Keys,
        finish: &Frame,
        transcript: &Transcript,
    ) -> Result<(), Fault> {
        let (profile, mac) = (self.config.profile, &finish.mac);
        let Some((used, key)) = keys.verify(transcript, profile, Signer::Dialer, mac) else {
            let misfit = Misfit {
                keys,
                profile,
                signer: Signer::Dialer,
                mac,
            };
            return Err(Fault::MacMismatch(misfit.explain(transcript)));
        };
        let peer = transcript.dialer;
        let seal = self.config.roster.seal(peer);
        let sealed = match seal.ok_or(Fault::DirectionalRule(peer))? {
            Seal::Require => Some(Sealed::derive(
                Signer::Acceptor,
                key,
                keys.current(),
                transcript,
            )),
            Seal::Never => None,
        };
        self.exchange.verified(None, peer, used, sealed);
        Ok(())
    }
}
