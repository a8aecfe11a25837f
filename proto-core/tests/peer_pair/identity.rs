//! Who may be at the other end.

use std::sync::Arc;

use adit_proto_core::{
    close::{Closed, PeerFault},
    endpoint::{Endpoint, EndpointLimits},
    link::{
        insecure_tls::{Exposure, Insecure},
        peer_tls::PeerSecurity,
    },
    peer::{
        NodeId,
        capabilities::Capabilities,
        config::PeerConfig,
        counters::AuthFail,
        envelope::EnvelopeError,
        epoch::EpochMark,
        fault::RpcFault,
        hello::VersionRange,
        identity::Leaf,
        key::{ClusterSecret, KeyId, KeyRing},
        ledger::PeerLedger,
        receive::JoinCheck,
        response::ResponseError,
        retry::Failure,
        rpc_type::RpcType,
        verdict::{Accepted, IdentityError},
    },
};
use bytes::Bytes;

use super::{
    bare,
    bed::{BOTH, Bed, Place, secs},
    cluster::record,
    pki::Pki,
};

#[test]
fn a_server_that_is_not_the_node_dialled_is_closed_with_code_two() {
    let (mut bed, one, two) = Bed::two(1, Capabilities::ALL);
    // Node 2 lives where node 4 is looked for.
    let at = bed.dial(one, two, Some(4));
    let fault = RpcFault::Identity(IdentityError::WrongKey);
    assert_eq!(bed.closed(at), Closed::Fault(PeerFault::Rpc(fault)));
    bed.run_for(secs(1));
    let seen = bed.only_wire(two);
    match bed.closed(seen) {
        Closed::ByPeer(close) => {
            assert_eq!((close.code, &*close.reason), (2, "peer identity mismatch"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_member_that_claims_to_be_another_is_closed_with_code_two() {
    let mut bed = Bed::new(2);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::greet(&mut bed, node, Some(pair));
    let request = bare::request(3, 4, 1, RpcType::Ping, b"");
    bare::send(&mut bed, bare, &request, true);
    bed.run_for(secs(1));
    let close = bare::closed(&mut bed, bare).unwrap();
    assert_eq!(close, (2, "peer identity mismatch".to_owned()));
    let ledger = &bed.member(node).ledger;
    assert_eq!((ledger.high(NodeId(4)), ledger.high(NodeId(1))), (0, 0));
    assert_eq!(ledger.counters().auth_fail[&AuthFail::Identity], 1);
    // It is known by its certificate, whoever it says to be.
    let by = ledger.disbelief().iter().next().unwrap();
    assert_eq!(
        (by.0, by.1.count),
        ((Some(NodeId(1)), AuthFail::Identity), 1)
    );
}

#[test]
fn a_connection_belongs_to_the_node_of_its_first_request() {
    let mut bed = Bed::new(3);
    // Nodes 1 and 4 share a key, which no proper topology has; the transport is not to rest on that.
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::greet(&mut bed, node, Some(pair));
    for (from, code) in [(1, None), (2, Some(2))] {
        let request = bare::request(3, from, 7, RpcType::Ping, b"");
        bare::send(&mut bed, bare, &request, true);
        bed.run_for(secs(1));
        assert_eq!(bare::closed(&mut bed, bare).map(|close| close.0), code);
    }
    let counters = bed.member(node).ledger.counters();
    assert_eq!(counters.auth_fail[&AuthFail::BoundId], 1);
}

#[test]
fn a_stranger_of_the_same_ca_is_refused_by_tls_on_both_sides() {
    let (mut bed, one, two) = Bed::two(4, Capabilities::ALL);
    let mut setup = bed.setup(3);
    setup.pair = bed.pki.issue();
    setup.topology.set(record(3, &setup.pair)).unwrap();
    let stranger = bed.add(setup);
    let at = bed.dial(stranger, two, Some(2));
    assert!(matches!(bed.closed(at), Closed::IdentityRefused { .. }));
    let at = bed.dial(one, stranger, Some(3));
    assert!(matches!(bed.closed(at), Closed::PeerNotTrusted { .. }));
}

#[test]
fn a_node_with_another_cluster_key_is_not_answered_and_believes_nobody() {
    for capabilities in BOTH {
        let (mut bed, one, _) = Bed::two(5, capabilities);
        let mut setup = bed.setup(4);
        setup.secret = 8;
        if capabilities == Capabilities::NONE {
            setup.change = |config| config.capabilities = Capabilities::NONE;
        }
        let four = bed.add(setup);
        let at = bed.connect(one, four, 4);
        let unanswered = Failure::BadAnswer(ResponseError::Unanswered);
        assert_eq!(bed.ask(at, RpcType::Ping, b""), Err(unanswered));
        let ledger = &bed.members[four.0].ledger;
        assert_eq!(ledger.counters().auth_fail[&AuthFail::Mac], 1);
        let (of, by) = ledger.disbelief().iter().next().unwrap();
        assert_eq!(of, (Some(NodeId(1)), AuthFail::Mac));
        assert_eq!((by.count, by.remote), (1, bed.addr(one)));
    }
}

#[test]
fn an_answer_made_with_another_key_is_not_taken() {
    let (mut bed, one, two) = Bed::two(6, Capabilities::NONE);
    let at = bed.connect(one, two, 2);
    // Node 2 takes node 1's key and signs with another.
    let other = ClusterSecret::new([8; 32]).unwrap();
    let ledger = Arc::clone(&bed.member(two).ledger);
    let changed = ledger.change_keys(|ring| {
        ring.add(KeyId(2), other)?;
        ring.promote(KeyId(2))
    });
    assert_eq!(changed, Ok(()));
    let mac = Failure::BadAnswer(ResponseError::Envelope(EnvelopeError::Mac));
    assert_eq!(bed.ask(at, RpcType::Ping, b""), Err(mac));
    // It is the answer's fault, and not the connection's.
    assert!(bed.wire(at).closed.is_none());
}

#[test]
fn an_answer_of_another_node_closes_the_connection() {
    let mut bed = Bed::new(11);
    let mut setup = bed.setup(1);
    setup.change = |config| config.capabilities = Capabilities::NONE;
    let one = bed.add(setup);
    // It has node 2's certificate, and speaks for node 4.
    let mut setup = bed.setup(2);
    setup.id = 4;
    let two = bed.add(setup);
    let at = bed.connect(one, two, 2);
    let error = ResponseError::WrongSender {
        called: NodeId(2),
        from: NodeId(4),
    };
    let got = bed.ask(at, RpcType::Ping, b"");
    assert_eq!(got, Err(Failure::BadAnswer(error)));
    let fault = RpcFault::Answer(error);
    assert_eq!(bed.closed(at), Closed::Fault(PeerFault::Rpc(fault)));
    bed.run_for(secs(1));
    let seen = bed.only_wire(two);
    assert!(matches!(bed.closed(seen), Closed::ByPeer(close) if close.code == 2));
}

#[test]
fn an_agents_certificate_opens_no_door_between_gateways() {
    let mut bed = Bed::new(12);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let agent = Pki::new().agent;
    let bare = bare::connect(&mut bed, node, Some(agent));
    assert!(bed.raw(bare, |raw| raw.lost.is_some()));
    assert!(bed.member(node).ledger.counters().handshakes.is_empty());
}

#[test]
fn nodes_without_a_common_version_part_with_code_one() {
    let mut bed = Bed::new(7);
    let setup = bed.setup(1);
    let one = bed.add(setup);
    let mut setup = bed.setup(2);
    setup.change = |config| config.versions = VersionRange { min: 3, max: 9 };
    let two = bed.add(setup);
    let at = bed.dial(one, two, Some(2));
    match bed.closed(at) {
        Closed::ByPeer(close) => {
            assert_eq!(close.code, 1);
            assert!(close.reason.starts_with("no common version"), "{close}");
        }
        other => panic!("{other:?}"),
    }
    assert!(bed.wire(at).agreed.is_none());
}

#[test]
fn one_side_without_capabilities_is_spoken_to_plainly() {
    let mut bed = Bed::new(8);
    let mut setup = bed.setup(1);
    setup.change = |config| config.capabilities = Capabilities::NONE;
    let one = bed.add(setup);
    let setup = bed.setup(2);
    let two = bed.add(setup);
    for (from, to, node) in [(one, two, 2), (two, one, 1)] {
        let at = bed.connect(from, to, node);
        let agreed = bed.wire(at).agreed.unwrap();
        assert_eq!(agreed.capabilities, Capabilities::NONE);
        assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
    }
}

/// Lets join requests of one body in.
struct Joins;

impl JoinCheck for Joins {
    fn allows(&self, from: NodeId, payload: &[u8], _leaf: &Leaf) -> bool {
        from == NodeId(7) && payload == b"join"
    }
}

#[test]
fn a_node_with_a_pre_authorised_key_may_join_and_nothing_else() {
    let mut bed = Bed::new(9);
    let pair = bed.pki.issue();
    let leaf = Leaf::from_der(&pair.cert).unwrap();
    let mut setup = bed.setup(2);
    setup.topology.authorise(leaf.spki, u64::MAX);
    setup.change = |config| config.joins = Arc::new(Joins);
    let two = bed.add(setup);
    let mut setup = bed.setup(1);
    setup.id = 7;
    setup.pair = pair;
    // It knows nobody yet.
    setup.topology = adit_proto_core::peer::directory::Directory::default();
    let joining = bed.add(setup);
    let at = bed.dial(joining, two, None);
    let got = bed.ask_when_up(at, RpcType::Join, b"join");
    assert_eq!(got, Ok(Bytes::from_static(b"join")));
    let counters = bed.member(two).ledger.counters();
    assert_eq!(counters.identity[&Accepted::Enrolled], 1);
    for body in [&b"other"[..], b"join"] {
        let again = bed.dial(joining, two, None);
        let kind = match body {
            b"join" => RpcType::Ping,
            _ => RpcType::Join,
        };
        assert!(bed.ask_when_up(again, kind, body).is_err());
        if kind == RpcType::Join {
            assert!(matches!(bed.closed(again), Closed::ByPeer(close) if close.code == 2));
        }
    }
    assert_eq!(bed.member(two).ledger.high(NodeId(7)), (1 << 44) + 1);
}

fn insecure(bed: &Bed, place: usize, id: u64, secret: ClusterSecret) -> Option<Endpoint> {
    let env = bed.env(&format!("insecure {place}"), 50);
    let ring = KeyRing::new(KeyId(1), secret);
    let ledger = Arc::new(PeerLedger::new(1, ring, Box::new(EpochMark::new(0))));
    let config = PeerConfig::new(ledger, Arc::new(Joins));
    let pair = bed.pki.issue();
    let listen = "127.0.0.1:7000".parse().unwrap();
    let insecure = Insecure::new(
        NodeId(id),
        vec![pair.cert],
        pair.key.into(),
        listen,
        Exposure::Loopback,
    );
    let security = PeerSecurity::Insecure(Arc::new(insecure.unwrap()));
    let endpoint = Endpoint::peer(&config, &security, EndpointLimits::default(), &env).ok()?;
    assert_eq!(config.ledger.counters().insecure_transports, 1);
    Some(endpoint)
}

#[test]
fn nodes_in_insecure_mode_call_each_other_without_any_proof() {
    let mut bed = Bed::new(10);
    let mut places = Vec::new();
    for id in [11, 12] {
        let endpoint = insecure(&bed, places.len(), id, ClusterSecret::insecure()).unwrap();
        let env = bed.env(&format!("dials {id}"), 51);
        let setup = bed.setup(1);
        let ledger = {
            let member = bed.add(setup);
            Arc::clone(&bed.member(member).ledger)
        };
        places.push(bed.add_endpoint(env, ledger, endpoint));
    }
    let [one, two]: [Place; 2] = places.try_into().unwrap();
    let at = bed.connect(one, two, 12);
    assert!(bed.ask(at, RpcType::Ping, b"x").is_ok());
    let secure = ClusterSecret::new([3; 32]).unwrap();
    assert!(insecure(&bed, 9, 13, secure).is_none(), "with a real key");
}
