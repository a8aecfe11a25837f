//! An agent whose packets come from another port all of a sudden.

use std::collections::BTreeSet;

use crate::{
    bed::{
        Bed,
        end::bytes,
        forwarder::Forwarder,
        wait::{block_on, until},
    },
    conform,
};

#[test]
fn a_session_goes_on_when_a_nat_gives_its_agent_another_port() {
    conform(|bed| {
        bed.start_gateway();
        let mut nat = Forwarder::new(bed.gateway_addr());
        bed.name(nat.addr(), "nat");
        bed.start_agent_towards("a", nat.addr());
        bed.see_agents(&["a"]);
        let target = bed.target("target", None);
        let mut s = bed.open("s", &target);
        for round in 0..3 {
            let (question, answer) = (bytes(round, 50_000), bytes(round + 10, 50_000));
            s.user.send(&question);
            assert_eq!(s.target.receive(question.len()), question);
            nat.rebind();
            s.target.send(&answer);
            assert_eq!(s.user.receive(answer.len()), answer);
            let port = nat.port();
            until("the gateway knows the new port", || {
                (remote_port(bed) == Some(port)).then_some(())
            });
        }
        bed.see_agents(&["a"]);
        s.user.finish();
        s.target.receive_rest();
        s.target.finish();
        s.user.receive_rest();
        // Stopped through the NAT, which is still there.
        bed.stop_agent("a");
        bed.see_agents(&[]);
    });
}

/// Where the gateway sends to.
fn remote_port(bed: &Bed) -> Option<u16> {
    let agents = block_on(bed.gateway().agents()).unwrap();
    let conns: BTreeSet<_> = agents.iter().map(|agent| agent.conn).collect();
    let glances = block_on(bed.gateway().look(conns)).unwrap();
    Some(glances.values().next()?.remote.port())
}
