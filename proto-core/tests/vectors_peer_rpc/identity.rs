//! Pins of certificates and verdicts on them.

use std::sync::Arc;

use adit_proto_core::peer::{
    NodeId,
    identity::{BadLeaf, IdentityStore, Leaf, NodeRecord, PinSet, SpkiPin},
    verdict::{
        Judge, ReferenceCertificate, ReferenceMessage, reference_certificate, reference_message,
    },
};
use serde_json::Value;

use crate::{
    equal, expect_fields,
    fields::{Failure, array, bytes, expect_keys, list, maybe_text, number, text},
};

pub(crate) fn cert(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["cert_der", "spki_pin", "spiffe_id"])?;
    let expected = Leaf {
        spki: SpkiPin(array(line, "spki_pin")?),
        spiffe_id: maybe_text(line, "spiffe_id")?.map(str::to_owned),
    };
    let got = Leaf::from_der(&bytes(line, "cert_der")?);
    equal("leaf", &got, &Ok(expected))
}

pub(crate) fn identity(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["record", "leaf", "outcome", "strict_outcome"])?;
    let record = match &line["record"] {
        Value::Null => None,
        record => Some(record_of(record)?),
    };
    let leaf = leaf_of(&line["leaf"])?;
    let outcome = match reference_message(record.as_ref(), leaf.as_ref()) {
        ReferenceMessage::BootstrapNoRecord => "bootstrap_no_record",
        ReferenceMessage::BootstrapNoPins => "bootstrap_no_pins",
        ReferenceMessage::AcceptedSpiffe => "accepted_spiffe",
        ReferenceMessage::AcceptedSpki => "accepted_spki",
        ReferenceMessage::Rejected => "rejected",
    };
    equal("outcome", &outcome, &text(line, "outcome")?)?;

    let from = record.as_ref().map_or(NodeId(5), |record| record.node);
    let store = Records(record.into_iter().map(Arc::new).collect());
    let judge = Judge {
        // Neither the sender nor any of the keys.
        local: NodeId(from.0.wrapping_add(1)),
        own_spki: SpkiPin([0x5e; 32]),
        store: &store,
        bootstrap_until: 0,
        unix_ms: 0,
    };
    let leaf = leaf.ok_or(BadLeaf);
    let strict = match judge.message(from, None, Some(&leaf), |_| false) {
        Ok(_) => "accept",
        Err(_) => "reject",
    };
    equal("strict outcome", &strict, &text(line, "strict_outcome")?)
}

/// Row 6 of the table is where we differ: nobody in the topology claims the certificate. It is let in only while there
/// is no topology.
pub(crate) fn tls_pin(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["store", "leaf", "outcome"])?;
    let records = list(line, "store")?.iter().map(record_of);
    let records: Result<Vec<_>, _> = records.map(|record| record.map(Arc::new)).collect();
    let store = Records(records?);
    let leaf = leaf_of(&line["leaf"])?;
    let outcome = match reference_certificate(leaf.as_ref(), &store) {
        ReferenceCertificate::Accept => "accept",
        ReferenceCertificate::Bootstrap => "accept_bootstrap",
        ReferenceCertificate::Reject => "reject",
    };
    equal("outcome", &outcome, &text(line, "outcome")?)?;
    let Some(leaf) = leaf else {
        return Ok(());
    };
    let judge = Judge {
        local: NodeId(u64::MAX),
        own_spki: SpkiPin([0x5e; 32]),
        store: &store,
        bootstrap_until: 0,
        unix_ms: 0,
    };
    let expected = outcome == "accept" || (outcome == "accept_bootstrap" && store.is_empty());
    equal("strict", &judge.certificate(&leaf).is_ok(), &expected)
}

/// Whatever records a line has; the first that fits counts.
struct Records(Vec<Arc<NodeRecord>>);

impl Records {
    fn find(&self, fits: impl Fn(&NodeRecord) -> bool) -> Option<Arc<NodeRecord>> {
        self.0.iter().find(|record| fits(record)).cloned()
    }
}

impl IdentityStore for Records {
    fn by_node(&self, node: NodeId) -> Option<Arc<NodeRecord>> {
        self.find(|record| record.node == node)
    }

    fn by_spki(&self, pin: &SpkiPin) -> Option<Arc<NodeRecord>> {
        self.find(|record| record.spki_pins.holds(pin))
    }

    fn by_spiffe(&self, id: &str) -> Option<Arc<NodeRecord>> {
        self.find(|record| record.spiffe_id.as_deref() == Some(id))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn enrolment(&self, _pin: &SpkiPin) -> Option<u64> {
        None
    }
}

fn record_of(value: &Value) -> Result<NodeRecord, Failure> {
    expect_keys(value, &["node_id", "spki_pin", "spiffe_id"])?;
    let pin = match &value["spki_pin"] {
        Value::Null => None,
        _ => Some(SpkiPin(array(value, "spki_pin")?)),
    };
    Ok(NodeRecord {
        node: NodeId(number(value, "node_id")?),
        spki_pins: PinSet::new(pin).map_err(|e| e.to_string())?,
        spiffe_id: maybe_text(value, "spiffe_id")?.map(str::to_owned),
        address: String::new(),
    })
}

/// A leaf without a key is one that does not parse.
fn leaf_of(value: &Value) -> Result<Option<Leaf>, Failure> {
    if value.is_null() || value["spki"].is_null() {
        return Ok(None);
    }
    expect_keys(value, &["spki", "spiffe_id"])?;
    Ok(Some(Leaf {
        spki: SpkiPin(array(value, "spki")?),
        spiffe_id: maybe_text(value, "spiffe_id")?.map(str::to_owned),
    }))
}
