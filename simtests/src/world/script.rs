//! The script's actions.

use std::sync::Arc;

use adit_proto_core::{id::SessionId, link::tls::AgentTls};

use super::{Config, FAREWELL, News, Process, World};
use crate::{
    facts::{Fact, NodeId},
    faults::{Fault, Order, Wish},
};

impl World {
    /// Does one action of a script, at once.
    pub fn act(&mut self, fault: Fault) {
        let node = fault.node();
        self.log.note(self.at, node, &Fact::Fault(&fault));
        match fault {
            Fault::Crash(node) => self.crash(node),
            Fault::Restore(node) => self.restore(node),
            Fault::Stop(node) => self.stop(node),
            Fault::Start(node) => self.start(node),
            Fault::Freeze(node) => self.freeze(node),
            Fault::Thaw(node) => self.thaw(node),
            Fault::Cut(from, to) => {
                let (from, to) = (self.nodes[from.0].host.net, self.nodes[to.0].host.net);
                self.net.cut(from, to);
            }
            Fault::Mend(from, to) => {
                let (from, to) = (self.nodes[from.0].host.net, self.nodes[to.0].host.net);
                self.net.mend(from, to);
            }
            Fault::BlockUdp(node) => self.net.block(self.nodes[node.0].host.net),
            Fault::UnblockUdp(node) => self.net.unblock(self.nodes[node.0].host.net),
            Fault::Rebind(node) => self.net.rebind(self.nodes[node.0].host.net),
            Fault::SetPath(from, to, path) => {
                let (from, to) = (self.nodes[from.0].host.net, self.nodes[to.0].host.net);
                self.net.set_path(from, to, *path);
            }
            Fault::WallClock(node, off_ms) => self.nodes[node.0].host.wall.set(off_ms),
            Fault::BlockSocket(node, time) => {
                self.nodes[node.0].host.blocked_until = self.at + time;
                self.run_node(node);
            }
            Fault::SetRoutes(node, routes, _) => {
                if let Config::Agent(config) = &mut self.nodes[node.0].config {
                    config.routes = routes.clone();
                }
                self.tell(node, News::Routes(routes));
            }
            Fault::ChangeNetwork(node) => {
                self.net.rebind(self.nodes[node.0].host.net);
                self.tell(node, News::Network);
            }
            Fault::NewKey(node, tls, key) => self.enrol(node, tls, key),
            Fault::Order(node, order) => self.order(node, order),
            Fault::Open(wish) => drop(self.open(&wish)),
        }
    }

    fn tell(&mut self, node: NodeId, news: News) {
        self.nodes[node.0].news.push_back(news);
        if !self.nodes[node.0].host.frozen {
            self.hear(node);
            self.run_node(node);
        }
    }

    fn hear(&mut self, node: NodeId) {
        let mut news = std::mem::take(&mut self.nodes[node.0].news);
        self.with(node, |process, host, ctx| {
            for news in news.drain(..) {
                match (&mut *process, news) {
                    (Process::Agent(agent), News::Routes(routes)) => agent.set_routes(ctx, &routes),
                    (Process::Agent(agent), News::Network) => agent.change_network(ctx, host),
                    (Process::Gateway(gateway), News::Order(order)) => {
                        gateway.order(ctx, host, &order);
                    }
                    (Process::Agent(_) | Process::Gateway(_) | Process::None, _) => {}
                }
            }
        });
    }

    fn order(&mut self, node: NodeId, order: Order) {
        if let (Config::Gateway(config), Order::Configure(settings)) =
            (&mut self.nodes[node.0].config, &order)
        {
            (config.limits, config.dispatch) = settings.as_ref().clone();
        }
        self.tell(node, News::Order(order));
    }

    /// The agent's next process shows its new key.
    fn enrol(&mut self, node: NodeId, tls: Arc<AgentTls>, key: [u8; 32]) {
        if let Config::Agent(config) = &mut self.nodes[node.0].config {
            config.tls = tls;
            self.enrolled.insert(node, (config.id, key));
        }
    }

    pub(super) fn open(&mut self, wish: &Wish) -> Option<SessionId> {
        let node = wish.gateway;
        // Nobody accepts the user's connection.
        if self.nodes[node.0].host.frozen || self.nodes[node.0].gone_at.is_some() {
            return None;
        }
        let session = self.with(node, |process, host, ctx| match process {
            Process::Gateway(gateway) => Some(gateway.open(ctx, host, wish)),
            Process::Agent(_) | Process::None => None,
        });
        self.run_node(node);
        session
    }

    fn stop(&mut self, node: NodeId) {
        if self.nodes[node.0].host.frozen {
            return self.kill(node);
        }
        self.with(node, |process, host, ctx| match process {
            Process::Gateway(gateway) => gateway.stop(ctx, host),
            Process::Agent(agent) => agent.stop(ctx, host),
            Process::None => {}
        });
        if !matches!(self.nodes[node.0].process, Process::None) {
            self.nodes[node.0].gone_at = Some(self.at + FAREWELL);
            self.run_node(node);
        }
    }

    fn freeze(&mut self, node: NodeId) {
        if !matches!(self.nodes[node.0].process, Process::None) {
            self.nodes[node.0].host.frozen = true;
            self.arm(node, None);
        }
    }

    /// The process finds its socket full and its timers late.
    pub(super) fn thaw(&mut self, node: NodeId) {
        if !self.nodes[node.0].host.frozen {
            return;
        }
        self.nodes[node.0].host.frozen = false;
        self.hear(node);
        while let Some(arrival) = self.nodes[node.0].backlog.pop_front() {
            self.receive(node, arrival);
        }
        self.run_node(node);
    }
}

impl Fault {
    /// The node that a fault is about.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match self {
            Self::Crash(node)
            | Self::Restore(node)
            | Self::Stop(node)
            | Self::Start(node)
            | Self::Freeze(node)
            | Self::Thaw(node)
            | Self::Cut(node, _)
            | Self::Mend(node, _)
            | Self::BlockUdp(node)
            | Self::UnblockUdp(node)
            | Self::Rebind(node)
            | Self::SetPath(node, ..)
            | Self::WallClock(node, _)
            | Self::BlockSocket(node, _)
            | Self::SetRoutes(node, ..)
            | Self::NewKey(node, ..)
            | Self::Order(node, _)
            | Self::ChangeNetwork(node) => *node,
            Self::Open(wish) => wish.gateway,
        }
    }
}
