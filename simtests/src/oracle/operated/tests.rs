use std::sync::Arc;

use adit_proto_core::{
    endpoint::EndpointLimits, gateway::dispatch::DispatchConfig, identity::AgentIdentity,
};
use uuid::Uuid;

use super::*;
use crate::{facts::Start, plan::Roster};

#[test]
fn a_connection_that_outlives_its_agent_is_blamed() {
    let mut bed = Bed::new();
    bed.established();
    bed.registered();
    bed.see(&Fact::Deleted(AGENT));
    assert!(bed.objects());
}

#[test]
fn a_connection_that_is_closed_with_its_agent_is_not() {
    let mut bed = Bed::new();
    bed.established();
    bed.registered();
    bed.see(&Fact::Deleted(AGENT));
    bed.closed(Closed::Local);
    assert!(!bed.objects());
}

#[test]
fn one_whose_end_the_process_has_not_heard_of_is_not() {
    let mut bed = Bed::new();
    bed.established();
    bed.registered();
    bed.closed(Closed::PeerRestarted);
    bed.see(&Fact::Deleted(AGENT));
    bed.see(&Fact::ClosedTold(CONN));
    assert!(!bed.objects());
}

#[test]
fn one_whose_beginning_the_process_has_not_heard_of_is_blamed() {
    let mut bed = Bed::new();
    bed.established();
    bed.see(&Fact::Deleted(AGENT));
    assert!(bed.objects());
}

#[test]
fn one_whose_handshake_ends_after_its_agent_was_deleted_is_blamed() {
    let mut bed = Bed::new();
    bed.see(&Fact::Deleted(AGENT));
    bed.established();
    assert!(bed.objects());
}

struct Bed {
    judge: Operated,
    harm: Harm,
    at: At,
}

impl Bed {
    fn new() -> Self {
        let mut bed = Self {
            judge: Operated::default(),
            harm: Harm::default(),
            at: At::ZERO,
        };
        bed.see(&Fact::Started(&Start::Gateway {
            dispatch: DispatchConfig::default(),
            limits: EndpointLimits::default(),
            lazy: false,
            roster: Arc::new(Roster::default()),
            impostor: false,
            wall_off_ms: 0,
        }));
        bed
    }

    fn established(&mut self) {
        let identity = Some(identity());
        self.see(&Fact::Event(CONN, &Event::Established { identity }));
    }

    fn registered(&mut self) {
        self.see(&Fact::Registering(CONN, &identity()));
    }

    fn closed(&mut self, why: Closed) {
        self.see(&Fact::Event(CONN, &Event::Closed(why)));
    }

    fn see(&mut self, fact: &Fact<'_>) {
        assert_eq!(self.observe(fact), None);
        self.at += At::from_millis(1);
    }

    /// Tells what the judge says once everything should have been done.
    fn objects(&mut self) -> bool {
        self.at += REVOKED_WITHIN * 2;
        self.observe(&Fact::Calm).is_some()
    }

    fn observe(&mut self, fact: &Fact<'_>) -> Option<String> {
        self.harm.observe(self.at, GATEWAY, fact);
        self.judge.observe(self.at, GATEWAY, fact, &self.harm)
    }
}

fn identity() -> AgentIdentity {
    AgentIdentity {
        id: AGENT,
        name: "a".into(),
        fingerprint: [0; 32],
        spki_sha256: [0; 32],
    }
}

const GATEWAY: NodeId = NodeId(0);
const AGENT: AgentId = AgentId(Uuid::from_u128(7));
const CONN: ConnId = ConnId(1);
