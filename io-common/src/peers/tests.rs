//! Whole nodes in virtual time.

mod catalogue;

use std::{future::Future, net::SocketAddr, pin::pin, task::Poll, time::Duration};

use adit_proto_core::{
    close::{CloseReason, Closed, PeerClose},
    gateway::{AttemptError, dispatch::AgentEvent},
    id::{AgentId, AttemptId, ConnId, SessionId},
    output::Event,
    peer::{
        catalogue::Holding,
        forward::{Forward, Status},
        identity::not_after,
        node::CallError,
        retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;
use futures_channel::oneshot;
use uuid::Uuid;

use super::{
    PeerCommand, PeersInput,
    bed::{Bed, cx, elsewhere, id},
};
use crate::{
    commands::Command,
    gateway::{FromConnection, PeerCarriage},
};

#[test]
fn a_call_whose_connection_was_abandoned_may_have_been_executed() {
    let mut bed = Bed::new(2, &[]);
    let handle = bed.nodes[0].handle.clone();
    for (kind, again) in [(RpcType::DataPropose, false), (RpcType::ReadIndex, true)] {
        let mut call = pin!(handle.call(id(1), kind, Bytes::from_static(b"x")));
        assert!(call.as_mut().poll(&mut cx()).is_pending());
        bed.settle();
        let Poll::Ready(Some(request)) = bed.nodes[1].requests.poll_next(&mut cx()) else {
            panic!("it was asked");
        };
        let conn = bed.nodes[0].core.pool.connection(id(1)).unwrap();
        bed.abandon(0, conn);
        bed.settle();
        let outcome = call.as_mut().poll(&mut cx());
        assert_eq!(outcome.is_pending(), again, "{kind:?}: {outcome:?}");
        if let Poll::Ready(outcome) = outcome {
            let failure = Failure::Link {
                written: true,
                dead: true,
            };
            assert_eq!(outcome, Err(CallError::Failed(failure)));
        }
        request.responder.fail();
        // The former end is lost to the peer in time.
        bed.pass(Duration::from_secs(60));
    }
}

#[test]
fn why_a_call_has_no_answer_is_listed_until_one_has() {
    let mut bed = Bed::new(2, &[]);
    let handle = bed.nodes[0].handle.clone();
    for (is_answered, wanted) in [(false, true), (true, false)] {
        let mut call = pin!(handle.call(id(1), RpcType::DataPropose, Bytes::new()));
        assert!(call.as_mut().poll(&mut cx()).is_pending());
        bed.settle();
        let Poll::Ready(Some(request)) = bed.nodes[1].requests.poll_next(&mut cx()) else {
            panic!("it was asked");
        };
        match is_answered {
            true => request.responder.answer(Bytes::new()),
            false => request.responder.fail(),
        }
        bed.pass(Duration::from_secs(1));
        assert!(call.as_mut().poll(&mut cx()).is_ready());
        let (reply, mut rows) = oneshot::channel();
        bed.tell(0, PeersInput::List(reply));
        let rows = rows.try_recv().unwrap().unwrap();
        assert_eq!(rows[0].0.refusal.is_some(), wanted, "{:?}", rows[0].0);
    }
}

#[test]
fn the_end_of_a_peers_certificate_is_listed_while_it_is_connected() {
    let mut bed = Bed::new(2, &[]);
    let handle = bed.nodes[0].handle.clone();
    for is_connected in [false, true] {
        let mut list = pin!(handle.list());
        assert!(list.as_mut().poll(&mut cx()).is_pending());
        bed.settle();
        let Poll::Ready(Ok(rows)) = list.poll(&mut cx()) else {
            panic!("it is listed at once");
        };
        let end = is_connected.then(|| not_after(&bed.pairs[1].0).unwrap());
        assert_eq!(rows[0].certificate_end, end);
        handle.warm(id(1));
        bed.pass(Duration::from_secs(1));
    }
}

#[test]
fn gateways_of_which_one_has_a_wrong_number_seldom_connect_and_say_why() {
    let mut bed = Bed::mistaken(2, &[0, 1], &[(0, 9)]);
    bed.pass(Duration::from_secs(30));
    let carried = |bed: &Bed| [0, 1].map(|nth: usize| bed.nodes[nth].host.carried.len());
    let before = carried(&bed);
    bed.pass(Duration::from_secs(600));
    for (nth, (before, after)) in before.into_iter().zip(carried(&bed)).enumerate() {
        // Each dials once for a pause of its breaker, which is 10 s long.
        let more = after - before;
        assert!(more <= 2 * 60 + 2, "{nth}: {more}");
        let (reply, mut rows) = oneshot::channel();
        bed.tell(nth, PeersInput::List(reply));
        let row = &rows.try_recv().unwrap().unwrap()[0].0;
        assert!(row.refusal.is_some() && row.status.failures >= 5, "{row:?}");
    }
}

#[test]
fn a_node_that_is_no_gateway_takes_no_sessions_and_keeps_no_connection_for_them() {
    let mut bed = Bed::new(2, &[1]);
    let conn = bed.dial_forward(1, 0);
    bed.settle();
    let way = carriage(&mut bed, 1, conn);
    let refused = open(&mut bed, &way, 7);
    assert_eq!(
        refused,
        [AgentEvent::Failed {
            attempt: AttemptId(7),
            cause: AttemptError::Refused("this node takes no sessions".to_owned()),
        }]
    );
    bed.nodes[0].handle.stop(Duration::from_secs(600));
    bed.pass(Duration::from_secs(10));
    assert!(bed.nodes[0].host.workers.is_empty() && bed.nodes[0].host.stopping);
    assert!(told(&mut bed, 1).contains(&AgentEvent::Closed));
}

#[test]
fn a_peer_leaves_only_where_it_has_answered_before() {
    // One that does not believe this node closes with the same code.
    for has_answered in [false, true] {
        let (mut bed, _conn) = forwarding();
        bed.nodes[1].is_deaf = !has_answered;
        let conn = bed.nodes[0].core.pool.connection(id(1)).unwrap();
        bed.abandon(0, conn);
        bed.pass(Duration::from_millis(1_500));
        let conn = bed.nodes[0].core.pool.connection(id(1)).unwrap();
        let holds = |bed: &Bed| {
            let told = bed.nodes[0].core.told.as_ref().unwrap();
            told.machine.held_by(id(1)).is_some()
        };
        assert!(holds(&bed));
        let closed = Closed::ByPeer(PeerClose {
            code: 0,
            reason: "node shutdown".to_owned(),
        });
        bed.tell(0, PeersInput::Event(conn, Event::Closed(closed)));
        assert_eq!(holds(&bed), !has_answered);
    }
}

#[test]
fn sessions_are_opened_refused_and_given_up() {
    let (mut bed, conn) = forwarding();
    let way = carriage(&mut bed, 0, conn);
    assert!(open(&mut bed, &way, 1).is_empty());
    assert!(open(&mut bed, &way, 2).is_empty());
    let asked = std::mem::take(&mut bed.nodes[1].gateway().forwarded);
    let [first, second] = &asked[..] else {
        panic!("two sessions: {asked:?}");
    };
    assert_eq!((first.forward.from, first.forward.to), (id(0), id(1)));
    assert_eq!(first.remote.to_string(), "10.0.0.1:4434");
    // The first is refused there, the second given up here.
    let refuse = PeerCommand::RefuseOpen(first.place.1, Status::NoRoute, "no agent".into());
    first.commands.push_or_stop(Command::Role(refuse));
    let give_up = PeerCommand::CancelOpen(AttemptId(2));
    way.commands.push_or_stop(Command::Role(give_up));
    bed.settle();
    let cause = AttemptError::Refused("no agent".to_owned());
    let attempt = AttemptId(1);
    assert_eq!(told(&mut bed, 0), [AgentEvent::Failed { attempt, cause }]);
    assert_eq!(bed.nodes[1].gateway().given_up, [second.place]);
    // What is decided is given up no more.
    assert!(open(&mut bed, &way, 3).is_empty());
    way.commands
        .push_or_stop(Command::Close(CloseReason::NodeStopping));
    bed.settle();
    let third = bed.nodes[1].gateway().forwarded[0].place;
    assert_eq!(bed.nodes[1].gateway().given_up, [second.place, third]);
    assert!(told(&mut bed, 0).contains(&AgentEvent::Closed));
    // The gateway of the peer has the other ends of its sessions, and is told nothing else.
    assert!(bed.nodes[1].gateway().told.is_empty());
}

#[test]
fn one_connection_is_kept_to_each_peer_that_holds_anything() {
    let (mut bed, first) = forwarding();
    assert_eq!(bed.nodes[0].gateway().carriages.len(), 1);
    assert!(
        bed.nodes[1].gateway().carriages.is_empty(),
        "the other way holds nothing"
    );
    carriage(&mut bed, 0, first)
        .commands
        .push_or_stop(Command::Close(CloseReason::NodeStopping));
    bed.pass(Duration::from_millis(100));
    let [_, (second, _)] = bed.nodes[0].gateway().carriages[..] else {
        panic!("it is dialled again at once");
    };
    assert_ne!(first, second);
    // Nothing is dialled for a peer that holds nothing any more.
    bed.nodes[1].gateway().holding = Holding::default();
    bed.tell(1, PeersInput::HoldingChanged);
    bed.pass(Duration::from_millis(500));
    carriage(&mut bed, 0, second)
        .commands
        .push_or_stop(Command::Close(CloseReason::NodeStopping));
    bed.pass(Duration::from_secs(10));
    assert_eq!(bed.nodes[0].gateway().carriages.len(), 2);
}

#[test]
fn new_sessions_go_to_a_peers_new_address_at_once_and_others_stay_where_they_are() {
    let (mut bed, old) = forwarding();
    let way = carriage(&mut bed, 0, old);
    assert!(open(&mut bed, &way, 1).is_empty());
    let moved = elsewhere(bed.nodes[1].addr);
    let (reply, _done) = oneshot::channel();
    bed.tell(0, PeersInput::SetPeers(vec![(id(1), moved.into())], reply));
    bed.settle();
    // The gateway gives it no further session.
    assert_eq!(told(&mut bed, 0), [AgentEvent::Suspect]);
    bed.pass(Duration::from_secs(1));
    let [_, (new, _)] = bed.nodes[0].gateway().carriages[..] else {
        panic!("it is dialled at once");
    };
    let carried = |conn| move |(id, _): &&(ConnId, SocketAddr)| *id == conn;
    let remote = bed.nodes[0].host.carried.iter().find(carried(new)).unwrap();
    assert_eq!(remote.1, moved);
    // However long its session lasts, the former connection stays.
    bed.pass(Duration::from_millis(1_500));
    let [asked] = &std::mem::take(&mut bed.nodes[1].gateway().forwarded)[..] else {
        panic!("one session");
    };
    let refuse = PeerCommand::RefuseOpen(asked.place.1, Status::NoRoute, "no agent".into());
    asked.commands.push_or_stop(Command::Role(refuse));
    bed.settle();
    let cause = AttemptError::Refused("no agent".to_owned());
    let attempt = AttemptId(1);
    assert_eq!(told(&mut bed, 0), [AgentEvent::Failed { attempt, cause }]);
    bed.pass(Duration::from_secs(3));
    assert_eq!(told(&mut bed, 0), [AgentEvent::Closed]);
    assert!(bed.nodes[0].host.workers.contains_key(&new));
}

#[test]
fn a_connection_to_a_former_address_gets_no_session_though_its_path_recovers() {
    let (mut bed, old) = forwarding();
    let way = carriage(&mut bed, 0, old);
    assert!(open(&mut bed, &way, 1).is_empty());
    let (reply, _done) = oneshot::channel();
    let moved = elsewhere(bed.nodes[1].addr).into();
    bed.tell(0, PeersInput::SetPeers(vec![(id(1), moved)], reply));
    bed.is_cut = true;
    bed.pass(Duration::from_millis(3_500));
    bed.is_cut = false;
    bed.pass(Duration::from_secs(1));
    let told = std::mem::take(&mut bed.nodes[0].gateway().told);
    let of_it = |event: &AgentEvent| {
        let is_it = |told: &&(ConnId, FromConnection)| matches!(told, (conn, FromConnection::Event(of)) if *conn == old && of == event);
        told.iter().filter(is_it).count()
    };
    assert_eq!(of_it(&AgentEvent::Suspect), 2, "moved, and stalled");
    assert_eq!(of_it(&AgentEvent::Recovered), 0);
    assert!(bed.nodes[0].host.workers.contains_key(&old));
}

#[test]
fn a_stop_ends_connections_for_sessions_that_carry_none() {
    let (mut bed, _conn) = forwarding();
    for node in &bed.nodes {
        node.handle.stop(Duration::from_secs(1));
    }
    bed.pass(Duration::from_secs(10));
    assert!(bed.nodes.iter().all(|node| node.host.workers.is_empty()));
}

#[test]
fn a_node_that_stops_waits_for_no_dial() {
    let (mut bed, conn) = forwarding();
    let handle = bed.nodes[0].handle.clone();
    let mut call = pin!(handle.call(id(1), RpcType::ReadIndex, Bytes::new()));
    assert!(call.as_mut().poll(&mut cx()).is_pending());
    bed.settle();
    // The call keeps the peer's connection for the grace, and the one for sessions ends before it.
    handle.stop(Duration::from_secs(2));
    bed.settle();
    bed.command(0, conn, Command::Close(CloseReason::Superseded));
    bed.pass(Duration::from_secs(10));
    assert!(bed.nodes[0].host.workers.is_empty());
}

/// Two gateways, of which the second holds an agent, and the connection that the first has made for its sessions.
fn forwarding() -> (Bed, ConnId) {
    let mut bed = Bed::new(2, &[0, 1]);
    bed.nodes[1].gateway().holding = holding(1);
    bed.tell(1, PeersInput::HoldingChanged);
    bed.pass(Duration::from_secs(1));
    let (conn, _) = bed.nodes[0].gateway().carriages[0];
    (bed, conn)
}

fn holding(agent: u128) -> Holding {
    Holding {
        agents: vec![AgentId(Uuid::from_u128(agent))],
        subnets: Vec::new(),
        domains: Vec::new(),
    }
}

fn carriage(bed: &mut Bed, nth: usize, conn: ConnId) -> PeerCarriage {
    let carriages = &bed.nodes[nth].gateway().carriages;
    let found = carriages.iter().find(|(id, _)| *id == conn);
    found.unwrap().1.clone()
}

/// Has a session opened; gives what is told at once.
fn open(bed: &mut Bed, way: &PeerCarriage, number: u64) -> Vec<AgentEvent> {
    let forward = Forward {
        from: way.from,
        to: way.to,
        session: SessionId(Uuid::from_u128(number.into())),
        agent: None,
        target: "10.9.9.9:80".parse().unwrap(),
        origin: String::new().into(),
    };
    let open = PeerCommand::Open(AttemptId(number), Box::new(forward));
    way.commands.push_or_stop(Command::Role(open));
    // Packets are paced, and acknowledgements late.
    bed.pass(Duration::from_millis(100));
    let from = usize::try_from(way.from.0).unwrap() - 1;
    told(bed, from)
}

/// What the gateway of a node was told of its connections.
fn told(bed: &mut Bed, nth: usize) -> Vec<AgentEvent> {
    let told = std::mem::take(&mut bed.nodes[nth].gateway().told);
    let event = |(_, told)| match told {
        FromConnection::Event(event) => Some(event),
        FromConnection::Up(_)
        | FromConnection::Flushing(_)
        | FromConnection::SessionOver { .. } => None,
    };
    told.into_iter().filter_map(event).collect()
}
