//! Farewells: what has been sent arrives, however slowly it is read, before or after the connection ends.

use std::sync::atomic::Ordering;

use adit_io_common::gateway::Stopped;

use crate::{
    bed::{
        end::bytes,
        wait::{block_on, until},
    },
    conform,
};

const SMALL: Option<usize> = Some(64 << 10);
const LEN: usize = 2 << 20;

#[test]
fn an_agent_that_takes_its_leave_loses_no_last_bytes() {
    conform(|bed| {
        bed.begin();
        let target = bed.target("target", SMALL);
        let mut s = bed.open_with("s", &target, SMALL);
        s.user.finish();
        s.target.receive_rest();
        let last = bytes(1, LEN);
        s.target.send(&last);
        s.target.finish();
        let open = bed.agent("a").sessions();
        until("the session is over at the agent", || {
            (open.load(Ordering::Relaxed) == 0).then_some(())
        });
        bed.dismiss_agent("a");
        bed.see_agents(&[]);
        assert!(s.user.trickle(10_000) == last, "all arrives, and the end");
    });
}

#[test]
fn a_gateway_that_takes_its_leave_loses_no_last_bytes() {
    conform(|bed| {
        bed.begin();
        let target = bed.target("target", SMALL);
        let mut s = bed.open_with("s", &target, SMALL);
        s.target.finish();
        s.user.receive_rest();
        let last = bytes(2, LEN);
        s.user.send(&last);
        s.user.finish();
        bed.count();
        bed.dismiss_gateway();
        bed.stop_gateway();
        assert!(s.target.trickle(10_000) == last, "all arrives, and the end");
    });
}

#[test]
fn a_gateway_that_has_taken_its_leave_answers_until_it_stops() {
    conform(|bed| {
        bed.begin();
        bed.dismiss_gateway();
        let target = bed.target("target", None);
        bed.refused("late", &target.addr().into());
        bed.see_agents(&[]);
        bed.count();
        bed.stop_gateway();
        assert_eq!(block_on(bed.gateway().agents()).unwrap_err(), Stopped);
    });
}

#[test]
fn a_farewell_cuts_what_is_still_open() {
    conform(|bed| {
        bed.begin();
        let target = bed.target("target", None);
        let mut s = bed.open("first", &target);
        bed.dismiss_agent("a");
        s.user.receive_reset();
        s.target.receive_reset();
        bed.start_agent("b");
        bed.see_agents(&["b"]);
        let mut s = bed.open("second", &target);
        bed.statuses("b").wait_up();
        bed.dismiss_gateway();
        s.user.receive_reset();
        s.target.receive_reset();
        bed.stop_gateway();
    });
}
