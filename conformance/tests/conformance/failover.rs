//! Two agents for one target.

use crate::conform;

#[test]
fn sessions_go_to_the_other_agent_when_one_dies_and_those_of_the_dead_one_are_reset() {
    conform(|bed| {
        bed.begin();
        bed.start_agent("b");
        bed.see_agents(&["a", "b"]);
        let target = bed.target("target", None);
        // Each gets one: the fewest sessions decide, and then the newest routes.
        let mut dies = bed.open("first", &target);
        assert_eq!(bed.carrier(&dies), "b");
        let mut lives = bed.open("second", &target);
        assert_eq!(bed.carrier(&lives), "a");
        dies.user.send(b"half");
        dies.target.receive(4);
        bed.quit_agent("b");
        // The gateway does not know yet, and asks the dead one first.
        let mut next = bed.open("third", &target);
        assert_eq!(bed.carrier(&next), "a");
        for s in [&mut lives, &mut next] {
            s.user.send(b"goes on");
            s.target.receive(7);
        }
        assert!(dies.user.receive_reset().is_empty());
        bed.see_agents(&["a"]);
        let last = bed.open("fourth", &target);
        assert_eq!(bed.carrier(&last), "a");
    });
}
