//! Exchanges between two ends, or between one end and bytes that somebody made up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::replica::{
    Acceptor, ClusterId, Conduct, Config, Dialer, Fault, Keys, Nonce, ReplicaId, ReplicaKey,
    Roster, Seal, Step, Stream,
};
use serde_json::Value;

use crate::lines::{
    Failure, array, binding, byte, equal, from_hex, profile, replica, text, to_hex,
};

/// Plays a line. An end for which the line has a decision is ours; what the other one sends is in the line.
pub(crate) fn check(line: &Value, conduct: Conduct) -> Result<(), Failure> {
    expect_keys(line)?;
    let frames = frames(line)?;
    let mut dialer = match line.get("dialer") {
        Some(_) => Some(End::dialer(line, &frames, conduct)?),
        None => None,
    };
    let mut acceptor = match line.get("acceptor") {
        Some(_) => Some(End::acceptor(line, &frames, conduct)?),
        None => None,
    };
    if dialer.is_none() && acceptor.is_none() {
        return Err("nobody decides anything".to_owned());
    }
    for frame in &frames {
        let (from, to) = match frame.is_from_dialer {
            true => (&mut dialer, &mut acceptor),
            false => (&mut acceptor, &mut dialer),
        };
        if let Some(from) = from {
            let sent = from.sent.drain(..frame.sent.len().min(from.sent.len()));
            equal("sent", &to_hex(sent.as_slice()), &to_hex(&frame.sent))?;
        }
        if let Some(to) = to {
            to.handle(&frame.delivered)?;
        }
    }
    for (end, field) in [(dialer, "dialer"), (acceptor, "acceptor")] {
        let Some(mut end) = end else { continue };
        equal("sent beyond the frames", &to_hex(&end.sent), &String::new())?;
        end.end();
        let outcome = end.outcome.unwrap_or_default();
        equal(field, &outcome.as_str(), &text(line, field)?)?;
    }
    Ok(())
}

/// One frame on its way.
struct Sent {
    is_from_dialer: bool,
    sent: Vec<u8>,
    /// What arrives, which is something else where somebody in between changed it.
    delivered: Vec<u8>,
}

fn frames(line: &Value) -> Result<Vec<Sent>, Failure> {
    let frames = line["frames"].as_array().ok_or("no frames")?;
    let read = |frame: &Value| {
        // What the attacker made up nobody has sent.
        let sent = match (frame.get("sent"), frame.get("delivered")) {
            (None, Some(_)) => Vec::new(),
            _ => from_hex(text(frame, "sent")?)?,
        };
        let delivered = match frame.get("delivered") {
            Some(_) => from_hex(text(frame, "delivered")?)?,
            None => sent.clone(),
        };
        let is_from_dialer = match text(frame, "dir")? {
            "d2a" => true,
            "a2d" => false,
            other => return Err(format!("unknown direction {other}")),
        };
        Ok(Sent {
            is_from_dialer,
            sent,
            delivered,
        })
    };
    frames.iter().map(read).collect()
}

/// One end of ours.
struct End {
    machine: Machine,
    now: Instant,
    sent: Vec<u8>,
    outcome: Option<String>,
}

enum Machine {
    Dialer(Dialer),
    Acceptor(Acceptor),
}

impl End {
    fn dialer(line: &Value, frames: &[Sent], conduct: Conduct) -> Result<Self, Failure> {
        let target = match line.get("dialer_target_id") {
            Some(_) => replica(line, "dialer_target_id")?,
            None => replica(line, "acceptor_id")?,
        };
        let own = replica(line, "dialer_id")?;
        // The dialer's own list is not in the line; ids are all that it takes from it.
        let config = config(line, "dialer_", own, 0..=u8::MAX, conduct)?;
        let binding = binding(line, "dialer_")?;
        let nonce = drawn(frames, true)?;
        let dialer = Dialer::new(start(), config, binding, target, nonce);
        Ok(Self::of(Machine::Dialer(
            dialer.map_err(|e| e.to_string())?,
        )))
    }

    fn acceptor(line: &Value, frames: &[Sent], conduct: Conduct) -> Result<Self, Failure> {
        let own = replica(line, "acceptor_id")?;
        let listed = 0..byte(line, "replica_count")?;
        let config = config(line, "acceptor_", own, listed, conduct)?;
        let binding = binding(line, "acceptor_")?;
        let acceptor = Acceptor::new(start(), config, binding, drawn(frames, false)?);
        Ok(Self::of(Machine::Acceptor(acceptor)))
    }

    fn of(machine: Machine) -> Self {
        let mut end = Self {
            machine,
            now: start(),
            sent: Vec::new(),
            outcome: None,
        };
        end.drain();
        end
    }

    /// Hands over what came; whatever is left of it belongs to the stream.
    fn handle(&mut self, data: &[u8]) -> Result<(), Failure> {
        let wanted = self.wanted();
        let used = match &mut self.machine {
            Machine::Dialer(dialer) => dialer.handle_bytes(self.now, data),
            Machine::Acceptor(acceptor) => acceptor.handle_bytes(self.now, data),
        };
        self.drain();
        match used == data.len() || (self.wanted() == 0 && (wanted == 0) == (used == 0)) {
            true => Ok(()),
            false => Err(format!("took {used} of {} bytes", data.len())),
        }
    }

    /// The other end goes away.
    fn end(&mut self) {
        match &mut self.machine {
            Machine::Dialer(dialer) => dialer.handle_end(),
            Machine::Acceptor(acceptor) => acceptor.handle_end(),
        }
        self.drain();
    }

    fn wanted(&self) -> usize {
        match &self.machine {
            Machine::Dialer(dialer) => dialer.wanted(),
            Machine::Acceptor(acceptor) => acceptor.wanted(),
        }
    }

    fn drain(&mut self) {
        loop {
            let step = match &mut self.machine {
                Machine::Dialer(dialer) => dialer.poll_output(),
                Machine::Acceptor(acceptor) => acceptor.poll_output(),
            };
            let outcome = match (step, &self.machine) {
                (None, _) => return,
                (Some(Step::Send(bytes)), _) => {
                    self.sent.extend_from_slice(&bytes);
                    continue;
                }
                (Some(Step::Verified(verified)), machine) => {
                    let (peer, stream) = verified.into_parts();
                    assert!(matches!(stream, Stream::Plain), "sealed unasked");
                    established(machine, peer)
                }
                (Some(Step::Announced(peer)), machine) => established(machine, peer),
                (Some(Step::Failed(fault)), Machine::Dialer(_)) => dialer_word(fault),
                (Some(Step::Failed(fault)), Machine::Acceptor(_)) => acceptor_word(fault),
            };
            assert_eq!(self.outcome.replace(outcome), None, "a second outcome");
        }
    }
}

fn established(machine: &Machine, peer: ReplicaId) -> String {
    match machine {
        Machine::Dialer(_) => "established".to_owned(),
        Machine::Acceptor(_) => format!("accepted:{}", peer.0),
    }
}

fn dialer_word(fault: Fault) -> String {
    match fault {
        Fault::Closed(_) | Fault::Frame(_) => "read_failed".to_owned(),
        Fault::UnexpectedCommand { .. } => "wrong_command".to_owned(),
        Fault::Refused(status) => format!("rejected:{}", status.label()),
        Fault::MacMismatch(_) => "mac_invalid".to_owned(),
        other @ (Fault::Silent(_)
        | Fault::TimedOut(_)
        | Fault::ClusterMismatch(_)
        | Fault::DirectionalRule(_)
        | Fault::AuthRequired(_)
        | Fault::NonceNotDrawn
        | Fault::NotSealed(_)
        | Fault::CannotSeal(_)
        | _) => format!("{other:?}"),
    }
}

fn acceptor_word(fault: Fault) -> String {
    match (fault, fault.status()) {
        (_, Some(status)) => format!("reject:{}", status.label()),
        (Fault::Frame(_), None) => "framing:InvalidCommand".to_owned(),
        (Fault::Closed(_), None) => "framing:ConnectionClosed".to_owned(),
        (other, None) => format!("{other:?}"),
    }
}

/// The configuration of one end; `end` stands before the fields that are its own.
fn config(
    line: &Value,
    end: &str,
    own: ReplicaId,
    listed: impl Iterator<Item = u8>,
    conduct: Conduct,
) -> Result<Arc<Config>, Failure> {
    let own_field = |name: &str| {
        let field = format!("{end}{name}");
        line.get(&field).map(|_| field)
    };
    let name = own_field("cluster_name").unwrap_or_else(|| "cluster_name".to_owned());
    let cluster = ClusterId::of(text(line, &name)?);
    if name == "cluster_name" {
        let wire = ClusterId(array(line, "cluster_id_wire_hex")?);
        equal("cluster", &cluster, &wire)?;
    }
    let is_on = own_field("auth").is_none_or(|field| line[field] == true);
    let keys = is_on.then(|| {
        let key = |field: &str| -> Result<ReplicaKey, Failure> {
            ReplicaKey::new(&from_hex(text(line, field)?)?).map_err(|e| e.to_string())
        };
        let current = own_field("psk_hex").unwrap_or_else(|| "psk_hex".to_owned());
        let previous = own_field("prev_psk_hex").map(|field| key(&field));
        Keys::new(key(&current)?, previous.transpose()?).map_err(|e| e.to_string())
    });
    // A replica is of its own list here, which some of the recorded ends were not.
    let listed = listed.map(ReplicaId).chain([own]);
    let roster: Roster = listed.map(|id| (id, Seal::Never)).collect();
    let config = Config::new(cluster, own, roster, keys.transpose()?).map_err(|e| e.to_string())?;
    let config = config.with_profile(profile(line)?).with_conduct(conduct);
    Ok(Arc::new(config))
}

/// The nonce that an end drew: what its first frame says as it was sent. One that sent none needs none.
fn drawn(frames: &[Sent], by_dialer: bool) -> Result<Nonce, Failure> {
    let first = frames
        .iter()
        .find(|frame| frame.is_from_dialer == by_dialer);
    let nonce: Option<[u8; 32]> = first.and_then(|f| f.sent.get(128..160)?.try_into().ok());
    let nonce = nonce.filter(|nonce| *nonce != [0; 32]);
    Nonce::new(nonce.unwrap_or([0xaa; 32])).map_err(|e| e.to_string())
}

/// Fails on a field that nobody reads.
fn expect_keys(line: &Value) -> Result<(), Failure> {
    let object = line.as_object().ok_or("no object")?;
    match object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown field {key}")),
        None => Ok(()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the base of virtual time: only distances from it count"
)]
pub(crate) fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(|| Instant::now() + Duration::from_secs(86_400))
}

/// What a line may say; `nonce_d` and `nonce_a` repeat what stands in the frames.
const KEYS: &[&str] = &[
    "id",
    "kind",
    "note",
    "profile",
    "recorded",
    "frames",
    "dialer",
    "acceptor",
    "cluster_name",
    "dialer_cluster_name",
    "acceptor_cluster_name",
    "cluster_id_wire_hex",
    "replica_count",
    "dialer_id",
    "acceptor_id",
    "dialer_target_id",
    "psk_hex",
    "dialer_psk_hex",
    "acceptor_psk_hex",
    "dialer_prev_psk_hex",
    "acceptor_prev_psk_hex",
    "dialer_auth",
    "acceptor_auth",
    "mode",
    "exporter",
    "dialer_mode",
    "dialer_exporter",
    "acceptor_mode",
    "acceptor_exporter",
    "nonce_d",
    "nonce_a",
];
