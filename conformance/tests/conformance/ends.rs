//! How sessions end: each direction by itself, or both at once by a reset.

use crate::{
    bed::{Bed, Session, end::bytes},
    conform,
};

#[test]
fn a_target_answers_after_its_user_has_ended() {
    conform(|bed| {
        bed.begin();
        let mut s = open(bed);
        s.user.send(b"all I have");
        s.user.finish();
        s.target.receive_rest();
        let answer = bytes(1, 300_000);
        s.target.send(&answer);
        s.target.finish();
        assert_eq!(s.user.receive_rest(), answer);
    });
}

#[test]
fn a_user_goes_on_after_its_target_has_ended() {
    conform(|bed| {
        bed.begin();
        let mut s = open(bed);
        s.target.send(b"greeting");
        s.target.finish();
        s.user.receive_rest();
        let more = bytes(2, 300_000);
        s.user.send(&more);
        s.user.finish();
        assert_eq!(s.target.receive_rest(), more);
    });
}

#[test]
fn a_users_reset_reaches_the_target_behind_what_came_before() {
    conform(|bed| {
        bed.begin();
        let mut s = open(bed);
        s.user.send(b"before");
        s.target.receive(6);
        s.user.reset();
        assert!(s.target.receive_reset().is_empty());
    });
}

#[test]
fn a_targets_reset_reaches_the_user_behind_what_came_before() {
    conform(|bed| {
        bed.begin();
        let mut s = open(bed);
        s.target.send(b"before");
        s.user.receive(6);
        s.target.reset();
        assert!(s.user.receive_reset().is_empty());
    });
}

#[test]
fn a_reset_after_a_half_close_is_no_clean_end() {
    conform(|bed| {
        bed.begin();
        let mut s = open(bed);
        s.user.finish();
        s.target.receive_rest();
        s.target.send(b"half an answer");
        s.user.receive(14);
        s.target.reset();
        assert!(s.user.receive_reset().is_empty());
    });
}

#[test]
fn a_user_that_is_gone_after_its_half_close_is_found_out() {
    conform(|bed| {
        bed.begin();
        let mut s = open(bed);
        s.user.send(b"question");
        s.user.finish();
        s.target.receive_rest();
        s.user.reset();
        // Nobody reads from its socket any more; it is looked at every 5 s.
        s.target.see_reset();
    });
}

fn open(bed: &Bed) -> Session {
    let target = bed.target("target", None);
    bed.open("s", &target)
}
