//! A link that is far slower than its host and queues all it gets: the kernel has no room for what a gateway sends.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    harness::{
        alone,
        console::{METRICS, metrics},
        targets::{echo_at, ping},
    },
    lab::{Lab, TARGET},
    transfer::{MEGABYTE, exchange},
};

#[test]
fn what_a_full_socket_refuses_is_sent_later_by_tokio() {
    what_is_refused_is_sent_later("tokio");
}

#[test]
fn what_a_full_socket_refuses_is_sent_later_by_mio() {
    what_is_refused_is_sent_later("mio");
}

fn what_is_refused_is_sent_later(driver: &str) {
    let _machine = alone();
    let lab = Lab::new(2);
    let gateway = lab.start_gateway_with(METRICS, &["--driver", driver]);
    // With equal loads the newest route set is the first choice: the second agent gets the small session.
    let busy = lab.serving(0, &gateway);
    let targets = lab.target(0);
    let bulk = [(); 2].map(|()| {
        let user = lab.user(&gateway);
        let far = targets.accept();
        (user, far)
    });
    let other = lab.serving(1, &gateway);
    lab.agents[1].within(|| echo_at(TARGET));
    let small = lab.user(&gateway);
    ping(&small, b"before");

    // The queue takes more than any socket may have in it: what fills is the socket's buffer.
    (lab.gateway).tc("qdisc add dev eth0 root tbf rate 200mbit burst 16kb limit 256mb");
    let over = AtomicBool::new(false);
    let mut pings = 0;
    thread::scope(|scope| {
        let transfers = bulk
            .each_ref()
            .map(|(user, far)| scope.spawn(move || exchange(user, far, 25 * MEGABYTE)));
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                ping(&small, b"beside");
                pings += 1;
            }
        });
        let ended = transfers.map(|transfer| transfer.join());
        over.store(true, Ordering::SeqCst);
        for transfer in ended {
            transfer.unwrap();
        }
    });
    let now = lab.gateway.within(|| metrics(&gateway));
    let blocked = now.value("adit_udp_send_blocked_total");
    eprintln!("{driver}: {blocked} sends refused, {pings} answers beside them");
    assert!(blocked > 0);
    assert!(pings > 0);
    assert_eq!(gateway.process().count("agent disconnected"), 0);
    for agent in [busy, other] {
        let lost = agent.process().count("connection to the gateway lost");
        assert_eq!(lost, 0);
    }
}
