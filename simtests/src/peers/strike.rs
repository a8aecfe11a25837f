//! What the adversary does: it dials with a certificate that it has, and says what it made or recorded.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use adit_proto_core::peer::NodeId as PeerId;
use bytes::Bytes;

use super::{
    client::{Client, Greeting, KINDS, Line, envelope, other_ring, sender_of, spoil},
    cluster::id_of,
    compromised::Recorded,
    facts::{Fact, Holder, Made},
    world::World,
};
use crate::{facts::NodeId, pki::Pair};

/// What the adversary has in store.
#[derive(Debug, Default)]
pub(super) struct Arsenal {
    /// What it has made for each member, and may say again.
    made: BTreeMap<usize, Vec<Bytes>>,
    /// Addresses that it has used.
    addresses: u16,
}

impl World {
    /// Dials a member, with the compromised node's certificate, a stolen one, or one that nobody knows.
    pub(super) fn strike(&mut self, target: usize) {
        let count = self.members.len();
        let (node, pair) = match self.choices.between(0, 99) {
            0..55 => (Some(self.compromised.id), self.compromised.pair.clone()),
            55..95 => {
                let of = self.choices.index(count);
                (Some(id_of(of)), self.members[of].pair.clone())
            }
            _ => (None, self.pki.peer("node")),
        };
        let greeting = match self.choices.between(0, 99) {
            0..70 => Greeting::Proper,
            70..85 => Greeting::Late,
            85..90 => Greeting::Trickle,
            90..95 => Greeting::Long,
            _ => Greeting::Never,
        };
        let holder = Holder {
            node,
            is_honest: false,
        };
        let Some(client) = self.client((holder, &pair), greeting, target) else {
            return;
        };
        self.clients.push(client);
        let lines = self.choices.between(1, 8);
        for _ in 0..lines {
            let drawn = if node == Some(self.compromised.id) {
                self.own_line(target)
            } else {
                self.stolen_line(node)
            };
            let (Some(bytes), Some(client)) = (drawn, self.clients.last_mut()) else {
                continue;
            };
            let is_half = self.choices.chance(50);
            let (bytes, ends) = match is_half {
                true => (bytes.slice(..bytes.len() / 2), false),
                false => (bytes, true),
            };
            client.lines.push(Line { bytes, ends });
            // The same once more on a stream of its own.
            if let Some(line) = client
                .lines
                .last()
                .cloned()
                .filter(|_| self.choices.chance(300))
            {
                client.lines.push(line);
            }
        }
        self.run_adversary();
    }

    fn client(
        &mut self,
        shown: (Holder, &Pair),
        greeting: Greeting,
        target: usize,
    ) -> Option<Client> {
        self.arsenal.addresses += 1;
        let [high, low] = self.arsenal.addresses.to_be_bytes();
        let ip = IpAddr::from([10, 66, high, low]);
        let host = self.net.add_host(vec![ip]);
        let addr = SocketAddr::new(ip, 4_000);
        self.holders.insert(addr, (shown.0, false));
        let seed = adit_proto_core::env::Seed::new(self.choices.key());
        let remote = self.members[target].addr();
        let now = self.base + self.at;
        Client::new(now, &seed, (host, addr), shown, (greeting, remote)).ok()
    }

    /// Something under the certificate of the compromised node: of its own making, or recorded.
    fn own_line(&mut self, target: usize) -> Option<Bytes> {
        match self.choices.between(0, 99) {
            0..35 => self.crafted(target, self.compromised.id, Made::Good),
            35..55 => self.again(target),
            55..65 => {
                let others = self.members.len() as u64 + 2;
                let from = PeerId(self.choices.between(1, others));
                self.crafted(target, from, Made::Good)
            }
            65..72 => self.crafted(target, self.compromised.id, Made::OldKey),
            72..80 => self.crafted(target, self.compromised.id, Made::Spoilt),
            80..90 => pick(&mut self.choices, &self.compromised.requests),
            _ => pick(&mut self.choices, &self.compromised.answers),
        }
    }

    /// Something under a stolen certificate: only what its owner has said, above TLS and to the compromised node.
    fn stolen_line(&mut self, node: Option<PeerId>) -> Option<Bytes> {
        let said = self.compromised.requests.iter();
        let is_owners = |recorded: &&Recorded| Some(recorded.from) == node;
        let said: Vec<Recorded> = said.filter(is_owners).cloned().collect();
        match self.choices.chance(900) {
            true => pick(&mut self.choices, &said),
            false => pick(&mut self.choices, &self.compromised.requests),
        }
    }

    /// Says once more what was made for a member.
    fn again(&mut self, target: usize) -> Option<Bytes> {
        let made = self.arsenal.made.get(&target)?;
        let nth = self.choices.index(made.len());
        made.get(nth).cloned()
    }

    fn crafted(&mut self, target: usize, from: PeerId, made: Made) -> Option<Bytes> {
        let (kind, allowed) = *self.choices.pick(&KINDS);
        let (serial, seq) = (self.serial(), self.compromised.number());
        let route = (from, id_of(target), seq);
        let retired = self.members[target].retired;
        let bytes = match made {
            Made::OldKey => {
                let secret = match retired {
                    0 => [77; 32],
                    key => self.old_secret(key),
                };
                envelope(&other_ring(secret)?, route, kind, serial)?
            }
            Made::Spoilt => {
                let whole = envelope(&self.compromised.ring, route, kind, serial)?;
                spoil(&mut self.choices, &whole)
            }
            Made::Good | Made::NoRequest => envelope(&self.compromised.ring, route, kind, serial)?,
        };
        let made = if made == Made::Good { allowed } else { made };
        let fact = Fact::Made { serial, made };
        self.log.note(self.at, NodeId(self.members.len()), &fact);
        // Under another id it is not to be taken at all, and another key is not the sender's either.
        debug_assert!(made == Made::Spoilt || sender_of(&bytes) == Some(from));
        self.arsenal
            .made
            .entry(target)
            .or_default()
            .push(bytes.clone());
        Some(bytes)
    }

    /// Has the adversary read, speak and send.
    pub(super) fn run_adversary(&mut self) {
        let now = self.base + self.at;
        // Reading and writing may lead to each other, but not for ever: each reads what has come.
        for _ in 0..2 {
            self.compromised.run(&mut self.choices);
            for serial in std::mem::take(&mut self.compromised.made) {
                let made = Made::Good;
                let fact = Fact::Made { serial, made };
                self.log.note(self.at, NodeId(self.members.len()), &fact);
            }
            let (host, addr) = (self.compromised.host, self.compromised.addr);
            for (remote, data) in self.compromised.bare.poll(now) {
                self.send(host, (addr, remote), &data);
            }
        }
        for nth in 0..self.clients.len() {
            for _ in 0..2 {
                let client = &mut self.clients[nth];
                client.run(self.at);
                let (host, addr) = (client.host, client.addr);
                self.holders
                    .insert(addr, (client.holder, client.is_greeted()));
                for bytes in client.answers() {
                    let from = sender_of(&bytes).unwrap_or(PeerId(0));
                    self.compromised.answers.push(Recorded { from, bytes });
                }
                for (remote, data) in self.clients[nth].bare.poll(now) {
                    self.send(host, (addr, remote), &data);
                }
            }
        }
    }
}

fn pick(choices: &mut crate::choices::Choices, list: &[Recorded]) -> Option<Bytes> {
    let nth = choices.index(list.len());
    list.get(nth).map(|recorded| recorded.bytes.clone())
}
