//! What gateways tell each other of what they hold.

use std::sync::atomic::Ordering;

use adit_proto_core::{
    id::Slot,
    output::Event,
    peer::{
        body::Body,
        capabilities::Capabilities,
        catalogue::{Announcement, News, Received, Stamp},
        interest::Interest,
    },
};

use super::{
    super::{Request, Responder, bed::all},
    *,
};
use crate::{
    commands::Commands,
    handoff::{Receiver, handoff},
};

#[test]
fn a_peer_is_told_one_whole_at_a_time() {
    let mut bed = Bed::new(2, &[0, 1]);
    bed.pass(Duration::from_millis(1_500));
    bed.nodes[1].is_deaf = true;
    let pool = |bed: &Bed| bed.nodes[0].core.pool.calls();
    for n in 0..5 {
        let conn = bed.nodes[0].core.pool.connection(id(1)).unwrap();
        bed.nodes[0].gateway().holding = holding(n);
        bed.tell(0, PeersInput::HoldingChanged);
        // Its path stalls and recovers, and it is told everything anew.
        bed.tell(0, PeersInput::Event(conn, Event::PathSuspect));
        bed.tell(0, PeersInput::Event(conn, Event::PathRecovered));
        bed.pass(Duration::from_millis(300));
        assert_eq!(pool(&bed), 1, "{n}");
    }
    bed.nodes[1].is_deaf = false;
    bed.pass(Duration::from_millis(500));
    assert_eq!(pool(&bed), 0);
    assert_eq!(bed.nodes[1].gateway().peers[&id(0)], holding(4));
}

#[test]
fn an_announcement_that_was_given_up_while_it_waited_has_no_effect() {
    let mut bed = Bed::new(2, &[1]);
    for (is_given_up, agent) in [(true, 1), (false, 2)] {
        let (told, way) = announcement(0, 1, holding(agent));
        if is_given_up {
            told.interest.end();
        }
        bed.tell(1, PeersInput::Told(told));
        bed.settle();
        let told = bed.nodes[1].gateway().peers.get(&id(0)).cloned();
        assert_eq!(told, (!is_given_up).then(|| holding(agent)));
        match (is_given_up, &answers(&way)[..]) {
            (true, [PeerCommand::Refuse(..)]) | (false, [PeerCommand::Answer(..)]) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_peer_that_moves_is_told_anew() {
    let mut bed = Bed::new(2, &[0, 1]);
    bed.nodes[0].gateway().holding = holding(1);
    bed.tell(0, PeersInput::HoldingChanged);
    bed.pass(Duration::from_millis(1_500));
    assert_eq!(bed.nodes[1].gateway().peers[&id(0)], holding(1));
    bed.nodes[1].is_deaf = true;
    bed.nodes[0].gateway().holding = holding(2);
    bed.tell(0, PeersInput::HoldingChanged);
    bed.settle();
    assert_eq!(bed.nodes[0].core.pool.calls(), 1);
    // Beside it goes that what is held is not to be forgotten.
    bed.pass(Duration::from_secs(1));
    assert_eq!(bed.nodes[0].core.pool.calls(), 2);
    // Nobody there answers for it; what it was being told is not waited for.
    let (reply, _done) = oneshot::channel();
    let elsewhere = vec![(id(1), "10.0.0.9:4434".parse().unwrap())];
    bed.tell(0, PeersInput::SetPeers(elsewhere, reply));
    assert_eq!(bed.nodes[0].core.pool.calls(), 0);
}

#[test]
fn what_a_peer_holds_waits_once_for_a_gateway_that_takes_nothing() {
    let mut bed = Bed::new(2, &[1]);
    bed.nodes[1].gateway().is_deaf = true;
    for version in 1..=100 {
        let (told, way) = announcement(0, version, holding(version.into()));
        bed.tell(1, PeersInput::Told(told));
        assert!(matches!(answers(&way)[..], [PeerCommand::Answer(..)]));
        bed.pass(Duration::from_millis(100));
    }
    let gateway = bed.nodes[1].gateway();
    gateway.is_deaf = false;
    bed.settle();
    let gateway = bed.nodes[1].gateway();
    assert_eq!(gateway.peers[&id(0)], holding(100));
    assert_eq!(gateway.holdings, 2, "the one that waited, and the latest");
}

#[test]
fn a_gateway_that_stops_says_goodbye_and_does_not_wait_for_its_calls_to_end() {
    let mut bed = Bed::new(2, &[0, 1]);
    bed.nodes[0].gateway().holding = holding(1);
    bed.tell(0, PeersInput::HoldingChanged);
    bed.pass(Duration::from_millis(1_500));
    // On the connection that the peer has dialled, which so stays.
    let handle = bed.nodes[1].handle.clone();
    let mut call = pin!(handle.call(id(0), RpcType::ReadIndex, Bytes::new()));
    assert!(call.as_mut().poll(&mut cx()).is_pending());
    bed.settle();
    let asked = bed.nodes[0].requests.poll_next(&mut cx());
    bed.nodes[0].gateway().holding = holding(2);
    bed.tell(0, PeersInput::HoldingChanged);
    bed.nodes[0].handle.stop(Duration::from_secs(2));
    bed.pass(Duration::from_millis(100));
    assert!(call.as_mut().poll(&mut cx()).is_pending());
    let told = &bed.nodes[1].gateway().peers[&id(0)];
    assert!(told.is_empty(), "{told:?}");
    // Told to stop once more, it says nothing else.
    bed.nodes[0].handle.stop(Duration::from_secs(2));
    bed.pass(Duration::from_secs(5));
    assert!(bed.nodes[0].host.workers.is_empty());
    drop(asked);
}

#[test]
fn a_node_that_knows_no_catalogue_is_told_none() {
    let none = [Capabilities::ALL, Capabilities::NONE];
    let some = [Capabilities::ALL, Capabilities::REFUSALS];
    for (offered, is_told) in [(none, false), (some, true)] {
        let mut bed = Bed::offering(&offered, &[0]);
        let mut told = 0;
        // Nobody there answers it.
        bed.nodes[1].is_deaf = true;
        for _ in 0..100 {
            bed.pass(Duration::from_millis(100));
            for input in all(&bed.nodes[1].inputs) {
                told += usize::from(matches!(input, PeersInput::Told(_)));
                bed.tell(1, input);
            }
        }
        assert!(bed.nodes[0].core.pool.connection(id(1)).is_some() || is_told);
        assert_eq!(told > 0, is_told, "{offered:?}");
        let status = bed.nodes[0].core.pool.peers().next().unwrap();
        assert_eq!(status.failures > 0, is_told, "{status:?}");
    }
}

#[test]
fn a_peer_that_tells_all_too_often_is_told_when_to_come_again() {
    let mut bed = Bed::new(2, &[1]);
    let mut last = None;
    for version in 1..=30 {
        let (told, way) = announcement(0, version, holding(version.into()));
        bed.tell(1, PeersInput::Told(told));
        last = answers(&way).pop();
    }
    let Some(PeerCommand::Refuse(_, wait)) = last else {
        panic!("{last:?}");
    };
    bed.pass(wait);
    let (told, way) = announcement(0, 31, holding(31));
    bed.tell(1, PeersInput::Told(told));
    assert!(matches!(answers(&way)[..], [PeerCommand::Answer(..)]));
}

#[test]
fn a_peer_that_always_knows_of_a_later_start_lifts_the_count_once_a_second() {
    let mut bed = Bed::new(2, &[0]);
    bed.nodes[1].is_deaf = true;
    for _ in 0..100 {
        bed.pass(Duration::from_millis(100));
        for input in all(&bed.nodes[1].inputs) {
            let PeersInput::Told(request) = input else {
                bed.tell(1, input);
                continue;
            };
            let mut highest = Announcement::decode(&request.payload).unwrap().stamp;
            highest.version += 1;
            let answer = Received {
                held: None,
                highest,
            };
            request.responder.answer(answer.encode().unwrap());
        }
    }
    let lifts = bed.nodes[0].lifts.load(Ordering::Relaxed);
    assert!((2..=11).contains(&lifts), "{lifts} in ten seconds");
}

/// What a node says that it holds, as a request of its, and the way of the answer.
fn announcement(from: usize, version: u64, holding: Holding) -> (Request, Answers) {
    let (own, way) = handoff(8);
    let told = Announcement {
        node: id(from),
        stamp: Stamp { epoch: 1, version },
        news: News::Whole(holding),
    };
    let request = Request {
        from: id(from),
        kind: RpcType::Catalogue,
        payload: told.encode().unwrap(),
        interest: Interest::default(),
        responder: Responder::new(Slot(0), Commands::Own(own)),
    };
    (request, way)
}

type Answers = Receiver<Command<PeerCommand>>;

fn answers(way: &Answers) -> Vec<PeerCommand> {
    let role = |command| {
        let Command::Role(command) = command else {
            panic!("no answer: {command:?}");
        };
        command
    };
    all(way).into_iter().map(role).collect()
}
