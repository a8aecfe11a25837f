//! Connections to gateways over time.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use adit_proto_core::{
    agent::{
        backoff::BackoffCause,
        dial::ResolveError,
        supervisor::{DialId, GatewayIndex, LossKind, Supervisor, SupervisorStep},
    },
    env::Seed,
    limits::{DIAL_ADDRESSES_MAX, GATEWAYS_MAX},
    target::{Host, Target},
};

use super::{STEPS_MAX, assert_rests, pass};
use crate::input::{Input, start};

pub(super) fn run(input: &mut Input<'_>) {
    let count = 1 + input.below(3);
    let gateways: Vec<Target> = (0..count).map(|_| gateway(input)).collect();
    let seed = Seed::new([input.byte(); 32]);
    let Ok(supervisor) = Supervisor::new(start(), gateways.clone(), &seed) else {
        panic!("a list of {count} is refused, {GATEWAYS_MAX} are allowed");
    };
    let mut world = World {
        supervisor,
        now: start(),
        gateways,
        next_dial: 0,
        running: BTreeSet::new(),
        up: None,
        is_stopped: false,
    };
    world.drain();
    for _ in 0..STEPS_MAX {
        if !input.has_more() {
            break;
        }
        world.step(input);
        world.drain();
    }
}

struct World {
    supervisor: Supervisor,
    now: Instant,
    gateways: Vec<Target>,
    next_dial: u64,
    /// Attempts that were asked for, and neither ended nor were given up.
    running: BTreeSet<DialId>,
    up: Option<DialId>,
    is_stopped: bool,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let (now, s) = (self.now, &mut self.supervisor);
        match input.below(16) {
            0..3 => {
                let gateway = GatewayIndex(input.below(self.gateways.len() + 1));
                s.handle_resolved(now, gateway, answer(input));
            }
            3..6 => s.handle_established(now, dial(input, self.next_dial)),
            6..9 => {
                let dial = dial(input, self.next_dial);
                s.handle_closed(now, dial, *input.pick(&LOSSES));
                self.running.remove(&dial);
                if self.up == Some(dial) {
                    self.up = None;
                }
            }
            9 => s.handle_network_change(now),
            10 if input.byte() == 255 => {
                s.shutdown();
                self.is_stopped = true;
            }
            _ => {
                pass(input, &mut self.now, self.supervisor.poll_timeout());
                self.supervisor.handle_timeout(self.now);
                assert_rests(self.now, self.supervisor.poll_timeout());
            }
        }
    }

    fn drain(&mut self) {
        for count in 0.. {
            let Some(step) = self.supervisor.poll_step() else {
                break;
            };
            assert!(
                count < 2 * DIAL_ADDRESSES_MAX + 4,
                "one call, endless steps"
            );
            self.judge(step);
        }
        assert_eq!(self.supervisor.connection(), self.up);
        if self.up.is_some() || self.is_stopped {
            assert_eq!(self.supervisor.poll_timeout(), None);
        } else {
            assert!(self.supervisor.poll_timeout().is_some(), "nothing goes on");
        }
        if let Some(up) = self.up {
            assert!(self.running.iter().eq([&up]), "losers are left running");
        }
    }

    fn judge(&mut self, step: SupervisorStep) {
        match step {
            SupervisorStep::Resolve {
                gateway,
                host,
                port,
            } => {
                assert!(!self.is_stopped && self.up.is_none());
                let wanted = Target {
                    host: Host::Name(host),
                    port,
                };
                assert_eq!(self.gateways[gateway.0], wanted);
            }
            SupervisorStep::Connect {
                dial,
                gateway,
                addr,
                server_name,
            } => {
                assert!(!self.is_stopped && self.up.is_none());
                assert_eq!(dial.0, self.next_dial, "a dial's name is used again");
                self.next_dial += 1;
                self.running.insert(dial);
                let target = &self.gateways[gateway.0];
                assert_eq!(addr.port(), target.port);
                assert_eq!(*server_name, target.host.to_string());
            }
            SupervisorStep::Close { dial } => {
                assert!(dial.0 < self.next_dial);
                self.running.remove(&dial);
                if self.up == Some(dial) {
                    assert!(self.is_stopped, "a good connection is closed");
                    self.up = None;
                }
            }
            SupervisorStep::Up { dial, gateway } => {
                assert!(!self.is_stopped && self.up.is_none());
                assert!(self.running.contains(&dial) && gateway.0 < self.gateways.len());
                self.up = Some(dial);
            }
            SupervisorStep::Waiting {
                until,
                gateway,
                cause,
            } => {
                assert!(!self.is_stopped && gateway.0 < self.gateways.len());
                let wait = until.checked_duration_since(self.now);
                assert!(wait.is_some_and(|wait| !wait.is_zero() && wait <= cap(cause)));
            }
        }
    }
}

/// Longest wait (design 8.4).
pub(super) fn cap(cause: BackoffCause) -> Duration {
    Duration::from_secs(match cause {
        BackoffCause::Unreachable => 4,
        BackoffCause::Refused => 60,
        BackoffCause::IdentityRefused => 75,
    })
}

/// One of the latest, or one that is not there yet.
fn dial(input: &mut Input<'_>, next: u64) -> DialId {
    DialId((next + 1).saturating_sub(u64::from(input.byte() % 8)))
}

fn gateway(input: &mut Input<'_>) -> Target {
    let text = input.pick(&["gw.a:1", "10.0.0.1:2", "[2001:db8::1]:3", "gw.b:65535"]);
    let Ok(target) = text.parse() else {
        unreachable!("the pool holds targets");
    };
    target
}

/// Addresses of both families, some of them twice, or an error.
pub(super) fn answer(input: &mut Input<'_>) -> Result<Vec<IpAddr>, ResolveError> {
    let count = input.below(24);
    let ip = |n: u8| match n % 4 {
        0 => IpAddr::from([10, 0, 0, n]),
        1 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]),
        2 => IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, u16::from(n)]),
        _ => SPECIAL[usize::from(n) % SPECIAL.len()],
    };
    match count {
        20 => Err(ResolveError::NotFound),
        21 => Err(ResolveError::NoAddress),
        22 => Err(ResolveError::Unavailable),
        23 => Err(ResolveError::Other(Some(5))),
        _ => Ok((0..count).map(|_| ip(input.byte())).collect()),
    }
}

const SPECIAL: [IpAddr; 6] = [
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0x7f00, 1)),
];

const LOSSES: [LossKind; 7] = [
    LossKind::Unreachable,
    LossKind::TimedOut,
    LossKind::Reset,
    LossKind::ClosedByPeer,
    LossKind::Refused,
    LossKind::IdentityRefused,
    LossKind::LocalError,
];
