//! A peer with good credentials that breaks the protocol as it likes, against a real connection of either role.

mod bare;
mod judge;
mod watched;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto_core::{
    env::Env,
    limits::REPLACEMENT_INTERVAL,
    route::RouteSet,
    target::Target,
    wire::{
        connect::{ConnectRequest, ConnectResponse},
        control::{Advertised, ControlMessage, RenewalResult},
    },
};
use adit_simtests::crypto::{Suite, provider, seed_thread};
use bytes::BytesMut;
use quinn_proto::StreamId;

use self::{
    bare::{Bare, Credit},
    judge::control_stream,
    watched::{Watched, pattern, routes, session_id},
};
use crate::{
    fixtures,
    input::{Input, start},
    routing::host,
};

/// The connection lives as long as the peer keeps to the protocol, ends with the peer's fault where it does not, and
/// until then serves as if nothing were: routes in their order, every beat acknowledged, sessions opened by whole
/// messages only, each with one outcome in time, and bytes intact.
pub fn peer(data: &[u8]) {
    play(data).finish();
}

fn play(data: &[u8]) -> Pair {
    let mut input = Input::new(data);
    seed_thread([5; 32]);
    let mut pair = Pair::new(&mut input);
    for _ in 0..STEPS_MAX {
        if !input.has_more() {
            break;
        }
        pair.step(&mut input);
    }
    pair
}

struct Pair {
    now: Instant,
    bare: Bare,
    watched: Watched,
    is_gateway: bool,
    flight: VecDeque<(Instant, Way, BytesMut)>,
    /// Virtual time that the script may still pass.
    time_left: Duration,
}

#[derive(Clone, Copy)]
enum Way {
    ToBare,
    ToWatched,
}

impl Pair {
    fn new(input: &mut Input<'_>) -> Self {
        let is_gateway = input.flag();
        let credit = Credit {
            streams: *input.pick(&[100, 100, 1, 0]),
            window: *input.pick(&[1 << 20, 100]),
        };
        let now = start();
        let (bare, watched) = match is_gateway {
            true => (Bare::client(&credit, now, WATCHED_AT), Watched::gateway()),
            false => {
                let agent = Watched::agent(now, BARE_AT, RouteSet::default());
                (Bare::server(&credit), agent)
            }
        };
        let mut pair = Self {
            now,
            bare,
            watched,
            is_gateway,
            flight: VecDeque::new(),
            time_left: SCRIPT_TIME,
        };
        pair.run_for(Duration::from_millis(20));
        assert!(pair.bare.is_connected && pair.watched.said.is_up);
        if is_gateway {
            pair.bare.open();
        } else {
            pair.bare.accept();
        }
        pair
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        let nth = usize::from(input.byte());
        match (op % 16, self.stream(nth)) {
            (0, _) => self.bare.open(),
            (1, Some(id)) => {
                let bytes: Vec<u8> = (0..input.below(16)).map(|_| input.byte()).collect();
                self.bare.write(self.now, id, &bytes);
            }
            (2..7, _) => self.say(input),
            (7, Some(id)) => match input.below(3) {
                0 => self.bare.finish(id),
                1 => self.bare.reset(id, 9),
                _ => self.bare.stop(id, 9),
            },
            (8, Some(id)) => self.bare.read(id),
            (9, Some(id)) => {
                let bytes: Vec<u8> = (0..nth * 11).map(|at| pattern(id.index(), at)).collect();
                self.bare.write(self.now, id, &bytes);
            }
            (10..13, _) => self.command(nth, input),
            (13, _) => self.pass(nth),
            (14, _) if nth == 255 => self.bare.close(self.now, b"bye\n"),
            (14, _) if nth == 254 => self.watched.close(self.now),
            _ => self.watched.pump(nth, 1 + nth * 16),
        }
        self.exchange();
        if op < 128 {
            self.run_for(Duration::from_millis(5));
        }
    }

    /// The stream that a script means: mostly a session's, as whatever befalls the control stream ends it all.
    fn stream(&self, nth: usize) -> Option<StreamId> {
        let streams = &self.bare.streams;
        let from = usize::from(nth < 250 && streams.len() > 1);
        streams[from..]
            .get(nth % (streams.len() - from).max(1))
            .copied()
    }

    /// The peer says a message, mostly one that fits the stream, and mostly whole.
    fn say(&mut self, input: &mut Input<'_>) {
        let nth = usize::from(input.byte());
        let id = match nth % 2 == 0 {
            true => Some(control_stream()),
            false => self.stream(nth),
        };
        let Some(id) = id else { return };
        let kinds: &[u8] = match (input.byte(), id == control_stream(), self.is_gateway) {
            (240.., _, _) => &[0, 1, 2, 3, 4, 5, 6],
            (_, true, true) => &[0, 0, 1, 3],
            (_, true, false) => &[2, 4],
            (_, false, true) => &[6],
            (_, false, false) => &[5],
        };
        let kind = *input.pick(kinds);
        let message = message(kind, input);
        self.bare.write(self.now, id, &damaged(message, input));
    }

    /// The application of the real connection does something.
    fn command(&mut self, nth: usize, input: &mut Input<'_>) {
        match (input.below(6), self.is_gateway) {
            (0 | 1, true) if self.watched.said.closed.is_none() => {
                let target = Target {
                    host: host(input),
                    port: 22,
                };
                self.watched.open(self.now, target);
            }
            (0 | 1, true) => {}
            (0 | 1, false) => self.watched.decide(nth, true),
            (2, true) => self.watched.cancel(nth),
            (2, false) => self.watched.decide(nth, false),
            (3, _) => self.watched.renew(),
            (4, _) => self.watched.end(nth, nth < 128),
            (_, true) => self.watched.pump(nth, 1 << 20),
            (_, false) => self.watched.advertise(self.now, routes(input)),
        }
    }

    fn pass(&mut self, nth: usize) {
        let steps = [1, 10, 100, 499, 1_000, 3_000, 21_000, 30_000];
        let time = Duration::from_millis(steps[nth % steps.len()]);
        if let Some(left) = self.time_left.checked_sub(time) {
            self.time_left = left;
            self.run_for(time);
        }
    }

    /// Both sides say what they have to say now.
    fn exchange(&mut self) {
        self.bare.accept();
        let arrives = self.now + LATENCY;
        let to_watched = self.bare.poll(self.now).into_iter();
        self.flight
            .extend(to_watched.map(|data| (arrives, Way::ToWatched, data)));
        let to_bare = self.watched.poll(self.now).into_iter();
        self.flight
            .extend(to_bare.map(|data| (arrives, Way::ToBare, data)));
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "time stands still");
            self.exchange();
            let arrival = self.flight.front().map(|(at, _, _)| *at);
            let own = self.watched.deadline;
            let next = [arrival, own, self.bare.deadline()];
            let Some(at) = next.into_iter().flatten().min().filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(at);
            if arrival == Some(at) {
                self.deliver();
            } else if own == Some(at) {
                self.watched.expire(self.now);
            } else {
                self.bare.expire(self.now);
            }
        }
        self.now = until;
    }

    fn deliver(&mut self) {
        match self.flight.pop_front() {
            Some((_, Way::ToBare, data)) => self.bare.receive(self.now, WATCHED_AT, data),
            Some((_, Way::ToWatched, data)) => self.watched.receive(self.now, BARE_AT, data),
            None => {}
        }
    }

    /// Both sides read all that is on its way; tells whether that came to an end.
    fn settle(&mut self) -> bool {
        let mut before = None;
        for _ in 0..ROUNDS_MAX {
            for id in self.bare.streams.clone() {
                self.bare.read(id);
            }
            self.watched.read_all();
            let flows = self.watched.said.flows.values();
            let read = self.bare.received() + flows.map(|flow| flow.got.len()).sum::<usize>();
            if before.replace(read) == Some(read) {
                return true;
            }
            self.run_for(Duration::from_millis(50));
        }
        false
    }

    /// Everything that waits has its time, then both logs are compared, and the connection goes without a trace.
    fn finish(mut self) {
        self.run_for(Duration::from_millis(20));
        let control = judge::control_of(&self.bare, self.is_gateway);
        let mut wait = REPLACEMENT_INTERVAL * u32::try_from(control.routes.len()).unwrap_or(0);
        let said = &self.watched.said;
        if !said.attempts.is_empty() || !said.undecided.is_empty() {
            wait = wait.max(Duration::from_secs(30));
        }
        self.run_for(wait + Duration::from_millis(100));
        let has_settled = self.settle();
        let (bare, said) = (&self.bare, &self.watched.said);
        judge::judge_close(bare, said, &control);
        judge::judge_control(bare, said, &control, has_settled);
        if self.is_gateway {
            judge::judge_opened(bare, said, has_settled);
        } else {
            judge::judge_requested(bare, said, has_settled);
        }
        let is_over = said.attempts.is_empty() && said.undecided.is_empty();
        assert!(is_over || said.closed.is_some(), "without an outcome");
        self.bare.close(self.now, b"");
        self.run_for(Duration::from_secs(5));
        assert!(self.watched.said.closed.is_some() && self.watched.is_gone());
    }
}

/// A whole message of either role.
fn message(kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    let version = if input.byte() > 240 { 2 } else { 1 };
    let refused = || "no\n".to_owned();
    let message = match kind {
        0 => {
            let mut message = Advertised::new(input.byte().into(), &routes(input)).message;
            message.version = version;
            ControlMessage::RouteAdvertise(message)
        }
        1 => ControlMessage::Heartbeat {
            version,
            timestamp_ms: input.byte().into(),
            active_stream_count: 0,
        },
        2 => ControlMessage::HeartbeatAck {
            version,
            timestamp_ms: input.byte().into(),
        },
        3 => ControlMessage::CertRenewalRequest {
            version,
            csr_pem: "csr".to_owned(),
        },
        4 => ControlMessage::CertRenewalResponse {
            version,
            result: match input.flag() {
                true => RenewalResult::Refused { reason: refused() },
                false => RenewalResult::Granted {
                    client_cert_pem: "cert".to_owned(),
                    gateway_ca_cert_pem: "ca".to_owned(),
                },
            },
        },
        5 => {
            let target = Target {
                host: host(input),
                port: u16::from(input.byte()),
            };
            let session = session_id(input.byte().into());
            let mut request = ConnectRequest::new(session, target.to_string());
            request.version = version;
            return encoded(request.encode());
        }
        _ => {
            let mut response = ConnectResponse::accepted();
            response.version = version;
            if input.byte() > 200 {
                response.result = Err(refused());
            }
            return encoded(response.encode());
        }
    };
    encoded(message.encode())
}

/// Keys, and what TLS draws, follow from the thread's stream.
fn env() -> Env {
    fixtures::env(provider(Suite::Plain))
}

/// The message with a byte changed, or without its end.
fn damaged(mut message: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    let how = input.byte();
    let at = usize::from(input.byte()) % message.len().max(1);
    match how {
        0..200 => {}
        200..230 => message.truncate(at),
        _ => message[at] = input.byte(),
    }
    message
}

fn encoded<B: AsRef<[u8]>, E>(frame: Result<B, E>) -> Vec<u8> {
    match frame {
        Ok(frame) => frame.as_ref().to_vec(),
        Err(_) => unreachable!("a short message encodes"),
    }
}

const STEPS_MAX: usize = 200;
/// A peer with a narrow window takes little in each.
const ROUNDS_MAX: usize = 50;
const TURNS_MAX: usize = 100_000;
const SCRIPT_TIME: Duration = Duration::from_secs(100);
const LATENCY: Duration = Duration::from_millis(1);
const WATCHED_AT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::new(192, 0, 2, 1),
    4433,
));
const BARE_AT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::new(192, 0, 2, 2),
    50_000,
));

#[cfg(test)]
mod tests {
    use super::*;
    use adit_proto_core::close::Closed;

    /// What random scripts reach: a target that never gets anywhere would hold every property.
    #[test]
    fn scripts_reach_every_outcome() {
        let mut reached = [0_u32; 6];
        for nth in 0..600_u32 {
            let mut script = vec![0; 100];
            blake3::Hasher::new()
                .update(&nth.to_be_bytes())
                .finalize_xof()
                .fill(&mut script);
            let pair = play(&script);
            let said = &pair.watched.said;
            let is_fault = matches!(said.closed, Some(Closed::Fault(_)));
            let bytes = said.flows.values().any(|flow| !flow.got.is_empty());
            let outcomes = [
                said.closed.is_none(),
                is_fault,
                !said.routes.is_empty(),
                pair.is_gateway && !said.flows.is_empty(),
                !pair.is_gateway && !said.flows.is_empty(),
                bytes,
            ];
            for (count, is_reached) in reached.iter_mut().zip(outcomes) {
                *count += u32::from(is_reached);
            }
            pair.finish();
        }
        assert!(reached.iter().all(|count| *count > 0), "{reached:?}");
    }
}
