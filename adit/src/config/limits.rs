//! The section `[limits]`: bounds that an operator sets.

use std::{num::NonZeroU32, time::Duration};

use adit_proto_core::{limits, session_timer::SessionBounds};

use super::{
    common::{budget, unread, within},
    file::Kind,
    parse,
    reader::Reader,
};

/// Bounds; each refusal that they cause is counted and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Sessions through one agent.
    pub sessions_per_agent: NonZeroU32,
    /// Connected agents.
    pub agents: NonZeroU32,
    /// QUIC handshakes in progress.
    pub handshakes: NonZeroU32,
    /// QUIC handshakes in progress from one address.
    pub handshakes_per_source: NonZeroU32,
    /// Users in the middle of a proxy handshake, for each ingress.
    pub ingress_handshakes: NonZeroU32,
    /// Sessions being opened.
    pub opening: NonZeroU32,
    /// MiB that may wait for users that do not read.
    pub unread: NonZeroU32,
    /// The same for each connection of an agent.
    pub unread_per_agent: NonZeroU32,
    /// Times of a session.
    pub sessions: SessionBounds,
}

/// Reads the section.
pub(super) fn limits(r: &mut Reader<'_>) -> Option<LimitsConfig> {
    let unread = unread(r, limits::UNREAD_IN_ALL);
    let unread_per_agent = budget(r, "limits.unread_per_agent", limits::UNREAD_BUDGET);
    let mut one = |key: &str, default: usize, most: usize| within(r, key, default, 1, most);
    const FREE: usize = u32::MAX as usize;
    let sessions_per_agent = one(
        "limits.sessions_per_agent",
        limits::SESSIONS_PER_AGENT_MAX as usize,
        limits::SESSIONS_PER_AGENT_MAX as usize,
    );
    let agents = one("limits.agents", limits::AGENTS_MAX, limits::AGENTS_MAX);
    let handshakes = one("limits.handshakes", 1_024, FREE);
    let handshakes_per_source = one("limits.handshakes_per_source", 128, FREE);
    let ingress_handshakes = one("limits.ingress_handshakes", 1_024, FREE);
    let opening = one("limits.opening", limits::OPENS_MAX, FREE);
    let idle = r.optional("limits.session_idle", Kind::Text, time);
    let lifetime = r.optional("limits.session_lifetime", Kind::Text, time);
    Some(LimitsConfig {
        sessions_per_agent: sessions_per_agent?,
        agents: agents?,
        handshakes: handshakes?,
        handshakes_per_source: handshakes_per_source?,
        ingress_handshakes: ingress_handshakes?,
        opening: opening?,
        unread: unread?,
        unread_per_agent: unread_per_agent?,
        sessions: SessionBounds {
            idle: idle?.map(|time| time.value),
            lifetime: lifetime?.map(|time| time.value),
        },
    })
}

fn time(text: &str) -> Result<Duration, String> {
    match parse::duration(text)? {
        Duration::ZERO => {
            Err("no session could last; remove the key where there is to be no bound".to_owned())
        }
        time => Ok(time),
    }
}
