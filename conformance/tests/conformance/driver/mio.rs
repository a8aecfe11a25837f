//! The mio driver: a thread for each node.

use std::{net::SocketAddr, time::Duration};

use adit_io_common::{
    agent::{AgentConfig, AgentHandle},
    gateway::{GatewayConfig, GatewayHandle},
};
use adit_io_mio::{Agent, Gateway};
use adit_proto_core::env::Env;

use super::{AgentNode, Driver, GatewayNode, Node, Publish};
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
