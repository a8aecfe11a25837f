//! What the node tells of what it holds.

use std::sync::{Arc, Mutex, atomic::AtomicU64};

use adit_proto_core::{limits::AGENT_SILENT, peer::catalogue::Holding};

use super::*;
use crate::gateway::input::FromPeers;

#[test]
fn peers_are_told_when_an_agent_falls_silent_and_when_it_is_back() {
    let mut bed = Bed::new();
    let changes = bed.watch();
    let _conn = bed.up(1);
    bed.registered(1);
    let routes = RouteSet {
        subnets: vec!["10.0.0.0/8".parse().unwrap()],
        domains: Vec::new(),
    };
    bed.event(1, AgentEvent::Routes { epoch: 1, routes });
    assert_eq!(bed.collect().subnets.len(), 1);
    changes.store(0, Ordering::Relaxed);
    let start = bed.now;
    bed.now = start + AGENT_SILENT / 2;
    bed.event(1, AgentEvent::Seen);
    assert_eq!(changes.load(Ordering::Relaxed), 0, "nothing has changed");
    let silent = bed.now + AGENT_SILENT;
    while bed.now < silent {
        let at = bed.node.poll_timeout().expect("nobody looks");
        assert!(at > bed.now, "a timer that is over stays");
        bed.now = at;
        bed.node.handle_timeout(at);
    }
    assert_eq!(bed.now, silent);
    assert!(changes.swap(0, Ordering::Relaxed) > 0, "nobody is told");
    assert!(bed.collect().subnets.is_empty());
    assert!(bed.node.poll_timeout().is_some_and(|at| at > bed.now));
    bed.event(1, AgentEvent::Seen);
    assert_eq!(changes.load(Ordering::Relaxed), 1);
    assert_eq!(bed.collect().subnets.len(), 1);
}

impl Bed {
    /// Counts how often the node says that what it holds may have changed.
    fn watch(&mut self) -> Arc<AtomicU64> {
        let changes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&changes);
        let changed = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        self.input(NodeInput::Peers(FromPeers::Watch(Box::new(changed))));
        changes
    }

    fn collect(&mut self) -> Holding {
        let told = Arc::new(Mutex::new(None));
        let reply = Arc::clone(&told);
        let done = move |holding| *reply.lock().unwrap() = Some(holding);
        self.input(NodeInput::Peers(FromPeers::Collect(Box::new(done))));
        told.lock().unwrap().take().unwrap()
    }
}
