//! Records are exchanged while connections are up: who was taken out has no access left.

use adit_proto_core::{
    close::{Closed, PeerFault},
    endpoint::Protocol,
    peer::{
        NodeId,
        capabilities::Capabilities,
        directory::Directory,
        fault::RpcFault,
        identity::{Leaf, PinSet},
        rpc_type::RpcType,
        verdict::IdentityError,
    },
};

use super::{
    bed::{At, Bed, Place, secs},
    cluster::record,
    pki::Pair,
};

/// The topology without a node.
fn without(bed: &Bed, node: u64) -> Directory {
    let mut topology = bed.pki.topology.clone();
    topology.remove(NodeId(node));
    topology
}

/// The topology with other keys of a node.
fn with_keys(bed: &Bed, node: u64, pairs: &[&Pair]) -> Directory {
    let mut topology = bed.pki.topology.clone();
    let mut changed = record(node, pairs[0]);
    let pins = pairs.iter().map(|pair| Leaf::from_der(&pair.cert).unwrap());
    changed.spki_pins = PinSet::new(pins.map(|leaf| leaf.spki)).unwrap();
    topology.set(changed).unwrap();
    topology
}

fn refused(error: IdentityError) -> Closed {
    Closed::Fault(PeerFault::Rpc(RpcFault::Identity(error)))
}

fn is_told(bed: &mut Bed, at: At) {
    match bed.closed(at) {
        Closed::ByPeer(close) => {
            assert_eq!((close.code, &*close.reason), (2, "peer identity mismatch"));
        }
        other => panic!("{other:?}"),
    }
}

/// Node 2's end of the only connection.
fn accepted(bed: &Bed, two: Place) -> At {
    bed.only_wire(two)
}

#[test]
fn a_node_that_is_taken_out_loses_a_connection_on_which_it_had_asked_nothing() {
    let (mut bed, one, two) = Bed::two(1, Capabilities::ALL);
    let at = bed.connect(one, two, 2);
    let seen = accepted(&bed, two);
    bed.set_topology(two, 2, &without(&bed, 1));
    assert_eq!(bed.closed(seen), refused(IdentityError::Unknown));
    is_told(&mut bed, at);
    assert!(bed.wire(seen).requests.is_empty());
}

#[test]
fn a_node_that_is_taken_out_loses_a_connection_on_which_it_asks() {
    let (mut bed, one, two) = Bed::two(2, Capabilities::NONE);
    let at = bed.connect(one, two, 2);
    assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
    let seen = accepted(&bed, two);
    // The request is under way.
    bed.call(at, RpcType::Ping, b"x".as_slice());
    bed.set_topology(two, 2, &without(&bed, 1));
    assert_eq!(bed.closed(seen), refused(IdentityError::Unknown));
    is_told(&mut bed, at);
    assert_eq!(bed.wire(seen).requests.len(), 1);
}

#[test]
fn a_former_key_is_worth_nothing_any_more() {
    for has_asked in [false, true] {
        let (mut bed, one, two) = Bed::two(3, Capabilities::ALL);
        let at = bed.connect(one, two, 2);
        if has_asked {
            assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
        }
        let (old, new) = (bed.pki.pairs[&1].clone(), bed.pki.issue());
        let seen = accepted(&bed, two);
        bed.set_topology(two, 2, &with_keys(&bed, 1, &[&old, &new]));
        assert!(bed.wire(seen).closed.is_none(), "both are good");
        bed.set_topology(two, 2, &with_keys(&bed, 1, &[&new]));
        let error = match has_asked {
            true => IdentityError::WrongKey,
            false => IdentityError::Unknown,
        };
        assert_eq!(bed.closed(seen), refused(error));
        is_told(&mut bed, at);
    }
}

#[test]
fn a_handshake_that_is_under_way_is_judged_by_the_new_records() {
    for protocol in [Protocol::Rpc, Protocol::Forward] {
        let (mut bed, one, two) = Bed::two(4, Capabilities::ALL);
        let at = bed.dial_for(one, two, Some(2), protocol);
        let is_there = |bed: &Bed| !bed.members[two.0].wires.is_empty();
        assert!(bed.run_until(secs(1), is_there));
        let seen = accepted(&bed, two);
        bed.set_topology(two, 2, &without(&bed, 1));
        assert_eq!(bed.closed(seen), refused(IdentityError::Unknown));
        is_told(&mut bed, at);
    }
}

#[test]
fn forwarded_sessions_of_a_node_that_is_taken_out_end() {
    let (mut bed, one, two) = Bed::two(5, Capabilities::ALL);
    let at = bed.dial_for(one, two, Some(2), Protocol::Forward);
    bed.run_for(secs(1));
    let seen = accepted(&bed, two);
    bed.set_topology(two, 2, &bed.pki.topology.clone());
    assert!(bed.wire(seen).closed.is_none());
    bed.set_topology(two, 2, &without(&bed, 1));
    assert_eq!(bed.closed(seen), refused(IdentityError::Unknown));
    is_told(&mut bed, at);
}

#[test]
fn a_node_that_is_taken_out_is_called_no_more() {
    for has_asked in [false, true] {
        let (mut bed, one, two) = Bed::two(6, Capabilities::ALL);
        let at = bed.connect(one, two, 2);
        if has_asked {
            assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
        }
        bed.set_topology(one, 1, &without(&bed, 2));
        assert_eq!(bed.closed(at), refused(IdentityError::Unknown));
    }
}

#[test]
fn whoever_stays_notices_nothing() {
    let (mut bed, one, two) = Bed::two(7, Capabilities::ALL);
    let at = bed.connect(one, two, 2);
    let call = bed.call(at, RpcType::Ping, b"x".as_slice());
    for place in [(one, 1), (two, 2)] {
        bed.set_topology(place.0, place.1, &without(&bed, 4));
    }
    assert!(bed.outcome(at, call).is_ok());
    assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
}

#[test]
fn a_certificate_that_is_revoked_opens_no_door_and_keeps_none_open() {
    for revoked in [1, 2] {
        let (mut bed, one, two) = Bed::two(8, Capabilities::ALL);
        let at = bed.connect(one, two, 2);
        assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
        let list = bed.pki.revoking(&bed.pki.pairs[&revoked]);
        bed.pki.crls.push(list);
        // Whoever hears of it first ends what it has with the other.
        let (place, id, end) = match revoked {
            1 => (two, 2, accepted(&bed, two)),
            _ => (one, 1, at),
        };
        bed.set_topology(place, id, &bed.pki.topology.clone());
        assert_eq!(bed.closed(end), refused(IdentityError::NotVouched));
    }
}

#[test]
fn a_certificate_that_is_revoked_during_the_handshake_is_refused_at_its_end() {
    for protocol in [Protocol::Rpc, Protocol::Forward] {
        let (mut bed, one, two) = Bed::two(15, Capabilities::ALL);
        let at = bed.dial_for(one, two, Some(2), protocol);
        let is_there = |bed: &Bed| !bed.members[two.0].wires.is_empty();
        assert!(bed.run_until(secs(1), is_there));
        let seen = accepted(&bed, two);
        let list = bed.pki.revoking(&bed.pki.pairs[&1]);
        bed.pki.crls.push(list);
        bed.set_topology(two, 2, &bed.pki.topology.clone());
        assert_eq!(bed.closed(seen), refused(IdentityError::NotVouched));
        is_told(&mut bed, at);
    }
}

#[test]
fn a_revoked_certificate_of_somebody_else_changes_nothing() {
    let (mut bed, one, two) = Bed::two(9, Capabilities::ALL);
    let at = bed.connect(one, two, 2);
    let list = bed.pki.revoking(&bed.pki.pairs[&4]);
    bed.pki.crls.push(list);
    bed.set_topology(one, 1, &bed.pki.topology.clone());
    bed.set_topology(two, 2, &bed.pki.topology.clone());
    assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
}
