//! The vectors of sealed records, which a script computes apart from this code (`tests/vectors/replica-seal.py`). What
//! only whole handshakes can show of them is in `tests/vectors_replica`.

use serde_json::Value;
use zeroize::Zeroizing;

use super::*;
use crate::replica::{Binding, ClusterId, ReplicaId};

const VECTORS: &str = include_str!("../../../tests/vectors/replica-seal.jsonl");

#[test]
fn every_line_agrees_with_the_script() {
    let mut kinds = [0, 0];
    for line in VECTORS.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        match line["kind"].as_str().unwrap() {
            "link" => {
                kinds[0] += 1;
                secrets(&line);
            }
            "records" => {
                kinds[1] += 1;
                records(&line);
            }
            other => panic!("unknown kind {other}"),
        }
    }
    assert!(kinds.iter().all(|lines| *lines > 0));
}

fn secrets(line: &Value) {
    let key = |field: &str| ReplicaKey::new(&hex(&line[field])).unwrap();
    let id = |field: &str| ReplicaId(u8::try_from(line[field].as_u64().unwrap()).unwrap());
    let transcript = Transcript {
        cluster: ClusterId::of(line["cluster_name"].as_str().unwrap()),
        dialer: id("dialer_id"),
        acceptor: id("acceptor_id"),
        nonce_d: array(&line["nonce_d"]),
        nonce_a: array(&line["nonce_a"]),
        binding: match line["mode"].as_u64().unwrap() {
            0 => Binding::Plaintext,
            _ => Binding::Tls(array(&line["exporter"])),
        },
    };
    let (dialer, acceptor) = (key("dialer_psk_hex"), key("acceptor_psk_hex"));
    for (signer, field) in [
        (Signer::Dialer, "secret_d2a"),
        (Signer::Acceptor, "secret_a2d"),
    ] {
        let secret = traffic_secret(&dialer, &acceptor, &transcript, signer);
        assert_eq!(*secret, array(&line[field]), "{} {field}", line["id"]);
    }
}

fn records(line: &Value) {
    let secret = Zeroizing::new(array(&line["secret"]));
    let number = line["number"].as_u64().unwrap();
    let payloads = line["payloads"].as_array().unwrap();
    let payloads: Vec<Vec<u8>> = payloads.iter().map(hex).collect();
    let mut sealer = Sealer::new(RecordKey::new(secret.clone(), number));
    let mut wire = Vec::new();
    for payload in &payloads {
        sealer.seal(payload, &mut wire).unwrap();
    }
    assert!(wire == hex(&line["wire"]), "{}", line["id"]);
    let mut opener = Opener::new(RecordKey::new(secret, number));
    let mut at = 0;
    for expected in &payloads {
        match opener.open(&mut wire[at..]).unwrap() {
            Opened::Data { payload, used } => {
                assert_eq!(payload, expected);
                at += used;
            }
            other @ (Opened::Missing(_) | Opened::End { .. }) => panic!("{other:?}"),
        }
    }
    assert_eq!(at, wire.len());
}

fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes().as_chunks::<2>().0;
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.iter().map(byte).collect()
}

fn array(value: &Value) -> [u8; 32] {
    hex(value).try_into().unwrap()
}
