//! Facts as bytes to be hashed. What happens often is written field by field: formatting costs more than hashing.

use std::{
    fmt,
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

use crate::{
    At,
    facts::{Fact, LegFact},
    net::Fate,
};

/// A fact as bytes: what was written out, and what it carries.
pub(super) struct Record<'a> {
    pub(super) kind: u8,
    /// Where the text begins among what was written out; its first word is a part of the fact's kind.
    text_at: usize,
    /// Bytes that are hashed as they are.
    pub(super) payload: &'a [u8],
}

impl Record<'_> {
    /// The first word of the text: the name of an enum's variant.
    pub(super) fn word<'a>(&self, fields: &'a [u8]) -> &'a [u8] {
        let text = fields.get(self.text_at..).unwrap_or_default();
        let len = text
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        &text[..len]
    }
}

/// Writes a fact's fields.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a fact without a form of its own is its text, one that is added later too"
)]
pub(super) fn encode<'a>(fact: &'a Fact<'_>, out: &mut Vec<u8>) -> Record<'a> {
    let mut payload: &[u8] = &[];
    let kind = match fact {
        Fact::Sent {
            src,
            dst,
            data,
            fate,
        } => {
            payload = data;
            addr(out, *src);
            addr(out, *dst);
            match fate {
                Fate::OnTheWay { copies, .. } => number(out, *copies as u64),
                Fate::Lost(cause) => return text(0, payload, out, cause),
            }
            0
        }
        Fact::Received { src, data, .. } => {
            payload = data;
            addr(out, *src);
            1
        }
        Fact::Routed(conn) => {
            number(out, conn.0);
            12
        }
        Fact::Waits { .. } | Fact::MachineWaits { .. } => wait(fact, out),
        Fact::Leg {
            leg,
            side,
            session,
            what,
        } => {
            number(out, leg.0);
            out.extend_from_slice(session.0.as_bytes());
            out.push(*side as u8);
            return self::leg(out, what);
        }
        Fact::Event(conn, event) => {
            number(out, conn.0);
            return text(7, payload, out, event);
        }
        Fact::Dispatch(output) => return text(8, payload, out, output),
        Fact::Supervisor(step) => return text(9, payload, out, step),
        Fact::Fault(fault) => return text(10, payload, out, fault),
        rare => return text(11, payload, out, rare),
    };
    let text_at = out.len();
    Record {
        kind,
        text_at,
        payload,
    }
}

fn wait(fact: &Fact<'_>, out: &mut Vec<u8>) -> u8 {
    if let Fact::Waits {
        conn,
        until,
        sessions,
        expired,
    } = fact
    {
        number(out, conn.0);
        number(out, *sessions as u64);
        time(out, *until);
        out.push(u8::from(*expired));
        2
    } else if let Fact::MachineWaits {
        machine,
        until,
        slack,
    } = fact
    {
        time(out, *until);
        number(out, u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX));
        out.extend_from_slice(machine.as_bytes());
        3
    } else {
        debug_assert!(false, "no wait: {fact:?}");
        0
    }
}

fn leg<'a>(out: &mut Vec<u8>, what: &'a LegFact<'_>) -> Record<'a> {
    let (kind, payload): (u8, &[u8]) = match what {
        LegFact::Got { offset, bytes } => {
            number(out, *offset);
            (4, bytes)
        }
        LegFact::Wrote(len) => {
            number(out, *len);
            (5, &[])
        }
        LegFact::Attached
        | LegFact::Fin
        | LegFact::Reset
        | LegFact::GotFin
        | LegFact::GotReset
        | LegFact::Done => return text(6, &[], out, what),
    };
    let text_at = out.len();
    Record {
        kind,
        text_at,
        payload,
    }
}

fn text<'a>(kind: u8, payload: &'a [u8], out: &mut Vec<u8>, what: &impl fmt::Debug) -> Record<'a> {
    let text_at = out.len();
    // Writing to a Vec cannot fail.
    let _infallible = write!(out, "{what:?}");
    Record {
        kind,
        text_at,
        payload,
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn time(out: &mut Vec<u8>, at: Option<At>) {
    // No time is one that no run reaches.
    let nanos = at.map_or(u128::MAX, |at| at.as_nanos());
    out.extend_from_slice(&nanos.to_le_bytes());
}

fn addr(out: &mut Vec<u8>, addr: SocketAddr) {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&addr.port().to_le_bytes());
}
