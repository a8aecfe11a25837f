//! What the tests of `Dispatch` share: short names and a gateway in virtual time.

use std::time::Duration;

use uuid::Uuid;

use super::{DispatchOutput as Out, *};
use crate::{
    domain::DomainPattern, error::DecodeError, gateway::AttemptFailure, route::DomainRoute,
};

pub(super) fn causes() -> [AttemptError; 5] {
    [
        AttemptError::Refused("no".into()),
        AttemptError::TimedOut,
        AttemptError::NoCredit,
        AttemptError::ConnectionLost,
        AttemptError::Malformed(DecodeError::InvalidField {
            field: "x".into(),
            reason: "y".into(),
        }),
    ]
}

pub(super) fn registered(id: u64, key: u8) -> AgentEvent {
    let identity = AgentIdentity {
        id: agent(id),
        name: format!("agent-{id}").into(),
        fingerprint: [0; 32],
        spki_sha256: [key; 32],
    };
    AgentEvent::Registered {
        identity,
        renewed: false,
    }
}

pub(super) fn routes(epoch: u64, text: &str) -> AgentEvent {
    let mut routes = RouteSet::default();
    match text.parse() {
        Ok(net) => routes.subnets.push(net),
        Err(_) => routes.domains.push(DomainRoute {
            pattern: DomainPattern::parse(text).unwrap(),
            auto_detected: false,
        }),
    }
    AgentEvent::Routes { epoch, routes }
}

pub(super) fn everything() -> DirectRule {
    DirectRule {
        range: DirectRange::Subnet("0.0.0.0/0".parse().unwrap()),
        port: None,
    }
}

pub(super) fn agent(n: u64) -> AgentId {
    AgentId(Uuid::from_u64_pair(1, n))
}

pub(super) fn session(n: u64) -> SessionId {
    SessionId(Uuid::from_u64_pair(2, n))
}

pub(super) fn opened(attempt: u64, slot: u64) -> AgentEvent {
    AgentEvent::Opened {
        attempt: AttemptId(attempt),
        slot: Slot(slot),
    }
}

pub(super) struct Bed {
    pub(super) dispatch: Dispatch,
    pub(super) start: Instant,
    pub(super) now: Instant,
}

impl Bed {
    /// Connection n belongs to agent n; the last one has the newest routes.
    pub(super) fn with(agents: &[(u64, &str)]) -> Self {
        Self::configured(DispatchConfig::default(), agents)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    pub(super) fn configured(config: DispatchConfig, agents: &[(u64, &str)]) -> Self {
        let start = Instant::now();
        let mut bed = Self {
            dispatch: Dispatch::new(config),
            start,
            now: start,
        };
        agents.iter().for_each(|(n, text)| bed.enter(*n, text));
        bed
    }

    pub(super) fn enter(&mut self, n: u64, text: &str) {
        self.event(n, registered(n, 0));
        self.event(n, routes(1, text));
    }

    pub(super) fn event(&mut self, conn: u64, event: AgentEvent) {
        self.dispatch.handle_event(self.now, ConnId(conn), event);
    }

    pub(super) fn fail(&mut self, conn: u64, attempt: u64, cause: AttemptError) {
        let attempt = AttemptId(attempt);
        self.event(conn, AgentEvent::Failed { attempt, cause });
    }

    pub(super) fn open(&mut self, n: u64, target: &str) {
        let target = target.parse().unwrap();
        self.dispatch.open(self.now, session(n), target, None);
    }

    pub(super) fn open_pinned(&mut self, n: u64, target: &str, id: u64) {
        let target = target.parse().unwrap();
        self.dispatch
            .open(self.now, session(n), target, Some(agent(id)));
    }

    pub(super) fn direct(&mut self, n: u64, result: Result<(), String>) {
        self.dispatch.handle_direct(self.now, session(n), result);
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.dispatch.handle_timeout(self.now);
    }

    pub(super) fn out(&mut self) -> Vec<Out> {
        std::iter::from_fn(|| self.dispatch.poll_output()).collect()
    }

    pub(super) fn loads(&self) -> Vec<usize> {
        let list = self.dispatch.hub().list(self.now);
        list.iter().map(|a| a.sessions).collect()
    }
}

pub(super) fn ask(conn: u64, attempt: u64, n: u64) -> Out {
    to(conn, attempt, n, "10.1.1.1:22")
}

pub(super) fn to(conn: u64, attempt: u64, n: u64, target: &str) -> Out {
    Out::Open {
        conn: ConnId(conn),
        attempt: AttemptId(attempt),
        session: session(n),
        target: target.parse().unwrap(),
    }
}

pub(super) fn committed(n: u64, conn: u64, slot: u64) -> Out {
    Out::Committed {
        session: session(n),
        agent: Some(agent(conn)),
        route: Carrier::Agent {
            conn: ConnId(conn),
            slot: Slot(slot),
        },
    }
}

pub(super) fn discard(conn: u64, slot: u64) -> Out {
    Out::Discard {
        conn: ConnId(conn),
        slot: Slot(slot),
    }
}

pub(super) fn failed(n: u64, error: OpenError) -> Out {
    Out::Failed {
        session: session(n),
        error,
    }
}

pub(super) fn failure(id: u64, cause: AttemptError) -> AttemptFailure {
    AttemptFailure {
        agent: Some(agent(id)),
        peer: None,
        cause,
    }
}
