//! An agent's process: one endpoint, one `Supervisor`, and the targets that it dials.

mod connect;
mod pairs;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use adit_proto_core::{
    agent::{
        advertise::AdvertiserConfig,
        dial::{ConnectErrorKind, Dial, ResolveError},
        policy::{Policy, Restrictions},
        supervisor::{DialId, GatewayIndex, LossKind, Supervisor, SupervisorStep},
    },
    close::CloseReason,
    endpoint::Endpoint,
    env::Env,
    id::{AgentId, ConnId, Slot},
    link::tls::AgentTls,
    output::{Event, Input, Renewed},
    route::RouteSet,
    target::Target,
};

use self::{pairs::Pairs, targets::Wanted};
use super::{Ctx, Host, renewal::RenewalPlan, wires::Wires};
use crate::{
    At,
    facts::{Fact, Start},
    net::Arrival,
    pki::Pki,
};

/// What an agent is configured with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its id in its certificate.
    pub id: AgentId,
    /// Its certificate, its key, the gateways' root and pin.
    pub tls: Arc<AgentTls>,
    /// Who signed its certificate.
    pub authority: Arc<Pki>,
    /// How its certificate is renewed, where it is.
    pub renewal: Option<RenewalPlan>,
    /// Its pin, if it has one, is that of its gateway.
    pub trusts: bool,
    /// The gateways that it knows.
    pub gateways: Vec<Target>,
    /// What it advertises, and allows.
    pub routes: Arc<RouteSet>,
    /// Intervals of its control messages.
    pub intervals: AdvertiserConfig,
    /// Its application never answers a request.
    pub mute: bool,
    /// What its operator forbids, whatever it advertises.
    pub restrictions: Restrictions,
}

/// An agent's process.
#[derive(Debug)]
pub struct Agent {
    env: Env,
    wires: Wires,
    supervisor: Supervisor,
    /// Where its certificate is renewed.
    pairs: Option<Pairs>,
    config: AgentConfig,
    policy: Arc<Policy>,
    /// Attempts and connections by the supervisor's names, and the other way round.
    dials: BTreeMap<DialId, ConnId>,
    names: BTreeMap<ConnId, DialId>,
    /// Sessions that the gateway asks for.
    wanted: BTreeMap<(ConnId, Slot), Wanted>,
    dial_timers: BTreeSet<(At, (ConnId, Slot))>,
    bus: VecDeque<(At, Message)>,
    answers: BTreeMap<(At, u64), Answer>,
    answer_count: u64,
    stopping: bool,
}

#[derive(Debug)]
enum Message {
    ToSupervisor(DialId, Option<LossKind>),
    Close(DialId),
    Drain(DialId),
    Renew(DialId, String),
    Renewed(Option<Renewed>),
    Dialled(ConnId, Slot, Result<(), String>),
}

#[derive(Debug)]
enum Answer {
    Gateway(GatewayIndex, Result<Vec<IpAddr>, ResolveError>),
    Requested(String),
    Resolved(ConnId, Slot, Result<Vec<IpAddr>, ResolveError>),
    Connected(ConnId, Slot, usize, Result<(), ConnectErrorKind>),
}

impl Agent {
    /// Starts a process, and its first round to a gateway.
    ///
    /// # Panics
    /// Where the plan's list of gateways is unusable, which would be a fault of the simulation.
    #[expect(clippy::expect_used, reason = "the list is the simulation's own")]
    pub fn start(ctx: &mut Ctx<'_>, host: &Host, config: &AgentConfig) -> Self {
        let env = host.env();
        let kept = pairs::kept(ctx, config);
        let mut supervisor = Supervisor::new(ctx.now(), config.gateways.clone(), kept, &env.seed)
            .expect("1 to 16 gateways");
        let mut endpoint = Endpoint::agent(&env);
        if let Some(journal) = ctx.journal() {
            supervisor.record_in(&journal);
            endpoint.record_in(journal);
        }
        let start = Start::Agent {
            id: config.id,
            gateways: config.gateways.clone(),
            routes: Arc::clone(&config.routes),
            intervals: config.intervals,
            trusts: config.trusts,
            renews: config.renewal.is_some(),
            restrictions: config.restrictions.clone(),
            wall_off_ms: host.wall.off_ms(),
        };
        ctx.note(host.id, &Fact::Started(&start));
        Self {
            wires: Wires::new(endpoint),
            env,
            supervisor,
            pairs: config
                .renewal
                .as_ref()
                .map(|plan| Pairs::open(ctx, host, plan)),
            policy: Arc::new(Policy::new(&config.routes).restricted(&config.restrictions)),
            config: config.clone(),
            dials: BTreeMap::new(),
            names: BTreeMap::new(),
            wanted: BTreeMap::new(),
            dial_timers: BTreeSet::new(),
            bus: VecDeque::new(),
            answers: BTreeMap::new(),
            answer_count: 0,
            stopping: false,
        }
    }

    /// Tells whether a connection is up, by its supervisor's word.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.supervisor.connection().is_some()
    }

    /// Connections that exist, those saying farewell included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.wires.len()
    }

    /// Sessions open, and asked for.
    #[must_use]
    pub fn sessions(&self) -> usize {
        let open: usize = self.wires.iter().map(|w| w.conn.sessions_open()).sum();
        open + self.wanted.len()
    }

    /// Takes a datagram from the socket.
    pub fn receive(&mut self, ctx: &mut Ctx<'_>, host: &Host, arrival: Arrival) {
        let conn = self.wires.receive(ctx, host, arrival);
        debug_assert!(conn.is_none(), "an agent takes no connections");
    }

    /// The program behind a session did something.
    pub fn ready(&mut self, conn: ConnId, slot: Slot) {
        self.wires.ready(conn, slot);
    }

    /// Advertises something else, and allows that.
    pub fn set_routes(&mut self, ctx: &mut Ctx<'_>, routes: &Arc<RouteSet>) {
        self.config.routes = Arc::clone(routes);
        self.policy = Arc::new(Policy::new(routes).restricted(&self.config.restrictions));
        for wire in self.wires.touch_all() {
            if let Some(mut agent) = wire.conn.as_agent() {
                // The plan's sets are small enough for a message.
                let set = agent.set_routes(ctx.now(), Arc::clone(routes));
                debug_assert!(set.is_ok(), "the plan's routes fit");
            }
        }
    }

    /// The machine has other addresses: the socket is exchanged.
    pub fn change_network(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        for wire in self.wires.touch_all() {
            wire.conn.handle_input(ctx.now(), Input::SocketRebound);
        }
        ctx.note(host.id, &Fact::NetworkTold);
        self.supervisor.handle_network_change(ctx.now());
    }

    /// Closes everything, as on a signal.
    pub fn stop(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        ctx.note(host.id, &Fact::Stopping);
        self.stopping = true;
        self.supervisor.shutdown();
        self.wires.stop(ctx, &CloseReason::AgentStopping);
    }

    /// Tells whether it was stopped and has said every farewell.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stopping && self.wires.len() == 0
    }

    /// The process is gone.
    pub fn kill(mut self, ctx: &mut Ctx<'_>, host: &Host) {
        self.wires.kill(ctx);
        ctx.note(host.id, &Fact::Gone);
    }

    /// When the process wants to run.
    #[must_use]
    pub fn next_at(&self, ctx: &Ctx<'_>, host: &Host) -> Option<At> {
        let supervisor = self.supervisor.poll_timeout();
        [
            self.wires.next_at(),
            supervisor.map(|at| ctx.since(at) + host.timer_slack),
            self.dial_timers
                .first()
                .map(|(at, _)| *at + host.timer_slack),
            self.bus.front().map(|(at, _)| *at),
            self.answers.first_key_value().map(|((at, _), _)| *at),
            self.pairs
                .as_ref()
                .and_then(|pairs| pairs.next_at(ctx, host)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Runs until nothing is left to do at this time.
    pub fn run(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        self.expire(ctx, host);
        loop {
            if let Some(step) = self.supervisor.poll_step() {
                self.perform(ctx, host, step);
            } else if let Some(step) = self.poll_renewal() {
                self.perform_renewal(ctx, host, step);
            } else if self.bus.front().is_some_and(|(at, _)| *at <= ctx.at) {
                if let Some((_, message)) = self.bus.pop_front() {
                    self.take(ctx, host, message);
                }
            } else if let Some(id) = self.wires.next_touched() {
                self.drain_wire(ctx, host, id);
            } else {
                break;
            }
        }
        let until = self.supervisor.poll_timeout().map(|at| ctx.since(at));
        let machine = "supervisor";
        ctx.note(
            host.id,
            &Fact::MachineWaits {
                machine,
                until,
                slack: host.timer_slack,
            },
        );
        self.note_renewal(ctx, host);
    }

    fn expire(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        while let Some((&key, _)) = self
            .answers
            .first_key_value()
            .filter(|((at, _), _)| *at <= ctx.at)
        {
            if let Some(answer) = self.answers.remove(&key) {
                self.answer(ctx, host, answer);
            }
        }
        self.wires.expire(ctx, host);
        self.expire_pairs(ctx, host);
        let slack = host.timer_slack;
        // Once each: one that is due again at once is the next run's, and the world counts runs.
        let is_due = |(at, _): &&(At, _)| *at + slack <= ctx.at;
        let due: Vec<_> = self
            .dial_timers
            .iter()
            .take_while(is_due)
            .copied()
            .collect();
        for timer in due {
            self.dial_timers.remove(&timer);
            self.run_dial(ctx, host, timer.1, |dial, now| dial.handle_timeout(now));
        }
        let due = |at| ctx.since(at) + slack <= ctx.at;
        if self.supervisor.poll_timeout().is_some_and(due) {
            self.supervisor.handle_timeout(ctx.now());
        }
    }

    fn answer(&mut self, ctx: &mut Ctx<'_>, host: &Host, answer: Answer) {
        match answer {
            Answer::Gateway(gateway, found) => {
                let answer = &found;
                ctx.note(host.id, &Fact::GatewayFound { gateway, answer });
                self.supervisor.handle_resolved(ctx.now(), gateway, found);
            }
            Answer::Requested(text) => {
                if let Some(pairs) = &mut self.pairs {
                    pairs.machine.handle_request(ctx.now(), Some(text));
                }
            }
            Answer::Resolved(conn, slot, found) => {
                self.run_dial(ctx, host, (conn, slot), |dial, now| {
                    dial.handle_resolved(now, found);
                });
            }
            Answer::Connected(conn, slot, index, outcome) => {
                if let Some(wanted) = self.wanted.get(&(conn, slot)) {
                    let fact = Fact::DialTold {
                        place: Some((conn, slot)),
                        session: wanted.session,
                        index,
                        made: outcome.is_ok(),
                    };
                    ctx.note(host.id, &fact);
                }
                self.run_dial(ctx, host, (conn, slot), |dial, now| match outcome {
                    Ok(()) => dial.handle_connected(now, index),
                    Err(kind) => dial.handle_failed(now, index, kind),
                });
            }
        }
    }

    fn later(&mut self, at: At, answer: Answer) {
        self.answer_count += 1;
        self.answers.insert((at, self.answer_count), answer);
    }

    fn push(&mut self, ctx: &Ctx<'_>, host: &Host, message: Message) {
        self.bus.push_back((ctx.at + host.bus_delay, message));
    }

    fn take(&mut self, ctx: &mut Ctx<'_>, host: &Host, message: Message) {
        if let Message::ToSupervisor(dial, why) = message {
            ctx.note(host.id, &Fact::SupervisorTold { dial, why });
        }
        match message {
            Message::ToSupervisor(dial, None) => {
                self.supervisor.handle_established(ctx.now(), dial);
            }
            Message::ToSupervisor(dial, Some(why)) => {
                if let Some(conn) = self.dials.remove(&dial) {
                    self.names.remove(&conn);
                }
                self.supervisor.handle_closed(ctx.now(), dial, why);
                self.tell_down();
            }
            Message::Drain(dial) => self.drain_over(dial),
            Message::Renew(dial, csr_pem) => self.renew_over(dial, csr_pem),
            Message::Renewed(answer) => {
                if let Some(pairs) = &mut self.pairs {
                    pairs.machine.handle_answer(ctx.now(), answer);
                }
            }
            Message::Close(dial) => {
                let conn = self.dials.get(&dial).copied();
                if let Some(wire) = conn.and_then(|conn| self.wires.touch(conn)) {
                    match self.stopping {
                        true => wire.conn.stop(ctx.now(), CloseReason::AgentStopping),
                        false => wire.conn.close(ctx.now(), &CloseReason::Redundant),
                    }
                }
            }
            Message::Dialled(conn, slot, outcome) => self.dialled(ctx, host, conn, slot, outcome),
        }
    }

    fn perform(&mut self, ctx: &mut Ctx<'_>, host: &Host, step: SupervisorStep) {
        if let SupervisorStep::Waiting {
            until,
            gateway,
            cause,
        } = step
        {
            let until = ctx.since(until);
            return ctx.note(
                host.id,
                &Fact::SupervisorWaits {
                    until,
                    gateway,
                    cause,
                },
            );
        }
        ctx.note(host.id, &Fact::Supervisor(&step));
        match step {
            SupervisorStep::Resolve {
                gateway,
                host: name,
                ..
            } => {
                if let Some((after, found)) = ctx.internet.resolve(host.id, &name) {
                    self.later(ctx.at + after, Answer::Gateway(gateway, found));
                }
            }
            SupervisorStep::Connect {
                dial,
                addr,
                server_name,
                credentials,
                ..
            } => {
                let tls = self.shown(ctx, credentials);
                self.connect(ctx, host, dial, addr, (&server_name, tls));
            }
            SupervisorStep::Close { dial } => self.push(ctx, host, Message::Close(dial)),
            SupervisorStep::Drain { dial } => self.push(ctx, host, Message::Drain(dial)),
            SupervisorStep::Adopt => self.adopt(ctx),
            SupervisorStep::Discard => self.discard(ctx),
            SupervisorStep::Revert => self.revert(ctx),
            SupervisorStep::Up { .. } => self.tell_up(ctx, host),
            SupervisorStep::Waiting { .. } => {}
        }
    }

    fn drain_wire(&mut self, ctx: &mut Ctx<'_>, host: &Host, id: ConnId) {
        while let Some(event) = self.wires.poll(ctx, host, id) {
            self.on_event(ctx, host, id, event);
        }
        self.wires.settle(ctx, host, id);
    }

    fn on_event(&mut self, ctx: &mut Ctx<'_>, host: &Host, id: ConnId, event: Event) {
        match event {
            Event::Established { .. } => {
                if let Some(dial) = self.names.get(&id) {
                    let message = Message::ToSupervisor(*dial, None);
                    self.push(ctx, host, message);
                }
            }
            Event::SessionRequested {
                slot,
                session,
                target,
            } => {
                let dial = Dial::new(ctx.now(), target, Arc::clone(&self.policy));
                let wanted = Wanted {
                    session,
                    dial,
                    timer: None,
                };
                self.wanted.insert((id, slot), wanted);
                self.run_dial(ctx, host, (id, slot), |_, _| {});
            }
            Event::SessionEnded { slot, .. } => {
                self.run_dial(ctx, host, (id, slot), |dial, _| dial.cancel());
                self.forget(id, slot);
            }
            Event::Closed(why) => {
                let places = (id, Slot(0))..=(id, Slot(u64::MAX));
                let slots: Vec<Slot> = self.wanted.range(places).map(|((_, s), _)| *s).collect();
                for slot in slots {
                    self.run_dial(ctx, host, (id, slot), |dial, _| dial.cancel());
                    self.forget(id, slot);
                }
                if let Some(dial) = self.names.get(&id) {
                    let message = Message::ToSupervisor(*dial, Some(LossKind::from(&why)));
                    self.push(ctx, host, message);
                }
            }
            Event::RenewalAnswered(answer) => {
                self.push(ctx, host, Message::Renewed(answer.ok()));
            }
            // The wire's own, or a gateway's.
            Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::SessionOpened { .. }
            | Event::SessionRefused { .. }
            | Event::SessionRest { .. }
            | Event::SessionReadable(_)
            | Event::SessionWritable(_)
            | Event::PathSuspect
            | Event::PathRecovered
            | Event::RenewalRequested { .. }
            | Event::Peer(_) => {}
        }
    }
}
