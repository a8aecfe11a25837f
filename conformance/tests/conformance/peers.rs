//! Calls between gateways: with either driver at either end.

use std::{
    net::Ipv4Addr,
    panic::resume_unwind,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use adit_proto_core::{
    id::AgentId,
    limits::RPC_CALLS_PER_CONNECTION,
    peer::{
        NodeId,
        catalogue::Holding,
        hello::VersionRange,
        key::{KeyError, KeyId, KeyRing},
        node::CallError,
        refusal::Refusal,
        retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    MACHINE,
    bed::{
        cluster::{Cluster, Kept, Member, Setup, record, ring, secret},
        holder::Holder,
        wait::{RUNTIME, SOON, block_on, until},
    },
    compare,
    driver::Pairing,
};

#[test]
fn a_hundred_calls_go_each_way() {
    conform(|cluster| {
        let (one, two) = cluster.two();
        for n in 0..100_u8 {
            assert_eq!(one.ask(2, &[n, 1]).unwrap(), [n, 1].as_slice());
            assert_eq!(two.ask(1, &[n, 2]).unwrap(), [n, 2].as_slice());
        }
        let large = Bytes::from(vec![7; 1 << 20]);
        let answer = one.ask_for(2, RpcType::Execute, large.clone());
        assert!(answer.unwrap() == large);
        for (name, member) in [("one", &one), ("two", &two)] {
            let rows = block_on(member.handle.list()).unwrap();
            let [row] = rows.as_slice() else {
                panic!("one peer: {rows:?}");
            };
            assert!(row.rtt.is_some() && row.remote.is_some());
            cluster.note(&format!(
                "{name}: {}, breaker {:?}, agreed {:?}, dialled by it {}, {:?}",
                row.status.node, row.status.breaker, row.agreed, row.calls_us, row.calls
            ));
        }
        assert!(one.stop(Duration::ZERO) && two.stop(Duration::ZERO));
    });
}

#[test]
fn who_does_not_belong_is_not_heard() {
    conform(|cluster| {
        let one = cluster.start(cluster.setup(1));
        let mut unknown = cluster.setup(2);
        unknown.pair = cluster.issue();
        let mut other_key = cluster.setup(2);
        other_key.ring = ring(4);
        let mut later = cluster.setup(2);
        later.change = |config| config.versions = VersionRange { min: 7, max: 9 };
        let cases = [
            ("a certificate that is not its own", unknown),
            ("another key", other_key),
            ("no common version", later),
        ];
        for (what, setup) in cases {
            let two = cluster.start(setup);
            two.know(&[(1, &one)]);
            one.know(&[(2, &two)]);
            let error = two.ask(1, b"?").unwrap_err();
            cluster.note(&format!("{what}, it calls: {error}"));
            let error = one.ask(2, b"?").unwrap_err();
            cluster.note(&format!("{what}, it is called: {error}"));
            // A former process of that id must leave nothing behind that counts against the next one.
            one.know(&[]);
            two.kill();
        }
        let two = cluster.start(cluster.setup(2));
        two.know(&[(3, &one)]);
        let error = two.ask(3, b"?").unwrap_err();
        cluster.note(&format!("another id: {error}"));
        two.know(&[(1, &one)]);
        cluster.note(&format!("the right one: {:?}", two.ask(1, b"!")));
    });
}

#[test]
fn a_slow_request_holds_up_no_other() {
    conform(|cluster| {
        let kept = Kept::default();
        let one = cluster.start(keeping(cluster, 1, &kept, b"slow"));
        let two = cluster.start(cluster.setup(2));
        two.know(&[(1, &one)]);
        let slow = call(&two, 1, b"slow");
        until("the slow request runs", || (kept.len() == 1).then_some(()));
        for n in 0..100_u8 {
            assert_eq!(two.ask(1, &[n]).unwrap(), [n].as_slice());
        }
        assert!(!slow.is_finished());
        answer_all(&kept);
        cluster.note(&format!("{:?}", outcome(slow)));
    });
}

#[test]
fn calls_beyond_a_connections_streams_wait() {
    conform(|cluster| {
        let kept = Kept::default();
        let one = cluster.start(keeping(cluster, 1, &kept, b""));
        let two = cluster.start(cluster.setup(2));
        two.know(&[(1, &one)]);
        let calls: Vec<_> = (0..300_u16)
            .map(|n| call(&two, 1, &n.to_le_bytes()))
            .collect();
        until("all streams are in use", || {
            (kept.len() == STREAMS).then_some(())
        });
        let waiting = block_on(two.handle.list()).unwrap()[0].status.waiting;
        cluster.note(&format!("run {}, wait {waiting}", kept.len()));
        until("all are over", || {
            answer_all(&kept);
            calls.iter().all(JoinHandle::is_finished).then_some(())
        });
        for (n, call) in (0..300_u16).zip(calls) {
            assert_eq!(outcome(call).unwrap(), n.to_le_bytes().as_slice());
        }
    });
}

#[test]
fn a_peer_that_takes_nothing_holds_up_no_other() {
    conform(|cluster| {
        let mut setup = cluster.setup(3);
        setup.app = None;
        let mut three = cluster.start(setup);
        let one = cluster.start(cluster.setup(1));
        let two = cluster.start(cluster.setup(2));
        two.know(&[(1, &one), (3, &three)]);
        let calls: Vec<_> = (0..300).map(|_| call(&two, 3, b"?")).collect();
        for n in 0..100_u8 {
            assert_eq!(two.ask(1, &[n]).unwrap(), [n].as_slice());
        }
        // What nobody will take is refused, and never was executed.
        three.untaken = None;
        let refused = |outcome: &Result<Bytes, CallError>| {
            let error = outcome.as_ref().unwrap_err();
            matches!(
                error,
                CallError::Failed(Failure::Refused(Refusal::Overload { .. }))
            )
        };
        let all = calls
            .into_iter()
            .map(outcome)
            .all(|outcome| refused(&outcome));
        cluster.note(&format!("all refused: {all}"));
    });
}

#[test]
fn a_peer_that_was_killed_is_called_again() {
    conform(|cluster| {
        let (one, two) = cluster.two();
        two.ask(1, b"before").unwrap();
        let mut setup = cluster.setup(1);
        setup.listen = one.kill();
        setup.boot = 2;
        let one = cluster.start(setup);
        let begun = Instant::now();
        let answer = two.ask(1, b"after");
        assert!(begun.elapsed() < BOUNDED, "{:?}", begun.elapsed());
        cluster.note(&format!("{answer:?}"));
        one.know(&[(2, &two)]);
        cluster.note(&format!("{:?}", one.ask(2, b"back")));
    });
}

#[test]
fn a_caller_that_starts_again_is_heard() {
    conform(|cluster| {
        let (one, two) = cluster.two();
        for _ in 0..50 {
            two.ask(1, b"first").unwrap();
        }
        let mut setup = cluster.setup(2);
        setup.listen = two.kill();
        setup.boot = 2;
        let two = cluster.start(setup);
        two.know(&[(1, &one)]);
        for _ in 0..50 {
            two.ask(1, b"second").unwrap();
        }
        cluster.note(&format!("{:?}", two.ask(1, b"second")));
        let begun = Instant::now();
        cluster.note(&format!("{:?}", one.ask(2, b"back")));
        assert!(begun.elapsed() < BOUNDED, "{:?}", begun.elapsed());
    });
}

#[test]
fn keys_are_exchanged_under_traffic() {
    conform(|cluster| {
        let (one, two) = cluster.two();
        let over = Arc::new(AtomicBool::new(false));
        let traffic: Vec<_> = [(&one, 2), (&two, 1)]
            .into_iter()
            .flat_map(|pair| [pair; 4])
            .map(|(member, node)| {
                let (handle, over) = (member.handle.clone(), Arc::clone(&over));
                RUNTIME.spawn(async move {
                    let mut calls = 0_u32;
                    while !over.load(Ordering::Relaxed) || calls < 50 {
                        let body = Bytes::from_static(b"x");
                        let answer = handle.call(NodeId(node), RpcType::Execute, body).await;
                        answer.unwrap();
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        let all = [&one, &two];
        let answered = || {
            let rows = all.map(|m| block_on(m.handle.list()).unwrap()[0].calls.answered);
            rows.into_iter().min().unwrap()
        };
        let some_more = || {
            let before = answered();
            until("calls go on", || (answered() > before + 20).then_some(()));
        };
        for generation in 2..6_u8 {
            let (former, new) = (KeyId(generation - 1), KeyId(generation));
            let steps: [&Exchange<'_>; 3] = [
                &|ring| ring.add(new, secret(10 + generation)),
                &|ring| ring.promote(new),
                &|ring| ring.retire(former),
            ];
            // Each is over on all nodes before the next begins.
            for step in steps {
                for member in all {
                    member.handle.change_keys(step).unwrap();
                }
                some_more();
            }
        }
        over.store(true, Ordering::Relaxed);
        for calls in traffic {
            block_on(calls).unwrap();
        }
        cluster.note("no call failed");
    });
}

#[test]
fn a_drain_lets_run_what_runs_and_takes_nothing_new() {
    conform(|cluster| {
        let kept = Kept::default();
        let one = cluster.start(keeping(cluster, 1, &kept, b"slow"));
        let two = cluster.start(cluster.setup(2));
        two.know(&[(1, &one)]);
        let slow = call(&two, 1, b"slow");
        until("it runs", || (kept.len() == 1).then_some(()));
        one.handle.stop(SOON);
        assert_eq!(
            one.ask(2, b"no more"),
            Err(CallError::Stopping),
            "it is told at once"
        );
        assert!(!slow.is_finished());
        answer_all(&kept);
        cluster.note(&format!("what ran: {:?}", outcome(slow)));
        cluster.note(&format!("in time: {}", one.stop(Duration::ZERO)));
    });
}

#[test]
fn a_drain_ends_with_its_grace() {
    conform(|cluster| {
        let kept = Kept::default();
        let one = cluster.start(keeping(cluster, 1, &kept, b"slow"));
        let two = cluster.start(cluster.setup(2));
        two.know(&[(1, &one)]);
        let body = Bytes::from_static(b"slow");
        let handle = two.handle;
        let slow = RUNTIME.spawn(async move {
            let node = NodeId(1);
            handle.call(node, RpcType::Execute, body).await
        });
        until("it runs", || (kept.len() == 1).then_some(()));
        let in_time = one.stop(Duration::from_millis(100));
        cluster.note(&format!(
            "in time: {in_time}, the call: {:?}",
            outcome(slow)
        ));
    });
}

#[test]
fn peers_that_are_dropped_stop() {
    conform(|cluster| {
        let (one, two) = cluster.two();
        two.ask(1, b"before").unwrap();
        one.ask(2, b"before").unwrap();
        let connection = || block_on(two.handle.list()).unwrap()[0].status.connection;
        assert!(connection().is_some());
        one.forget();
        // It was told, or else would find out seconds later.
        until("it is closed", || connection().is_none().then_some(()));
        let ended = two.stop(Duration::ZERO);
        cluster.note(&format!("in time: {ended}"));
    });
}

#[test]
fn a_node_that_is_gone_is_let_in_no_more() {
    conform(|cluster| {
        let (one, two) = cluster.two();
        two.ask(1, b"before").unwrap();
        let setup = cluster.setup(1);
        let mut fewer = cluster.topology.clone();
        fewer.remove(NodeId(2));
        let without = cluster.security(1, &setup.pair, &fewer);
        block_on(one.handle.set_security(without)).unwrap();
        one.know(&[]);
        let connection = || block_on(two.handle.list()).unwrap()[0].status.connection;
        until("it is closed", || connection().is_none().then_some(()));
        let error = two.ask_for(1, RpcType::Execute, Bytes::new()).unwrap_err();
        cluster.note(&format!("gone: {error}"));
        cluster.note(&format!("not called: {}", one.ask(2, b"?").unwrap_err()));
        // It comes back with another key.
        let pair = cluster.issue();
        cluster.topology.set(record(2, &pair)).unwrap();
        let with = cluster.security(1, &setup.pair, &cluster.topology);
        block_on(one.handle.set_security(with)).unwrap();
        let own = cluster.security(2, &pair, &cluster.topology);
        block_on(two.handle.set_security(own)).unwrap();
        one.know(&[(2, &two)]);
        cluster.note(&format!("back: {:?}", two.ask(1, b"!")));
        cluster.note(&format!("called: {:?}", one.ask(2, b"!")));
    });
}

#[test]
fn gateways_tell_each_other_what_they_hold() {
    conform(|cluster| {
        let (holder, asker) = (Holder::new(), Holder::new());
        let start = |cluster: &Cluster, id, boot, listen, holder: &Holder| {
            let mut setup = cluster.setup(id);
            (setup.boot, setup.listen) = (boot, listen);
            setup.gateway = Some(holder.handle());
            cluster.start(setup)
        };
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        holder.set(holding(&[7, 8], "10.0.0.0/8"));
        let one = start(cluster, 1, 1, any, &holder);
        let two = start(cluster, 2, 1, any, &asker);
        one.know(&[(2, &two)]);
        two.know(&[(1, &one)]);
        asker.see(1, &holding(&[7, 8], "10.0.0.0/8"));
        cluster.note("nobody called, and it is told");
        holder.set(holding(&[8], "10.1.0.0/16"));
        asker.see(1, &holding(&[8], "10.1.0.0/16"));
        cluster.note("a change is told");
        let addr = one.kill();
        asker.see(1, &Holding::default());
        cluster.note("what is not repeated is forgotten");
        let one = start(cluster, 1, 2, addr, &holder);
        one.know(&[(2, &two)]);
        asker.see(1, &holding(&[8], "10.1.0.0/16"));
        cluster.note("a new start is told");
        assert!(one.stop(Duration::ZERO));
        asker.see(1, &Holding::default());
        cluster.note("one that stops is forgotten");
    });
}

#[test]
fn a_call_that_is_given_up_leaves_its_place() {
    conform(|cluster| {
        let kept = Kept::default();
        let one = cluster.start(keeping(cluster, 1, &kept, b"slow"));
        let two = cluster.start(cluster.setup(2));
        two.know(&[(1, &one)]);
        let calls: Vec<_> = (0..STREAMS).map(|_| call(&two, 1, b"slow")).collect();
        until("all run", || (kept.len() == STREAMS).then_some(()));
        for call in calls {
            call.abort();
        }
        cluster.note(&format!("{:?}", two.ask(1, b"next")));
        // Answers that nobody waits for.
        answer_all(&kept);
        cluster.note(&format!("{:?}", two.ask(1, b"and next")));
    });
}

/// One step of an exchange of keys.
type Exchange<'a> = dyn Fn(&mut KeyRing) -> Result<(), KeyError> + 'a;

/// Calls that a fresh connection carries at a time: the engine gives the credit of the first stream back with others.
const STREAMS: usize = RPC_CALLS_PER_CONNECTION - 1;
/// What a restart, or a loss, may cost a call.
const BOUNDED: Duration = Duration::from_secs(6);

fn holding(agents: &[u128], subnet: &str) -> Holding {
    let agents = agents.iter().map(|n| AgentId(Uuid::from_u128(*n)));
    Holding {
        agents: agents.collect(),
        subnets: vec![subnet.parse().unwrap()],
        domains: Vec::new(),
    }
}

/// A member that keeps requests that begin so, and answers others with what they ask.
fn keeping(cluster: &Cluster, id: u64, kept: &Kept, which: &'static [u8]) -> Setup {
    let kept = kept.clone();
    let mut setup = cluster.setup(id);
    setup.app = Some(Box::new(move |request| {
        match request.payload.starts_with(which) {
            true => kept.keep(request),
            false => request.responder.answer(request.payload),
        }
    }));
    setup
}

fn answer_all(kept: &Kept) {
    for request in kept.take() {
        request.responder.answer(request.payload);
    }
}

/// A call that is under way.
fn call(member: &Member, node: u64, body: &[u8]) -> JoinHandle<Result<Bytes, CallError>> {
    let (handle, body) = (member.handle.clone(), Bytes::copy_from_slice(body));
    RUNTIME.spawn(async move { handle.call(NodeId(node), RpcType::ReadIndex, body).await })
}

fn outcome(call: JoinHandle<Result<Bytes, CallError>>) -> Result<Bytes, CallError> {
    block_on(call).unwrap()
}

/// Stops all of them, which is told to none of the others' users.
pub(crate) fn stop(members: [Member; 2]) {
    assert!(members.map(|member| member.stop(Duration::ZERO)) == [true; 2]);
}

/// Has every pairing carry a scenario out, side by side, and compares what was seen.
pub(crate) fn conform(scenario: fn(&mut Cluster)) {
    let _beside_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let seen = thread::scope(|scope| {
        let begun = Pairing::ALL.map(|pairing| {
            let thread = thread::Builder::new().name(pairing.name());
            let run = thread.spawn_scoped(scope, move || {
                let mut cluster = Cluster::new(pairing);
                scenario(&mut cluster);
                cluster.seen
            });
            (pairing, run.unwrap())
        });
        begun.map(|(pairing, run)| match run.join() {
            Ok(seen) => (pairing, seen.into()),
            Err(panic) => resume_unwind(panic),
        })
    });
    compare(&seen);
}
