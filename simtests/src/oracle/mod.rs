//! The judges: each watches the facts of a run for one property. One file each.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a judge looks at the few facts that its property is about"
)]

mod backoff;
mod bounds;
mod buffers;
mod bytes;
mod cancelled;
mod carrier;
mod control;
mod deadlines;
mod dial;
mod events;
mod explained;
mod farewell;
mod gateways;
mod harm;
mod heartbeat;
mod hoard;
mod identity;
mod limits;
mod opened;
mod operated;
mod outcome;
mod promise;
mod pulse;
mod registry;
mod renewal;
mod rest;
mod router;
mod silence;
mod sound;
mod unanswered;

use crate::{
    At,
    facts::{Fact, NodeId},
};

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub oracle: &'static str,
    /// Virtual time.
    pub at: At,
    /// What happened.
    pub text: String,
}

/// All judges of a run.
#[derive(Debug, Default)]
pub struct Oracles {
    harm: harm::Harm,
    backoff: backoff::Backoff,
    buffers: buffers::Buffers,
    bytes: bytes::Bytes,
    cancelled: cancelled::Cancelled,
    carrier: carrier::Carrier,
    control: control::Control,
    deadlines: deadlines::Deadlines,
    dial: dial::Dial,
    events: events::Events,
    explained: explained::Explained,
    farewell: farewell::Farewell,
    gateways: gateways::Gateways,
    heartbeat: heartbeat::Heartbeat,
    hoard: hoard::Hoard,
    identity: identity::Identity,
    limits: limits::Limits,
    opened: opened::Opened,
    operated: operated::Operated,
    outcome: outcome::Outcome,
    promise: promise::Promise,
    registry: registry::Registry,
    renewal: renewal::Renewal,
    rest: rest::Rest,
    router: router::Router,
    silence: silence::Silence,
    sound: sound::Sound,
    unanswered: unanswered::Unanswered,
    /// Set for runs that are too large for judges that look at everything.
    pub light: bool,
}

impl Oracles {
    /// Shows a fact to every judge; gives the first objection.
    pub fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<Violation> {
        self.harm.observe(at, node, fact);
        let harm = &self.harm;
        let verdicts = [
            ("backoff", self.backoff.observe(at, node, fact)),
            ("buffers", self.buffers.observe(fact)),
            ("bytes", self.bytes.observe(fact)),
            ("cancelled", self.cancelled.observe(at, node, fact, harm)),
            ("carrier", self.carrier.observe(node, fact)),
            ("control", self.control.observe(at, node, fact, harm)),
            ("deadlines", self.deadlines.observe(at, node, fact)),
            ("dial", self.dial.observe(at, node, fact)),
            ("events", self.events.observe(node, fact)),
            ("explained", self.explained.observe(at, node, fact)),
            ("farewell", self.farewell.observe(at, node, fact, harm)),
            ("gateways", self.gateways.observe(node, fact)),
            ("heartbeat", self.heartbeat.observe(at, node, fact, harm)),
            ("hoard", self.hoard.observe(at, node, fact)),
            ("identity", self.identity.observe(at, node, fact)),
            ("limits", self.limits.observe(at, node, fact)),
            ("opened", self.opened.observe(node, fact)),
            ("operated", self.operated.observe(at, node, fact, harm)),
            ("outcome", self.outcome.observe(at, node, fact)),
            ("promise", self.promise.observe(at, fact)),
            ("registry", self.registry.observe(node, fact)),
            ("renewal", self.renewal.observe(at, node, fact)),
            ("rest", self.rest.observe(at, node, fact, harm)),
            ("router", self.router.observe(at, node, fact)),
            ("silence", self.silence.observe(at, node, fact)),
            ("sound", self.sound.observe(at, node, fact, harm)),
            ("unanswered", self.unanswered.observe(at, node, fact)),
        ];
        let said = |(oracle, text): (_, Option<String>)| Some((oracle, text?));
        let (oracle, text) = verdicts.into_iter().find_map(said)?;
        Some(Violation { oracle, at, text })
    }

    /// Tells whether the registries are to be shown after each change.
    #[must_use]
    pub fn wants_registry(&self) -> bool {
        !self.light
    }
}
