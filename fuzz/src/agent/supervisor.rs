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
        supervisor::{
            Credentials, DialId, GatewayIndex, KeptPairs, LossKind, Supervisor, SupervisorStep,
            Swap,
        },
    },
    env::Seed,
    limits::{DIAL_ADDRESSES_MAX, DRAINING_MAX, GATEWAYS_MAX},
    target::{Host, Target},
};

use super::{STEPS_MAX, assert_rests, pass};
use crate::input::{Input, start};

pub(super) fn run(input: &mut Input<'_>) {
    let count = 1 + input.below(3);
    let gateways: Vec<Target> = (0..count).map(|_| gateway(input)).collect();
    let seed = Seed::new([input.byte(); 32]);
    let byte = input.byte();
    let kept = KeptPairs {
        next: byte == 255,
        previous: byte >= 254,
    };
    let Ok(supervisor) = Supervisor::new(start(), gateways.clone(), kept, &seed) else {
        panic!("a list of {count} is refused, {GATEWAYS_MAX} are allowed");
    };
    let mut world = World {
        supervisor,
        now: start(),
        gateways,
        next_dial: 0,
        running: BTreeSet::new(),
        up: None,
        former: None,
        draining: BTreeSet::new(),
        kept,
        adopted: 0,
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
    /// What was up before, until either of them is told to drain or is closed.
    former: Option<DialId>,
    draining: BTreeSet<DialId>,
    /// Key pairs beside the current one.
    kept: KeptPairs,
    /// How often one was to take the current one's place.
    adopted: u64,
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
                self.ended(dial);
            }
            9 => s.handle_network_change(now),
            // Never a third pair.
            11 if !s.is_renewing() && !self.is_stopped => {
                self.kept.next = true;
                s.handle_renewed(now, *input.pick(&[Swap::Overlap, Swap::WhenIdle]));
            }
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
        let doubts = self.supervisor.is_renewing();
        assert!(doubts || !self.kept.next);
        assert!(!doubts || self.kept != KeptPairs::default());
        if self.is_stopped {
            assert_eq!(self.supervisor.poll_timeout(), None);
            assert!(self.running.is_empty(), "left running");
        } else if self.up.is_none() {
            assert!(self.supervisor.poll_timeout().is_some(), "nothing goes on");
        } else if !doubts {
            assert_eq!(self.supervisor.poll_timeout(), None);
            let kept = |dial: &&DialId| !self.draining.contains(dial);
            assert!(
                self.running.iter().filter(kept).eq(&self.up),
                "losers are left running"
            );
        }
        assert!(self.draining.len() <= DRAINING_MAX);
    }

    /// An attempt or a connection is over.
    fn ended(&mut self, dial: DialId) {
        self.running.remove(&dial);
        self.draining.remove(&dial);
        self.former.take_if(|former| *former == dial);
        if self.up == Some(dial) {
            self.up = None;
        }
    }

    /// Every fourth time the disk is full.
    fn in_place(&mut self) {
        self.adopted += 1;
        let fits = !self.adopted.is_multiple_of(4);
        if fits {
            self.settled();
        }
        self.supervisor.handle_adopted(self.now, fits);
    }

    fn settled(&mut self) {
        self.kept = KeptPairs {
            next: false,
            previous: true,
        };
    }

    fn connects(&self, credentials: Credentials) {
        assert!(!self.is_stopped && (self.up.is_none() || self.kept.next));
        assert!(match credentials {
            Credentials::Next => self.kept.next,
            Credentials::Current => true,
            Credentials::Previous => self.kept.previous,
        });
    }

    fn comes_up(&mut self, dial: DialId, gateway: GatewayIndex) {
        assert!(!self.is_stopped && gateway.0 < self.gateways.len());
        assert!(self.running.contains(&dial) && !self.draining.contains(&dial));
        let replaced = self.up.replace(dial);
        if self.former == Some(dial) {
            self.former = None;
        } else {
            assert!(replaced.is_none() || self.kept.next);
            self.former = replaced;
        }
    }

    fn judge(&mut self, step: SupervisorStep) {
        match step {
            SupervisorStep::Resolve {
                gateway,
                host,
                port,
            } => {
                assert!(!self.is_stopped && (self.up.is_none() || self.kept.next));
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
                credentials,
            } => {
                assert_eq!(dial.0, self.next_dial, "a dial's name is used again");
                self.next_dial += 1;
                self.running.insert(dial);
                self.connects(credentials);
                let target = &self.gateways[gateway.0];
                assert_eq!(addr.port(), target.port);
                assert_eq!(*server_name, target.host.to_string());
            }
            SupervisorStep::Close { dial } => {
                assert!(dial.0 < self.next_dial);
                let good = self.up == Some(dial) && !self.is_stopped;
                // What never became idle is closed in the end, so that the next pair is shown; that is told as any end.
                assert!(!good || self.kept.next, "a good connection is closed");
                if !good {
                    self.ended(dial);
                }
            }
            SupervisorStep::Drain { dial } => {
                assert!(self.running.contains(&dial));
                // What is up drains only for a gateway that confuses connections.
                if self.up != Some(dial) {
                    self.former.take_if(|former| *former == dial);
                    self.draining.insert(dial);
                }
            }
            SupervisorStep::Adopt => {
                assert!(self.kept.next);
                self.in_place();
            }
            SupervisorStep::Revert => {
                assert!(self.kept.previous);
                self.in_place();
            }
            SupervisorStep::Discard => {
                assert!(self.kept.next);
                self.settled();
            }
            SupervisorStep::Up { dial, gateway } => self.comes_up(dial, gateway),
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

const LOSSES: [LossKind; 8] = [
    LossKind::Unreachable,
    LossKind::TimedOut,
    LossKind::Reset,
    LossKind::ClosedByPeer,
    LossKind::Refused,
    LossKind::IdentityRefused,
    LossKind::LocalError,
    LossKind::PairUnusable,
];
