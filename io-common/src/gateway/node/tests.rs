mod holding;

use std::{
    collections::VecDeque,
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};

use adit_proto_core::{
    domain::DomainPattern,
    gateway::dispatch::{DirectRange, DirectRule, DispatchConfig},
    id::{AgentId, AttemptId, Slot},
    identity::AgentIdentity,
    route::RouteSet,
    target::Target,
};
use futures_channel::oneshot;
use uuid::Uuid;

use super::*;
use crate::{
    commands::Commands,
    dialling::{Done, UnderWay},
    gateway::{GatewayCommand, PendingSession},
    handoff::{Receiver, handoff},
    pipe::Pipe,
};

#[test]
fn a_handshake_that_ends_after_its_agent_was_deleted_is_closed() {
    let mut bed = Bed::new();
    let known = bed.up(1);
    bed.registered(1);
    // Its certificate was admitted; then the agent is deleted.
    let late = bed.up(2);
    bed.enrolled.0.store(false, Ordering::Relaxed);
    assert_eq!(bed.disconnect(), 1);
    assert_eq!(closes(&known), [CloseReason::Revoked]);
    bed.registered(2);
    assert_eq!(closes(&late), [CloseReason::Revoked]);
    assert!(!bed.is_listed());
    bed.event(
        2,
        AgentEvent::Routes {
            epoch: 1,
            routes: RouteSet::default(),
        },
    );
    assert!(!bed.is_listed());
    assert_eq!(bed.disconnect(), 0);
    for conn in [1, 2] {
        bed.event(conn, AgentEvent::Closed);
    }
    assert!(bed.node.connections.is_empty());
}

#[test]
fn a_handshake_that_ends_between_deleting_and_closing_is_closed() {
    let mut bed = Bed::new();
    let late = bed.up(1);
    bed.enrolled.0.store(false, Ordering::Relaxed);
    bed.registered(1);
    assert_eq!(closes(&late), [CloseReason::Revoked]);
    assert_eq!(bed.disconnect(), 0);
}

#[test]
fn an_agent_that_enrolled_again_stays() {
    let mut bed = Bed::new();
    bed.enrolled.0.store(false, Ordering::Relaxed);
    assert_eq!(bed.disconnect(), 0);
    bed.enrolled.0.store(true, Ordering::Relaxed);
    let conn = bed.up(1);
    bed.registered(1);
    assert!(closes(&conn).is_empty());
    assert!(bed.is_listed());
    // It has been so quick that the closing of its former connections comes only now.
    assert_eq!(bed.disconnect(), 0);
    assert!(closes(&conn).is_empty());
    assert!(bed.is_listed());
}

#[test]
fn a_session_has_the_id_that_it_came_with_unless_another_has_it() {
    let mut bed = Bed::new();
    let conn = bed.up(1);
    bed.registered(1);
    let id = SessionId(Uuid::from_u128(7));
    let asked = |association, number, bed: &mut Bed| {
        let (reply, answer) = oneshot::channel();
        let request = OpenRequest {
            association,
            ..request()
        };
        bed.input(NodeInput::Open {
            number,
            request,
            reply,
        });
        let (attempt, session) = opens(&conn).unwrap();
        let slot = Slot(number * 4);
        (AgentEvent::Opened { attempt, slot }, session, answer)
    };
    let (_, first, _opening) = asked(Some(id), 0, &mut bed);
    assert_eq!(first, id);
    // Its attempt is under way.
    let (opened, second, _open) = asked(Some(id), 1, &mut bed);
    assert_ne!(second, id);
    bed.event(1, opened);
    // It is open.
    let (_, third, _) = asked(Some(second), 2, &mut bed);
    assert_ne!(third, second);
    let (_, drawn, _) = asked(None, 3, &mut bed);
    assert!(![first, second, third].contains(&drawn));
}

#[test]
fn a_session_is_ended_by_whoever_carries_it() {
    let mut bed = Bed::new();
    let conn = bed.up(1);
    bed.registered(1);
    let (reply, mut opened) = oneshot::channel();
    let (request, number) = (request(), 0);
    bed.input(NodeInput::Open {
        number,
        request,
        reply,
    });
    let (attempt, _) = opens(&conn).unwrap();
    let slot = Slot(4);
    bed.event(1, AgentEvent::Opened { attempt, slot });
    let session = opened.try_recv().unwrap().unwrap().unwrap();
    assert!(!bed.kill(SessionId(Uuid::nil())));
    assert!(commands(&conn).is_empty());
    assert!(bed.kill(session.id()));
    assert!(matches!(
        commands(&conn).make_contiguous(),
        [Command::Kill(Slot(4))]
    ));
    assert!(!bed.kill(session.id()), "it is ending already");
    assert!(commands(&conn).is_empty());
    let (traffic, how) = (Traffic::begin(), Over::Killed);
    bed.take(1, FromConnection::SessionOver { slot, traffic, how });
    assert!(!bed.kill(session.id()));
}

#[test]
fn a_session_that_the_gateway_carries_itself_is_ended_whenever_that_is_asked() {
    let mut bed = Bed::new();
    let early = bed.open_direct(1);
    // Its user's socket is still with the ingress.
    assert!(bed.kill(early.id()));
    let (mut user, far) = Pipe::pair();
    early.attach(far, bytes::Bytes::new());
    bed.take_own();
    let cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(reset)) = user.poll_read(&cx, 1) else {
        panic!("the user is not told");
    };
    assert_eq!(reset.to_string(), Over::Killed.text());
    assert!(bed.host.0.is_empty() && bed.node.sessions.is_empty());
    // Its sockets are joined.
    let late = bed.open_direct(2);
    let session = late.id();
    late.attach(Pipe::pair().1, bytes::Bytes::new());
    bed.take_own();
    assert_eq!(bed.host.0, [session]);
    assert!(bed.kill(session));
    assert!(!bed.kill(session), "it is ending already");
    assert_eq!(bed.host.1, [(session, Over::Killed)]);
    let (traffic, how) = (Traffic::begin(), Over::Killed);
    bed.input(NodeInput::SessionOver {
        session,
        traffic,
        how,
    });
    assert!(bed.node.sessions.is_empty() && bed.node.users.is_empty());
}

#[test]
fn a_session_that_flushes_after_its_connection_is_still_known() {
    let mut bed = Bed::new();
    let conn = bed.up(1);
    bed.registered(1);
    let open = |number, bed: &mut Bed| {
        let (reply, mut opened) = oneshot::channel();
        bed.input(NodeInput::Open {
            number,
            request: request(),
            reply,
        });
        let (attempt, _) = opens(&conn).unwrap();
        let slot = Slot(4 * number);
        bed.event(1, AgentEvent::Opened { attempt, slot });
        opened.try_recv().unwrap().unwrap().unwrap()
    };
    let (lost, flushing) = (open(1, &mut bed), open(2, &mut bed));
    bed.take(1, FromConnection::Flushing([Slot(8)].into()));
    bed.event(1, AgentEvent::Closed);
    assert!(!bed.kill(lost.id()));
    assert!(bed.kill(flushing.id()));
    let told = commands(&conn);
    assert!(told.iter().any(|c| matches!(c, Command::Kill(Slot(8)))));
    let (traffic, how, slot) = (Traffic::begin(), Over::Killed, Slot(8));
    bed.take(1, FromConnection::SessionOver { slot, traffic, how });
    assert!(!bed.kill(flushing.id()));
    assert!(bed.node.connections.is_empty() && bed.node.sessions.is_empty());
}

#[test]
fn a_session_that_flushes_is_ended_with_its_agent_however_late_that_is_told() {
    for told_late in [false, true] {
        let mut bed = Bed::new();
        let conn = bed.up(1);
        bed.registered(1);
        let (reply, _opening) = oneshot::channel();
        bed.input(NodeInput::Open {
            number: 1,
            request: request(),
            reply,
        });
        let (attempt, _) = opens(&conn).unwrap();
        let slot = Slot(4);
        bed.event(1, AgentEvent::Opened { attempt, slot });
        let flushing = FromConnection::Flushing([slot].into());
        bed.enrolled.0.store(false, Ordering::Relaxed);
        if told_late {
            bed.disconnect();
            bed.take(1, flushing);
        } else {
            bed.take(1, flushing);
            bed.disconnect();
        }
        let told = commands(&conn);
        assert!(
            told.iter().any(|c| matches!(c, Command::Kill(Slot(4)))),
            "told late: {told_late}"
        );
    }
}

#[test]
fn an_agent_that_comes_while_the_gateway_stops_is_told_and_not_waited_for() {
    for input in [NodeInput::Farewell(oneshot::channel().0), NodeInput::Stop] {
        let mut bed = Bed::new();
        let known = bed.up(1);
        bed.registered(1);
        bed.input(input);
        assert_eq!(commands(&known).len(), 1);
        // It was told, and is back before the last one has gone.
        let late = bed.up(2);
        assert!(matches!(
            commands(&late).make_contiguous(),
            [Command::Stop(CloseReason::GatewayStopping)]
        ));
        bed.registered(2);
        bed.event(1, AgentEvent::Closed);
        assert!(bed.node.connections.is_empty());
        bed.event(2, AgentEvent::Closed);
    }
}

#[test]
fn a_node_is_over_when_nothing_is_left_and_it_was_told_to_stop() {
    let mut bed = Bed::new();
    let _known = bed.up(1);
    bed.registered(1);
    let (first, second, late) = (bed.open_direct(1), bed.open_direct(2), bed.open_direct(3));
    let ids = [first.id(), second.id()];
    first.attach(Pipe::pair().1, bytes::Bytes::new());
    second.attach(Pipe::pair().1, bytes::Bytes::new());
    bed.take_own();
    let (reply, mut told) = oneshot::channel();
    bed.input(NodeInput::Farewell(reply));
    let cut: BTreeMap<SessionId, Over> = bed.host.1.drain(..).collect();
    assert_eq!(cut, ids.map(|id| (id, Over::Cut)).into());
    // What comes too late is joined no more.
    late.attach(Pipe::pair().1, bytes::Bytes::new());
    bed.take_own();
    assert_eq!(bed.host.0.len(), 2);
    for session in ids {
        assert_eq!(told.try_recv(), Ok(None));
        let (traffic, how) = (Traffic::begin(), Over::Cut);
        bed.input(NodeInput::SessionOver {
            session,
            traffic,
            how,
        });
    }
    assert!(bed.node.sessions.is_empty());
    assert_eq!(told.try_recv(), Ok(None), "an agent is left");
    bed.event(1, AgentEvent::Closed);
    assert_eq!(told.try_recv(), Ok(Some(())));
    assert!(!bed.node.is_over(), "it answers on");
    bed.input(NodeInput::Stop);
    assert!(bed.node.is_over());
}

fn request() -> OpenRequest {
    OpenRequest {
        association: None,
        target: "10.0.0.1:22".parse().unwrap(),
        agent: Some(AGENT),
        user: "127.0.0.1:1".parse().unwrap(),
        account: None,
        ingress: "socks5".into(),
    }
}

struct Enrolled(AtomicBool);

impl Admission for Enrolled {
    fn admit(&self, _: &AgentIdentity) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Bed {
    node: Node,
    enrolled: Arc<Enrolled>,
    own: Receiver<NodeInput>,
    host: Joined,
    now: Instant,
}

/// Sessions whose sockets were joined, and those that were ended.
#[derive(Default)]
struct Joined(Vec<SessionId>, Vec<(SessionId, Over)>);

impl NodeHost for Joined {
    fn splice(&mut self, session: SessionId, _: Spliced) {
        self.0.push(session);
    }

    fn end_splice(&mut self, session: SessionId, how: Over) {
        self.1.push((session, how));
    }
}

struct NoDialler;

impl Dialler for NoDialler {
    fn dial(&self, _: Target, _: Arc<Policy>, _: Done) -> UnderWay {
        UnderWay::new(|| {})
    }
}

impl Bed {
    fn new() -> Self {
        let (own, inputs) = handoff(16);
        let enrolled = Arc::new(Enrolled(AtomicBool::new(true)));
        let settings = NodeSettings {
            dispatch: DispatchConfig {
                direct: vec![DirectRule {
                    range: DirectRange::Domain(DomainPattern::parse("db.corp").unwrap()),
                    port: None,
                }],
                ..DispatchConfig::default()
            },
            sessions: SessionBounds::default(),
        };
        let node = Node::new(
            settings,
            Arc::<Enrolled>::clone(&enrolled),
            Arc::new(|_| {}),
            &Seed::new([0; 32]),
            Arc::new(NoDialler),
            own,
        );
        let now = Instant::now();
        Self {
            node,
            enrolled,
            own: inputs,
            host: Joined::default(),
            now,
        }
    }

    /// Opens a session to a target that the gateway dials itself, and that answers.
    fn open_direct(&mut self, number: u64) -> PendingSession {
        let (reply, mut opened) = oneshot::channel();
        let request = OpenRequest {
            agent: None,
            target: "db.corp:22".parse().unwrap(),
            ..request()
        };
        self.input(NodeInput::Open {
            number,
            request,
            reply,
        });
        let session = *self.node.wishes.keys().next().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        self.input(NodeInput::Dialled(session, Ok(tcp)));
        opened.try_recv().unwrap().unwrap().unwrap()
    }

    /// Takes what the node has been told by those that it made.
    fn take_own(&mut self) {
        let mut own = VecDeque::new();
        let cx = Context::from_waker(Waker::noop());
        if self.own.poll_take(&cx, &mut own).is_ready() {
            own.into_iter().for_each(|input| self.input(input));
        }
    }

    fn up(&mut self, conn: u64) -> Receiver<Command<GatewayCommand>> {
        let (sender, commands) = handoff(16);
        self.take(conn, FromConnection::Up(Commands::Own(sender)));
        commands
    }

    fn registered(&mut self, conn: u64) {
        let identity = AgentIdentity {
            id: AGENT,
            name: "a".into(),
            fingerprint: [0; 32],
            spki_sha256: [0; 32],
        };
        let renewed = false;
        self.event(conn, AgentEvent::Registered { identity, renewed });
    }

    fn event(&mut self, conn: u64, event: AgentEvent) {
        self.take(conn, FromConnection::Event(event));
    }

    fn take(&mut self, conn: u64, what: FromConnection) {
        self.input(NodeInput::Connection(ConnId(conn), what));
    }

    fn input(&mut self, input: NodeInput) {
        self.node.handle_input(self.now, input, &mut self.host);
    }

    fn kill(&mut self, session: SessionId) -> bool {
        let (reply, mut answer) = oneshot::channel();
        self.input(NodeInput::Kill { session, reply });
        answer.try_recv().unwrap().unwrap()
    }

    fn disconnect(&mut self) -> usize {
        let (reply, mut answer) = oneshot::channel();
        let agent = AGENT;
        self.input(NodeInput::Disconnect { agent, reply });
        answer.try_recv().unwrap().unwrap()
    }

    fn is_listed(&self) -> bool {
        !self.node.dispatch.hub().list(self.now).is_empty()
    }
}

fn commands(conn: &Receiver<Command<GatewayCommand>>) -> VecDeque<Command<GatewayCommand>> {
    let mut commands = VecDeque::new();
    match conn.poll_take(&Context::from_waker(Waker::noop()), &mut commands) {
        Poll::Ready(()) | Poll::Pending => commands,
    }
}

/// The first session that is asked for among the commands.
fn opens(conn: &Receiver<Command<GatewayCommand>>) -> Option<(AttemptId, SessionId)> {
    let open = |command| match command {
        Command::Role(GatewayCommand::Open {
            attempt, session, ..
        }) => Some((attempt, session)),
        Command::Role(_)
        | Command::Close(_)
        | Command::Stop(_)
        | Command::Farewell(_)
        | Command::Attach(..)
        | Command::Discard(_)
        | Command::Kill(_)
        | Command::Look(_) => None,
    };
    commands(conn).into_iter().find_map(open)
}

fn closes(conn: &Receiver<Command<GatewayCommand>>) -> Vec<CloseReason> {
    let reason = |command| match command {
        Command::Close(reason) => Some(reason),
        Command::Stop(_)
        | Command::Farewell(_)
        | Command::Attach(..)
        | Command::Discard(_)
        | Command::Kill(_)
        | Command::Look(_)
        | Command::Role(_) => None,
    };
    commands(conn).into_iter().filter_map(reason).collect()
}

const AGENT: AgentId = AgentId(Uuid::from_u128(7));
