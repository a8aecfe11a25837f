//! Sealed links, against what a script computes apart from this code (`tests/vectors/replica-seal.py`): the bytes behind
//! the last frame of each direction. Records by themselves are tested where they are made.

use std::sync::Arc;

use adit_proto_core::replica::{
    Acceptor, ClusterId, Config, Dialer, FRAME_LEN, Keys, Nonce, Opened, Opener, ReplicaKey,
    Roster, Seal, Sealed, Sealer, Step, Stream,
};
use serde_json::Value;

use crate::{
    exchange::start,
    lines::{Failure, array, binding, equal, from_hex, profile, replica, text, to_hex},
};

const VECTORS: &str = include_str!("../vectors/replica-seal.jsonl");

#[test]
fn every_link_agrees_with_the_script() {
    let mut links = 0;
    for line in VECTORS.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        match line["kind"].as_str() {
            Some("link") => {
                links += 1;
                check(&line).unwrap_or_else(|why| panic!("{}: {why}", line["id"]));
            }
            Some("records") => {}
            other => panic!("unknown kind {other:?}"),
        }
    }
    assert!(links > 0);
}

fn check(line: &Value) -> Result<(), Failure> {
    let target = replica(line, "acceptor_id")?;
    let mut dialer = Dialer::new(
        start(),
        config(line, "dialer")?,
        binding(line, "dialer_")?,
        target,
        nonce(line, "nonce_d")?,
    )
    .map_err(|e| e.to_string())?;
    let mut acceptor = Acceptor::new(
        start(),
        config(line, "acceptor")?,
        binding(line, "acceptor_")?,
        nonce(line, "nonce_a")?,
    );
    let hello = sent(dialer.poll_output())?;
    acceptor.handle_bytes(start(), &hello);
    let challenge = sent(acceptor.poll_output())?;
    dialer.handle_bytes(start(), &challenge);
    let finish = sent(dialer.poll_output())?;
    acceptor.handle_bytes(start(), &finish);
    let confirmation = sent(acceptor.poll_output())?;
    dialer.handle_bytes(start(), &confirmation);
    let from_dialer = finish.get(FRAME_LEN..).unwrap_or_default().to_vec();
    let (one, other) = (
        sealed(dialer.poll_output())?,
        sealed(acceptor.poll_output())?,
    );
    direction(line, "d2a", from_dialer, one.sealer, other.opener)?;
    direction(line, "a2d", confirmation, other.sealer, one.opener)
}

/// Goes on from the first record: data, the end, and what the other end reads of it.
fn direction(
    line: &Value,
    name: &str,
    first: Vec<u8>,
    mut sealer: Sealer,
    mut opener: Opener,
) -> Result<(), Failure> {
    let data = from_hex(text(line, &format!("data_{name}"))?)?;
    let mut wire = first;
    let behind_first = wire.len();
    sealer.seal(&data, &mut wire).map_err(|e| e.to_string())?;
    sealer.end(&mut wire).map_err(|e| e.to_string())?;
    let expected = text(line, &format!("wire_{name}"))?.to_owned();
    equal("wire", &to_hex(&wire), &expected)?;
    let rest = wire.get_mut(behind_first..).unwrap_or_default();
    let opened = opener.open(rest).map_err(|e| e.to_string())?;
    let Opened::Data { payload, used } = opened else {
        return Err(format!("{opened:?}"));
    };
    equal("payload", &payload, &data.as_slice())?;
    let last = rest.get_mut(used..).unwrap_or_default();
    let used = last.len();
    equal("end", &opener.open(last), &Ok(Opened::End { used }))
}

fn config(line: &Value, end: &str) -> Result<Arc<Config>, Failure> {
    let key = |end: &str| -> Result<ReplicaKey, Failure> {
        let psk = from_hex(text(line, &format!("{end}_psk_hex"))?)?;
        ReplicaKey::new(&psk).map_err(|e| e.to_string())
    };
    // Each end verifies by the other's key, too.
    let other = match end {
        "dialer" => "acceptor",
        _ => "dialer",
    };
    let is_changing = line["dialer_psk_hex"] != line["acceptor_psk_hex"];
    let previous = is_changing.then(|| key(other)).transpose()?;
    let keys = Keys::new(key(end)?, previous).map_err(|e| e.to_string())?;
    let cluster = ClusterId::of(text(line, "cluster_name")?);
    let own = replica(line, &format!("{end}_id"))?;
    let roster = Roster::dense(u8::MAX, Seal::Require);
    let config = Config::new(cluster, own, roster, Some(keys)).map_err(|e| e.to_string())?;
    Ok(Arc::new(config.with_profile(profile(line)?)))
}

fn nonce(line: &Value, field: &str) -> Result<Nonce, Failure> {
    Nonce::new(array(line, field)?).map_err(|e| e.to_string())
}

fn sent(step: Option<Step>) -> Result<Vec<u8>, Failure> {
    match step {
        Some(Step::Send(bytes)) => Ok(bytes.to_vec()),
        other => Err(format!("nothing to send: {other:?}")),
    }
}

fn sealed(step: Option<Step>) -> Result<Sealed, Failure> {
    match step {
        Some(Step::Verified(verified)) => match verified.into_parts().1 {
            Stream::Sealed(sealed) => Ok(sealed),
            Stream::Plain => Err("not sealed".to_owned()),
        },
        other => Err(format!("not verified: {other:?}")),
    }
}
