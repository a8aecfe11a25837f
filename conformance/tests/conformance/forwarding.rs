//! Sessions of users at one gateway whose agent is at another: with either driver at either gateway.

use crate::{
    bed::{
        Bed,
        wait::{block_on, until},
    },
    driver::Pairing,
    peers::{conform, stop},
};

#[test]
fn a_session_goes_through_another_gateway_and_ends_as_any_other() {
    conform(|cluster| {
        let mut far = Bed::new(cluster.pairing);
        far.begin();
        // Of which the agent is nowhere near.
        let mut near = Bed::new(Pairing {
            gateway: cluster.pairing.agent,
            agent: cluster.pairing.gateway,
        });
        near.start_gateway();
        let start = |id, bed: &Bed| {
            let mut setup = cluster.setup(id);
            setup.gateway = Some(bed.gateway().clone());
            cluster.start(setup)
        };
        let (one, two) = (start(1, &far), start(2, &near));
        one.know(&[(2, &two)]);
        two.know(&[(1, &one)]);
        let target = near.target("target", None);
        until("the other gateway's agent can be reached", || {
            let explained = near.gateway().explain(target.addr().into(), None);
            let ways = block_on(explained).unwrap().peers;
            (!ways.is_empty()).then_some(())
        });
        let mut session = near.open("s", &target);
        session.user.send(b"question");
        session.target.receive(8);
        session.target.send(&vec![7; 1 << 20]);
        session.user.receive(1 << 20);
        session.user.finish();
        session.target.receive_rest();
        session.target.finish();
        session.user.receive_rest();

        let mut session = near.open("reset at its target", &target);
        session.target.reset();
        session.user.receive_reset();
        let mut session = near.open("reset by its user", &target);
        session.user.reset();
        session.target.receive_reset();

        far.see_open(0);
        near.see_open(0);
        stop([one, two]);
        for bed in [near, far] {
            cluster.note(&bed.finish().outside);
        }
    });
}
