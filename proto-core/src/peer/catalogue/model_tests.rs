//! Three gateways whose announcements are lost, late, repeated and overtaken, which stop, restart, stand still, are taken out of
//! each other's configuration and lie. The model is what each of them held at which moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::{CatalogueOutput as Out, tests::holding, *};
use crate::limits::CATALOGUE_LIFETIME;

#[derive(Clone, Debug)]
enum Step {
    /// So many milliseconds go by, and all timers that are due fire.
    Pass(u64),
    /// The clock jumps, as where a machine stood still, and timers fire once behind it.
    Jump(u64),
    /// The nth message under way arrives, and stays under way: it may come again.
    Deliver(prop::sample::Index),
    /// It is lost, which its sender is told of.
    Lose(prop::sample::Index),
    /// A gateway holds something else.
    Change(usize, u128),
    Restart(usize),
    Up(usize, usize),
    Down(usize, usize),
    /// It says goodbye, and is told nothing else until it starts again.
    Stop(usize),
    /// A gateway is taken out of another one's configuration, and is back in it.
    Remove(usize, usize),
    /// One answers another what is not so: epochs and versions of what it holds, and knows of.
    Lie(usize, usize, Option<(u64, u64)>, (u64, u64)),
}

enum Message {
    Told(Lane, Bytes),
    Answer(Bytes),
}

struct World {
    now: Instant,
    gateways: Vec<Catalogue>,
    held: Vec<Holding>,
    /// Every set that a gateway ever held.
    ever: Vec<Vec<Holding>>,
    /// Sent at, from, to.
    wire: Vec<(Instant, usize, usize, Message)>,
    /// When the last announcement of one arrived at another.
    heard: BTreeMap<(usize, usize), Instant>,
    highest: BTreeMap<(usize, usize), Stamp>,
    epochs: u64,
    stopped: BTreeSet<usize>,
}

const COUNT: usize = 3;

fn id(n: usize) -> NodeId {
    NodeId(n as u64)
}

fn index(node: NodeId) -> usize {
    usize::try_from(node.0).unwrap()
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    fn new() -> Self {
        let mut world = Self {
            now: Instant::now(),
            gateways: Vec::new(),
            held: vec![Holding::default(); COUNT],
            ever: vec![vec![Holding::default()]; COUNT],
            wire: Vec::new(),
            heard: BTreeMap::new(),
            highest: BTreeMap::new(),
            epochs: 0,
            stopped: BTreeSet::new(),
        };
        for n in 0..COUNT {
            let gateway = world.start(n);
            world.gateways.push(gateway);
        }
        world
    }

    fn start(&mut self, n: usize) -> Catalogue {
        self.epochs += 1;
        let mut gateway = Catalogue::new(id(n), self.epochs);
        for peer in (0..COUNT).filter(|peer| *peer != n) {
            gateway.add_peer(id(peer));
        }
        gateway
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Pass(ms) => {
                let end = self.now + Duration::from_millis(*ms);
                while let Some(at) = self.next().filter(|at| *at <= end) {
                    self.now = at.max(self.now);
                    self.fire();
                }
                self.now = end;
            }
            Step::Jump(ms) => {
                self.now += Duration::from_millis(*ms);
                self.fire();
            }
            Step::Deliver(nth) if !self.wire.is_empty() => self.deliver(nth.index(self.wire.len())),
            Step::Lose(nth) if !self.wire.is_empty() => {
                let (_, from, to, message) = self.wire.remove(nth.index(self.wire.len()));
                if let Message::Told(lane, _) = message {
                    self.gateways[from].handle_unanswered(id(to), lane);
                }
            }
            Step::Deliver(_) | Step::Lose(_) => {}
            Step::Change(n, what) => {
                self.held[*n] = holding(&[*what, what + 1]);
                self.ever[*n].push(self.held[*n].clone());
                self.gateways[*n].handle_changed(self.now);
            }
            Step::Restart(n) => {
                self.stopped.remove(n);
                self.gateways[*n] = self.start(*n);
                self.gateways[*n].handle_changed(self.now);
                self.heard.retain(|(_, at), _| at != n);
                self.highest.retain(|(_, at), _| at != n);
            }
            Step::Up(a, b) => self.gateways[*a].handle_up(self.now, id(*b)),
            Step::Down(a, b) => self.gateways[*a].handle_down(id(*b)),
            Step::Stop(n) => {
                self.gateways[*n].stop();
                self.stopped.insert(*n);
            }
            Step::Remove(a, b) => {
                self.gateways[*a].remove_peer(id(*b));
                self.gateways[*a].add_peer(id(*b));
                self.heard.remove(&(*b, *a));
                self.highest.remove(&(*b, *a));
            }
            Step::Lie(a, b, held, highest) => self.lie(*a, *b, *held, *highest),
        }
        self.drain();
        self.check();
    }

    /// It brings no more than one call of each lane at once, however often it is said, but for a higher count of starts.
    fn lie(&mut self, from: usize, to: usize, held: Option<(u64, u64)>, highest: (u64, u64)) {
        let stamp = |(epoch, version)| Stamp { epoch, version };
        let (held, highest) = (held.map(stamp), stamp(highest));
        let answer = Received { held, highest }.encode().unwrap();
        let mut told = 0;
        for _ in 0..20 {
            let taken = self.gateways[to].handle_answer(self.now, id(from), &answer);
            assert_eq!(
                taken.is_err() && from != to,
                held > Some(highest) && from != to
            );
            told += self.drain();
        }
        assert!(told <= 2 * COUNT, "told {told} times for nothing");
    }

    fn next(&self) -> Option<Instant> {
        self.gateways.iter().filter_map(|g| g.poll_timeout()).min()
    }

    fn fire(&mut self) {
        for gateway in &mut self.gateways {
            if gateway.poll_timeout().is_some_and(|at| at <= self.now) {
                gateway.handle_timeout(self.now);
            }
            let due = gateway.poll_timeout();
            assert!(due.is_none_or(|at| at > self.now), "a timer in the past");
        }
        self.drain();
    }

    fn deliver(&mut self, nth: usize) {
        let (now, (_, from, to, message)) = (self.now, &self.wire[nth]);
        let (from, to) = (*from, *to);
        match message {
            Message::Told(_, payload) => {
                match self.gateways[to].handle_told(now, id(from), payload) {
                    Ok(answer) => {
                        self.heard.insert((from, to), now);
                        self.wire.push((now, to, from, Message::Answer(answer)));
                    }
                    Err(CatalogueError::TooSoon { .. }) => {
                        self.gateways[from].handle_unanswered(id(to), Lane::Whole);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Message::Answer(payload) => {
                let answer = self.gateways[to].handle_answer(now, id(from), payload);
                answer.unwrap();
            }
        }
    }

    /// Gives how many announcements there are.
    fn drain(&mut self) -> usize {
        let before = self.wire.len();
        for n in 0..COUNT {
            while let Some(output) = self.gateways[n].poll_output() {
                match output {
                    Out::Collect => {
                        let held = self.held[n].clone();
                        self.gateways[n].set_local(self.now, held);
                    }
                    Out::Tell {
                        peer,
                        lane,
                        payload,
                    } => {
                        let message = Message::Told(lane, payload);
                        self.wire.push((self.now, n, index(peer), message));
                    }
                    Out::Changed { .. } | Out::EpochLost { .. } => {}
                    Out::LeftOut { count } => panic!("{count} left out"),
                }
            }
        }
        self.wire.len() - before
    }

    fn check(&mut self) {
        for (at, gateway) in self.gateways.iter().enumerate() {
            for from in 0..COUNT {
                let known = gateway.held_by(id(from));
                assert!(known.is_none_or(|held| self.ever[from].contains(held)));
                if known.is_some() && gateway.poll_timeout().is_some_and(|t| t > self.now) {
                    let heard = self.heard[&(from, at)];
                    assert!(self.now < heard + CATALOGUE_LIFETIME, "too old");
                }
                if let Some(stamp) = gateway.stamp_of(id(from)) {
                    let highest = self.highest.entry((from, at)).or_default();
                    assert!(stamp >= *highest, "an earlier one came back");
                    *highest = stamp;
                }
            }
        }
    }

    /// Nothing is lost any more: everybody knows what everybody holds.
    fn settle(&mut self) {
        for n in self.stopped.clone() {
            self.step(&Step::Restart(n));
        }
        self.wire.clear();
        for (a, b) in (0..COUNT).flat_map(|a| (0..COUNT).map(move |b| (a, b))) {
            self.gateways[a].handle_up(self.now, id(b));
        }
        for _ in 0..40 {
            self.step(&Step::Pass(100));
            while !self.wire.is_empty() {
                self.deliver(0);
                self.wire.remove(0);
                self.drain();
            }
            self.check();
        }
        for (at, gateway) in self.gateways.iter().enumerate() {
            for from in (0..COUNT).filter(|from| *from != at) {
                let held = gateway.held_by(id(from)).map(|held| &**held);
                assert_eq!(held, Some(&self.held[from]), "of {from} at {at}");
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = || 0..COUNT;
    prop_oneof![
        4 => (0..1_500_u64).prop_map(Step::Pass),
        1 => (0..100_000_u64).prop_map(Step::Jump),
        8 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        3 => any::<prop::sample::Index>().prop_map(Step::Lose),
        3 => (gateway(), 0..50_u128).prop_map(|(n, what)| Step::Change(n, what)),
        1 => gateway().prop_map(Step::Restart),
        1 => gateway().prop_map(Step::Stop),
        1 => (gateway(), gateway()).prop_map(|(a, b)| Step::Remove(a, b)),
        3 => (gateway(), gateway(), prop::option::of(stamp()), stamp())
            .prop_map(|(a, b, held, highest)| Step::Lie(a, b, held, highest)),
        2 => (gateway(), gateway()).prop_map(|(a, b)| Step::Up(a, b)),
        1 => (gateway(), gateway()).prop_map(|(a, b)| Step::Down(a, b)),
    ]
}

fn stamp() -> impl Strategy<Value = (u64, u64)> {
    (0..8_u64, 0..5_u64)
}

proptest! {
    #[test]
    fn what_is_known_was_held_lately_and_in_the_end_it_is_known(steps in vec(step(), 0..60)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.settle();
    }
}
