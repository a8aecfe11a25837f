//! Setting sessions up, and every way in which that ends.

use adit_proto_core::{
    connection::CommandError,
    gateway::AttemptError,
    id::{AttemptId, Slot},
    limits,
    output::{Event, SessionEnd},
};

use crate::{
    peer::Answer,
    world::{At, Joined, World, ms, secs},
};

#[test]
fn request_carries_the_target_and_the_answer_opens() {
    let mut j = Joined::new(20);
    let attempt = j.w.open(j.g, "db01.corp.local:5432");
    j.w.run_for(secs(1));
    let (slot, target) = requested(&j.w, j.a);
    assert_eq!(target, "db01.corp.local:5432");
    assert_eq!(j.w.opened(j.g, attempt), Some(slot));
    for at in [j.g, j.a] {
        assert_eq!(j.w.conn(at, |c| c.sessions_open()), 1);
    }
}

#[test]
fn refusal_carries_the_reason() {
    let mut j = Joined::new(21);
    j.w.set_answer(j.a.0, &Answer::Refuse("10.0.0.5:22: no route".into()));
    let attempt = j.w.open(j.g, "10.0.0.5:22");
    j.w.run_for(secs(1));
    let refused = AttemptError::Refused("10.0.0.5:22: no route".into());
    assert_eq!(cause(&j.w, j.g, attempt), Some(&refused));
    j.w.run_for(secs(40));
    assert_eq!(j.w.closed(j.g), None);
}

#[test]
fn refusal_carries_the_reason_over_a_lossy_path() {
    let mut j = Joined::new(22);
    j.both(|path| path.loss = 100);
    j.w.set_answer(j.a.0, &Answer::Refuse("no".into()));
    for _ in 0..30 {
        let attempt = j.w.open(j.g, "10.0.0.5:22");
        j.w.run_for(secs(2));
        let refused = AttemptError::Refused("no".into());
        assert_eq!(cause(&j.w, j.g, attempt), Some(&refused));
    }
}

#[test]
fn unanswered_request_is_refused_by_the_agent() {
    let mut j = Joined::new(23);
    j.w.set_answer(j.a.0, &Answer::Hold);
    let attempt = j.w.open(j.g, "10.0.0.5:22");
    let patience = limits::DIAL_TIMEOUT + limits::ANSWER_GRACE;
    j.w.run_for(patience);
    assert_eq!(cause(&j.w, j.g, attempt), None);
    j.w.run_for(ms(100));
    let Some(AttemptError::Refused(reason)) = cause(&j.w, j.g, attempt) else {
        panic!("{:?}", j.w.events(j.g));
    };
    assert!(reason.contains("timed out"), "{reason}");
    let (slot, _) = requested(&j.w, j.a);
    assert_eq!(ends(&j.w, j.a), [(slot, SessionEnd::Unanswered)]);
    let late = j.w.conn(j.a, |c| c.as_agent().unwrap().accept(slot));
    assert_eq!(late, Err(CommandError::NotWaiting));
}

#[test]
fn cancelled_session_ends_at_the_agent() {
    let mut j = Joined::new(25);
    j.w.set_answer(j.a.0, &Answer::Hold);
    let attempt = j.w.open(j.g, "10.0.0.5:22");
    j.w.run_for(secs(1));
    cancel(&mut j.w, j.g, attempt);
    j.w.run_for(secs(1));
    let (slot, _) = requested(&j.w, j.a);
    assert!(
        matches!(ends(&j.w, j.a)[..], [(s, SessionEnd::ResetByPeer(_))] if s == slot),
        "{:?}",
        j.w.events(j.a)
    );
    let late = j.w.conn(j.a, |c| c.as_agent().unwrap().accept(slot));
    assert_eq!(late, Err(CommandError::NotWaiting));
    j.w.run_for(secs(40));
    assert_eq!(outcomes(&j.w, j.g), 0);
}

#[test]
fn session_that_is_accepted_while_it_is_cancelled_ends() {
    let mut j = Joined::new(26);
    j.w.set_answer(j.a.0, &Answer::Hold);
    let attempt = j.w.open(j.g, "10.0.0.5:22");
    j.w.run_for(secs(1));
    cancel(&mut j.w, j.g, attempt);
    let (slot, _) = requested(&j.w, j.a);
    j.w.with(j.a, |peer| peer.accept(slot));
    j.w.run_for(secs(1));
    assert!(
        matches!(ends(&j.w, j.a)[..], [(s, SessionEnd::ResetByPeer(_))] if s == slot),
        "{:?}",
        j.w.events(j.a)
    );
    assert_eq!(outcomes(&j.w, j.g), 0);
    assert_eq!(j.w.conn(j.g, |c| c.sessions_open()), 0);
}

#[test]
fn cancel_in_the_same_turn_leaves_nothing_behind() {
    let mut j = Joined::new(27);
    for _ in 0..200 {
        let now = j.w.now();
        j.w.conn(j.g, |c| {
            let mut gateway = c.as_gateway().unwrap();
            let target = "10.0.0.5:22".parse().unwrap();
            gateway.open_session(now, AttemptId(9_999), session(), &target);
            gateway.cancel(AttemptId(9_999));
        });
        j.w.run_for(ms(50));
    }
    j.w.run_for(secs(1));
    assert_eq!(outcomes(&j.w, j.g), 0);
    assert_eq!(
        j.w.count(j.a, |e| matches!(e, Event::SessionRequested { .. })),
        0
    );
    // The streams' credit came back: more than 100 were used.
    j.open();
    // Nobody waits for what was cancelled: the connection is idle again at both ends.
    assert_eq!(j.w.closed(j.g), None);
}

#[test]
fn an_agent_allows_more_sessions_as_they_come() {
    let mut j = Joined::new(29);
    let many = 5 * limits::SESSIONS_PER_AGENT_FIRST as usize;
    for _ in 0..many {
        j.w.open(j.g, "10.0.0.5:22");
    }
    j.w.run_for(secs(5));
    assert_eq!(outcomes(&j.w, j.g), many);
    assert_eq!(j.w.conn(j.g, |c| c.sessions_open()), many);
}

#[test]
fn commands_for_slots_that_nobody_asked_for_are_refused() {
    let mut j = Joined::new(28);
    let slot = j.open();
    for at in [slot, Slot(7)] {
        let answer = j.w.conn(j.a, |c| c.as_agent().unwrap().refuse(at, "no"));
        assert_eq!(answer, Err(CommandError::NotWaiting));
        let answer = j.w.conn(j.a, |c| c.as_agent().unwrap().accept(at));
        assert_eq!(answer, Err(CommandError::NotWaiting));
    }
    assert!(j.w.conn(j.g, |c| c.as_agent().is_none()));
    assert!(j.w.conn(j.a, |c| c.as_gateway().is_none()));
    assert!(j.w.conn(j.a, |c| c.session(Slot(7)).is_none()));
}

#[test]
fn command_after_the_close_is_without_effect() {
    let mut j = Joined::new(29);
    j.w.set_answer(j.a.0, &Answer::Hold);
    j.w.open(j.g, "10.0.0.5:22");
    j.w.run_for(secs(1));
    let (slot, _) = requested(&j.w, j.a);
    let now = j.w.now();
    let stop = adit_proto_core::close::CloseReason::AgentStopping;
    j.w.conn(j.a, |c| c.close(now, &stop));
    // The harness fails on an event after Closed.
    for answer in [true, false] {
        let result = j.w.conn(j.a, |c| {
            let mut agent = c.as_agent().unwrap();
            match answer {
                true => agent.accept(slot),
                false => agent.refuse(slot, "no"),
            }
        });
        assert_eq!(result, Err(CommandError::NotWaiting));
    }
    let renewal = j.w.conn(j.a, |c| c.as_agent().unwrap().renew("csr".into()));
    assert_eq!(renewal, Err(CommandError::NotConnected));
    let result = j.w.conn(j.g, |c| {
        c.close(now, &adit_proto_core::close::CloseReason::GatewayStopping);
        let target = "10.0.0.5:22".parse().unwrap();
        let mut gateway = c.as_gateway().unwrap();
        gateway.open_session(now, AttemptId(77), session(), &target);
        gateway.answer_renewal(Err("no".into()))
    });
    assert!(!result);
    let target = "10.0.0.5:22".parse().unwrap();
    j.w.conn(j.g, |c| {
        let mut gateway = c.as_gateway().unwrap();
        gateway.open_session(now, AttemptId(78), session(), &target);
    });
    j.w.run_for(secs(5));
}

#[test]
fn answer_that_came_before_the_close_is_not_told_after_it() {
    let mut j = Joined::new(30);
    j.w.open(j.g, "10.0.0.5:22");
    let a = j.a;
    // Let the answer come to the gateway's connection, which is closed before it is polled.
    let stop = adit_proto_core::close::CloseReason::GatewayStopping;
    j.w.run_until(secs(1), |w| {
        w.has(a, |e| matches!(e, Event::SessionRequested { .. }))
    });
    j.w.set_held(j.g.0, true);
    j.w.run_for(ms(100));
    let now = j.w.now();
    j.w.conn(j.g, |c| c.close(now, &stop));
    j.w.set_held(j.g.0, false);
    j.w.run_for(secs(1));
    assert_eq!(
        j.w.events(j.g)
            .iter()
            .filter(|(_, e)| matches!(e, Event::Closed(_)))
            .count(),
        1
    );
}

#[test]
fn request_that_came_before_the_close_is_not_told_after_it() {
    let mut j = Joined::new(31);
    j.w.set_held(j.a.0, true);
    j.w.open(j.g, "10.0.0.5:22");
    j.w.run_for(ms(100));
    let now = j.w.now();
    let stop = adit_proto_core::close::CloseReason::AgentStopping;
    j.w.conn(j.a, |c| c.close(now, &stop));
    j.w.set_held(j.a.0, false);
    j.w.run_for(secs(1));
    assert!(j.w.closed(j.a).is_some());
    assert!(!j.w.has(j.a, |e| matches!(e, Event::SessionRequested { .. })));
}

#[test]
fn gateway_is_idle_again_after_every_kind_of_end() {
    for kind in 0..3 {
        let mut j = Joined::new(32);
        match kind {
            0 => {
                let slot = j.open();
                j.w.conn(j.g, |c| c.session(slot).unwrap().reset(1));
            }
            1 => {
                j.w.set_answer(j.a.0, &Answer::Refuse("no".into()));
                j.w.open(j.g, "10.0.0.5:22");
            }
            _ => {
                j.w.set_answer(j.a.0, &Answer::Hold);
                let attempt = j.w.open(j.g, "10.0.0.5:22");
                j.w.run_for(ms(100));
                cancel(&mut j.w, j.g, attempt);
            }
        }
        j.w.run_for(secs(2));
        // With something open or being set up the gateway gives a dead path up at four seconds.
        j.both(|path| path.black_hole = true);
        j.w.run_for(secs(8));
        assert_eq!(j.w.closed(j.g), None, "end {kind}");
    }
}

fn session() -> adit_proto_core::id::SessionId {
    adit_proto_core::id::SessionId(uuid::Uuid::from_u128(1))
}

fn cancel(w: &mut World, g: At, attempt: AttemptId) {
    w.with(g, |peer| {
        peer.attempts.remove(&attempt);
        peer.conn.as_gateway().unwrap().cancel(attempt);
    });
}

fn requested(w: &World, at: At) -> (Slot, String) {
    let found = w.events(at).iter().rev().find_map(|(_, e)| match e {
        Event::SessionRequested { slot, target, .. } => Some((*slot, target.to_string())),
        _ => None,
    });
    found.expect("a request")
}

fn cause(w: &World, at: At, want: AttemptId) -> Option<&AttemptError> {
    w.events(at).iter().find_map(|(_, e)| match e {
        Event::SessionRefused { attempt, cause } if *attempt == want => Some(cause),
        _ => None,
    })
}

fn ends(w: &World, at: At) -> Vec<(Slot, SessionEnd)> {
    let ends = w.events(at).iter().filter_map(|(_, e)| match e {
        Event::SessionEnded { slot, how } => Some((*slot, *how)),
        _ => None,
    });
    ends.collect()
}

fn outcomes(w: &World, at: At) -> usize {
    w.count(at, |e| {
        matches!(
            e,
            Event::SessionOpened { .. } | Event::SessionRefused { .. }
        )
    })
}
