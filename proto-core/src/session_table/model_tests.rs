//! The table against a list that is searched from end to end.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::{Carrier::Direct, *};

#[derive(Clone, Debug)]
enum Op {
    Insert {
        id: u8,
        place: Option<(u64, u64)>,
        agent: Option<u8>,
    },
    Remove(u8),
    RemoveConn(u64),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let slot = prop_oneof![0u64..3, Just(u64::MAX)];
    let place = prop::option::weighted(0.8, (0u64..3, slot));
    prop_oneof![
        8 => (0u8..12, place, any::<Option<u8>>())
            .prop_map(|(id, place, agent)| Op::Insert { id, place, agent }),
        3 => (0u8..12).prop_map(Op::Remove),
        1 => (0u64..3).prop_map(Op::RemoveConn),
        3 => (0u64..5).prop_map(Op::Pass),
    ]
}

proptest! {
    #[test]
    fn table_agrees_with_a_list(ops in vec(op(), 0..80)) {
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let mut now = Instant::now();
        let (mut table, mut model) = (SessionTable::new(), Vec::<(SessionId, SessionEntry)>::new());
        for op in ops {
            match op {
                Op::Insert { id, place, agent } => {
                    let entry = SessionEntry {
                        carrier: place.map_or(Direct, |(conn, slot)| on(conn, slot)),
                        target: format!("h{id}:1").parse().unwrap(),
                        agent: agent.map(|n| AgentId(uuid(n))),
                        since: now,
                    };
                    let id = SessionId(uuid(id));
                    let SessionEntry { carrier, target, agent, .. } = entry.clone();
                    let done = table.insert(now, id, carrier, target, agent);
                    let taken = |old: &SessionEntry| place.is_some() && old.carrier == carrier;
                    if model.iter().any(|old| old.0 == id) {
                        prop_assert_eq!(done, Err(SessionTableError::Known));
                    } else if model.iter().any(|old| taken(&old.1)) {
                        prop_assert_eq!(done, Err(SessionTableError::Taken));
                    } else {
                        prop_assert_eq!(done, Ok(()));
                        model.push((id, entry));
                    }
                }
                Op::Remove(id) => {
                    let id = SessionId(uuid(id));
                    let entry = table.remove(id);
                    let wanted = model.extract_if(.., |old| old.0 == id).next();
                    prop_assert_eq!(entry, wanted.map(|old| old.1));
                }
                Op::RemoveConn(conn) => {
                    let carried = |old: &mut (SessionId, SessionEntry)| {
                        matches!(old.1.carrier, Carrier::Agent { conn: c, .. } if c == ConnId(conn))
                    };
                    let mut wanted: Vec<_> = model.extract_if(.., carried).collect();
                    wanted.sort_by_key(|old| old.1.carrier);
                    prop_assert_eq!(table.remove_conn(ConnId(conn)), wanted);
                }
                Op::Pass(ms) => now += Duration::from_millis(ms),
            }
            agree(&table, &model, now)?;
        }
        for (id, _) in model {
            table.remove(id);
        }
        prop_assert!(table.is_empty() && table.places.is_empty() && table.ages.is_empty());
    }
}

fn agree(
    table: &SessionTable,
    model: &[(SessionId, SessionEntry)],
    now: Instant,
) -> Result<(), TestCaseError> {
    let mut listed: Vec<_> = model.iter().collect();
    listed.sort_by_key(|(id, entry)| (entry.since, *id));
    let wanted = listed.iter().map(|(id, entry)| {
        let age = now - entry.since;
        (*id, entry.target.clone(), entry.agent, age)
    });
    let list = table.list(now).into_iter();
    let list = list.map(|info| (info.id, info.target, info.agent, info.age));
    prop_assert_eq!(list.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    prop_assert_eq!(table.len(), model.len());
    for id in (0..12).map(|n| SessionId(uuid(n))) {
        let wanted = model.iter().find(|old| old.0 == id).map(|old| &old.1);
        prop_assert_eq!(table.get(id), wanted);
    }
    for (conn, slot) in (0..3).flat_map(|conn| [0, 1, 2, u64::MAX].map(|slot| (conn, slot))) {
        let wanted = model.iter().find(|old| old.1.carrier == on(conn, slot));
        let found = table.at(ConnId(conn), Slot(slot));
        prop_assert_eq!(found, wanted.map(|old| old.0));
    }
    Ok(())
}

fn on(conn: u64, slot: u64) -> Carrier {
    Carrier::Agent {
        conn: ConnId(conn),
        slot: Slot(slot),
    }
}

fn uuid(n: u8) -> Uuid {
    Uuid::from_u128(n.into())
}
