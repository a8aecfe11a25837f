//! A certificate is renewed while a session is open.

use adit_io_common::agent::RenewalStatus;

use crate::{bed::wait::block_on, conform};

#[test]
fn a_renewed_certificate_is_shown_on_a_second_connection_and_no_session_ends_for_it() {
    conform(|bed| {
        bed.begin();
        let target = bed.target("target", None);
        let mut s = bed.open("before", &target);
        assert!(block_on(bed.agent("a").renew()).unwrap());
        bed.see_agents(&["a", "a superseded"]);
        s.user.send(b"goes on");
        s.target.receive(7);
        let mut after = bed.open("after", &target);
        after.user.send(b"by the new connection");
        after.target.receive(21);
        bed.statuses("a").wait("renewed", |status| {
            matches!(status.renewal, RenewalStatus::Done { .. })
        });
        s.target.send(b"still there");
        s.user.receive(11);
        s.user.finish();
        s.target.receive_rest();
        s.target.finish();
        s.user.receive_rest();
        bed.see_agents(&["a"]);
        after.target.send(b"too");
        after.user.receive(3);
    });
}
