//! Whether the node at the other end may stay, after certificates and records were exchanged (peer-rpc 1.4 and 6.3).

use std::{sync::Arc, time::Instant};

use super::super::{Connection, Role, State};
use crate::{
    link::peer_tls::Vetting,
    peer::{config::PeerNode, identity::Leaf, role::Phase, verdict::IdentityError},
};

/// The records, CAs and revocation lists of a moment, for connections that began before it:
/// [`Endpoint::set_peer_security`](crate::endpoint::Endpoint::set_peer_security) gives it, and
/// [`Connection::reconsider`] takes it.
#[derive(Clone, Debug)]
#[must_use = "connections that exist go by the former records until they are told"]
pub struct PeerStanding {
    pub(crate) node: Arc<PeerNode>,
    pub(crate) vetting: Vetting,
}

impl Connection {
    /// Has a connection between peers go by other records from here on. Where they do not have the node at the other end
    /// any more, or not with the certificate that it showed, or where that is not good any more, the connection is closed as
    /// one whose peer is not who it says, whoever dialled it and whether or not anything was asked on it. A handshake that
    /// is under way is judged at its end. Does nothing on a tunnel's connection.
    pub fn reconsider(&mut self, now: Instant, standing: &PeerStanding) {
        let node = Arc::clone(&standing.node);
        match &mut self.role {
            Role::Peer(role) => {
                role.node = node;
                if self.state != State::Up {
                    role.vetting = Some(standing.vetting.clone());
                }
            }
            Role::Forward(role) => role.node = node,
            Role::Agent(_) | Role::Gateway(_) => return,
        }
        self.dirty = true;
        if self.state != State::Up {
            return;
        }
        let judged = self.vet(&standing.vetting).and_then(|()| self.judge_peer());
        if let Err(error) = judged {
            self.peer_fault(now, error.into());
        }
    }

    /// Holds the other end's certificate against what came in while its handshake was under way.
    pub(super) fn vet_late(&self) -> Result<(), IdentityError> {
        match &self.role {
            Role::Peer(role) => role
                .vetting
                .as_ref()
                .map_or(Ok(()), |vetting| self.vet(vetting)),
            Role::Forward(_) | Role::Agent(_) | Role::Gateway(_) => Ok(()),
        }
    }

    fn vet(&self, vetting: &Vetting) -> Result<(), IdentityError> {
        let chain = self.link.chain().unwrap_or_default();
        match vetting.accepts(&chain) {
            true => Ok(()),
            false => Err(IdentityError::NotVouched),
        }
    }

    /// Judges the other end by the records of this moment.
    pub(super) fn judge_peer(&self) -> Result<(), IdentityError> {
        let (node, known, has_joined) = match &self.role {
            Role::Peer(role) => {
                let has_joined = matches!(role.phase, Phase::Callee(_));
                (&role.node, role.phase.node(), has_joined)
            }
            Role::Forward(role) => (&role.node, Some(role.peer), false),
            Role::Agent(_) | Role::Gateway(_) => return Ok(()),
        };
        let leaf = self.link.leaf().map(|der| Leaf::from_der(&der));
        node.judge().standing(known, leaf.as_ref(), has_joined)
    }
}
