//! Dials of connections that calls are made on: from an address in the configuration to a connection.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use adit_proto_core::{
    endpoint::Protocol,
    peer::{NodeId, node::DialId},
    target::{Host, Target},
};

use super::{PeersCore, PeersHost, tell::Undiallable};
use crate::{peers::PeersInput, udp::for_socket};

impl PeersCore {
    pub(super) fn dial(
        &mut self,
        now: Instant,
        (dial, node): (DialId, Option<NodeId>),
        address: Target,
        host: &mut impl PeersHost,
    ) {
        match address.host {
            Host::Ip(ip) => self.connect(now, (dial, node), (ip, address.port).into(), host),
            Host::Name(name) => {
                let own = self.parts.owner.clone();
                let lookup = self.names.resolve(&name, move |found| {
                    own.push_or_stop(PeersInput::Resolved(dial, found.unwrap_or_default()));
                });
                self.lookups.insert(dial, (node, address.port, lookup));
            }
        }
    }

    pub(super) fn resolved(
        &mut self,
        now: Instant,
        dial: DialId,
        found: &[IpAddr],
        host: &mut impl PeersHost,
    ) {
        let Some((node, port, _)) = self.lookups.remove(&dial) else {
            return;
        };
        let usable = found.iter().filter(|ip| self.dual_stack || ip.is_ipv4());
        let usable: Vec<IpAddr> = usable.copied().collect();
        // One address for each dial: the next dial takes the next one.
        let turn = usize::try_from(dial.0)
            .unwrap_or(0)
            .checked_rem(usable.len());
        match turn.and_then(|turn| usable.get(turn)) {
            Some(ip) => self.connect(now, (dial, node), (*ip, port).into(), host),
            None => {
                self.teller.undiallable(now, node, &Undiallable::NoAddress);
                self.pool.handle_dialled(now, dial, None);
            }
        }
    }

    fn connect(
        &mut self,
        now: Instant,
        (dial, node): (DialId, Option<NodeId>),
        addr: SocketAddr,
        host: &mut impl PeersHost,
    ) {
        let remote = for_socket(addr, self.dual_stack);
        let begun = host
            .endpoint()
            .dial_peer(now, Protocol::Rpc, node, remote, &self.env);
        let conn = match begun {
            Ok(conn) => conn,
            Err(error) => {
                self.teller
                    .undiallable(now, node, &Undiallable::from(error));
                return self.pool.handle_dialled(now, dial, None);
            }
        };
        let id = conn.id();
        if let Some(node) = node {
            self.dialled.insert(node, (remote, id));
        }
        host.carry(now, conn, &self.parts);
        self.pool.handle_dialled(now, dial, Some(id));
    }
}
