//! Peers as candidates: behind the agents of their rung, one hop, and no other way round.

use super::{bed::*, *};
use crate::{
    domain::DomainPattern,
    gateway::AttemptFailure,
    peer::{NodeId, catalogue::Holding},
};

fn holding(agents: &[u64], text: &str) -> Holding {
    let mut holding = Holding {
        agents: agents.iter().map(|n| agent(*n)).collect(),
        ..Holding::default()
    };
    match text.parse() {
        Ok(net) => holding.subnets.push(net),
        Err(_) => holding.domains.push(DomainPattern::parse(text).unwrap()),
    }
    holding.tidy();
    holding
}

/// Peer n is connected by connection 100 + n.
fn join(bed: &mut Bed, n: u64, holding: Holding) {
    let holding = holding.into();
    bed.dispatch.peer_holds(bed.now, NodeId(n), holding);
    let conn = ConnId(100 + n);
    bed.dispatch.peer_connected(bed.now, conn, NodeId(n));
}

fn carried(n: u64, node: u64, slot: u64) -> DispatchOutput {
    DispatchOutput::Committed {
        session: session(n),
        agent: None,
        route: Carrier::Peer {
            node: NodeId(node),
            conn: ConnId(100 + node),
            slot: Slot(slot),
        },
    }
}

fn load(bed: &Bed, node: u64) -> usize {
    bed.dispatch.peers().load(NodeId(node))
}

#[test]
fn a_peer_is_asked_where_no_agent_is_left() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    join(&mut bed, 7, holding(&[], "10.0.0.0/8"));
    bed.open(1, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(1, 1, 1)]);
    bed.fail(1, 1, AttemptError::Refused("no".into()));
    assert_eq!(bed.out(), [ask(107, 2, 1)]);
    assert_eq!(load(&bed, 7), 1);
    bed.event(107, opened(2, 5));
    assert_eq!(bed.out(), [carried(1, 7, 5)]);
    bed.event(107, AgentEvent::SessionEnded { slot: Slot(5) });
    assert_eq!(load(&bed, 7), 0);
}

#[test]
fn a_peer_is_raced_after_the_stagger_and_its_success_cancels() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    join(&mut bed, 7, holding(&[], "10.0.0.0/8"));
    bed.open(1, "10.1.1.1:22");
    bed.out();
    bed.pass(250);
    assert_eq!(bed.out(), [ask(107, 2, 1)]);
    bed.event(107, opened(2, 5));
    let cancel = DispatchOutput::Cancel {
        conn: ConnId(1),
        attempt: AttemptId(1),
    };
    assert_eq!(bed.out(), [carried(1, 7, 5), cancel]);
}

#[test]
fn the_more_specific_route_wins_wherever_it_is() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.1.1.0/24")]);
    join(&mut bed, 7, holding(&[], "10.1.0.0/16"));
    bed.open(1, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(2, 1, 1)]);
    bed.fail(2, 1, AttemptError::ConnectionLost);
    assert_eq!(bed.out(), [ask(107, 2, 1)]);
    bed.fail(107, 2, AttemptError::ConnectionLost);
    assert_eq!(bed.out(), [ask(1, 3, 1)]);
    bed.fail(1, 3, AttemptError::ConnectionLost);
    let of_peer = AttemptFailure {
        agent: None,
        peer: Some(NodeId(7)),
        cause: AttemptError::ConnectionLost,
    };
    let lost = |n| failure(n, AttemptError::ConnectionLost);
    let all = OpenError::AllFailed(vec![lost(2), of_peer, lost(1)]);
    assert!(all.to_string().contains("peer n7: "), "{all}");
    assert_eq!(bed.out(), [failed(1, all)]);
    let explained = bed
        .dispatch
        .explain(bed.now, &"10.1.1.1:22".parse().unwrap(), None);
    let [peer] = explained.peers.as_slice() else {
        panic!("{explained:?}")
    };
    assert_eq!((peer.node, peer.after), (NodeId(7), 1));
    assert_eq!((peer.route.as_str(), peer.sessions), ("10.1.0.0/16", 0));
}

#[test]
fn a_user_is_told_which_of_two_connections_was_lost() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    join(&mut bed, 7, holding(&[], "10.0.0.0/8"));
    bed.open(1, "10.1.1.1:22");
    bed.event(1, AgentEvent::Closed);
    bed.event(107, AgentEvent::Closed);
    let of_peer = AttemptFailure {
        agent: None,
        peer: Some(NodeId(7)),
        cause: AttemptError::PeerLost,
    };
    let all = OpenError::AllFailed(vec![failure(1, AttemptError::ConnectionLost), of_peer]);
    assert_eq!(bed.out(), [ask(1, 1, 1), ask(107, 2, 1), failed(1, all)]);
}

#[test]
fn an_agent_that_is_asked_for_by_its_id_may_be_a_peers() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.open_pinned(1, "10.1.1.1:22", 9);
    assert_eq!(bed.out(), [failed(1, OpenError::AgentUnknown(agent(9)))]);
    join(&mut bed, 7, holding(&[1, 9], "*.x"));
    bed.open_pinned(2, "10.1.1.1:22", 9);
    assert_eq!(bed.out(), [ask(107, 1, 2)]);
    // Where both have it, this gateway comes first.
    bed.open_pinned(3, "10.1.1.1:22", 1);
    assert_eq!(bed.out(), [ask(1, 2, 3)]);
    bed.fail(1, 2, AttemptError::ConnectionLost);
    assert_eq!(bed.out(), [ask(107, 3, 3)]);
}

#[test]
fn what_came_from_a_peer_goes_to_an_agent_or_nowhere() {
    let config = DispatchConfig {
        direct: vec![everything()],
        ..DispatchConfig::default()
    };
    let mut bed = Bed::configured(config, &[(1, "10.1.0.0/16")]);
    join(&mut bed, 7, holding(&[9], "10.0.0.0/8"));
    let mut open = |n, target: &str, pinned| {
        let target = target.parse().unwrap();
        bed.dispatch
            .open_forwarded(bed.now, session(n), target, pinned);
        bed.out()
    };
    assert_eq!(open(1, "10.1.1.1:22", None), [ask(1, 1, 1)]);
    assert_eq!(
        open(2, "10.2.1.1:22", None),
        [failed(2, OpenError::NoRoute)]
    );
    assert_eq!(open(3, "8.8.8.8:1", None), [failed(3, OpenError::NoRoute)]);
    let unknown = OpenError::AgentUnknown(agent(9));
    assert_eq!(open(4, "10.2.1.1:22", Some(agent(9))), [failed(4, unknown)]);
    bed.fail(1, 1, AttemptError::TimedOut);
    let only = OpenError::AllFailed(vec![failure(1, AttemptError::TimedOut)]);
    assert_eq!(bed.out(), [failed(1, only)]);
}

#[test]
fn what_a_peer_holds_is_not_dialled_from_here() {
    let config = DispatchConfig {
        direct: vec![everything()],
        ..DispatchConfig::default()
    };
    let mut bed = Bed::configured(config, &[]);
    join(&mut bed, 7, holding(&[], "10.0.0.0/8"));
    bed.event(107, AgentEvent::Suspect);
    bed.open(1, "10.1.1.1:22");
    assert_eq!(bed.out(), [failed(1, OpenError::NoneOnline)]);
    bed.event(107, AgentEvent::Recovered);
    bed.open(2, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(107, 1, 2)]);
    bed.event(107, AgentEvent::Closed);
    assert!(matches!(bed.out()[..], [DispatchOutput::Failed { .. }]));
    bed.dispatch
        .peer_holds(bed.now, NodeId(7), Holding::default().into());
    bed.open(3, "10.1.1.1:22");
    assert!(matches!(bed.out()[..], [DispatchOutput::DialDirect { .. }]));
}

#[test]
fn a_gateway_holds_what_its_agents_do_and_not_its_peers() {
    let mut bed = Bed::with(&[(1, "10.0.0.1/8"), (2, "*.x"), (3, "10.0.0.0/8"), (4, "*.y")]);
    join(&mut bed, 7, holding(&[9], "10.7.0.0/16"));
    bed.dispatch.set_drained(agent(2), true);
    bed.event(4, AgentEvent::Suspect);
    let held = bed.dispatch.hub().holding(bed.now);
    let mut expected = holding(&[1, 2, 3, 4], "10.0.0.0/8");
    expected.tidy();
    assert_eq!(held, expected);
}
