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
        if !self.pool.wants(dial) {
            // Its node has another address by now, or none, or was dialled anew.
            return;
        }
        let usable = found.iter().filter(|ip| self.dual_stack || ip.is_ipv4());
        let usable: Vec<IpAddr> = usable.copied().collect();
        // One address for each dial: the node's next dial takes the next one. Whoever joins knows no node yet.
        let joining = usize::try_from(dial.0).unwrap_or(0);
        let turn = node.map_or(joining, |node| {
            let turns = self.turns.entry(node).or_default();
            let turn = *turns;
            *turns = turn.wrapping_add(1);
            turn
        });
        let nth = turn.checked_rem(usable.len());
        match nth.and_then(|nth| usable.get(nth)) {
            Some(ip) => self.connect(now, (dial, node), (*ip, port).into(), host),
            None => {
                self.undiallable(now, node, &Undiallable::NoAddress);
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
                self.undiallable(now, node, &Undiallable::from(error));
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

    fn undiallable(&mut self, now: Instant, node: Option<NodeId>, why: &Undiallable) {
        if let Some(node) = node {
            self.refusals.insert(node, why.to_string());
        }
        self.teller.undiallable(now, node, why);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_channel::oneshot;

    use super::*;
    use crate::peers::bed::Bed;

    #[test]
    fn each_peer_is_dialled_at_each_of_its_addresses_in_turn() {
        let mut bed = Bed::new(1, &[]);
        let (now, peers) = (Instant::now(), [NodeId(2), NodeId(3)]);
        let ips: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
        let node = &mut bed.nodes[0];
        let mut dialled = BTreeSet::new();
        // Both are dialled anew each time, as their addresses are others.
        for port in [1_001, 1_002] {
            let address = |peer| (peer, format!("localhost:{port}").parse().unwrap());
            let (reply, _) = oneshot::channel();
            let set = PeersInput::SetPeers(peers.map(address).to_vec(), reply);
            node.core.take(now, set, &mut node.host);
            for peer in peers {
                node.core.take(now, PeersInput::Warm(peer), &mut node.host);
            }
            for dial in node.core.lookups.keys().copied().collect::<Vec<_>>() {
                let found = PeersInput::Resolved(dial, ips.to_vec());
                node.core.take(now, found, &mut node.host);
            }
            let at = |peer: NodeId| (peer, node.core.dialled[&peer].0.ip());
            dialled.extend(peers.map(at));
        }
        assert_eq!(dialled.len(), 4, "{dialled:?}");
    }

    #[test]
    fn a_name_that_is_found_after_its_dial_was_given_up_is_not_dialled() {
        let mut bed = Bed::new(1, &[]);
        let (now, peer) = (Instant::now(), NodeId(2));
        let node = &mut bed.nodes[0];
        let mut dials = BTreeSet::new();
        for port in [1_001, 1_002] {
            let address = format!("localhost:{port}").parse().unwrap();
            let (reply, _) = oneshot::channel();
            let set = PeersInput::SetPeers(vec![(peer, address)], reply);
            node.core.take(now, set, &mut node.host);
            node.core.take(now, PeersInput::Warm(peer), &mut node.host);
            dials.extend(node.core.lookups.keys().copied());
        }
        // The first name is found last.
        for dial in dials.iter().rev() {
            let found = PeersInput::Resolved(*dial, vec![[127, 0, 0, 1].into()]);
            node.core.take(now, found, &mut node.host);
        }
        assert_eq!(dials.len(), 2);
        assert_eq!(node.core.dialled[&peer].0.port(), 1_002);
        let (reply, _) = oneshot::channel();
        node.core
            .take(now, PeersInput::SetPeers(Vec::new(), reply), &mut node.host);
        assert!(node.core.dialled.is_empty() && node.core.turns.is_empty());
    }
}
