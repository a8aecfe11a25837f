use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    id::AgentId,
    limits::{FAILURE_MEMORY, FAILURES_MAX},
    target::Host,
};

/// Remembers for [`FAILURE_MEMORY`] which agent failed for which part of the network (design 3.5). At most
/// [`FAILURES_MAX`] entries: the oldest makes room.
#[derive(Debug, Default)]
pub(super) struct FailureMemory {
    until: BTreeMap<Place, Instant>,
    order: BTreeSet<(Instant, Place)>,
}

type Place = (AgentId, Area);

/// Targets that are thought to share their fate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Area {
    Net(IpNet),
    Name(Box<str>),
}

impl FailureMemory {
    pub(super) fn note(&mut self, now: Instant, agent: AgentId, host: &Host) {
        self.forget(agent, host);
        while let Some((until, _)) = self.order.first() {
            if *until > now && self.order.len() < FAILURES_MAX {
                break;
            }
            if let Some((_, place)) = self.order.pop_first() {
                self.until.remove(&place);
            }
        }
        let (until, place) = (now + FAILURE_MEMORY, (agent, area(host)));
        self.order.insert((until, place.clone()));
        self.until.insert(place, until);
    }

    pub(super) fn forget(&mut self, agent: AgentId, host: &Host) {
        if self.until.is_empty() {
            return;
        }
        let place = (agent, area(host));
        if let Some(until) = self.until.remove(&place) {
            self.order.remove(&(until, place));
        }
    }

    pub(super) fn is_recent(&self, now: Instant, agent: AgentId, host: &Host) -> bool {
        let until = || self.until.get(&(agent, area(host)));
        !self.until.is_empty() && until().is_some_and(|until| now < *until)
    }
}

/// A /24 or a /64 is what one segment of a network usually is; a name stands for itself.
fn area(host: &Host) -> Area {
    match host {
        Host::Ip(IpAddr::V4(ip)) => Area::Net(Ipv4Net::new_assert(*ip, 24).trunc().into()),
        Host::Ip(IpAddr::V6(ip)) => Area::Net(Ipv6Net::new_assert(*ip, 64).trunc().into()),
        Host::Name(name) => Area::Name(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn failures_fade_and_belong_to_agent_and_prefix() {
        let (mut memory, now) = (FailureMemory::default(), start());
        memory.note(now, agent(1), &host("10.0.0.5"));
        memory.note(now, agent(1), &host("2001:db8::5"));
        memory.note(now, agent(1), &host("a.b"));
        let last = now + FAILURE_MEMORY - Duration::from_millis(1);
        for (id, text, known) in [
            (1, "10.0.0.9", true),
            (1, "10.0.1.5", false),
            (2, "10.0.0.5", false),
            (1, "2001:db8::1:0:0:9", true),
            (1, "2001:db8:0:1::5", false),
            (1, "a.b", true),
            (1, "b.b", false),
        ] {
            assert_eq!(
                memory.is_recent(last, agent(id), &host(text)),
                known,
                "{text}"
            );
            assert!(!memory.is_recent(now + FAILURE_MEMORY, agent(id), &host(text)));
        }
        memory.forget(agent(1), &host("10.0.0.77"));
        assert!(!memory.is_recent(now, agent(1), &host("10.0.0.5")));
        memory.note(now + FAILURE_MEMORY, agent(1), &host("c"));
        assert_eq!((memory.order.len(), memory.until.len()), (1, 1));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut memory, now) = (FailureMemory::default(), start());
        for n in 0..=FAILURES_MAX as u64 {
            memory.note(now + Duration::from_micros(n), agent(n), &host("a"));
        }
        assert_eq!(
            (memory.order.len(), memory.until.len()),
            (FAILURES_MAX, FAILURES_MAX)
        );
        assert!(!memory.is_recent(now, agent(0), &host("a")));
        assert!(memory.is_recent(now, agent(1), &host("a")));
    }

    fn agent(n: u64) -> AgentId {
        AgentId(Uuid::from_u64_pair(0, n))
    }

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    fn start() -> Instant {
        Instant::now()
    }
}
