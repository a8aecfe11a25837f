//! The first stream: identity of the dialled node, then the version handshake (peer-rpc 1.4 and 3).

use std::{mem, time::Instant};

use bytes::Bytes;

use super::{
    super::{Connection, Role, State},
    LAST_WORDS,
};
use crate::{
    link::{FromConnection, ReadState, StreamRef},
    liveness::{Liveness, LivenessConfig, LivenessRole},
    peer::{
        FORWARD_ALPN, NodeId,
        bound::{ConnectionSecret, EXPORTER_LABEL},
        counters::HandshakeResult,
        event::PeerEvent,
        fault::RpcFault,
        forward::role::node_of,
        hello::HelloError,
        identity::Leaf,
        negotiate::{Agreed, Dialler, NegotiationError},
        receive::Callee,
        response::Caller,
        role::{CalleeSide, CallerSide, Farewell, Phase},
    },
};

impl Connection {
    pub(super) fn peer_connected(&mut self, now: Instant) {
        self.state = State::Up;
        self.notices.push_back(FromConnection::HandshakeOver {
            handle: self.link.handle(),
        });
        let role = LivenessRole::Agent;
        self.liveness = Some(Liveness::new(now, LivenessConfig { role }));
        let is_forward = self.link.protocol().as_deref() == Some(FORWARD_ALPN);
        let vetted = self.vet_late().map_err(RpcFault::from);
        let begun = vetted.and_then(|()| match is_forward {
            true => self.begin_forward(),
            false => self.begin_greeting(now),
        });
        let Err(fault) = begun else {
            return;
        };
        // A server that has not seen the end of the handshake could not read the close; until then nothing is said.
        if let Some(role) = self.peer_role() {
            let until = now.checked_add(LAST_WORDS).unwrap_or(now);
            role.farewell = Some(Farewell::LastWords { fault, until });
        }
    }

    /// The certificate is judged by the records of this moment, before anything else: TLS has judged by those of the
    /// handshake's begin, and the side that dialled has not compared it with the record of the node that it dialled.
    fn begin_greeting(&mut self, now: Instant) -> Result<(), RpcFault> {
        self.judge_peer()?;
        let leaf = self.link.leaf().map(|der| Leaf::from_der(&der));
        let Role::Peer(role) = &mut self.role else {
            return Ok(());
        };
        let Phase::Dialling { called } = role.phase else {
            return Ok(());
        };
        if let Some(node) = called {
            role.node.judge().dialled(node, leaf.as_ref())?;
        }
        let config = &role.node.config;
        let (dialler, hello) = Dialler::new(now, config.versions, config.capabilities);
        role.phase = Phase::Greeting {
            called,
            dialler,
            hello,
            is_open: false,
        };
        Ok(())
    }

    /// Moves the version handshake on, and sees to it that nothing follows on its stream.
    pub(super) fn greet(&mut self, now: Instant) -> Result<(), RpcFault> {
        match self.peer_role().map(|role| &role.phase) {
            Some(Phase::Greeting { .. }) => self.greet_as_dialler(),
            Some(Phase::Accepting { .. }) => self.greet_as_acceptor(now),
            Some(Phase::Caller(_) | Phase::Callee(_)) => self.heed_trailing(),
            Some(Phase::Dialling { .. }) | None => Ok(()),
        }
    }

    fn greet_as_dialler(&mut self) -> Result<(), RpcFault> {
        let Role::Peer(role) = &mut self.role else {
            return Ok(());
        };
        let Phase::Greeting {
            called,
            dialler,
            hello,
            is_open,
        } = &mut role.phase
        else {
            return Ok(());
        };
        if !*is_open {
            if self.link.open().is_none() {
                return Ok(());
            }
            *is_open = true;
        }
        if !hello.is_empty() {
            let written = self.link.write(StreamRef::Control, hello);
            if written.is_ok() && hello.is_empty() {
                let _gone = self.link.finish(StreamRef::Control);
            }
        }
        let mut agreed = Ok(None);
        let state = read_all(&mut self.link, |chunk| match &agreed {
            Ok(None) => agreed = dialler.handle_bytes(chunk),
            Ok(Some(_)) => agreed = Err(HelloError::Trailing { len: chunk.len() }.into()),
            Err(_) => {}
        });
        if agreed == Ok(None) && state == Some(ReadState::End) {
            dialler.handle_end()?;
        }
        role.greeting_is_open = state.is_some_and(|state| state != ReadState::End);
        let (Some(agreed), called) = (agreed?, *called) else {
            return Ok(());
        };
        let leaf = self.link.leaf();
        let caller = Caller::new(
            agreed.capabilities,
            secret(&self.link)?,
            leaf.as_deref(),
            called,
        );
        let side = CallerSide::new(caller, agreed.capabilities, &role.node);
        role.phase = Phase::Caller(Box::new(side));
        self.greeted(agreed);
        Ok(())
    }

    fn greet_as_acceptor(&mut self, now: Instant) -> Result<(), RpcFault> {
        let Role::Peer(role) = &mut self.role else {
            return Ok(());
        };
        let Phase::Accepting { acceptor, is_open } = &mut role.phase else {
            return Ok(());
        };
        if !*is_open {
            // Whatever the peer opens first is the handshake, and nothing else is taken before (peer-rpc 3.1).
            match self.link.accept() {
                Some(StreamRef::Control) => *is_open = true,
                Some(StreamRef::Session(_) | StreamRef::Stray(_)) | None => return Ok(()),
            }
        }
        let mut agreed = Ok(None);
        let state = read_all(&mut self.link, |chunk| match &agreed {
            Ok(None) => agreed = acceptor.handle_bytes(chunk),
            Ok(Some(_)) => agreed = Err(HelloError::Trailing { len: chunk.len() }.into()),
            Err(_) => {}
        });
        if agreed == Ok(None) && state == Some(ReadState::End) {
            acceptor.handle_end()?;
        }
        role.greeting_is_open = state.is_some_and(|state| state != ReadState::End);
        let Some((mut ack, agreed)) = agreed? else {
            return Ok(());
        };
        // A client that takes not even this has no use for the connection: it ends as one that says nothing.
        let _blocked = self.link.write(StreamRef::Control, &mut ack);
        let _gone = self.link.finish(StreamRef::Control);
        let leaf = self.link.leaf();
        let callee = Callee::new(agreed.capabilities, secret(&self.link)?, leaf.as_deref());
        let side = CalleeSide::new(now, callee, agreed.capabilities, &role.node);
        role.phase = Phase::Callee(Box::new(side));
        self.greeted(agreed);
        Ok(())
    }

    fn greeted(&mut self, agreed: Agreed) {
        let Some(role) = self.peer_role() else {
            return;
        };
        let node = role.phase.node();
        role.node
            .ledger()
            .count(|c| c.handshake(HandshakeResult::Agreed));
        let node = node.or_else(|| self.shown());
        self.say(PeerEvent::Up { node, agreed });
    }

    /// The node whose certificate a peer that dialled has shown.
    fn shown(&mut self) -> Option<NodeId> {
        let leaf = self.link.leaf().map(|der| Leaf::from_der(&der));
        let role = self.peer_role()?;
        match role.phase {
            Phase::Callee(_) => node_of(&role.node, None, leaf.as_ref()).ok(),
            Phase::Dialling { .. }
            | Phase::Greeting { .. }
            | Phase::Accepting { .. }
            | Phase::Caller(_) => None,
        }
    }

    /// No byte may follow hello or ack.
    fn heed_trailing(&mut self) -> Result<(), RpcFault> {
        let Role::Peer(role) = &mut self.role else {
            return Ok(());
        };
        if !mem::take(&mut role.greeting_is_open) {
            return Ok(());
        }
        let mut len = 0;
        let state = read_all(&mut self.link, |chunk| len += chunk.len());
        role.greeting_is_open = state.is_some_and(|state| state != ReadState::End);
        match len {
            0 => Ok(()),
            len => Err(NegotiationError::Message(HelloError::Trailing { len }).into()),
        }
    }
}

/// Reads what has come on the first stream; none where that is over, or was never there.
fn read_all(link: &mut crate::link::Link, mut sink: impl FnMut(&[u8])) -> Option<ReadState> {
    loop {
        match link.read(StreamRef::Control, READ_MAX, |chunk: Bytes| sink(&chunk)) {
            Ok(ReadState::More) => {}
            Ok(state) => return Some(state),
            Err(_) => return None,
        }
    }
}

fn secret(link: &crate::link::Link) -> Result<ConnectionSecret, RpcFault> {
    let exported = link.export(EXPORTER_LABEL).ok_or(RpcFault::NoSecret)?;
    Ok(ConnectionSecret::new(exported))
}

/// More than a whole message.
const READ_MAX: usize = 8 << 10;
