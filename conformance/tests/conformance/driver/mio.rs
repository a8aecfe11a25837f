//! The mio driver: a thread for each node.

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use adit_io_common::{
    agent::{AgentConfig, AgentHandle},
    gateway::{GatewayConfig, GatewayHandle},
    peers::PeersConfig,
    replica::{Link, LinkError, Replica},
};
use adit_io_mio::{
    Agent, Gateway,
    replica::{Outcome, Replicas},
};
use adit_proto_core::{env::Env, replica::ReplicaId};
use mio::{Events, Poll, Token};

use super::{
    AgentNode, Driver, GatewayNode, Node, Publish,
    peers::{Started, start_mio},
};
use crate::bed::wait::{SOON, within};

pub(crate) struct MioDriver;

impl Driver for MioDriver {
    fn name(&self) -> &'static str {
        "mio"
    }

    fn start_gateway(
        &self,
        config: GatewayConfig,
        env: &Env,
    ) -> Result<Box<dyn GatewayNode>, String> {
        let gateway = Gateway::start(config, env).map_err(|error| error.to_string())?;
        Ok(Box::new(gateway))
    }

    fn start_agent(&self, config: AgentConfig, env: Env, publish: Publish) -> Box<dyn AgentNode> {
        Box::new(Agent::start(config, env, publish).unwrap())
    }

    fn start_peers(&self, config: PeersConfig, env: Env) -> Result<Started, String> {
        start_mio(config, env)
    }

    fn dial_replica(
        &self,
        replica: &Replica,
        addr: SocketAddr,
        target: ReplicaId,
    ) -> Result<Link, LinkError> {
        let mut replicas = ReplicaLoop::new(replica);
        replicas.all.dial(Instant::now(), addr, target)?;
        match replicas.outcome() {
            Outcome::Dialled(_, outcome) => outcome,
            Outcome::Accepted(link) => panic!("nobody listens: {link:?}"),
        }
    }

    fn accept_replicas(&self, replica: &Replica, listener: TcpListener, count: usize) -> Vec<Link> {
        let mut replicas = ReplicaLoop::new(replica);
        replicas.all.listen(listener).unwrap();
        let accepted = (0..count).map(|_| match replicas.outcome() {
            Outcome::Accepted(link) => link,
            Outcome::Dialled(replica, _) => panic!("nobody dials {replica}"),
        });
        accepted.collect()
    }
}

/// A loop that has nothing but handshakes of replicas.
struct ReplicaLoop {
    poll: Poll,
    all: Replicas,
}

impl ReplicaLoop {
    fn new(replica: &Replica) -> Self {
        let poll = Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let all = Replicas::new(replica.clone(), registry, Token(0));
        Self { poll, all }
    }

    fn outcome(&mut self) -> Outcome {
        let (mut events, limit) = (Events::with_capacity(64), Instant::now() + SOON);
        loop {
            if let Some(outcome) = self.all.poll_outcome() {
                return outcome;
            }
            let now = Instant::now();
            assert!(now < limit, "not within {SOON:?}");
            let due = self.all.poll_timeout().map_or(limit, |at| at.min(limit));
            let wait = due.saturating_duration_since(now);
            self.poll.poll(&mut events, Some(wait)).unwrap();
            let now = Instant::now();
            for event in &events {
                self.all.ready(now, event.token());
            }
            self.all.handle_timeout(now);
        }
    }
}

impl Node for Gateway {
    fn farewell(&mut self, patience: Duration) -> bool {
        within(patience, Self::farewell(self)).is_some()
    }

    fn stop(mut self: Box<Self>, patience: Duration) -> bool {
        Self::stop(&self);
        let ended = within(patience, self.ended()).is_some();
        if !ended {
            Node::quit(self);
        }
        ended
    }

    fn quit(mut self: Box<Self>) {
        Self::quit(&self);
        within(SOON, self.ended()).expect("ends at once").unwrap();
    }
}

impl GatewayNode for Gateway {
    fn handle(&self) -> GatewayHandle {
        self.handle()
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr()
    }
}

impl Node for Agent {
    fn farewell(&mut self, patience: Duration) -> bool {
        self.handle().farewell();
        within(patience, self.ended()).is_some()
    }

    fn stop(mut self: Box<Self>, patience: Duration) -> bool {
        self.handle().stop();
        let ended = within(patience, self.ended()).is_some();
        if !ended {
            Node::quit(self);
        }
        ended
    }

    fn quit(mut self: Box<Self>) {
        Self::quit(&self);
        within(SOON, self.ended()).expect("ends at once").unwrap();
    }
}

impl AgentNode for Agent {
    fn handle(&self) -> &AgentHandle {
        self.handle()
    }
}
