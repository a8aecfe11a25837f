//! Facts in words.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "`describe` names every fact; the functions below have a group each"
)]

use std::fmt;

use adit_proto_core::{
    agent::{policy::Restrictions, supervisor::SupervisorStep},
    gateway::dispatch::DispatchOutput,
    identity::AgentIdentity,
    output::Event,
    route::RouteSet,
};

use super::{
    Topic,
    script::{self, through},
};
use crate::{
    At,
    facts::{Fact, LegFact, NodeId, RegistryRow, Start},
    net::{Fate, Path},
};

/// Knows what nodes are called.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Names {
    pub(super) gateways: usize,
}

impl Names {
    /// Names a node by its role.
    pub(super) fn of(self, node: NodeId) -> impl fmt::Display {
        fmt::from_fn(move |f| match node.0.checked_sub(self.gateways) {
            None => write!(f, "gw{}", node.0),
            Some(nth) => write!(f, "agent{nth}"),
        })
    }
}

pub(super) fn describe(names: Names, fact: &Fact<'_>) -> (Topic, String) {
    match fact {
        Fact::Started(_)
        | Fact::Stopping
        | Fact::Gone
        | Fact::Path { .. }
        | Fact::Fault(_)
        | Fact::Calm => (Topic::Faults, disturbance(names, fact)),
        Fact::Sent { .. } | Fact::Received { .. } => (Topic::Network, datagram(fact)),
        Fact::Routed(_) | Fact::Waits { .. } | Fact::MachineWaits { .. } => {
            (Topic::Waits, wait(fact))
        }
        Fact::Begun { .. }
        | Fact::Event(..)
        | Fact::RoundTrip(..)
        | Fact::Drained(_)
        | Fact::Registering(..)
        | Fact::PathTold { .. }
        | Fact::SeenTold(_)
        | Fact::RoutesTold { .. }
        | Fact::ClosedTold(_)
        | Fact::Registry(_)
        | Fact::Supervisor(_)
        | Fact::Certified { .. }
        | Fact::Confirmed { .. }
        | Fact::Deleted(_)
        | Fact::Enrolled { .. }
        | Fact::DrainTold { .. }
        | Fact::Configured { .. }
        | Fact::Recertified
        | Fact::Renewal(_)
        | Fact::Filed(_)
        | Fact::GatewayFound { .. }
        | Fact::SupervisorTold { .. }
        | Fact::NetworkTold
        | Fact::SupervisorWaits { .. } => (Topic::Events, event(fact)),
        Fact::Explained { .. }
        | Fact::Wish { .. }
        | Fact::GaveUp(_)
        | Fact::Decided(..)
        | Fact::Answered { .. }
        | Fact::EndTold(..)
        | Fact::Dispatch(_)
        | Fact::Dial { .. }
        | Fact::DialTold { .. }
        | Fact::Leg { .. } => (Topic::Sessions, session(fact)),
    }
}

fn forbidden(restrictions: &Restrictions) -> String {
    if *restrictions == Restrictions::default() {
        return String::new();
    }
    let Restrictions { ports, deny } = restrictions;
    format!(", may dial only ports {ports:?}, never {deny:?}")
}

fn disturbance(names: Names, fact: &Fact<'_>) -> String {
    match fact {
        Fact::Started(Start::Gateway {
            dispatch,
            limits,
            roster,
            impostor,
            wall_off_ms,
            lazy: _,
        }) => format!(
            "process starts{}: lets in {}, at most {} connections, {} sessions being opened, {} per agent; dials {:?}{}",
            if *impostor { " as an impostor" } else { "" },
            roster.0.len(),
            limits.connections,
            dispatch.opens_max,
            dispatch.sessions_per_agent,
            dispatch.direct,
            clock(*wall_off_ms)
        ),
        Fact::Started(Start::Agent {
            id,
            gateways,
            routes: set,
            intervals: _,
            trusts,
            renews,
            restrictions,
            wall_off_ms,
        }) => format!(
            "process starts: {id}, knows {} gateways{}{}, advertises {}{}{}",
            gateways.len(),
            if *trusts { "" } else { " and trusts none" },
            if *renews { ", will renew" } else { "" },
            routes(set),
            forbidden(restrictions),
            clock(*wall_off_ms)
        ),
        Fact::Stopping => "process is told to stop".to_owned(),
        Fact::Gone => "process is gone".to_owned(),
        Fact::Path { from, to, path } => {
            format!(
                "path from {} to {}: {}",
                names.of(*from),
                names.of(*to),
                self::path(path)
            )
        }
        Fact::Calm => "no faults from here on".to_owned(),
        Fact::Fault(fault) => format!("fault: {}", script::fault(names, fault)),
        other => format!("{other:?}"),
    }
}

fn clock(off_ms: i64) -> String {
    match off_ms {
        0 => String::new(),
        off_ms => format!("; clock is off by {off_ms} ms"),
    }
}

/// Only what is not as on a clean path.
pub(super) fn path(path: &Path) -> String {
    let mut text = format!(
        "{} bit/s, queue {}, {:?}, MTU {}",
        path.rate_bps, path.queue_bytes, path.delay, path.mtu
    );
    if !path.jitter.is_zero() {
        text.push_str(&format!(" + {:?}", path.jitter));
    }
    for (ppm, what) in [
        (path.loss_ppm, "lost"),
        (path.duplicate_ppm, "doubled"),
        (path.reorder_ppm, "held back"),
        (path.corrupt_ppm, "corrupted"),
    ] {
        if ppm > 0 {
            text.push_str(&format!(", {ppm} ppm {what}"));
        }
    }
    if let Some(burst) = path.burst {
        text.push_str(&format!(
            ", bursts {}/{}/{} ppm",
            burst.enter_ppm, burst.leave_ppm, burst.loss_ppm
        ));
    }
    text
}

fn datagram(fact: &Fact<'_>) -> String {
    match fact {
        Fact::Sent {
            src,
            dst,
            data,
            fate,
        } => {
            let fate = match fate {
                Fate::OnTheWay {
                    copies: 1,
                    spoilt: 0,
                } => String::new(),
                Fate::OnTheWay { copies, spoilt: 0 } => format!(", {copies} copies"),
                Fate::OnTheWay { copies, spoilt } => format!(", {spoilt} of {copies} spoilt"),
                Fate::Lost(cause) => format!(", lost: {cause:?}"),
            };
            format!("{src} > {dst} {}, {} bytes{fate}", packet(data), data.len())
        }
        Fact::Received { src, data, .. } => {
            format!("< {src} {}, {} bytes", packet(data), data.len())
        }
        other => format!("{other:?}"),
    }
}

/// What the first packet of a datagram is, as far as everybody can see it (RFC 9000 17.2, 17.3).
fn packet(data: &[u8]) -> &'static str {
    match data {
        [] => "empty",
        [0x80..=0xff, 0, 0, 0, 0, ..] => "Version Negotiation",
        [first @ 0x80..=0xff, ..] => match first & 0x30 {
            0x00 => "Initial",
            0x10 => "0-RTT",
            0x20 => "Handshake",
            _ => "Retry",
        },
        [_, ..] => "1-RTT",
    }
}

fn wait(fact: &Fact<'_>) -> String {
    match fact {
        Fact::Waits {
            conn,
            until,
            sessions,
            ..
        } => format!("{conn} waits {}, {sessions} sessions", self::until(*until)),
        Fact::MachineWaits { machine, until, .. } => {
            format!("{machine} waits {}", self::until(*until))
        }
        other => format!("{other:?}"),
    }
}

fn until(at: Option<At>) -> String {
    at.map_or_else(
        || "for nothing".to_owned(),
        |at| format!("until {:.6}", at.as_secs_f64()),
    )
}

fn stored(fact: &Fact<'_>) -> String {
    match fact {
        Fact::Certified { agent, key } => {
            format!("store: {agent} may show {} as well", short(key))
        }
        Fact::Confirmed { agent, key } => format!("store: {agent} shows {} only", short(key)),
        Fact::Deleted(agent) => format!("store: {agent} is deleted"),
        Fact::Enrolled { agent, key } => format!("store: {agent} is enrolled with {}", short(key)),
        _ => String::new(),
    }
}

fn event(fact: &Fact<'_>) -> String {
    match fact {
        Fact::Begun {
            conn, dial, remote, ..
        } => match dial {
            Some(dial) => format!("{conn} begins to {remote}, dial {}", dial.0),
            None => format!("{conn} begins from {remote}"),
        },
        Fact::Event(conn, Event::Established { identity }) => {
            let who = identity.as_ref().map(identity_words);
            format!("{conn} Established {}", who.unwrap_or_default())
        }
        Fact::Event(conn, Event::RoutesAccepted { epoch, routes: set }) => {
            format!("{conn} RoutesAccepted, epoch {epoch}: {}", routes(set))
        }
        Fact::Event(
            conn,
            Event::SessionRequested {
                slot,
                session,
                target,
            },
        ) => format!("{conn} SessionRequested {slot}: {session} to {target}"),
        Fact::Event(conn, event) => format!("{conn} {event:?}"),
        Fact::RoundTrip(conn, took) => format!("{conn} has a heartbeat answered after {took:?}"),
        Fact::Drained(conn) => format!("{conn} is gone"),
        Fact::Certified { .. }
        | Fact::Confirmed { .. }
        | Fact::Deleted(_)
        | Fact::Enrolled { .. } => stored(fact),
        Fact::DrainTold { agent, drained } => format!("dispatch < {agent} drained: {drained}"),
        Fact::Configured { limits, dispatch } => format!("settings: {limits:?}, {dispatch:?}"),
        Fact::Recertified => "certificate exchanged".to_owned(),
        Fact::Renewal(step) => format!("renewal: {step:?}"),
        Fact::Filed(what) => format!("disk: {what}"),
        Fact::Registering(conn, identity) => {
            format!("dispatch < {conn} is of {}", identity_words(identity))
        }
        Fact::PathTold { conn, suspect } => {
            let how = if *suspect { "stalls" } else { "moves again" };
            format!("dispatch < {conn} {how}")
        }
        Fact::SeenTold(conn) => format!("dispatch < {conn} is alive"),
        Fact::RoutesTold {
            conn,
            epoch,
            routes: set,
        } => format!("dispatch < {conn} has epoch {epoch}: {}", routes(set)),
        Fact::ClosedTold(conn) => format!("dispatch < {conn} is closed"),
        Fact::Registry(rows) => format!("registry: {}", registry(rows)),
        Fact::Supervisor(step) => format!("supervisor > {}", supervisor(step)),
        Fact::GatewayFound { gateway, answer } => {
            format!("supervisor < gateway {} is at {answer:?}", gateway.0)
        }
        Fact::SupervisorTold { dial, why } => match why {
            Some(why) => format!("supervisor < dial {} is over: {why:?}", dial.0),
            None => format!("supervisor < dial {} is established", dial.0),
        },
        Fact::NetworkTold => "supervisor < the network has changed".to_owned(),
        Fact::SupervisorWaits {
            until,
            gateway,
            cause,
        } => format!(
            "supervisor > waits {} for gateway {}: {cause:?}",
            self::until(Some(*until)),
            gateway.0
        ),
        other => format!("{other:?}"),
    }
}

fn supervisor(step: &SupervisorStep) -> String {
    match step {
        SupervisorStep::Connect {
            dial,
            gateway,
            addr,
            server_name,
            ..
        } => format!(
            "connect to {addr} as {server_name}, gateway {}, dial {}",
            gateway.0, dial.0
        ),
        SupervisorStep::Resolve { gateway, host, .. } => {
            format!("resolve {host}, gateway {}", gateway.0)
        }
        SupervisorStep::Close { dial } => format!("close dial {}", dial.0),
        SupervisorStep::Drain { dial } => format!("close dial {} once it carries nothing", dial.0),
        SupervisorStep::Adopt => "the next key pair is good".to_owned(),
        SupervisorStep::Revert => "the previous key pair is the good one".to_owned(),
        SupervisorStep::Discard => "the next key pair is of no use".to_owned(),
        SupervisorStep::Up { dial, gateway } => {
            format!("dial {} is up, gateway {}", dial.0, gateway.0)
        }
        SupervisorStep::Waiting { gateway, cause, .. } => {
            format!("waits for gateway {}: {cause:?}", gateway.0)
        }
    }
}

fn registry(rows: &[RegistryRow]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|row| format!("{} of {} with epoch {}", row.conn, row.agent, row.epoch))
        .collect();
    if rows.is_empty() {
        "empty".to_owned()
    } else {
        rows.join(", ")
    }
}

fn identity_words(identity: &AgentIdentity) -> String {
    let key = short(&identity.spki_sha256);
    format!("{} {}, {key}", identity.name, identity.id)
}

fn short([a, b, c, d, ..]: &[u8; 32]) -> String {
    format!("key {a:02x}{b:02x}{c:02x}{d:02x}")
}

pub(super) fn routes(set: &RouteSet) -> String {
    let subnets = set.subnets.iter().map(ToString::to_string);
    let domains = set.domains.iter().map(|route| match route.auto_detected {
        true => format!("{} (found)", route.pattern),
        false => route.pattern.to_string(),
    });
    let all: Vec<String> = subnets.chain(domains).collect();
    format!("[{}]", all.join(" "))
}

fn explained(fact: &Fact<'_>) -> String {
    let Fact::Explained {
        target,
        pinned,
        told,
    } = fact
    else {
        return String::new();
    };
    let agents: Vec<_> = told.candidates.iter().map(|c| c.agent).collect();
    let way = through(target, *pinned);
    format!("{way} would be {agents:?}, then {:?}", told.fallback)
}

fn session(fact: &Fact<'_>) -> String {
    match fact {
        Fact::Wish {
            session,
            target,
            pinned,
            open_before,
            ..
        } => format!(
            "dispatch < {session} to {}, {open_before} are being opened",
            through(target, *pinned)
        ),
        Fact::Explained { .. } => explained(fact),
        Fact::Decided(conn, slot) => format!("{conn} {slot} is answered"),
        Fact::GaveUp(session) => format!("dispatch < {session}: the user is gone"),
        Fact::Answered {
            conn,
            attempt,
            result,
        } => match result {
            Ok(slot) => format!("dispatch < {attempt} is open at {conn} {slot}"),
            Err(_) => format!("dispatch < {attempt} failed at {conn}"),
        },
        Fact::EndTold(conn, slot) => format!("dispatch < {conn} {slot} has ended"),
        Fact::Dispatch(DispatchOutput::Open {
            conn,
            attempt,
            session,
            target,
        }) => format!("dispatch > open {attempt} at {conn}: {session} to {target}"),
        Fact::Dispatch(output) => format!("dispatch > {output:?}"),
        Fact::Dial {
            place,
            session,
            step,
        } => match place {
            Some((conn, slot)) => format!("dial for {conn} {slot}, {session}: {step:?}"),
            None => format!("dial for {session}: {step:?}"),
        },
        Fact::DialTold {
            session,
            index,
            made,
            ..
        } => format!(
            "dial for {session} is told that {index} is {}",
            if *made { "made" } else { "not made" }
        ),
        Fact::Leg {
            leg,
            side,
            session,
            what,
        } => {
            let what = match what {
                LegFact::Got { offset, bytes } => format!("got {} from {offset}", bytes.len()),
                LegFact::Wrote(len) => format!("wrote {len}"),
                LegFact::Attached
                | LegFact::Fin
                | LegFact::Reset
                | LegFact::GotFin
                | LegFact::GotReset
                | LegFact::Done => format!("{what:?}"),
            };
            format!("tcp {} {side:?} of {session}: {what}", leg.0)
        }
        other => format!("{other:?}"),
    }
}
