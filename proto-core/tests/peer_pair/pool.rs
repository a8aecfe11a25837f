//! Nodes that keep their connections themselves: pool, retries, loss of either side, stop.

use std::time::Duration;

use adit_proto_core::{
    endpoint::Protocol,
    env::Seed,
    id::CallId,
    limits::RPC_DRAIN_GRACE,
    peer::{
        NodeId,
        breaker::BreakerSettings,
        capabilities::Capabilities,
        node::{CallError, Node, NodeStep},
        retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::bed::{BOTH, Bed, Place, secs};

impl Bed {
    /// Has a member keep its connections itself, to these nodes at these places.
    pub(crate) fn manage(&mut self, place: Place, peers: &[(u64, Place)]) {
        let seed = Seed::new([u8::try_from(place.0).unwrap(); 32]);
        let mut node = Node::new(BreakerSettings::default(), &seed);
        for (id, at) in peers {
            let address = self.addr(*at).to_string().parse().unwrap();
            node.set_peer(self.now(), NodeId(*id), address);
        }
        self.member(place).node = Some(node);
    }

    pub(crate) fn ask_node(
        &mut self,
        place: Place,
        node: u64,
        kind: RpcType,
        body: &[u8],
    ) -> CallId {
        let (now, body) = (self.now(), Bytes::copy_from_slice(body));
        let call = (self.member(place).node.as_mut().unwrap()).call(now, NodeId(node), kind, body);
        self.drain(place);
        call
    }

    pub(crate) fn outcome_of(&mut self, place: Place, call: CallId) -> Result<Bytes, CallError> {
        let over = |bed: &Self| bed.members[place.0].outcomes.contains_key(&call);
        assert!(self.run_until(secs(60), over), "no outcome");
        self.members[place.0].outcomes[&call].clone()
    }

    /// Does what the member's node asks for; tells whether there was anything.
    pub(crate) fn perform(&mut self, place: Place) -> bool {
        let mut moved = false;
        while let Some(step) = self.step_of(place) {
            moved = true;
            self.perform_step(place, step);
        }
        moved
    }

    fn step_of(&mut self, place: Place) -> Option<NodeStep> {
        self.members[place.0].node.as_mut()?.poll_step()
    }

    fn perform_step(&mut self, place: Place, step: NodeStep) {
        let now = self.now();
        match step {
            NodeStep::Dial {
                dial,
                node,
                address,
            } => {
                let remote = address.to_string().parse().unwrap();
                let conn = self.begin_dial(place, remote, node, Protocol::Rpc);
                let node = self.members[place.0].node.as_mut().unwrap();
                node.handle_dialled(now, dial, Some(conn));
            }
            NodeStep::Call {
                conn,
                call,
                kind,
                payload,
            } => {
                let member = &mut self.members[place.0];
                let wire = member.wires.get_mut(&conn).unwrap();
                let made = (wire.conn.as_peer().unwrap()).call(now, call, kind, payload);
                if let Err(refused) = made {
                    let node = member.node.as_mut().unwrap();
                    node.handle_refused(now, conn, call, refused);
                }
            }
            NodeStep::Cancel { conn, call } => {
                self.peer_of(place, conn, |peer| peer.cancel(call));
            }
            NodeStep::Close(conn, reason) => {
                if let Some(wire) = self.members[place.0].wires.get_mut(&conn) {
                    wire.conn.close(now, &reason);
                }
            }
            NodeStep::Drain(conn, grace) => {
                self.peer_of(place, conn, |peer| peer.drain(now, grace));
            }
            NodeStep::Answered { call, outcome } => {
                let again = self.members[place.0].outcomes.insert(call, outcome);
                assert!(again.is_none(), "{call} is over twice");
            }
            NodeStep::Requested {
                conn,
                slot,
                payload,
                ..
            } => {
                self.members[place.0].executed.push(payload.clone());
                self.peer_of(place, conn, |peer| {
                    peer.answer(now, slot, payload).unwrap();
                });
            }
            NodeStep::GivenUp(..) | NodeStep::Reach(..) => {}
        }
    }
}

fn times(bed: &Bed, place: Place, body: &[u8]) -> usize {
    let executed = &bed.members[place.0].executed;
    executed.iter().filter(|done| done[..] == *body).count()
}

#[test]
fn both_nodes_dial_at_once_and_call_each_other() {
    for (seed, capabilities) in (1..).zip(BOTH) {
        let (mut bed, one, two) = Bed::two(seed, capabilities);
        bed.both(one, two, |path| path.loss = 20);
        bed.manage(one, &[(2, two)]);
        bed.manage(two, &[(1, one)]);
        let mut calls = Vec::new();
        for n in 0..200_u8 {
            calls.push((one, bed.ask_node(one, 2, RpcType::ReadIndex, &[n])));
            calls.push((two, bed.ask_node(two, 1, RpcType::ReadIndex, &[n])));
        }
        for (n, (place, call)) in calls.into_iter().enumerate() {
            let body = Bytes::copy_from_slice(&[u8::try_from(n / 2).unwrap()]);
            assert_eq!(bed.outcome_of(place, call), Ok(body));
        }
        for place in [one, two] {
            assert_eq!(bed.member(place).wires.len(), 2, "one each way");
        }
    }
}

#[test]
fn a_restart_of_the_peer_repeats_only_what_may_run_twice() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(3, capabilities);
        bed.manage(one, &[(2, two)]);
        let warm = bed.ask_node(one, 2, RpcType::Ping, b"warm");
        assert!(bed.outcome_of(one, warm).is_ok());
        let mut setup = bed.setup(2);
        setup.boot = 2;
        bed.restart(two, &setup);
        let read = bed.ask_node(one, 2, RpcType::ReadIndex, b"read");
        let write = bed.ask_node(one, 2, RpcType::DataPropose, b"write");
        assert_eq!(bed.outcome_of(one, read), Ok(Bytes::from_static(b"read")));
        let lost = Failure::Link {
            written: true,
            dead: true,
        };
        assert_eq!(bed.outcome_of(one, write), Err(CallError::Failed(lost)));
        assert_eq!(times(&bed, two, b"write"), 0, "it was never sent again");
        let again = bed.ask_node(one, 2, RpcType::DataPropose, b"again");
        assert!(bed.outcome_of(one, again).is_ok());
    }
}

#[test]
fn a_restart_of_the_caller_is_no_obstacle() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(4, capabilities);
        bed.manage(one, &[(2, two)]);
        for n in 0..70_u8 {
            let call = bed.ask_node(one, 2, RpcType::Ping, &[n]);
            assert!(bed.outcome_of(one, call).is_ok());
        }
        let mut setup = bed.setup(1);
        setup.boot = 2;
        bed.restart(one, &setup);
        bed.manage(one, &[(2, two)]);
        bed.member(one).outcomes.clear();
        let call = bed.ask_node(one, 2, RpcType::Ping, b"");
        assert!(bed.outcome_of(one, call).is_ok());
    }
}

#[test]
fn a_caller_whose_epoch_was_lost_is_heard_after_one_retry() {
    let (mut bed, one, two) = Bed::two(5, Capabilities::ALL);
    bed.manage(one, &[(2, two)]);
    let call = bed.ask_node(one, 2, RpcType::Ping, b"");
    assert!(bed.outcome_of(one, call).is_ok());
    let mut setup = bed.setup(1);
    setup.boot = 0;
    bed.restart(one, &setup);
    bed.manage(one, &[(2, two)]);
    bed.member(one).outcomes.clear();
    let call = bed.ask_node(one, 2, RpcType::DataPropose, b"once");
    assert!(bed.outcome_of(one, call).is_ok());
    assert_eq!(times(&bed, two, b"once"), 1);
}

#[test]
fn a_node_at_anothers_address_is_not_called() {
    let (mut bed, one, two) = Bed::two(6, Capabilities::ALL);
    bed.manage(one, &[(4, two)]);
    let call = bed.ask_node(one, 4, RpcType::Ping, b"x");
    let failed = CallError::Failed(Failure::Identity);
    assert_eq!(bed.outcome_of(one, call), Err(failed));
    assert!(bed.member(two).executed.is_empty());
}

#[test]
fn a_node_that_is_cut_off_is_reached_again_when_the_path_is_back() {
    let (mut bed, one, two) = Bed::two(7, Capabilities::ALL);
    bed.manage(one, &[(2, two)]);
    let call = bed.ask_node(one, 2, RpcType::Ping, b"");
    assert!(bed.outcome_of(one, call).is_ok());
    bed.both(one, two, |path| path.black_hole = true);
    let (call, begun) = (bed.ask_node(one, 2, RpcType::DataPropose, b"x"), bed.at());
    assert!(bed.outcome_of(one, call).is_err());
    assert!(bed.at() - begun < secs(5), "{:?}", bed.at() - begun);
    bed.both(one, two, |path| path.black_hole = false);
    let call = bed.ask_node(one, 2, RpcType::Ping, b"");
    assert!(bed.outcome_of(one, call).is_ok());
}

#[test]
fn nobody_at_an_address_costs_bounded_time_and_then_nothing() {
    let (mut bed, one, two) = Bed::two(8, Capabilities::ALL);
    bed.manage(one, &[(2, two)]);
    bed.both(one, two, |path| path.black_hole = true);
    let (call, begun) = (bed.ask_node(one, 2, RpcType::Ping, b""), bed.at());
    assert!(bed.outcome_of(one, call).is_err());
    assert!(bed.at() - begun < secs(20));
    let mut ends = Vec::new();
    for _ in 0..4 {
        let call = bed.ask_node(one, 2, RpcType::Ping, b"");
        ends.push(bed.outcome_of(one, call));
    }
    let begun = bed.at();
    let call = bed.ask_node(one, 2, RpcType::Ping, b"");
    let got = bed.outcome_of(one, call);
    assert!(matches!(got, Err(CallError::CircuitOpen { .. })), "{got:?}");
    assert_eq!(bed.at(), begun);
}

#[test]
fn a_node_that_stops_ends_what_runs_and_is_gone() {
    let (mut bed, one, two) = Bed::two(9, Capabilities::ALL);
    bed.manage(one, &[(2, two)]);
    bed.manage(two, &[(1, one)]);
    for (place, node) in [(one, 2), (two, 1)] {
        let call = bed.ask_node(place, node, RpcType::Ping, b"");
        assert!(bed.outcome_of(place, call).is_ok());
    }
    let call = bed.ask_node(one, 2, RpcType::Ping, b"last");
    bed.member(two).node.as_mut().unwrap().stop(RPC_DRAIN_GRACE);
    bed.drain(two);
    let stopped = |bed: &Bed| bed.members[two.0].node.as_ref().unwrap().is_stopped();
    assert!(bed.run_until(Duration::from_millis(2_100), stopped));
    let _either_way = bed.outcome_of(one, call);
}

/// A few numbers that a seed gives (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Whatever paths and processes do, each call has one outcome in bounded time, none that takes effect is executed twice,
/// and what was answered was executed. With the faults over, all is well again.
#[test]
fn no_faults_make_a_proposal_take_effect_twice() {
    for seed in 1..=12 {
        let mut dice = Dice(seed);
        let mut bed = Bed::new(seed);
        let places: Vec<Place> = (1..=3)
            .map(|id| {
                let setup = bed.setup(id);
                bed.add(setup)
            })
            .collect();
        let (one, others) = (places[0], [(2, places[1]), (3, places[2])]);
        bed.manage(one, &others);
        let mut calls = Vec::new();
        let mut boots = 1;
        for n in 0..150_u32 {
            let (id, other) = others[usize::try_from(dice.below(2)).unwrap()];
            match dice.below(12) {
                // Answers are lost, of calls that were executed.
                0 => {
                    let (from, to) = (bed.addr(other), bed.addr(one));
                    bed.net.path(from, to).black_hole = true;
                }
                6 => bed.both(one, other, |path| path.black_hole = true),
                1..=3 => bed.both(one, other, |path| path.black_hole = false),
                4 => {
                    let loss = dice.below(300);
                    bed.both(one, other, |path| path.loss = loss);
                }
                5 => {
                    boots += 1;
                    let mut setup = bed.setup(id);
                    setup.boot = boots;
                    bed.restart(other, &setup);
                }
                _ => {
                    let body = n.to_le_bytes();
                    let kind = match dice.below(2) {
                        0 => RpcType::Ping,
                        _ => RpcType::DataPropose,
                    };
                    let call = bed.ask_node(one, id, kind, &body);
                    calls.push((call, kind, body, other));
                }
            }
            let longest = [30, 700][usize::try_from(dice.below(2)).unwrap()];
            bed.run_for(Duration::from_millis(dice.below(longest)));
        }
        for (_, other) in others {
            bed.both(one, other, |path| {
                path.black_hole = false;
                path.loss = 0;
            });
        }
        for (call, kind, body, other) in calls {
            let outcome = bed.outcome_of(one, call);
            let executed = times(&bed, other, &body);
            assert!(kind == RpcType::Ping || executed <= 1, "{seed}: {executed}");
            if let Ok(answer) = outcome {
                assert_eq!(&answer[..], body);
                assert!(executed >= 1, "{seed}: answered and not executed");
            }
        }
        // The pause of a breaker, at most.
        bed.run_for(secs(11));
        for (id, _) in others {
            let call = bed.ask_node(one, id, RpcType::DataPropose, b"at last");
            assert!(bed.outcome_of(one, call).is_ok(), "{seed}");
        }
    }
}
