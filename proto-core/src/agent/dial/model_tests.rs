//! A whole dial in virtual time against RFC 8305 written down once more, in the plainest way.

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::{DialStep::*, *};
use crate::route::RouteSet;

/// What becomes of a connection to an address, in milliseconds from its start.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Silent,
    Connects(u64),
    Fails(u64),
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Resolved,
    Connected(usize),
    Failed(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    let ms = || prop_oneof![3 => 0..600u64, 1 => 0..25_000u64];
    prop_oneof![
        2 => Just(Fate::Silent),
        1 => ms().prop_map(Fate::Connects),
        4 => ms().prop_map(Fate::Fails),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = |a: u8| move |n: u8| IpAddr::from([a, 0, 0, n]);
    let v6 = |head: u16| move |n: u16| Ipv6Addr::new(head, 0, 0, 0, 0, 0, 0, n).into();
    let mapped = |n: u16| Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, n).into();
    prop_oneof![
        6 => (0..12u8).prop_map(v4(10)),
        2 => (1..4u8).prop_map(v4(20)),
        1 => (1..3u8).prop_map(v4(127)),
        1 => (0..4u16).prop_map(mapped),
        6 => (0..12u16).prop_map(v6(0x2001)),
        2 => (0..3u16).prop_map(v6(0x2a00)),
        1 => Just(Ipv6Addr::LOCALHOST.into()),
    ]
}

/// What is allowed, in the order of RFC 8305 4, and what runs.
struct Model {
    nets: Vec<IpNet>,
    order: Vec<IpAddr>,
    phase: Phase,
    started: usize,
    last_start: u64,
    /// When each lane that runs was started.
    running: BTreeMap<usize, u64>,
    refused: bool,
}

/// A step without the text of the error.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Step(DialStep),
    Failed(DialErrorKind),
}

impl Model {
    fn handle(&mut self, t: u64, event: Event, found: &[IpAddr]) -> Vec<Done> {
        match (event, self.phase) {
            (Event::Resolved, Phase::Resolving) => self.resolved(t, found),
            (Event::Connected(index), Phase::Racing) if self.running.contains_key(&index) => {
                self.phase = Phase::Won(index);
                let losers = self.running.keys().filter(|&&other| other != index);
                let aborts = losers.map(|&other| Done::Step(Abort(other)));
                aborts.chain([Done::Step(Won(index))]).collect()
            }
            (Event::Connected(index), _) => vec![Done::Step(Abort(index))],
            (Event::Failed(index), Phase::Racing) if self.running.remove(&index).is_some() => {
                self.refused = true;
                self.start(t)
            }
            (Event::Failed(_) | Event::Resolved, _) => Vec::new(),
        }
    }

    fn resolved(&mut self, t: u64, found: &[IpAddr]) -> Vec<Done> {
        let mut families = [Vec::new(), Vec::new()];
        for ip in found.iter().map(IpAddr::to_canonical) {
            let family = &mut families[usize::from(ip.is_ipv4())];
            if self.allows(ip) && !family.contains(&ip) {
                family.push(ip);
            }
        }
        for turn in 0..found.len() {
            self.order
                .extend(families.iter().filter_map(|f| f.get(turn)));
        }
        self.order.truncate(16);
        let kind = if found.is_empty() {
            DialErrorKind::NotResolved
        } else {
            DialErrorKind::NotAllowed
        };
        if self.order.is_empty() {
            return self.fail(kind);
        }
        self.phase = Phase::Racing;
        self.start(t)
    }

    fn allows(&self, ip: IpAddr) -> bool {
        // What opens loopback lies within it.
        let opens = |net: &&IpNet| !ip.is_loopback() || net.prefix_len() >= 8;
        let mut nets = self.nets.iter().filter(opens);
        nets.any(|net| net.contains(&ip))
    }

    fn start(&mut self, t: u64) -> Vec<Done> {
        let Some(ip) = self.order.get(self.started) else {
            let lost = self.running.is_empty() && self.refused;
            return if lost {
                self.fail(DialErrorKind::ConnectionRefused)
            } else {
                Vec::new()
            };
        };
        let index = self.started;
        self.started += 1;
        self.last_start = t;
        self.running.insert(index, t);
        vec![Done::Step(Connect(index, SocketAddr::new(*ip, 80)))]
    }

    fn fail(&mut self, kind: DialErrorKind) -> Vec<Done> {
        self.phase = Phase::Failed;
        let aborts = self.running.keys().map(|&index| Done::Step(Abort(index)));
        aborts.chain([Done::Failed(kind)]).collect()
    }

    /// When an address starts by itself, one is given up, and all end.
    fn timers(&self) -> (Option<u64>, Option<(usize, u64)>, Option<u64>) {
        let more = self.started < self.order.len();
        let racing = self.phase == Phase::Racing;
        let oldest = self.running.first_key_value();
        let oldest = oldest.filter(|_| racing && (more || self.running.len() > 1));
        let ended = !racing && self.phase != Phase::Resolving;
        (
            (racing && more).then_some(self.last_start + 250),
            oldest.map(|(index, start)| (*index, start + 10_000)),
            (!ended).then_some(20_000),
        )
    }

    fn due(&self) -> Option<u64> {
        let (next, oldest, end) = self.timers();
        let all = [next, oldest.map(|(_, at)| at), end];
        all.into_iter().flatten().min()
    }

    fn expire(&mut self, t: u64) -> Vec<Done> {
        let mut done = Vec::new();
        if self.timers().2.is_some_and(|end| end <= t) {
            return self.fail(DialErrorKind::TimedOut);
        }
        while let Some((index, _)) = self.timers().1.filter(|(_, at)| *at <= t) {
            self.running.remove(&index);
            done.push(Done::Step(Abort(index)));
            done.extend(self.start(t));
        }
        if self.timers().0.is_some_and(|next| next <= t) {
            done.extend(self.start(t));
        }
        done
    }
}

proptest! {
    #[test]
    fn dial_agrees_with_rfc_8305_written_plainly(
        nets in subsequence(vec!["10.0.0.0/8", "2001::/16", "127.0.0.0/8", "0.0.0.0/0", "::/0"], 1..=5),
        found in vec(address(), 0..30),
        resolved_at in prop_oneof![0..500u64, 0..25_000u64],
        fates in vec(fate(), 30),
    ) {
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let origin = Instant::now();
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
        let routes = RouteSet { subnets: nets.clone(), domains: Vec::new() };
        let policy = Arc::new(Policy::new(&routes));
        let mut dial = Dial::new(origin, "db.corp:80".parse().unwrap(), policy);
        let mut model = Model {
            nets,
            order: Vec::new(),
            phase: Phase::Resolving,
            started: 0,
            last_start: 0,
            running: BTreeMap::new(),
            refused: false,
        };
        prop_assert_eq!(drain(&mut dial), [Done::Step(Resolve("db.corp".into()))]);
        // What is under way, in the order of time; the index tells equal times apart.
        let mut events = BTreeMap::from([((resolved_at, 0), Event::Resolved)]);
        let mut last = 0;
        loop {
            let due = dial.poll_timeout().map(|at| u64::try_from((at - origin).as_millis()).unwrap());
            prop_assert_eq!(due, model.due());
            let event = events.first_key_value().map(|(&(at, _), _)| at);
            let Some(t) = due.into_iter().chain(event).min() else { break };
            let now = origin + Duration::from_millis(t);
            if t > last {
                dial.handle_timeout(now - Duration::from_millis(1));
                prop_assert_eq!(drain(&mut dial), [], "just before {}", t);
            }
            last = t;
            let wanted = if due == Some(t) {
                dial.handle_timeout(now);
                model.expire(t)
            } else {
                let (_, event) = events.pop_first().unwrap();
                match event {
                    Event::Resolved => dial.handle_resolved(now, Ok(found.clone())),
                    Event::Connected(index) => dial.handle_connected(now, index),
                    Event::Failed(index) => dial.handle_failed(now, index, ConnectErrorKind::Refused),
                }
                model.handle(t, event, &found)
            };
            let steps = drain(&mut dial);
            for step in &steps {
                if let Done::Step(Connect(index, _)) = step {
                    match fates[*index] {
                        Fate::Silent => None,
                        Fate::Connects(ms) => events.insert((t + ms, *index), Event::Connected(*index)),
                        Fate::Fails(ms) => events.insert((t + ms, *index), Event::Failed(*index)),
                    };
                }
            }
            prop_assert_eq!(steps, wanted, "at {}", t);
        }
    }
}

fn drain(dial: &mut Dial) -> Vec<Done> {
    let steps = std::iter::from_fn(|| dial.poll_step());
    let done = |step| match step {
        Failed(error) => Done::Failed(error.kind()),
        Resolve(_) | Connect(..) | Abort(_) | Won(_) => Done::Step(step),
    };
    steps.map(done).collect()
}
