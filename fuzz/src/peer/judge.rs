//! What the two sides noted, held against each other.

use adit_proto_core::{
    close::{Closed, PeerFault},
    id::{SessionId, Slot},
    limits::{CONTROL_LEN_MAX, REQUEST_TIMEOUT, ROUTES_PER_AGENT_MAX, SESSION_LEN_MAX},
    route::RouteSet,
    target::Target,
    wire::{
        connect::{ConnectRequest, ConnectResponse},
        control::ControlMessage,
        frame::FrameDecoder,
    },
};
use quinn_proto::{ConnectionError, Dir, Side, StreamId};

use super::{
    bare::{Bare, Log},
    watched::{Flow, Said, session_id},
};

/// What the peer's control bytes amount to.
#[derive(Default)]
pub(super) struct Control {
    /// Route sets of rising epochs.
    pub(super) routes: Vec<(u64, RouteSet)>,
    beats: Vec<u64>,
    /// The bytes or a message break the protocol.
    pub(super) is_bad: bool,
}

/// The control stream, whoever the agent is.
pub(super) fn control_stream() -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, 0)
}

/// Reads the peer's control bytes up to the first fault, as the other side should.
pub(super) fn control_of(bare: &Bare, to_gateway: bool) -> Control {
    let mut control = Control::default();
    let Some(log) = bare.logs.get(&control_stream()) else {
        return control;
    };
    let (frames, is_bad) = frames(CONTROL_LEN_MAX, &log.sent);
    control.is_bad = is_bad;
    for payload in frames {
        let Ok(message) = ControlMessage::decode(&payload) else {
            control.is_bad = true;
            return control;
        };
        if message.version() != VERSION {
            continue;
        }
        match (message, to_gateway) {
            (ControlMessage::RouteAdvertise(routes), true) => {
                if routes.subnets.len() + routes.domains.len() > ROUTES_PER_AGENT_MAX {
                    control.is_bad = true;
                    return control;
                }
                let epoch = routes.epoch;
                if epoch > control.routes.last().map_or(0, |(epoch, _)| *epoch) {
                    control.routes.push((epoch, routes.into_routes()));
                }
            }
            (ControlMessage::Heartbeat { timestamp_ms, .. }, true) => {
                control.beats.push(timestamp_ms);
            }
            (ControlMessage::CertRenewalRequest { .. }, true)
            | (ControlMessage::HeartbeatAck { .. }, false)
            | (ControlMessage::CertRenewalResponse { .. }, false) => {}
            (_, _) => {
                control.is_bad = true;
                return control;
            }
        }
    }
    control
}

/// A connection is given up for a reason only, and the reason is said.
pub(super) fn judge_close(bare: &Bare, said: &Said, control: &Control) {
    let log = bare.logs.get(&control_stream());
    let has_ended = log.is_some_and(|log| log.finished || log.broken);
    // The path is sound. But where bulk fills it, the peer's engine keeps its farewell for itself.
    assert!(!said.is_suspect || bare.has_closed);
    match &said.closed {
        None => {}
        Some(Closed::PathDead) => assert!(bare.has_closed),
        Some(Closed::Local) => assert!(said.has_closed),
        Some(Closed::ByPeer(_)) => assert!(bare.has_closed),
        // What it sent was no fault: it did not answer.
        Some(Closed::Fault(fault @ PeerFault::HeartbeatsUnanswered)) => {
            judge_farewell(bare, &fault.to_string());
        }
        // It grants as many as it likes, and gives none back.
        Some(Closed::Fault(fault @ PeerFault::NoStreams)) => {
            judge_farewell(bare, &fault.to_string())
        }
        Some(Closed::Fault(fault)) => {
            assert!(control.is_bad || has_ended, "{fault}");
            let is_known = matches!(
                fault,
                PeerFault::Control(_)
                    | PeerFault::ControlEnded
                    | PeerFault::WrongDirection
                    | PeerFault::TooManyRoutes { .. }
            );
            assert!(is_known, "{fault}");
            judge_farewell(bare, &fault.to_string());
        }
        Some(other) => panic!("{other}"),
    }
}

/// The peer hears what it did wrong, unless it went away itself.
fn judge_farewell(bare: &Bare, reason: &str) {
    let is_told = matches!(
        &bare.lost,
        Some(ConnectionError::ApplicationClosed(close)) if close.reason == reason.as_bytes()
    );
    assert!(is_told || bare.has_closed, "{:?}", bare.lost);
}

/// What came of the peer's control bytes. `settled`: there was time for all of them.
pub(super) fn judge_control(bare: &Bare, said: &Said, control: &Control, settled: bool) {
    assert!(
        control.routes.starts_with(&said.routes),
        "{:?}",
        said.routes
    );
    if settled && said.closed.is_none() {
        assert!(!control.is_bad, "a fault is passed over");
        assert_eq!(said.routes.len(), control.routes.len(), "routes are lost");
    }
    let Some(log) = bare.logs.get(&control_stream()) else {
        return;
    };
    let (answers, is_bad) = frames(CONTROL_LEN_MAX, &log.got);
    assert!(!is_bad);
    let mut beats = control.beats.iter();
    for payload in answers {
        let Ok(message) = ControlMessage::decode(&payload) else {
            panic!("no message: {payload:?}");
        };
        if let ControlMessage::HeartbeatAck { timestamp_ms, .. } = message {
            assert_eq!(Some(&timestamp_ms), beats.next(), "acknowledged");
        }
    }
    let is_answered = beats.next().is_none();
    assert!(is_answered || !settled || said.closed.is_some());
}

/// A gateway's sessions: each request names what was asked for, only an accepting answer opens, and bytes are whole.
pub(super) fn judge_opened(bare: &Bare, said: &Said, settled: bool) {
    for (id, log) in &bare.logs {
        if id.initiator() == Side::Client {
            continue;
        }
        let (request, rest) = head(&log.got);
        let Some(request) = request else { continue };
        let Ok(request) = ConnectRequest::decode(&request) else {
            panic!("no request: {request:?}");
        };
        let nth = (0..said.asked.len()).find(|nth| session_id(*nth as u64) == request.session);
        let target = nth.map(|nth| said.asked[nth].to_string());
        assert_eq!(target, Some(request.target));
        let flow = said.flows.get(&Slot(id.index()));
        assert!(flow.is_some() || (rest.is_empty() && !log.got_end));
        if let Some(flow) = flow {
            judge_sent(log, rest, flow, settled && said.closed.is_none());
        }
    }
    for (slot, flow) in &said.flows {
        let log = session_log(bare, *slot);
        let (answer, rest) = head(&log.sent);
        let answer = answer.map(|answer| ConnectResponse::decode(&answer));
        assert!(matches!(answer, Some(Ok(a)) if a.result.is_ok() && a.version == VERSION));
        judge_got(log, rest, flow, settled && said.closed.is_none());
    }
}

/// An agent's sessions: each whole request is asked about as it came, every other one is refused, and bytes are whole.
pub(super) fn judge_requested(bare: &Bare, said: &Said, settled: bool) {
    for (id, log) in &bare.logs {
        if id.initiator() == Side::Client {
            continue;
        }
        let slot = Slot(id.index());
        let wanted = request_of(log);
        let asked = said.requests.get(&slot);
        assert!(asked.is_none() || asked == wanted.as_ref(), "{asked:?}");
        let is_sure = !log.broken && log.took() < REQUEST_TIMEOUT && said.closed.is_none();
        assert!(
            !is_sure || asked == wanted.as_ref(),
            "{wanted:?} is passed over"
        );
        let (answer, rest) = head(&log.got);
        let flow = said.flows.get(&slot);
        let is_answered = answer.is_some();
        let is_refused = answer.is_some_and(|answer| match ConnectResponse::decode(&answer) {
            Ok(answer) => answer.result.is_err(),
            Err(_) => panic!("no answer: {answer:?}"),
        });
        if let Some(flow) = flow {
            assert!(!is_refused);
            judge_sent(log, rest, flow, settled && said.closed.is_none());
        } else {
            assert!(rest.is_empty() && (is_refused || !is_answered));
            let is_bad = wanted.is_none() && head(&log.sent).0.is_some();
            assert!(!(is_sure && settled && is_bad) || (is_refused && log.got_end));
        }
    }
    for (slot, flow) in &said.flows {
        let log = session_log(bare, *slot);
        let rest = head(&log.sent).1;
        judge_got(log, rest, flow, settled && said.closed.is_none());
    }
}

/// What the application got of `sent`. `sure`: all of it had the time to come.
fn judge_got(log: &Log, sent: &[u8], flow: &Flow, sure: bool) {
    assert!(sent.starts_with(&flow.got), "bytes are not intact");
    let is_all = flow.got.len() == sent.len();
    assert!(!flow.got_end || (log.finished && is_all), "cut");
    if sure && !log.broken && !flow.abandoned {
        assert!(is_all && flow.got_end == log.finished, "bytes are lost");
    }
}

/// What the peer got of the application's bytes, likewise.
fn judge_sent(log: &Log, got: &[u8], flow: &Flow, sure: bool) {
    assert!(flow.sent.starts_with(got), "bytes are not intact");
    let is_all = got.len() == flow.sent.len();
    assert!(!log.got_end || (flow.finished && is_all), "cut");
    if sure && !log.broken && !flow.abandoned {
        assert!(is_all && log.got_end == flow.finished, "bytes are lost");
    }
}

fn session_log(bare: &Bare, slot: Slot) -> &Log {
    match bare.logs.get(&StreamId::new(Side::Server, Dir::Bi, slot.0)) {
        Some(log) => log,
        None => panic!("{slot} without the peer"),
    }
}

fn request_of(log: &Log) -> Option<(SessionId, Target)> {
    let request = ConnectRequest::decode(&head(&log.sent).0?).ok()?;
    let target = request.target.parse().ok()?;
    (request.version == VERSION).then_some((request.session, target))
}

/// The first frame of a session's stream, if it is whole and good, and what follows it.
fn head(bytes: &[u8]) -> (Option<Vec<u8>>, &[u8]) {
    match FrameDecoder::new(SESSION_LEN_MAX).feed(bytes) {
        Ok((used, Some(payload))) => (Some(payload), &bytes[used..]),
        Ok((_, None)) | Err(_) => (None, &[]),
    }
}

/// All whole frames, and whether what follows them can be none.
fn frames(len_max: usize, mut bytes: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let (mut decoder, mut payloads) = (FrameDecoder::new(len_max), Vec::new());
    while !bytes.is_empty() {
        match decoder.feed(bytes) {
            Ok((used, payload)) => {
                bytes = &bytes[used..];
                payloads.extend(payload);
            }
            Err(_) => return (payloads, true),
        }
    }
    (payloads, false)
}

/// The only version that is spoken.
const VERSION: u16 = 1;
