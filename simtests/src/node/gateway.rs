//! A gateway's process: one endpoint, one `Dispatch`, and the users that it serves.

mod commands;
mod direct;
mod keys;
mod orders;
mod registry;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use adit_proto_core::{
    agent::{dial::Dial, policy::Policy},
    close::CloseReason,
    endpoint::{Endpoint, EndpointLimits},
    gateway::dispatch::{AgentEvent, Dispatch, DispatchConfig, DispatchOutput},
    id::{AttemptId, ConnId, SessionId, Slot},
    link::tls::GatewayTls,
    output::{Event, Renewed},
    session_table::{Carrier, SessionTable},
    target::Target,
};
use rand_chacha::{ChaCha12Rng, rand_core::Rng};
use uuid::Builder;

use self::{
    commands::{agent_event, carry_out, lose_user},
    direct::DialAnswer,
    keys::{Done, Keys},
};
use super::{Ctx, Host, wires::Wires};
use crate::{
    At,
    facts::{Fact, RegistryRow, Start},
    faults::Wish,
    net::Arrival,
    pki::Pki,
    plan::Roster,
    tcp::Script,
};

/// What a gateway is configured with.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Its certificate and who it lets in.
    pub tls: Arc<GatewayTls>,
    /// The same as a list.
    pub roster: Arc<Roster>,
    /// Signs its agents' certificates.
    pub authority: Arc<Pki>,
    /// Its certificate is another authority's, another host's or an agent's.
    pub impostor: bool,
    /// Bounds of its endpoint.
    pub limits: EndpointLimits,
    /// Bounds of its dispatch, and what it may dial itself.
    pub dispatch: DispatchConfig,
    /// The policy of what it dials itself.
    pub direct: Arc<Policy>,
}

/// A gateway's process.
#[derive(Debug)]
pub struct Gateway {
    wires: Wires,
    tls: GatewayTls,
    dispatch: Dispatch,
    sessions: SessionTable,
    ids: ChaCha12Rng,
    wishes: BTreeMap<SessionId, Opening>,
    impatient: BTreeSet<(At, SessionId)>,
    keys: Keys,
    direct: Arc<Policy>,
    dials: BTreeMap<SessionId, Dial>,
    /// Between connections and dispatch, in the order of sending.
    bus: VecDeque<(At, Message)>,
    /// Answers of the network to direct dials.
    answers: BTreeMap<(At, u64), (SessionId, DialAnswer)>,
    answer_count: u64,
    registry: Vec<RegistryRow>,
    stopping: bool,
}

#[derive(Debug)]
struct Opening {
    user: Script,
    target: Target,
}

#[derive(Debug)]
enum Message {
    ToDispatch(ConnId, AgentEvent),
    ToConnection(ConnId, Command),
}

#[derive(Debug)]
enum Command {
    Open(AttemptId, SessionId, Target),
    Cancel(AttemptId),
    Discard(Slot),
    Close(CloseReason),
    Attach(Slot, SessionId, Script),
    Renewed(Result<Renewed, String>),
}

impl Gateway {
    /// Starts a process.
    ///
    /// # Panics
    /// Where the certificates of the plan are unusable, which would be a fault of the simulation.
    #[expect(
        clippy::expect_used,
        reason = "the certificates are the simulation's own"
    )]
    pub fn start(ctx: &mut Ctx<'_>, host: &Host, config: &GatewayConfig) -> Self {
        let env = host.env();
        let keys = Keys::open(ctx, &config.roster, &config.authority);
        let tls = GatewayTls {
            cert_chain: config.tls.cert_chain.clone(),
            key: config.tls.key.clone(),
            agent_roots: config.tls.agent_roots.clone(),
            admission: keys.admission(),
        };
        let mut endpoint =
            Endpoint::gateway(&tls, config.limits, &env).expect("usable certificates");
        let mut dispatch = Dispatch::new(config.dispatch.clone());
        if let Some(journal) = ctx.journal() {
            dispatch.record_in(ctx.now(), &journal);
            endpoint.record_in(journal);
        }
        let start = Start::Gateway {
            dispatch: config.dispatch.clone(),
            limits: config.limits,
            lazy: host.lazy > 0,
            roster: Arc::clone(&config.roster),
            impostor: config.impostor,
            wall_off_ms: host.wall.off_ms(),
        };
        ctx.note(host.id, &Fact::Started(&start));
        Self {
            wires: Wires::new(endpoint),
            tls,
            dispatch,
            sessions: SessionTable::new(),
            ids: env.seed.derive("session-id"),
            wishes: BTreeMap::new(),
            impatient: BTreeSet::new(),
            keys,
            direct: Arc::clone(&config.direct),
            dials: BTreeMap::new(),
            bus: VecDeque::new(),
            answers: BTreeMap::new(),
            answer_count: 0,
            registry: Vec::new(),
            stopping: false,
        }
    }

    /// The registry, sessions and openings, for oracles and for the end of a run.
    #[must_use]
    pub fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// Connections that exist, those saying farewell included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.wires.endpoint.connections()
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        self.sessions.len()
    }

    /// Takes a datagram from the socket.
    pub fn receive(&mut self, ctx: &mut Ctx<'_>, host: &Host, arrival: Arrival) {
        if let Some(mut conn) = self.wires.receive(ctx, host, arrival) {
            if self.stopping {
                conn.close(ctx.now(), &CloseReason::GatewayStopping);
            }
            self.wires.begin(ctx, host, conn, None);
        }
    }

    /// A user comes.
    pub fn open(&mut self, ctx: &mut Ctx<'_>, host: &Host, wish: &Wish) -> SessionId {
        let mut bytes = [0; 16];
        self.ids.fill_bytes(&mut bytes);
        let session = SessionId(Builder::from_random_bytes(bytes).into_uuid());
        let (now, target, pinned) = (ctx.now(), &wish.target, wish.pinned);
        let told = &self.dispatch.explain(now, target, pinned);
        ctx.note(
            host.id,
            &Fact::Explained {
                target,
                pinned,
                told,
            },
        );
        let fact = Fact::Wish {
            session,
            target: &wish.target,
            pinned: wish.pinned,
            open_before: self.dispatch.open_count(),
            promise: wish.promise,
        };
        ctx.note(host.id, &fact);
        ctx.scripts.insert(session, wish.target_script.clone());
        let opening = Opening {
            user: wish.user.clone(),
            target: wish.target.clone(),
        };
        self.wishes.insert(session, opening);
        if let Some(patience) = wish.patience {
            self.impatient.insert((ctx.at + patience, session));
        }
        self.dispatch
            .open(ctx.now(), session, wish.target.clone(), wish.pinned);
        session
    }

    /// The program behind a session did something.
    pub fn ready(&mut self, conn: ConnId, slot: Slot) {
        self.wires.ready(conn, slot);
    }

    /// Closes everything, as on a signal.
    pub fn stop(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        ctx.note(host.id, &Fact::Stopping);
        self.stopping = true;
        self.dispatch.stop(ctx.now());
        self.wires.stop(ctx, &CloseReason::GatewayStopping);
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
        let dispatch = self
            .dispatch
            .poll_timeout()
            .map(|at| ctx.since(at) + host.timer_slack);
        let dials = self.dials.values().filter_map(Dial::poll_timeout).min();
        [
            self.wires.next_at(),
            dispatch,
            dials.map(|at| ctx.since(at)),
            self.bus.front().map(|(at, _)| *at),
            self.impatient.first().map(|(at, _)| *at),
            self.answers.first_key_value().map(|((at, _), _)| *at),
            self.keys.next_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Runs until nothing is left to do at this time.
    pub fn run(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        self.expire(ctx, host);
        loop {
            self.drain_dispatch(ctx, host);
            if self.bus.front().is_some_and(|(at, _)| *at <= ctx.at) {
                if let Some((_, message)) = self.bus.pop_front() {
                    self.take(ctx, host, message);
                }
            } else if let Some(id) = self.wires.next_touched() {
                self.drain_wire(ctx, host, id);
            } else {
                break;
            }
        }
        let until = self.dispatch.poll_timeout().map(|at| ctx.since(at));
        let machine = "dispatch";
        ctx.note(
            host.id,
            &Fact::MachineWaits {
                machine,
                until,
                slack: host.timer_slack,
            },
        );
        self.show_registry(ctx, host);
    }

    fn expire(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        self.wires.expire(ctx, host);
        while let Some(&(at, session)) = self.impatient.first().filter(|(at, _)| *at <= ctx.at) {
            self.impatient.remove(&(at, session));
            if self.wishes.remove(&session).is_some() {
                ctx.note(host.id, &Fact::GaveUp(session));
                self.dispatch.cancel(ctx.now(), session);
            }
        }
        let due = |at| ctx.since(at) + host.timer_slack <= ctx.at;
        if self.dispatch.poll_timeout().is_some_and(due) {
            self.dispatch.handle_timeout(ctx.now());
        }
        self.run_dials(ctx, host);
        while let Some(done) = self.keys.run(ctx, host) {
            match done {
                Done::Certified(conn, renewed) => {
                    let command = Command::Renewed(Ok(*renewed));
                    self.push(ctx, host, Message::ToConnection(conn, command));
                }
                Done::Deleted(agent) => self.deleted(ctx, host, agent),
            }
        }
    }

    fn push(&mut self, ctx: &Ctx<'_>, host: &Host, message: Message) {
        self.bus.push_back((ctx.at + host.bus_delay, message));
    }

    fn take(&mut self, ctx: &mut Ctx<'_>, host: &Host, message: Message) {
        match message {
            Message::ToDispatch(conn, event) => self.tell_dispatch(ctx, host, conn, event),
            Message::ToConnection(conn, command) => {
                if let Some(wire) = self.wires.touch(conn) {
                    carry_out(ctx, host, wire, command);
                } else if let Command::Attach(_, session, script) = command {
                    lose_user(ctx, host, conn, session, script);
                }
            }
        }
    }

    fn tell_dispatch(&mut self, ctx: &mut Ctx<'_>, host: &Host, conn: ConnId, event: AgentEvent) {
        match &event {
            AgentEvent::Registered { identity, .. } => {
                // Its handshake was over before it was deleted, or its key replaced.
                if !self.keys.admits(identity.id, identity.spki_sha256) {
                    let close = Command::Close(CloseReason::Revoked);
                    return self.push(ctx, host, Message::ToConnection(conn, close));
                }
                ctx.note(host.id, &Fact::Registering(conn, identity));
            }
            AgentEvent::Routes { epoch, routes } => {
                let (epoch, routes) = (*epoch, routes);
                ctx.note(
                    host.id,
                    &Fact::RoutesTold {
                        conn,
                        epoch,
                        routes,
                    },
                );
            }
            AgentEvent::Seen => ctx.note(host.id, &Fact::SeenTold(conn)),
            AgentEvent::Suspect => {
                let suspect = true;
                ctx.note(host.id, &Fact::PathTold { conn, suspect });
            }
            AgentEvent::Recovered => {
                let suspect = false;
                ctx.note(host.id, &Fact::PathTold { conn, suspect });
            }
            AgentEvent::Opened { attempt, slot } => {
                let fact = Fact::Answered {
                    conn,
                    attempt: *attempt,
                    result: Ok(*slot),
                };
                ctx.note(host.id, &fact);
            }
            AgentEvent::Failed { attempt, cause } => {
                let fact = Fact::Answered {
                    conn,
                    attempt: *attempt,
                    result: Err(cause),
                };
                ctx.note(host.id, &fact);
            }
            AgentEvent::SessionEnded { slot } => {
                ctx.note(host.id, &Fact::EndTold(conn, *slot));
                if let Some(session) = self.sessions.at(conn, *slot) {
                    self.sessions.remove(session);
                }
            }
            AgentEvent::Closed => {
                ctx.note(host.id, &Fact::ClosedTold(conn));
                self.sessions.remove_conn(conn);
            }
        }
        let renewed = matches!(&event, AgentEvent::Registered { renewed: true, .. });
        self.dispatch.handle_event(ctx.now(), conn, event);
        // Only now: an agent that is refused must keep its former key.
        if renewed && let Some(identity) = self.dispatch.hub().identity(conn) {
            let (id, key) = (identity.id, identity.spki_sha256);
            self.keys.confirm(ctx, id, key);
        }
    }

    fn drain_dispatch(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        while let Some(output) = self.dispatch.poll_output() {
            ctx.note(host.id, &Fact::Dispatch(&output));
            let (conn, command) = match output {
                DispatchOutput::Open {
                    conn,
                    attempt,
                    session,
                    target,
                } => (conn, Command::Open(attempt, session, target)),
                DispatchOutput::Cancel { conn, attempt } => (conn, Command::Cancel(attempt)),
                DispatchOutput::Discard { conn, slot } => (conn, Command::Discard(slot)),
                DispatchOutput::Retire { conn } => (conn, Command::Close(CloseReason::Superseded)),
                DispatchOutput::Refused { conn, error } => {
                    let reason = CloseReason::NotAdmitted(error.to_string());
                    (conn, Command::Close(reason))
                }
                DispatchOutput::Committed {
                    session,
                    agent,
                    route,
                } => {
                    let Some(opening) = self.wishes.remove(&session) else {
                        continue;
                    };
                    let Carrier::Agent { conn, slot } = route else {
                        continue;
                    };
                    let entered =
                        self.sessions
                            .insert(ctx.now(), session, route, opening.target, agent);
                    debug_assert!(entered.is_ok(), "a session is entered once");
                    (conn, Command::Attach(slot, session, opening.user))
                }
                DispatchOutput::Failed { session, .. } => {
                    self.wishes.remove(&session);
                    continue;
                }
                DispatchOutput::DialDirect { session, target } => {
                    let dial = Dial::new(ctx.now(), target, Arc::clone(&self.direct));
                    self.dials.insert(session, dial);
                    self.run_dials(ctx, host);
                    continue;
                }
                DispatchOutput::AbortDirect { session } => {
                    if let Some(dial) = self.dials.get_mut(&session) {
                        dial.cancel();
                    }
                    self.run_dials(ctx, host);
                    continue;
                }
                DispatchOutput::RoutesRefused { .. } => continue,
            };
            self.push(ctx, host, Message::ToConnection(conn, command));
        }
    }

    fn drain_wire(&mut self, ctx: &mut Ctx<'_>, host: &Host, id: ConnId) {
        while let Some(event) = self.wires.poll(ctx, host, id) {
            if let Event::RenewalRequested { csr_pem } = &event {
                self.renewal(ctx, host, id, csr_pem);
            }
            if let Some(mut event) = agent_event(event) {
                if let AgentEvent::Registered { identity, renewed } = &mut event {
                    *renewed = self.keys.is_renewed(identity);
                }
                self.push(ctx, host, Message::ToDispatch(id, event));
            }
        }
        self.wires.settle(ctx, host, id);
    }

    fn renewal(&mut self, ctx: &mut Ctx<'_>, host: &Host, conn: ConnId, csr: &str) {
        let Some(identity) = self.dispatch.hub().identity(conn).cloned() else {
            let refused = Command::Renewed(Err("not registered".to_owned()));
            return self.push(ctx, host, Message::ToConnection(conn, refused));
        };
        if let Err(reason) = self.keys.request(ctx, conn, &identity, csr) {
            let refused = Command::Renewed(Err(reason));
            self.push(ctx, host, Message::ToConnection(conn, refused));
        }
    }
}
