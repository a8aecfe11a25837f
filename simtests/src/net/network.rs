//! Hosts, the links between them, and the datagrams in flight.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use bytes::BytesMut;

use super::{
    Arrival, Fate, HostId, LossCause, NatConfig,
    nat::Nat,
    path::{Link, Path},
};
use crate::{At, choices::Choices};

/// The whole network of a run.
///
/// Cuts and blocks act twice: on what is sent while they stand, and on what would arrive while they stand. A datagram
/// for an address behind a NAT is judged by that NAT when it arrives. Host ids are those this network gave out; others
/// panic.
#[derive(Clone, Debug)]
pub struct Network {
    choices: Choices,
    hosts: Vec<Host>,
    by_addr: BTreeMap<IpAddr, HostId>,
    /// One per direction that was used or set; the others are clean.
    links: BTreeMap<(HostId, HostId), Link>,
    cuts: BTreeSet<(HostId, HostId)>,
    flight: BTreeMap<(At, u64), Packet>,
    /// Breaks ties by the order of sending.
    sent: u64,
    losses: BTreeMap<LossCause, u64>,
}

#[derive(Clone, Debug)]
struct Host {
    addrs: Vec<IpAddr>,
    nat: Option<Nat>,
    blocked: bool,
}

#[derive(Clone, Debug)]
struct Packet {
    from: HostId,
    arrival: Arrival,
}

impl Network {
    /// Makes a network without hosts.
    #[must_use]
    pub const fn new(choices: Choices) -> Self {
        Self {
            choices,
            hosts: Vec::new(),
            by_addr: BTreeMap::new(),
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            flight: BTreeMap::new(),
            sent: 0,
            losses: BTreeMap::new(),
        }
    }

    /// Adds a host that the world reaches at its addresses.
    ///
    /// # Panics
    /// Where another host has one of the addresses.
    pub fn add_host(&mut self, addrs: Vec<IpAddr>) -> HostId {
        self.claim(&addrs);
        self.push(addrs, None)
    }

    /// Adds a host behind a NAT of its own. Its inner addresses mean nothing outside, so other hosts may have the same.
    ///
    /// # Panics
    /// Where another host has one of the outer addresses.
    pub fn add_host_behind_nat(&mut self, inner: Vec<IpAddr>, nat: NatConfig) -> HostId {
        self.claim(&nat.outer);
        self.push(inner, Some(Nat::new(nat)))
    }

    fn claim(&mut self, addrs: &[IpAddr]) {
        let host = HostId(self.hosts.len());
        for addr in addrs {
            let taken = self.by_addr.insert(*addr, host);
            assert!(taken.is_none(), "{addr} belongs to two hosts");
        }
    }

    fn push(&mut self, addrs: Vec<IpAddr>, nat: Option<Nat>) -> HostId {
        self.hosts.push(Host {
            addrs,
            nat,
            blocked: false,
        });
        HostId(self.hosts.len() - 1)
    }

    /// Sends one datagram.
    pub fn send(
        &mut self,
        at: At,
        from: HostId,
        src: SocketAddr,
        dst: SocketAddr,
        ecn: Option<u8>,
        data: &[u8],
    ) -> Fate {
        let ends = self.route(at, from, src, dst);
        let sent = ends.and_then(|(src, to)| {
            let arrival = Arrival {
                from,
                to,
                src,
                dst,
                ecn,
                data: BytesMut::new(),
                sent: at,
            };
            self.launch(Packet { from, arrival }, data)
        });
        match sent {
            Ok((copies, spoilt)) => Fate::OnTheWay { copies, spoilt },
            Err(cause) => {
                self.count(cause);
                Fate::Lost(cause)
            }
        }
    }

    /// Finds the receiver, and the source as the receiver will see it.
    fn route(
        &mut self,
        at: At,
        from: HostId,
        src: SocketAddr,
        dst: SocketAddr,
    ) -> Result<(SocketAddr, HostId), LossCause> {
        let host = &mut self.hosts[from.0];
        if !host.addrs.contains(&src.ip()) || src.is_ipv4() != dst.is_ipv4() {
            return Err(LossCause::BadSource);
        }
        if host.blocked {
            return Err(LossCause::Blocked);
        }
        let src = match &mut host.nat {
            None => src,
            Some(nat) => nat.outbound(at, src, dst).ok_or(LossCause::BadSource)?,
        };
        let to = self.by_addr.get(&dst.ip()).ok_or(LossCause::NoHost)?;
        Ok((src, *to))
    }

    /// Gives the number of copies, and of those that are spoilt.
    fn launch(&mut self, mut packet: Packet, data: &[u8]) -> Result<(usize, usize), LossCause> {
        let (from, to) = (packet.from, packet.arrival.to);
        self.open(from, to)?;
        let choices = &mut self.choices;
        let link = self
            .links
            .entry((from, to))
            .or_insert_with(|| Link::new(Path::clean()));
        let passed = link.pass(packet.arrival.sent, data.len(), choices)?;
        if passed.mark && matches!(packet.arrival.ecn, Some(ECT_0 | ECT_1)) {
            packet.arrival.ecn = Some(CE);
        }
        let copies = link.copies(choices);
        let mut spoilt = 0;
        for _ in 0..copies {
            let mut packet = packet.clone();
            packet.arrival.data = BytesMut::from(data);
            spoilt += usize::from(link.corrupt(&mut packet.arrival.data, choices));
            let at = link.arrives_at(passed.left_at, choices);
            self.sent += 1;
            self.flight.insert((at, self.sent), packet);
        }
        Ok((copies, spoilt))
    }

    /// Tells whether anything may pass from the one host to the other.
    fn open(&self, from: HostId, to: HostId) -> Result<(), LossCause> {
        if self.hosts[from.0].blocked || self.hosts[to.0].blocked {
            return Err(LossCause::Blocked);
        }
        if self.cuts.contains(&(from, to)) {
            return Err(LossCause::Partition);
        }
        Ok(())
    }

    /// When the next datagram comes to its end, be it with the receiver or lost just before.
    #[must_use]
    pub fn next_at(&self) -> Option<At> {
        self.flight.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the earliest datagram whose time has come; of those with the same time, the one sent first.
    pub fn pop(&mut self, at: At) -> Option<Arrival> {
        while let Some(entry) = self.flight.first_entry() {
            let due = entry.key().0;
            if due > at {
                return None;
            }
            let packet = entry.remove();
            match self.land(due, packet) {
                Ok(arrival) => return Some(arrival),
                Err(cause) => self.count(cause),
            }
        }
        None
    }

    fn land(&mut self, at: At, packet: Packet) -> Result<Arrival, LossCause> {
        let mut arrival = packet.arrival;
        self.open(packet.from, arrival.to)?;
        if let Some(nat) = &mut self.hosts[arrival.to.0].nat {
            let inner = nat.inbound(at, arrival.dst, arrival.src);
            arrival.dst = inner.ok_or(LossCause::NoMapping)?;
        }
        Ok(arrival)
    }

    /// How many datagrams travel.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// How many datagrams were lost for a cause, where they were sent or where they would have arrived.
    #[must_use]
    pub fn lost(&self, cause: LossCause) -> u64 {
        self.losses.get(&cause).copied().unwrap_or(0)
    }

    fn count(&mut self, cause: LossCause) {
        *self.losses.entry(cause).or_insert(0) += 1;
    }

    /// Gives the path of one direction.
    #[cfg(test)]
    pub(super) fn path(&self, from: HostId, to: HostId) -> &Path {
        static CLEAN: Path = Path::clean();
        self.links
            .get(&(from, to))
            .map_or(&CLEAN, |link| &link.path)
    }

    /// Changes the path of one direction. The queue before it begins empty; what travels arrives as before; a cut
    /// stays.
    pub fn set_path(&mut self, from: HostId, to: HostId, path: Path) {
        self.links.insert((from, to), Link::new(path));
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cuts.insert((from, to));
    }

    /// Ends the cut of one direction.
    pub fn mend(&mut self, from: HostId, to: HostId) {
        self.cuts.remove(&(from, to));
    }

    /// Blocks UDP at a host, both ways.
    pub fn block(&mut self, host: HostId) {
        self.hosts[host.0].blocked = true;
    }

    /// Ends the block of a host.
    pub fn unblock(&mut self, host: HostId) {
        self.hosts[host.0].blocked = false;
    }

    /// Lets the host's NAT forget its mappings: the next datagram gets another outer port, and the next outer address
    /// where there are several. Nothing happens to a host without a NAT.
    pub fn rebind(&mut self, host: HostId) {
        if let Some(nat) = &mut self.hosts[host.0].nat {
            nat.rebind();
        }
    }

    /// Ends all trouble: every path is clean, no cut and no block stands. What travels arrives as before, and NATs
    /// stay what they are.
    pub fn calm(&mut self) {
        self.links.clear();
        self.cuts.clear();
        for host in &mut self.hosts {
            host.blocked = false;
        }
    }
}

const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;
