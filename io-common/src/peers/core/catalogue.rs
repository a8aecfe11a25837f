//! What gateways tell each other of what they hold: from this one's node to its peers, and from them to it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adit_proto_core::{
    gateway::dispatch::AgentEvent,
    id::{CallId, ConnId},
    peer::{
        NodeId,
        catalogue::{Catalogue, CatalogueError, CatalogueOutput, Lane},
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
    peers::{CatalogueConfig, LostEpoch, PeersInput, Request},
};

/// The catalogue, and the gateway that it is for.
pub(in crate::peers) struct Told {
    pub(in crate::peers) machine: Catalogue,
    gateway: GatewayHandle,
    /// What each peer is being told: one thing of each lane at a time, as what is held may be long.
    under_way: BTreeMap<(NodeId, Lane), UnderWay>,
    /// The peers of which a holding is on its way to the gateway, and whether that is not their latest.
    handed_over: BTreeMap<NodeId, bool>,
    /// When peers without a connection are dialled.
    warm_at: Instant,
    lost_epoch: LostEpoch,
    /// A higher count of starts is being made durable.
    is_lifting: bool,
    /// None is asked for before this: a faulty peer always knows of a later start.
    lift_at: Instant,
    odd: Lines,
    lifts: Lines,
    left_out: Lines,
}

/// What a peer is being told.
struct UnderWay {
    call: CallId,
    /// What it is told after that; the latest counts.
    next: Option<Bytes>,
}

/// Between two lifts of the count of starts at least: each is made durable, and has every peer told the whole.
const LIFT_INTERVAL: Duration = Duration::from_secs(1);

/// A peer is told what is held once a second, so that it is dialled as often where it has no connection.
const WARM_INTERVAL: Duration = Duration::from_secs(1);

impl Told {
    pub(super) fn new(now: Instant, config: CatalogueConfig, own: &Sender<PeersInput>) -> Self {
        let CatalogueConfig {
            local,
            epoch,
            lost_epoch,
            gateway,
        } = config;
        let mut machine = Catalogue::new(local, epoch);
        machine.handle_changed(now);
        let owner = own.clone();
        gateway.watch_holding(move || owner.push_or_stop(PeersInput::HoldingChanged));
        Self {
            machine,
            gateway,
            under_way: BTreeMap::new(),
            handed_over: BTreeMap::new(),
            warm_at: now,
            lost_epoch,
            is_lifting: false,
            lift_at: now,
            odd: Lines::new("a peer's catalogue is not taken"),
            lifts: Lines::new("the count of starts was lost"),
            left_out: Lines::new("more agents and routes than may be told"),
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

const BEHIND: &str =
    "a peer knows of a later start of this gateway, and takes nothing that this one tells";

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
        // What was given up while it waited must not be executed; nobody waits for the refusal.
        if !request.interest.lasts() {
            return;
        }
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
                    self.avoid_forward(conn);
                }
                request.responder.answer(answer);
            }
            Err(error) => {
                if told.odd.allow() {
                    tracing::warn!(peer = %request.from, %error, "a peer's catalogue is not taken");
                }
                if let CatalogueError::TooSoon { wait, .. } = error {
                    return request.responder.refuse(wait);
                }
                request.responder.fail();
            }
        }
    }

    /// Has the gateway give a connection no further session.
    pub(super) fn avoid_forward(&self, conn: ConnId) {
        if let Some(told) = &self.told {
            let suspect = FromConnection::Event(AgentEvent::Suspect);
            told.gateway.told_by_connection(conn, suspect);
        }
    }

    pub(super) fn catalogue_answered(
        &mut self,
        now: Instant,
        node: NodeId,
        lane: Lane,
        outcome: Result<Bytes, CallError>,
    ) {
        let Some(told) = &mut self.told else {
            return;
        };
        let done = told.under_way.remove(&(node, lane));
        match outcome {
            Err(_) => told.machine.handle_unanswered(node, lane),
            Ok(answer) => match told.machine.handle_answer(now, node, &answer) {
                Ok(()) => {}
                Err(error @ CatalogueError::TooFar { .. }) if told.odd.allow() => {
                    tracing::error!(peer = %node, %error, "{BEHIND}");
                }
                Err(error) if told.odd.allow() => {
                    tracing::warn!(peer = %node, %error, "a peer's answer about the catalogue is not taken");
                }
                Err(_) => {}
            },
        }
        if let Some(next) = done.and_then(|done| done.next) {
            self.tell_peer(now, node, lane, next);
        }
    }

    fn tell_peer(&mut self, now: Instant, peer: NodeId, lane: Lane, payload: Bytes) {
        let Some(told) = &mut self.told else {
            return;
        };
        if let Some(under_way) = told.under_way.get_mut(&(peer, lane)) {
            under_way.next = Some(payload);
            return;
        }
        let call = self.pool.call(now, peer, RpcType::Catalogue, payload);
        let under_way = UnderWay { call, next: None };
        told.under_way.insert((peer, lane), under_way);
        let whose = Whose::Catalogue(lane);
        self.callers.insert(call, Caller { node: peer, whose });
    }

    /// A peer has no connection any more: once it has one again it is told everything anew.
    pub(super) fn untell(&mut self, now: Instant, peer: NodeId) {
        let Some(told) = &mut self.told else {
            return;
        };
        for lane in [Lane::Whole, Lane::Brief] {
            if let Some(UnderWay { call, .. }) = told.under_way.remove(&(peer, lane)) {
                self.callers.remove(&call);
                self.pool.cancel(now, call);
            }
        }
    }

    /// Tells every peer that this gateway stops; what it is being told besides is of no use any more.
    pub(super) fn say_goodbye(&mut self, now: Instant) {
        for peer in self.calls.keys().copied().collect::<Vec<_>>() {
            self.untell(now, peer);
        }
        if let Some(told) = &mut self.told {
            told.machine.stop();
        }
    }

    /// A peer knows of a later start of this gateway: its own count is behind, and a higher one is asked for.
    /// Where that is too soon, the peer says so again with what it is told next.
    fn epoch_lost(&mut self, now: Instant, peer: NodeId, epoch: u64) {
        let own = self.parts.owner.clone();
        if let Some(told) = &mut self.told
            && told.lift_at <= now
            && !std::mem::replace(&mut told.is_lifting, true)
        {
            told.lift_at = now + LIFT_INTERVAL;
            let done = move |lifted| own.push_or_stop(PeersInput::EpochLifted(peer, lifted));
            (told.lost_epoch)(epoch, Box::new(done));
        }
    }

    /// A higher count of starts is durable, or there is none.
    pub(super) fn epoch_lifted(&mut self, now: Instant, peer: NodeId, lifted: Result<u64, String>) {
        let Some(told) = &mut self.told else {
            return;
        };
        told.is_lifting = false;
        match lifted {
            Ok(epoch) => {
                if told.lifts.allow() {
                    tracing::warn!(%peer, epoch, "a peer knows of a later start of this gateway: the count of starts was lost, and goes on from there");
                }
                // The numbers of messages are behind as well.
                self.ledger.enter(epoch);
                told.machine.set_epoch(now, epoch);
            }
            Err(error) if told.odd.allow() => {
                tracing::error!(%peer, %error, "{BEHIND}");
            }
            Err(_) => {}
        }
    }

    /// Tells the gateway what a peer holds: one thing at a time, and the latest after it. A peer may change what it holds
    /// faster than the gateway takes it.
    fn hand_over(&mut self, peer: NodeId) {
        let Some(told) = &mut self.told else {
            return;
        };
        if let Some(is_behind) = told.handed_over.get_mut(&peer) {
            *is_behind = true;
            return;
        }
        told.handed_over.insert(peer, false);
        let holding = told.machine.held_by(peer).cloned().unwrap_or_default();
        let own = self.parts.owner.clone();
        let taken = move || own.push_or_stop(PeersInput::Taken(peer));
        told.gateway.peer_holds(peer, holding, taken);
    }

    /// The gateway has taken what a peer held when that was handed over.
    pub(super) fn taken(&mut self, peer: NodeId) {
        let told = self.told.as_mut();
        let is_behind = told.and_then(|told| told.handed_over.remove(&peer));
        if is_behind == Some(true) {
            self.hand_over(peer);
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
                CatalogueOutput::Tell {
                    peer,
                    lane,
                    payload,
                } => self.tell_peer(now, peer, lane, payload),
                CatalogueOutput::Changed { peer } => self.hand_over(peer),
                CatalogueOutput::LeftOut { count } if told.left_out.allow() => {
                    tracing::warn!(
                        count,
                        "this gateway holds more agents and routes than may be told; peers route nothing to the rest"
                    );
                }
                CatalogueOutput::LeftOut { .. } => {}
                CatalogueOutput::EpochLost { peer, epoch } => self.epoch_lost(now, peer, epoch),
            }
        }
        any
    }
}
