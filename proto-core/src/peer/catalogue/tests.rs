//! Two and more gateways in virtual time, one step after the other.

use std::time::Duration;

use uuid::Uuid;

use super::{CatalogueOutput as Out, *};
use crate::{
    domain::DomainPattern,
    id::AgentId,
    limits::{
        CATALOGUE_ANSWER_PATIENCE, CATALOGUE_BURST, CATALOGUE_LIFETIME, CATALOGUE_PACE,
        CATALOGUE_REFRESH,
    },
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

pub(super) fn holding(agents: &[u128]) -> Holding {
    let agent = |n: &u128| AgentId(Uuid::from_u128(*n));
    Holding {
        agents: agents.iter().map(agent).collect(),
        subnets: Vec::new(),
        domains: vec![DomainPattern::parse("*.corp").unwrap()],
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the base of a test's virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn gateway(id: NodeId, peers: &[NodeId]) -> Catalogue {
    let mut catalogue = Catalogue::new(id, 1);
    assert!(peers.iter().all(|peer| catalogue.add_peer(*peer)));
    catalogue
}

fn outputs(catalogue: &mut Catalogue) -> Vec<Out> {
    std::iter::from_fn(|| catalogue.poll_output()).collect()
}

/// The one announcement among the outputs.
fn told(catalogue: &mut Catalogue) -> Bytes {
    match outputs(catalogue).as_slice() {
        [Out::Tell { payload, .. }] => payload.clone(),
        other => panic!("not one announcement: {other:?}"),
    }
}

/// The whole behind a refresh.
fn whole(catalogue: &mut Catalogue) -> Bytes {
    let refresh = match catalogue.poll_output() {
        Some(Out::Tell {
            lane: Lane::Brief,
            payload,
            ..
        }) => payload,
        other => panic!("no refresh: {other:?}"),
    };
    assert_eq!(news(&refresh), News::Unchanged);
    told(catalogue)
}

fn news(payload: &[u8]) -> News {
    Announcement::decode(payload).unwrap().news
}

/// B is up at A and holds what A told.
fn pair(now: Instant) -> (Catalogue, Catalogue) {
    let (mut a, mut b) = (gateway(A, &[B]), gateway(B, &[A]));
    a.set_local(now, holding(&[1]));
    a.handle_up(now, B);
    let answer = b.handle_told(now, A, &told(&mut a)).unwrap();
    assert_eq!(outputs(&mut b), [Out::Changed { peer: A }]);
    a.handle_answer(now, B, &answer).unwrap();
    assert_eq!(outputs(&mut a), []);
    (a, b)
}

#[test]
fn a_peer_is_told_all_and_then_that_nothing_changed() {
    let now = start();
    let (mut a, mut b) = pair(now);
    assert_eq!(**b.held_by(A).unwrap(), holding(&[1]));
    for n in 1..5 {
        let now = now + ms(n * 1_000);
        assert_eq!(a.poll_timeout(), Some(now));
        a.handle_timeout(now);
        let payload = told(&mut a);
        assert_eq!(news(&payload), News::Unchanged);
        let answer = b.handle_told(now, A, &payload).unwrap();
        assert_eq!(outputs(&mut b), []);
        assert_eq!(b.poll_timeout(), Some(now + CATALOGUE_LIFETIME));
        a.handle_answer(now, B, &answer).unwrap();
    }
}

#[test]
fn what_is_not_refreshed_is_gone_after_its_time() {
    let now = start();
    let (_, mut b) = pair(now);
    b.handle_down(A);
    b.handle_timeout(now + CATALOGUE_LIFETIME - ms(1));
    assert!(b.held_by(A).is_some());
    b.handle_timeout(now + CATALOGUE_LIFETIME);
    assert_eq!(outputs(&mut b), [Out::Changed { peer: A }]);
    assert!(b.held_by(A).is_none() && b.poll_timeout().is_none());
}

#[test]
fn a_peer_that_forgot_is_told_all_again() {
    let now = start();
    let (mut a, mut b) = pair(now);
    b.handle_timeout(now + CATALOGUE_LIFETIME);
    outputs(&mut b);
    let now = now + CATALOGUE_LIFETIME;
    a.handle_timeout(now);
    let answer = b.handle_told(now, A, &told(&mut a)).unwrap();
    a.handle_answer(now, B, &answer).unwrap();
    a.handle_timeout(now + CATALOGUE_REFRESH);
    let payload = told(&mut a);
    assert!(matches!(news(&payload), News::Whole(_)));
    b.handle_told(now, A, &payload).unwrap();
    assert_eq!(outputs(&mut b), [Out::Changed { peer: A }]);
}

#[test]
fn changes_are_collected_together() {
    let now = start();
    let (mut a, _) = pair(now);
    a.handle_changed(now);
    assert_eq!(outputs(&mut a), [Out::Collect]);
    for n in 0..100 {
        a.handle_changed(now + ms(n));
        assert_eq!(outputs(&mut a), []);
    }
    assert_eq!(a.poll_timeout(), Some(now + CATALOGUE_COALESCE));
    a.handle_timeout(now + CATALOGUE_COALESCE);
    assert_eq!(outputs(&mut a), [Out::Collect]);
    // The same set is no news.
    a.set_local(now + CATALOGUE_COALESCE, holding(&[1]));
    assert_eq!(outputs(&mut a), []);
}

#[test]
fn one_whole_is_under_way_at_a_time() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.set_local(now, holding(&[2]));
    let first = told(&mut a);
    a.set_local(now + ms(1), holding(&[3]));
    assert_eq!(outputs(&mut a), []);
    let answer = b.handle_told(now, A, &first).unwrap();
    a.handle_answer(now + ms(2), B, &answer).unwrap();
    b.handle_told(now, A, &told(&mut a)).unwrap();
    assert_eq!(**b.held_by(A).unwrap(), holding(&[3]));
    // What is not answered is told again after a while, and what failed with the next refresh.
    let mut now = now + ms(2) + CATALOGUE_ANSWER_PATIENCE;
    for (unanswered, is_again) in [(Lane::Brief, false), (Lane::Whole, true)] {
        a.handle_timeout(now);
        assert!(matches!(news(&whole(&mut a)), News::Whole(_)));
        a.handle_unanswered(B, unanswered);
        now = a.poll_timeout().unwrap();
        a.handle_timeout(now - ms(1));
        assert_eq!(outputs(&mut a), []);
        a.handle_timeout(now);
        match is_again {
            true => assert!(matches!(news(&whole(&mut a)), News::Whole(_))),
            false => assert_eq!(news(&told(&mut a)), News::Unchanged),
        }
        now += CATALOGUE_ANSWER_PATIENCE;
    }
}

#[test]
fn what_a_peer_holds_lasts_while_the_whole_is_on_its_way() {
    let now = start();
    let (mut a, mut b) = pair(now);
    let former = b.stamp_of(A);
    a.set_local(now, holding(&[2]));
    let slow = told(&mut a);
    for n in 1..=20 {
        let now = now + ms(1_000 * n);
        a.handle_timeout(now);
        for output in outputs(&mut a) {
            let Out::Tell { payload, .. } = output else {
                panic!("{output:?}");
            };
            let told = Announcement::decode(&payload).unwrap();
            if told.news == News::Unchanged {
                assert_eq!(Some(told.stamp), former);
                let answer = b.handle_told(now, A, &payload).unwrap();
                a.handle_answer(now, B, &answer).unwrap();
            }
        }
        b.handle_timeout(now);
        assert_eq!(b.stamp_of(A), former, "at {n} s");
    }
    let now = now + ms(20_500);
    let answer = b.handle_told(now, A, &slow).unwrap();
    assert_eq!(**b.held_by(A).unwrap(), holding(&[2]));
    a.handle_answer(now, B, &answer).unwrap();
    assert_eq!(a.poll_timeout(), Some(now + ms(500)));
    a.handle_timeout(now + ms(500));
    assert_eq!(news(&told(&mut a)), News::Unchanged);
}

#[test]
fn what_was_overtaken_is_refused() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.set_local(now, holding(&[2]));
    let late = told(&mut a);
    let mut again = gateway(A, &[B]);
    again.set_epoch(now, 2);
    again.set_local(now, holding(&[7]));
    again.handle_up(now, B);
    b.handle_told(now, A, &told(&mut again)).unwrap();
    let answer = b.handle_told(now, A, &late).unwrap();
    assert_eq!(**b.held_by(A).unwrap(), holding(&[7]));
    // A gateway that lost its count of starts learns of it.
    a.handle_answer(now, B, &answer).unwrap();
    let lost = Out::EpochLost { peer: B, epoch: 2 };
    assert_eq!(outputs(&mut a), [lost]);
    a.set_epoch(now + ms(2), 3);
    b.handle_told(now, A, &told(&mut a)).unwrap();
    assert_eq!(**b.held_by(A).unwrap(), holding(&[2]));
}

#[test]
fn no_peer_lifts_the_count_of_starts_far() {
    let now = start();
    let (mut a, _) = pair(now);
    let answer = |epoch| {
        let highest = Stamp { epoch, version: 0 };
        let held = None;
        Received { held, highest }.encode().unwrap()
    };
    let highest = EPOCH_LIFT_MAX;
    a.handle_answer(now, B, &answer(highest)).unwrap();
    let lost = Out::EpochLost {
        peer: B,
        epoch: highest,
    };
    assert!(outputs(&mut a).contains(&lost));
    a.set_epoch(now, highest + 1);
    outputs(&mut a);
    // Nor in steps.
    for epoch in [highest + 2, u64::MAX] {
        let error = a.handle_answer(now, B, &answer(epoch)).unwrap_err();
        let begun = 1;
        let peer = B;
        assert_eq!(error, CatalogueError::TooFar { peer, epoch, begun });
        assert!(outputs(&mut a).is_empty());
    }
}

#[test]
fn a_peer_that_answers_nonsense_is_told_no_sooner() {
    let now = start();
    let stamp = |version| Stamp { epoch: 1, version };
    let answer = |held: Option<u64>, highest| {
        let (held, highest) = (held.map(stamp), stamp(highest));
        Received { held, highest }.encode().unwrap()
    };
    // It holds what it does not know of, or what is yet to come.
    for highest in [1, 2] {
        let (mut a, _) = pair(now);
        let taken = a.handle_answer(now, B, &answer(Some(2), highest));
        let impossible = Err(CatalogueError::Impossible(B));
        assert_eq!(taken, if highest == 1 { impossible } else { Ok(()) });
        outputs(&mut a);
        a.set_local(now, holding(&[2]));
        assert!(matches!(news(&told(&mut a)), News::Whole(_)));
        for held in [None, Some(1), Some(2), Some(1), None, Some(2)] {
            a.handle_answer(now, B, &answer(held, 2)).unwrap();
            assert_eq!(outputs(&mut a), []);
        }
    }
}

#[test]
fn wholes_are_taken_at_a_pace() {
    let now = start();
    let mut b = gateway(B, &[A, C]);
    let whole = |node, version: u32| {
        let stamp = Stamp {
            epoch: 1,
            version: version.into(),
        };
        let news = News::Whole(holding(&[version.into()]));
        Announcement { node, stamp, news }.encode().unwrap()
    };
    for version in 1..=CATALOGUE_BURST {
        b.handle_told(now, A, &whole(A, version)).unwrap();
    }
    // They come at once where a path has stalled.
    let last = holding(&[CATALOGUE_BURST.into()]);
    assert_eq!(**b.held_by(A).unwrap(), last);
    let wait = CATALOGUE_PACE;
    let too_soon = Err(CatalogueError::TooSoon { peer: A, wait });
    for version in 101..=200 {
        assert_eq!(b.handle_told(now, A, &whole(A, version)), too_soon);
    }
    assert_eq!(**b.held_by(A).unwrap(), last);
    b.handle_told(now, C, &whole(C, 1)).unwrap();
    let (stamp, news) = (b.stamp_of(A).unwrap(), News::Unchanged);
    let unchanged = Announcement {
        node: A,
        stamp,
        news,
    };
    b.handle_told(now, A, &unchanged.encode().unwrap()).unwrap();
    b.handle_told(now + wait, A, &whole(A, 201)).unwrap();
    // No honest peer is faster than this, however long.
    for n in 1..=1_000 {
        let now = now + wait + n * CATALOGUE_COALESCE;
        b.handle_told(now, A, &whole(A, 201 + n)).unwrap();
    }
}

#[test]
fn a_goodbye_takes_effect_at_once() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.set_local(now, holding(&[2]));
    let late = told(&mut a);
    a.stop();
    let bye = told(&mut a);
    b.handle_told(now, A, &bye).unwrap();
    assert_eq!(outputs(&mut b), [Out::Changed { peer: A }]);
    b.handle_told(now, A, &late).unwrap();
    assert!(b.held_by(A).is_none() && outputs(&mut b).is_empty());
    a.handle_timeout(now + CATALOGUE_REFRESH);
    assert!(outputs(&mut a).is_empty() && a.poll_timeout().is_none());
    let (_, mut b) = pair(now);
    b.handle_goodbye(A);
    assert!(b.held_by(A).is_none());
    assert_eq!(outputs(&mut b), [Out::Changed { peer: A }]);
}

#[test]
fn nobody_speaks_for_another() {
    let now = start();
    let mut b = gateway(B, &[A, C]);
    let of = |node, news| {
        let stamp = Stamp {
            epoch: 9,
            version: 9,
        };
        Announcement { node, stamp, news }.encode().unwrap()
    };
    let told = of(C, News::Whole(holding(&[1])));
    let (peer, node) = (A, C);
    let foreign = CatalogueError::Foreign { peer, node };
    assert_eq!(b.handle_told(now, A, &told), Err(foreign));
    let unknown = CatalogueError::Unknown(NodeId(9));
    assert_eq!(b.handle_told(now, NodeId(9), &told), Err(unknown));
    let twice = of(A, News::Whole(holding(&[1, 1])));
    let untidy = CatalogueError::Untidy(A);
    assert_eq!(b.handle_told(now, A, &twice), Err(untidy));
    assert!(b.handle_told(now, A, b"").is_err());
    assert!(b.held_by(A).is_none() && outputs(&mut b).is_empty());
    assert!(!b.add_peer(B), "itself");
    assert!(b.handle_told(now, C, &told).is_ok());
    outputs(&mut b);
    b.remove_peer(C);
    assert_eq!(outputs(&mut b), [Out::Changed { peer: C }]);
}
