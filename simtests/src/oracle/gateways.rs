//! An agent asks for the gateway that it means: by its name, at its port, at an address that the name leads to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use adit_proto_core::{
    agent::supervisor::{GatewayIndex, SupervisorStep},
    target::{Host, Target},
};

use crate::facts::{Fact, NodeId, Start};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    agents: BTreeMap<NodeId, Vec<Gateway>>,
}

/// A gateway as one process of an agent knows it.
#[derive(Debug)]
struct Gateway {
    target: Target,
    /// What its name led to, in every answer so far.
    found: BTreeSet<IpAddr>,
}

impl Gateways {
    pub(super) fn observe(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Started(Start::Agent { gateways, .. }) => {
                let known = gateways.iter().cloned().map(Gateway::new).collect();
                self.agents.insert(node, known);
                None
            }
            Fact::GatewayFound {
                gateway,
                answer: Ok(found),
            } => {
                let known = self.agents.get_mut(&node)?.get_mut(gateway.0)?;
                known.found.extend(found);
                None
            }
            Fact::Supervisor(SupervisorStep::Resolve {
                gateway,
                host,
                port,
            }) => {
                let known = self.known(node, *gateway)?;
                let right = known.target.host == Host::Name(host.clone());
                (!right || known.target.port != *port)
                    .then(|| format!("{node} asks for {host}:{port} and means {}", known.target))
            }
            Fact::Supervisor(SupervisorStep::Connect {
                gateway,
                addr,
                server_name,
                ..
            }) => {
                let known = self.known(node, *gateway)?;
                let wrong = known.mistaken(*addr, server_name)?;
                Some(format!(
                    "{node} connects to {addr} as {server_name} and means {}: {wrong}",
                    known.target
                ))
            }
            _ => None,
        }
    }

    fn known(&self, node: NodeId, gateway: GatewayIndex) -> Option<&Gateway> {
        self.agents.get(&node)?.get(gateway.0)
    }
}

impl Gateway {
    fn new(target: Target) -> Self {
        let found = BTreeSet::new();
        Self { target, found }
    }

    fn mistaken(&self, addr: SocketAddr, server_name: &str) -> Option<&'static str> {
        let (there, named) = match &self.target.host {
            Host::Ip(ip) => (addr.ip() == *ip, server_name == ip.to_string()),
            Host::Name(name) => (self.found.contains(&addr.ip()), server_name == &**name),
        };
        if addr.port() != self.target.port {
            Some("that is another port")
        } else if !there {
            Some("it is not there")
        } else if !named {
            Some("it has another name")
        } else {
            None
        }
    }
}
