//! What gateways tell each other of what they hold: from this one's node to its peers, and from them to it.

use std::time::{Duration, Instant};

use adit_proto_core::{
    gateway::dispatch::AgentEvent,
    peer::{
        NodeId,
        catalogue::{Catalogue, CatalogueOutput},
        node::CallError,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::{Caller, PeersCore, Whose};
use crate::{
    gateway::{FromConnection, GatewayHandle},
    handoff::Sender,
    lines::Lines,
    peers::{CatalogueConfig, PeersInput, Request},
};

/// The catalogue, and the gateway that it is for.
pub(super) struct Told {
    pub(super) machine: Catalogue,
    gateway: GatewayHandle,
    /// When peers without a connection are dialled.
    warm_at: Instant,
    odd: Lines,
}

/// A peer is told what is held once a second, so that it is dialled as often where it has no connection.
const WARM_INTERVAL: Duration = Duration::from_secs(1);

impl Told {
    pub(super) fn new(now: Instant, config: CatalogueConfig, own: &Sender<PeersInput>) -> Self {
        let CatalogueConfig {
            local,
            epoch,
            gateway,
        } = config;
        let mut machine = Catalogue::new(local, epoch);
        machine.handle_changed(now);
        let owner = own.clone();
        gateway.watch_holding(move || owner.push_or_stop(PeersInput::HoldingChanged));
        Self {
            machine,
            gateway,
            warm_at: now,
            odd: Lines::new("a peer's catalogue is not taken"),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.machine
            .poll_timeout()
            .into_iter()
            .chain([self.warm_at])
            .min()
    }
}

impl PeersCore {
    /// Lets time pass for the catalogue.
    pub(super) fn catalogue_timeout(&mut self, now: Instant) {
        let Some(told) = &mut self.told else {
            return;
        };
        told.machine.handle_timeout(now);
        if told.warm_at <= now {
            told.warm_at = now + WARM_INTERVAL;
            for node in self.calls.keys() {
                self.pool.warm(now, *node);
            }
        }
    }

    /// Takes what a peer says that it holds.
    pub(super) fn told(&mut self, now: Instant, request: Request) {
        let Some(told) = &mut self.told else {
            return request.responder.fail();
        };
        match told
            .machine
            .handle_told(now, request.from, &request.payload)
        {
            Ok(answer) => {
                let stamp = told.machine.stamp_of(request.from);
                if let Some(stamp) = stamp
                    && let Some(conn) = self.forwards.started(request.from, stamp.epoch)
                {
                    // Before the node learns what the peer holds now: what comes must not go there.
                    let suspect = FromConnection::Event(AgentEvent::Suspect);
                    told.gateway.told_by_connection(conn, suspect);
                }
                request.responder.answer(answer);
            }
            Err(error) => {
                if told.odd.allow() {
                    tracing::warn!(peer = %request.from, %error, "a peer's catalogue is not taken");
                }
                request.responder.fail();
            }
        }
    }

    pub(super) fn catalogue_answered(
        &mut self,
        now: Instant,
        node: NodeId,
        outcome: Result<Bytes, CallError>,
    ) {
        let Some(told) = &mut self.told else {
            return;
        };
        let Ok(answer) = outcome else {
            return told.machine.handle_unanswered(node);
        };
        if let Err(error) = told.machine.handle_answer(now, node, &answer)
            && told.odd.allow()
        {
            tracing::warn!(peer = %node, %error, "a peer's answer about the catalogue is not taken");
        }
    }

    /// Does what the catalogue asks for; tells whether that was anything.
    pub(super) fn perform_catalogue(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(told) = &mut self.told
            && let Some(output) = told.machine.poll_output()
        {
            any = true;
            match output {
                CatalogueOutput::Collect => {
                    let own = self.parts.owner.clone();
                    told.gateway.collect_holding(move |holding| {
                        own.push_or_stop(PeersInput::Holding(holding));
                    });
                }
                CatalogueOutput::Tell { peer, payload } => {
                    let call = self.pool.call(now, peer, RpcType::Catalogue, payload);
                    let caller = Caller {
                        node: peer,
                        whose: Whose::Catalogue,
                    };
                    self.callers.insert(call, caller);
                }
                CatalogueOutput::Changed { peer } => {
                    let holding = told.machine.held_by(peer);
                    let holding = holding.map(|held| (**held).clone()).unwrap_or_default();
                    told.gateway.peer_holds(peer, holding);
                }
                CatalogueOutput::LeftOut { count } => {
                    tracing::warn!(
                        count,
                        "this gateway holds more agents and routes than may be told; peers route nothing to the rest"
                    );
                }
                CatalogueOutput::EpochLost { peer, epoch } => {
                    tracing::warn!(%peer, epoch, "a peer knows of a later start of this gateway; its count of starts was lost and goes on from there");
                    told.machine.set_epoch(now, epoch.saturating_add(1));
                }
            }
        }
        any
    }
}
