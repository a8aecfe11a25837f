use super::*;
use crate::peer::{directory::Directory, identity::PinSet};

const NOW: u64 = 1_000;
const OWN: u8 = 0xee;

fn leaf(key: u8, spiffe_id: Option<&str>) -> Leaf {
    Leaf {
        spki: SpkiPin([key; 32]),
        spiffe_id: spiffe_id.map(str::to_owned),
    }
}

fn record(node: u64, keys: &[u8], spiffe_id: Option<&str>) -> NodeRecord {
    NodeRecord {
        node: NodeId(node),
        spki_pins: PinSet::new(keys.iter().map(|key| SpkiPin([*key; 32]))).unwrap(),
        spiffe_id: spiffe_id.map(str::to_owned),
        address: String::new(),
    }
}

fn directory(records: impl IntoIterator<Item = NodeRecord>) -> Directory {
    let mut directory = Directory::default();
    for record in records {
        directory.set(record).unwrap();
    }
    directory
}

fn judge(store: &Directory) -> Judge<'_> {
    Judge {
        local: NodeId(1),
        own_spki: SpkiPin([OWN; 32]),
        store,
        bootstrap_until: 0,
        unix_ms: NOW,
    }
}

/// Of a message from node 5 on a connection that belongs to nobody yet.
fn of(store: &Directory, leaf: Leaf) -> Result<Accepted, IdentityError> {
    judge(store).message(NodeId(5), None, Some(&Ok(leaf)), |_| false)
}

#[test]
fn every_pin_that_is_set_must_match() {
    let (id, other) = (Some("spiffe://c/5"), Some("spiffe://c/6"));
    let both = directory([record(5, &[1, 2], id)]);
    assert_eq!(of(&both, leaf(1, id)), Ok(Accepted::Spki));
    assert_eq!(of(&both, leaf(2, id)), Ok(Accepted::Spki), "the next key");
    assert_eq!(of(&both, leaf(3, id)), Err(IdentityError::WrongKey));
    assert_eq!(of(&both, leaf(1, other)), Err(IdentityError::WrongSpiffe));
    assert_eq!(of(&both, leaf(1, None)), Err(IdentityError::WrongSpiffe));

    let key = directory([record(5, &[1], None)]);
    assert_eq!(of(&key, leaf(1, other)), Ok(Accepted::Spki));
    assert_eq!(of(&key, leaf(2, other)), Err(IdentityError::WrongKey));

    let name = directory([record(5, &[], id)]);
    assert_eq!(of(&name, leaf(9, id)), Ok(Accepted::Spiffe));
    assert_eq!(of(&name, leaf(9, None)), Err(IdentityError::WrongSpiffe));
}

#[test]
fn no_certificate_is_never_skipped() {
    let store = directory([record(5, &[1], None)]);
    let ask = |leaf| judge(&store).message(NodeId(5), None, leaf, |_| true);
    assert_eq!(ask(None), Err(IdentityError::NoCertificate));
    let bad = Err(BadLeaf);
    assert_eq!(ask(Some(&bad)), Err(IdentityError::BadLeaf(BadLeaf)));
}

#[test]
fn a_record_without_pins_needs_the_bootstrap_window() {
    let store = directory([record(5, &[], None)]);
    assert_eq!(of(&store, leaf(1, None)), Err(IdentityError::NoPins));
    for (until, expected) in [
        (NOW, Err(IdentityError::NoPins)),
        (NOW + 1, Ok(Accepted::Bootstrap)),
    ] {
        let judge = Judge {
            bootstrap_until: until,
            ..judge(&store)
        };
        let leaf = Ok(leaf(1, None));
        let got = judge.message(NodeId(5), None, Some(&leaf), |_| false);
        assert_eq!(got, expected);
    }
}

#[test]
fn the_bootstrap_window_is_not_for_nodes_without_a_record() {
    let store = directory([record(6, &[], None)]);
    let judge = Judge {
        bootstrap_until: NOW + 1,
        ..judge(&store)
    };
    let leaf = Ok(leaf(1, None));
    let got = judge.message(NodeId(5), None, Some(&leaf), |_| true);
    assert_eq!(got, Err(IdentityError::Unknown));
}

#[test]
fn only_a_pre_authorised_key_that_nobody_has_enrols() {
    let mut store = directory([record(6, &[6], None)]);
    store.authorise(SpkiPin([1; 32]), NOW + 1);
    store.authorise(SpkiPin([2; 32]), NOW);
    store.authorise(SpkiPin([6; 32]), NOW + 1);
    let ask = |key, joins| {
        let leaf = Ok(leaf(key, None));
        judge(&store).message(NodeId(5), None, Some(&leaf), |_| joins)
    };
    assert_eq!(ask(1, true), Ok(Accepted::Enrolled));
    assert_eq!(ask(1, false), Err(IdentityError::JoinRefused));
    assert_eq!(ask(2, true), Err(IdentityError::Unknown), "expired");
    assert_eq!(ask(3, true), Err(IdentityError::Unknown));
    let owned = IdentityError::OwnedBy { owner: NodeId(6) };
    assert_eq!(ask(6, true), Err(owned));
}

#[test]
fn a_connection_belongs_to_its_first_node() {
    let store = directory([record(5, &[5], None), record(6, &[6], None)]);
    let leaf = Ok(leaf(5, None));
    let ask = |bound| judge(&store).message(NodeId(5), bound, Some(&leaf), |_| false);
    assert_eq!(ask(Some(NodeId(5))), Ok(Accepted::Spki));
    let other = IdentityError::BoundTo { bound: NodeId(6) };
    assert_eq!(ask(Some(NodeId(6))), Err(other));
}

#[test]
fn this_node_is_known_by_its_certificate() {
    let store = directory([record(5, &[5], None)]);
    let ask = |node, key| {
        let leaf = Ok(leaf(key, None));
        judge(&store).message(NodeId(node), None, Some(&leaf), |_| false)
    };
    assert_eq!(ask(1, OWN), Ok(Accepted::Own));
    assert_eq!(ask(1, 5), Err(IdentityError::ClaimsToBeUs));
    assert_eq!(ask(5, OWN), Err(IdentityError::WrongKey));
}

#[test]
fn the_server_that_was_dialled_must_be_that_node() {
    let store = directory([record(5, &[5], None), record(6, &[6], None)]);
    let ask = |node| judge(&store).dialled(NodeId(node), Some(&Ok(leaf(5, None))));
    assert_eq!(ask(5), Ok(Accepted::Spki));
    assert_eq!(ask(6), Err(IdentityError::WrongKey));
    assert_eq!(ask(7), Err(IdentityError::OwnedBy { owner: NodeId(5) }));
}

#[test]
fn a_certificate_that_nobody_claims_passes_tls_only_with_a_reason() {
    let ask = |store: &Directory, leaf| judge(store).certificate(&leaf);
    assert_eq!(ask(&Directory::default(), leaf(1, None)), Ok(()));
    let mut store = directory([record(5, &[5], Some("spiffe://c/5"))]);
    assert_eq!(ask(&store, leaf(5, None)), Ok(()));
    assert_eq!(
        ask(&store, leaf(1, Some("spiffe://c/5"))),
        Err(IdentityError::WrongKey)
    );
    assert_eq!(ask(&store, leaf(1, None)), Err(IdentityError::Unknown));
    assert_eq!(ask(&store, leaf(OWN, None)), Ok(()));
    store.authorise(SpkiPin([1; 32]), NOW);
    assert_eq!(ask(&store, leaf(1, None)), Err(IdentityError::Unknown));
    store.authorise(SpkiPin([1; 32]), NOW + 1);
    assert_eq!(ask(&store, leaf(1, None)), Ok(()));
    let open = Judge {
        bootstrap_until: NOW + 1,
        ..judge(&store)
    };
    assert_eq!(open.certificate(&leaf(2, None)), Ok(()));
}
