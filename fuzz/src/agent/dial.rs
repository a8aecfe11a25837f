//! One target's policy, addresses and race.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use adit_proto_core::{
    agent::{
        dial::{ConnectErrorKind, Dial, DialStep},
        policy::Policy,
    },
    limits::{DIAL_ADDRESSES_MAX, DIAL_TIMEOUT},
    route::RouteSet,
    target::{Host, Target},
};

use super::{STEPS_MAX, assert_rests, pass, supervisor::answer};
use crate::{
    input::{Input, start},
    routing::{host, routes},
};

pub(super) fn run(input: &mut Input<'_>) {
    let granted = routes(input);
    let target = Target {
        host: host(input),
        port: 443,
    };
    let policy = Arc::new(Policy::new(&granted));
    let mut world = World {
        dial: Dial::new(start(), target.clone(), Arc::clone(&policy)),
        now: start(),
        granted,
        target,
        policy,
        resolved: None,
        is_asked: false,
        started: 0,
        running: BTreeSet::new(),
        end: None,
    };
    world.drain();
    for _ in 0..STEPS_MAX {
        if !input.has_more() {
            break;
        }
        world.step(input);
        world.drain();
    }
    world.now = world.now.max(start() + DIAL_TIMEOUT);
    world.dial.handle_timeout(world.now);
    world.drain();
    assert!(world.end.is_some(), "a dial without an end");
}

struct World {
    dial: Dial,
    now: Instant,
    granted: RouteSet,
    target: Target,
    policy: Arc<Policy>,
    resolved: Option<Vec<IpAddr>>,
    is_asked: bool,
    started: usize,
    running: BTreeSet<usize>,
    end: Option<End>,
}

#[derive(PartialEq, Eq, Debug)]
enum End {
    Won(usize),
    Failed,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let (now, dial) = (self.now, &mut self.dial);
        match input.below(10) {
            0 => {
                let answer = answer(input);
                // Only the first answer is looked at, and only where one was asked for.
                if self.resolved.is_none() {
                    self.resolved = Some(answer.clone().unwrap_or_default());
                }
                dial.handle_resolved(now, answer);
            }
            1 | 2 => dial.handle_connected(now, input.below(self.started + 2)),
            3..6 => {
                let index = input.below(self.started + 2);
                self.running.remove(&index);
                dial.handle_failed(now, index, *input.pick(&KINDS));
            }
            6 if input.byte() > 200 => {
                dial.cancel();
                self.drain();
                assert!(self.end.is_some());
            }
            _ => {
                pass(input, &mut self.now, self.dial.poll_timeout());
                self.dial.handle_timeout(self.now);
                assert_rests(self.now, self.dial.poll_timeout());
            }
        }
    }

    fn drain(&mut self) {
        while let Some(step) = self.dial.poll_step() {
            match step {
                DialStep::Resolve(name) => {
                    assert!(!self.is_asked && self.started == 0 && self.end.is_none());
                    assert_eq!(Host::Name(name), self.target.host);
                    self.is_asked = true;
                }
                DialStep::Connect(index, addr) => self.judge_connect(index, addr),
                DialStep::Abort(index) => {
                    assert!(index < self.started);
                    assert_ne!(self.end, Some(End::Won(index)), "the winner is aborted");
                    self.running.remove(&index);
                }
                DialStep::Won(index) => {
                    assert_eq!(self.end, None, "two ends");
                    assert!(self.now < start() + DIAL_TIMEOUT, "won too late");
                    assert!(self.running.iter().eq([&index]), "losers are left running");
                    self.end = Some(End::Won(index));
                }
                DialStep::Failed(error) => {
                    assert_eq!(self.end, None, "two ends");
                    assert!(self.running.is_empty(), "attempts are left running");
                    assert!(!error.to_string().is_empty());
                    self.end = Some(End::Failed);
                }
            }
        }
        assert_eq!(self.end.is_some(), self.dial.poll_timeout().is_none());
    }

    fn judge_connect(&mut self, index: usize, addr: SocketAddr) {
        assert_eq!(self.end, None, "an attempt after the end");
        assert_eq!(index, self.started);
        assert!(index < DIAL_ADDRESSES_MAX);
        self.started += 1;
        self.running.insert(index);
        assert_eq!((addr.port(), self.dial.addr(index)), (443, Some(addr)));
        let ip = addr.ip();
        let known = match &self.target.host {
            Host::Ip(literal) => *literal == ip,
            Host::Name(_) => {
                let found = self.resolved.iter().flatten();
                found.map(IpAddr::to_canonical).any(|found| found == ip)
            }
        };
        assert!(known, "{ip} comes from nowhere");
        assert_eq!(self.policy.admit(&self.target.host, &[ip]), Ok(vec![ip]));
        let explicit = |net: &ipnet::IpNet| net.trunc().contains(&ip) && net.prefix_len() >= 8;
        let is_special = ip.is_loopback() || ip.is_unspecified() || is_metadata(ip);
        assert!(!is_special || self.granted.subnets.iter().any(explicit));
    }
}

fn is_metadata(ip: IpAddr) -> bool {
    ip == IpAddr::from([169, 254, 169, 254])
}

const KINDS: [ConnectErrorKind; 5] = [
    ConnectErrorKind::Refused,
    ConnectErrorKind::TimedOut,
    ConnectErrorKind::Unreachable,
    ConnectErrorKind::Reset,
    ConnectErrorKind::Other(None),
];
