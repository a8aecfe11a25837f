//! The liveness phase: no faults any more, so everything must come to a good end, and soon.

use std::time::Duration;

use adit_proto_core::gateway::info::{AgentInfo, AgentStatus};
use ipnet::IpNet;

use super::{Config, Node, Process, World};
use crate::{
    At,
    facts::{Fact, NodeId},
    faults::Wish,
    node::agent::{Agent, AgentConfig},
    tcp::{Ending, Script},
};

/// Time in which every agent must be connected: the longest wait after a refused certificate (75 s), a round to each
/// of three gateways, and the end of a connection that does not know yet that it is dead.
const CONNECTED_WITHIN: At = Duration::from_secs(120);
/// Time in which every renewed key pair has proved itself or is gone: a refusal, a minute's wait, and another attempt.
const RENEWED_WITHIN: At = Duration::from_secs(90);
/// Time in which every session must be over once its programs behave: what is being opened fails within 30 s, and what
/// is open goes over clean paths.
const SESSIONS_WITHIN: At = Duration::from_secs(60);
/// A probe through an agent that is reported online (design 8.3).
const PROBE_WITHIN: At = Duration::from_secs(5);
/// Time after the calm in which a gateway may still hold a path for good that is dead: 3 s without a sign of life, and
/// the longest interval between two looks.
const REPORTS_SETTLE: At = Duration::from_secs(5);
/// Time in which all connections are gone after everything was stopped: QUIC's own farewell takes three times its
/// probe timeout, which is three times the round trip where that was measured but once; and what a process that stood
/// still for 20 s found waiting took that long.
const GONE_WITHIN: At = Duration::from_secs(240);
/// How often the conditions are looked at.
const GLANCE: At = Duration::from_millis(100);

impl World {
    /// Ends all faults, and waits for every agent, every session, every probe and every queue.
    pub(super) fn settle(&mut self) {
        if self.violation().is_some() {
            return;
        }
        self.mend_everything();
        self.welcome_back();
        let calm_at = self.at;
        self.expect(CONNECTED_WITHIN, Self::not_connected);
        self.expect(RENEWED_WITHIN, Self::renewing);
        self.expect(SESSIONS_WITHIN, Self::unfinished);
        self.run_until((calm_at + REPORTS_SETTLE).max(self.at), |_| false);
        self.probe();
        // A probe's own farewell.
        self.expect(SESSIONS_WITHIN, Self::unfinished);
        self.stop_everything();
        self.expect(GONE_WITHIN, Self::connections_left);
    }

    /// Runs until a condition leaves nothing to wish for, or accuses.
    fn expect(&mut self, within: At, missing: fn(&Self) -> Option<String>) {
        let until = self.at + within;
        while self.violation().is_none() {
            let Some(text) = missing(self) else {
                return;
            };
            if self.at >= until {
                let text = format!("{} s after the faults: {text}", within.as_secs());
                return self.accuse("liveness", text);
            }
            self.run_until(self.at + GLANCE, |_| false);
        }
    }

    fn mend_everything(&mut self) {
        self.log.note(self.at, NodeId(0), &Fact::Calm);
        self.script.clear();
        self.net.calm();
        self.internet.calm();
        self.legs.calm(self.at);
        for index in 0..self.nodes.len() {
            let node = NodeId(index);
            self.nodes[index].host.wall.set(0);
            self.nodes[index].host.blocked_until = self.at;
            self.thaw(node);
            // Agents that were refused wait for more than a minute, in which nothing happens: most are started anew.
            let waits = self.agent(node).is_some_and(|agent| !agent.is_up());
            if self.nodes[index].gone_at.is_some() || waits && self.choices.chance(800) {
                self.kill(node);
            }
            self.start(node);
            self.run_node(node);
        }
    }

    /// An agent that has enrolled again is expected where every gateway has made that durable.
    fn welcome_back(&mut self) {
        let gateways = || self.nodes.iter().map(|node| &node.process);
        let admits = |id, key| {
            gateways().all(|process| match process {
                Process::Gateway(gateway) => gateway.admits(id, key),
                Process::Agent(_) | Process::None => true,
            })
        };
        let back = self
            .enrolled
            .iter()
            .filter(|(_, (id, key))| admits(*id, *key));
        let back: Vec<NodeId> = back.map(|(node, _)| *node).collect();
        self.welcome.extend(back);
    }

    fn not_connected(&self) -> Option<String> {
        let missing = |node: &NodeId| {
            let Config::Agent(config) = &self.nodes[node.0].config else {
                return None;
            };
            let up = self.agent(*node).is_some_and(Agent::is_up);
            match up && self.is_routed(config) {
                true => None,
                false => Some(format!("{node} (up: {up})")),
            }
        };
        let missing: Vec<String> = self.welcome.iter().filter_map(missing).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "not connected with all their routes: {}",
                missing.join(", ")
            )
        })
    }

    /// An agent that is connected does not go on for ever with two key pairs, unless its gateway has no room for a second
    /// connection.
    fn renewing(&self) -> Option<String> {
        let agents = |node: &&Node| matches!(node.config, Config::Agent(_));
        let wanted = 2 * self.nodes.iter().filter(agents).count();
        let full = self.nodes.iter().any(|node| match &node.config {
            Config::Gateway(config) => config.limits.connections < wanted,
            Config::Agent(_) => false,
        });
        if full {
            return None;
        }
        let left = |node: &NodeId| self.agent(*node).is_some_and(Agent::is_renewing);
        let left: Vec<String> = self
            .welcome
            .iter()
            .filter(|node| left(node))
            .map(ToString::to_string)
            .collect();
        (!left.is_empty()).then(|| format!("two key pairs at {}", left.join(", ")))
    }

    /// Some gateway holds a connection of the agent with exactly what it advertises, as far as the protocol carries
    /// that.
    fn is_routed(&self, config: &AgentConfig) -> bool {
        let carried = |net: &&IpNet| net.addr().is_ipv4();
        let subnets: Vec<&IpNet> = config.routes.subnets.iter().filter(carried).collect();
        let has_all = |info: &AgentInfo| {
            info.identity.id == config.id
                && info.status != AgentStatus::Suspect
                && info.routes.subnets.iter().collect::<Vec<_>>() == subnets
                && info.routes.domains == config.routes.domains
        };
        self.nodes.iter().any(|node| match &node.process {
            Process::Gateway(gateway) => {
                let list = gateway.dispatch().hub().list(self.base + self.at);
                list.iter().any(has_all)
            }
            Process::Agent(_) | Process::None => false,
        })
    }

    fn unfinished(&self) -> Option<String> {
        if !self.legs.is_empty() {
            let first = self.legs.describe_first();
            return Some(format!(
                "{} TCP connections are open: {first}",
                self.legs.len()
            ));
        }
        for node in &self.nodes {
            let (opening, open) = match &node.process {
                Process::Gateway(g) => (g.dispatch().open_count(), g.sessions_open()),
                Process::Agent(agent) => (0, agent.sessions()),
                Process::None => (0, 0),
            };
            if opening + open > 0 {
                let id = node.host.id;
                return Some(format!(
                    "{id} has {open} sessions open and {opening} being opened"
                ));
            }
        }
        None
    }

    /// Asks for a session through every agent that any gateway reports online, one after the other: some gateways
    /// open few at a time.
    fn probe(&mut self) {
        let mut wishes = Vec::new();
        for node in &self.nodes {
            let Process::Gateway(gateway) = &node.process else {
                continue;
            };
            let list = gateway.dispatch().hub().list(self.base + self.at);
            for info in list.into_iter().filter(|i| i.status == AgentStatus::Online) {
                let id = info.identity.id;
                if let Some(target) = self.homes.get(&id) {
                    wishes.push((node.host.id, target.clone(), id));
                }
            }
        }
        for (gateway, target, id) in wishes {
            let script = |ending| Script {
                ending,
                ..Script::short(2_000)
            };
            let wish = Wish {
                gateway,
                target,
                pinned: Some(id),
                user: script(Ending::Fin),
                target_script: script(Ending::FinAfterPeer),
                promise: None,
                patience: None,
            };
            self.probing = self.open(&wish);
            self.expect(PROBE_WITHIN, Self::probe_left);
        }
    }

    fn probe_left(&self) -> Option<String> {
        let session = self
            .probing
            .filter(|session| !self.legs.is_done(*session))?;
        Some(format!("the probe session {session} is not completed"))
    }

    fn stop_everything(&mut self) {
        for index in 0..self.nodes.len() {
            self.with(NodeId(index), |process, host, ctx| match process {
                Process::Gateway(gateway) => gateway.stop(ctx, host),
                Process::Agent(agent) => agent.stop(ctx, host),
                Process::None => {}
            });
            self.run_node(NodeId(index));
        }
    }

    fn connections_left(&self) -> Option<String> {
        for node in &self.nodes {
            let (kept, listed) = match &node.process {
                Process::Gateway(g) => (g.connections(), g.dispatch().hub().agent_count()),
                Process::Agent(agent) => (agent.connections(), 0),
                Process::None => (0, 0),
            };
            if kept + listed > 0 {
                let id = node.host.id;
                return Some(format!(
                    "{id} keeps {kept} connections and lists {listed} agents"
                ));
            }
        }
        None
    }
}
