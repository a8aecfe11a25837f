//! Where a scenario takes place: a gateway and agents of one pairing on loopback, with a journal of what is seen.

pub(crate) mod cluster;
pub(crate) mod end;
pub(crate) mod forwarder;
pub(crate) mod holder;
mod hooks;
mod journal;
mod pairs;
pub(crate) mod pki;
mod recorded;
pub(crate) mod sequences;
mod status;
pub(crate) mod wait;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use adit_io_common::{
    agent::{AdvertiserConfig, AgentConfig, AgentHandle, Restrictions},
    clock::system_env,
    gateway::{GatewayConfig, GatewayHandle, OpenRequest, PendingSession},
};
use adit_proto_core::{
    domain::DomainPattern,
    endpoint::EndpointLimits,
    env::{EndpointSecrets, Env},
    gateway::{dispatch::DispatchConfig, info::AgentStatus},
    id::{AgentId, SessionId},
    limits::UNREAD_BUDGET,
    route::{DomainRoute, RouteSet},
    session_timer::SessionBounds,
    target::Target as Wanted,
};
use bytes::Bytes;
use uuid::Uuid;

use self::{
    end::{Buffers, End, Target},
    hooks::Office,
    journal::Journal,
    pairs::MemoryPairs,
    pki::{PKI, Pair},
    recorded::Recorded,
    sequences::Sequences,
    status::Statuses,
    wait::{SOON, block_on, until},
};
use crate::driver::{AgentNode, GatewayNode, Pairing};

pub(crate) struct Bed {
    pairing: Pairing,
    journal: Journal,
    recorded: Recorded,
    office: Office,
    /// Of the gateway; the same after a restart.
    secrets: EndpointSecrets,
    pub(crate) settings: Settings,
    gateway: Option<Box<dyn GatewayNode>>,
    /// Of the gateway that runs, or ran last.
    handle: Option<GatewayHandle>,
    addr: SocketAddr,
    agents: BTreeMap<&'static str, Agent>,
    pairs: BTreeMap<&'static str, Pair>,
}

/// What differs between the gateways of scenarios.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) dispatch: DispatchConfig,
    pub(crate) sessions: SessionBounds,
}

struct Agent {
    node: Box<dyn AgentNode>,
    statuses: Statuses,
}

/// What was seen of a scenario.
pub(crate) struct Seen {
    /// In words.
    pub(crate) outside: String,
    pub(crate) sequences: Sequences,
}

/// Of a scenario without connections.
impl From<String> for Seen {
    fn from(outside: String) -> Self {
        Self {
            outside,
            sequences: Sequences::default(),
        }
    }
}

/// An open session with both of its ends.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) user: End,
    pub(crate) target: End,
}

impl Bed {
    pub(crate) fn new(pairing: Pairing) -> Self {
        Self {
            pairing,
            journal: Journal::default(),
            recorded: Recorded::new(),
            office: Office::default(),
            secrets: EndpointSecrets::new([7; 32], [8; 32]),
            settings: Settings::default(),
            gateway: None,
            handle: None,
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            agents: BTreeMap::new(),
            pairs: BTreeMap::new(),
        }
    }

    /// With a gateway and one agent, `a`, that is registered.
    pub(crate) fn begin(&mut self) {
        self.start_gateway();
        self.start_agent("a");
        self.see_agents(&["a"]);
        self.statuses("a").wait_up();
    }

    // The gateway.

    /// Starts it where it was the last time, if it was.
    pub(crate) fn start_gateway(&mut self) {
        let config = GatewayConfig {
            listen: self.addr,
            tls: PKI.gateway_tls(),
            limits: EndpointLimits::default(),
            dispatch: self.settings.dispatch.clone(),
            sessions: self.settings.sessions,
            drained: Vec::new(),
            hooks: self.office.hooks(),
            journal: Some(self.recorded.journal()),
            threads: 1,
        };
        let env = system_env(Some(self.secrets.clone())).unwrap();
        let gateway = self.pairing.gateway.start_gateway(config, &env).unwrap();
        self.addr = gateway.local_addr();
        self.journal.name(self.addr, "gateway");
        self.handle = Some(gateway.handle());
        self.gateway = Some(gateway);
        self.note("gateway", "started");
    }

    /// Has the gateway be there, when it is started.
    pub(crate) fn set_gateway_addr(&mut self, addr: SocketAddr) {
        self.addr = addr;
        self.journal.name(addr, "gateway");
    }

    pub(crate) fn gateway_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn gateway(&self) -> &GatewayHandle {
        self.handle.as_ref().expect("a gateway was started")
    }

    /// Has it take its leave.
    pub(crate) fn dismiss_gateway(&mut self) {
        self.note_one_more();
        let gateway = self.gateway.as_mut().expect("a gateway runs");
        assert!(gateway.farewell(SOON), "the farewell ends in time");
        self.note("gateway", "has taken its leave");
    }

    /// Stops it as the process does.
    pub(crate) fn stop_gateway(&mut self) {
        self.stop_gateway_within(SOON);
    }

    /// The same where nothing is to be waited for.
    pub(crate) fn stop_gateway_at_once(&mut self) {
        self.stop_gateway_within(CLOSE_PATIENCE);
    }

    fn stop_gateway_within(&mut self, patience: Duration) {
        self.note_one_more();
        let gateway = self.gateway.take().expect("a gateway runs");
        assert!(gateway.stop(patience), "the gateway stops in time");
        self.note("gateway", "stopped");
        for agent in self.agents.values() {
            agent.statuses.wait_noted();
        }
    }

    /// Agents are told, and may come back while it stops.
    fn note_one_more(&mut self) {
        for agent in self.agents.values() {
            agent.statuses.note_one_more();
        }
        if !self.agents.is_empty() {
            self.recorded.compare_used_only();
        }
    }

    pub(crate) fn quit_gateway(&mut self) {
        self.gateway.take().expect("a gateway runs").quit();
        self.note("gateway", "killed");
    }

    // Agents.

    /// Starts an agent with the routes that all have.
    pub(crate) fn start_agent(&mut self, name: &'static str) {
        self.start_agent_towards(name, self.addr);
    }

    /// Starts an agent that takes this for the gateway's address.
    pub(crate) fn start_agent_towards(&mut self, name: &'static str, gateway: SocketAddr) {
        // The same key whenever it comes back.
        let pair = || PKI.agent(agent_id(name).0, name);
        let pair = self.pairs.entry(name).or_insert_with(pair).clone();
        let config = AgentConfig {
            gateways: vec![Wanted::from(gateway)],
            pairs: Arc::new(MemoryPairs::new(pair)),
            routes: Arc::new(routes()),
            restrictions: Restrictions::default(),
            intervals: AdvertiserConfig::default(),
            unread: UNREAD_BUDGET,
            journal: Some(self.recorded.journal()),
        };
        let statuses = Statuses::default();
        let publish = statuses.publish(&self.journal, format!("agent {name}"));
        self.note(&format!("agent {name}"), "started");
        let node = self.pairing.agent.start_agent(config, env(), publish);
        self.agents.insert(name, Agent { node, statuses });
    }

    pub(crate) fn agent(&self, name: &str) -> &AgentHandle {
        self.agents[name].node.handle()
    }

    pub(crate) fn statuses(&self, name: &str) -> &Statuses {
        &self.agents[name].statuses
    }

    /// Has it take its leave, after which it is over.
    pub(crate) fn dismiss_agent(&mut self, name: &str) {
        let agent = self.agents.get_mut(name).unwrap();
        assert!(agent.node.farewell(SOON), "the farewell ends in time");
        self.note(&format!("agent {name}"), "has taken its leave");
        self.stop_agent(name);
    }

    pub(crate) fn stop_agent(&mut self, name: &str) {
        self.stop_agent_within(name, SOON);
    }

    /// The same where nothing is to be waited for.
    pub(crate) fn stop_agent_at_once(&mut self, name: &str) {
        self.stop_agent_within(name, CLOSE_PATIENCE);
    }

    fn stop_agent_within(&mut self, name: &str, patience: Duration) {
        let agent = self.agents.remove(name).unwrap();
        assert!(agent.node.stop(patience), "agent {name} stops in time");
        self.note(&format!("agent {name}"), "stopped");
    }

    pub(crate) fn quit_agent(&mut self, name: &str) {
        self.agents.remove(name).unwrap().node.quit();
        self.note(&format!("agent {name}"), "killed");
    }

    /// Notes how an agent fares again, after its gateway had stopped.
    pub(crate) fn resume(&self, name: &str) {
        let subject = format!("agent {name}");
        self.agents[name].statuses.resume(&self.journal, &subject);
    }

    /// Waits until the gateway has these agents' routes, by name, and no others. One that is superseded is marked.
    pub(crate) fn see_agents(&self, wanted: &[&str]) {
        let what = format!("agents {wanted:?}");
        until(&what, || (self.agents_seen() == wanted).then_some(()));
        self.note("gateway", &format!("has agents {wanted:?}"));
    }

    fn agents_seen(&self) -> Vec<String> {
        let agents = block_on(self.gateway().agents()).unwrap();
        let mut seen: Vec<String> = agents
            .iter()
            .filter(|agent| agent.epoch > 0)
            .map(|agent| match agent.status {
                AgentStatus::Online => agent.identity.name.to_string(),
                AgentStatus::Suspect => format!("{} suspect", agent.identity.name),
                AgentStatus::Superseded => format!("{} superseded", agent.identity.name),
            })
            .collect();
        seen.sort();
        seen
    }

    // Sessions.

    pub(crate) fn target(&self, name: &str, buffers: Buffers) -> Target {
        let target = Target::new(buffers);
        self.journal.name(target.addr(), name);
        target
    }

    /// Opens a session as an ingress does, and hands the user's socket over.
    pub(crate) fn open(&self, name: &str, target: &Target) -> Session {
        self.open_with(name, target, None)
    }

    /// The same with buffers of this size at the user's end.
    pub(crate) fn open_with(&self, name: &str, target: &Target, buffers: Buffers) -> Session {
        let pending = self.ask(&target.addr().into()).unwrap();
        let subject = format!("session {name}");
        self.note(&subject, "opened");
        let id = pending.id();
        let (user, ingress) = end::user(buffers);
        pending.attach(ingress, Bytes::new());
        Session {
            id,
            user: self.end(user, format!("{subject}, user")),
            target: self.end(target.accept(), format!("{subject}, target")),
        }
    }

    pub(crate) fn ask(
        &self,
        target: &Wanted,
    ) -> Result<PendingSession, adit_proto_core::gateway::OpenError> {
        block_on(self.gateway().open(request(target)))
    }

    /// Asks for a session that is not to be had.
    pub(crate) fn refused(&self, name: &str, target: &Wanted) {
        let error = self.ask(target).expect_err("it is refused");
        self.note(&format!("session {name}"), &format!("refused: {error}"));
    }

    pub(crate) fn end(&self, stream: TcpStream, subject: String) -> End {
        End::new(stream, &self.journal, subject)
    }

    pub(crate) fn note(&self, subject: &str, line: &str) {
        self.journal.note(subject, line);
    }

    pub(crate) fn name(&self, addr: SocketAddr, name: &str) {
        self.journal.name(addr, name);
    }

    /// Waits until so many handshakes are under way.
    pub(crate) fn see_handshakes(&self, count: usize) {
        until(&format!("{count} handshakes are under way"), || {
            let counters = block_on(self.gateway().counters()).unwrap();
            (counters.load.handshakes == count).then_some(())
        });
    }

    /// Waits until so many sessions are open.
    pub(crate) fn see_open(&self, count: usize) {
        until(&format!("{count} sessions are open"), || {
            let counters = block_on(self.gateway().counters()).unwrap();
            (counters.sessions_open == count && counters.sessions_opening == 0).then_some(())
        });
    }

    /// Waits until so many sessions are being opened.
    pub(crate) fn see_opening(&self, count: usize) {
        until(&format!("{count} sessions are being opened"), || {
            let counters = block_on(self.gateway().counters()).unwrap();
            (counters.sessions_opening == count).then_some(())
        });
    }

    /// The name of the agent that carries a session.
    pub(crate) fn carrier(&self, session: &Session) -> String {
        let sessions = block_on(self.gateway().sessions()).unwrap();
        let row = sessions.iter().find(|row| row.info.id == session.id);
        let agent = row.expect("it is open").info.agent;
        let agents = block_on(self.gateway().agents()).unwrap();
        let carrier = agents.iter().find(|info| Some(info.identity.id) == agent);
        carrier.expect("it is connected").identity.name.to_string()
    }

    /// Notes what the gateway has counted of sessions, once none is open.
    pub(crate) fn count(&self) {
        self.see_open(0);
        let counters = block_on(self.gateway().counters()).unwrap().node;
        let ended = counters.ended.iter().map(|(how, n)| (how.word(), *n));
        let failed = counters.failed.iter().map(|(why, n)| (why.word(), *n));
        let counted: Vec<String> = [("opened", counters.opened)]
            .into_iter()
            .chain(ended)
            .chain(failed)
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| format!("{what} {n}"))
            .collect();
        self.note("gateway", &format!("counted {}", counted.join(", ")));
    }

    /// Has these calls of connections, or events, count for nothing where pairings are compared: time decides here whether they are
    /// there.
    pub(crate) fn pass_over(&mut self, these: &'static [&'static str]) {
        self.recorded.pass_over(these);
    }

    /// Stops what runs, has the machines do it all again, and gives what was seen from outside and what connections said.
    pub(crate) fn finish(mut self) -> Seen {
        if self.gateway.is_some() {
            self.count();
        }
        for name in self.agents.keys().copied().collect::<Vec<_>>() {
            self.stop_agent(name);
        }
        if self.gateway.is_some() {
            self.stop_gateway();
        }
        Seen {
            outside: self.journal.text(),
            sequences: self.recorded.replay(),
        }
    }
}

/// What a process gives those who stop.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A user's wish.
pub(crate) fn request(target: &Wanted) -> OpenRequest {
    OpenRequest {
        association: None,
        target: target.clone(),
        agent: None,
        user: (Ipv4Addr::LOCALHOST, 9).into(),
        account: None,
        ingress: "conformance".into(),
    }
}

/// The id of the agent of this name.
pub(crate) fn agent_id(name: &str) -> AgentId {
    let number = name
        .bytes()
        .fold(0, |sum, byte| sum << 8 | u128::from(byte));
    AgentId(Uuid::from_u128(number))
}

/// What every agent reaches: loopback, and names that nobody has.
fn routes() -> RouteSet {
    RouteSet {
        subnets: vec!["127.0.0.1/32".parse().unwrap()],
        domains: vec![DomainRoute {
            pattern: DomainPattern::parse("*.invalid").unwrap(),
            auto_detected: false,
        }],
    }
}

fn env() -> Env {
    system_env(None).unwrap()
}
