//! Two hashes of all that happened, and the same as lines for people.

mod record;
mod script;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;

use crate::{
    At,
    facts::{Fact, NodeId},
};
use words::Names;

/// Hashes every fact. Equal hashes of two runs mean that nothing differed.
#[derive(Debug, Default)]
pub struct Trace {
    bytes: Sink,
    shape: Sink,
    /// Scratch space: what a record says beside its payload.
    fields: Vec<u8>,
    lines: Option<(Names, Vec<Line>)>,
    silent: bool,
    records: u64,
}

/// What a [`Trace`] adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// Over times, nodes, datagrams and events in full.
    pub bytes: blake3::Hash,
    /// Over times, nodes, kinds and lengths only.
    pub shape: blake3::Hash,
    /// How many facts there were.
    pub records: u64,
}

/// A fact in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Virtual time.
    pub at: At,
    /// Where it happened.
    pub node: NodeId,
    /// The node as lines name it: `gw0`, `agent3`.
    pub name: String,
    /// What it is about.
    pub topic: Topic,
    /// What happened.
    pub text: String,
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Datagrams.
    Network,
    /// Connections, routes and registries.
    Events,
    /// Wishes, attempts, dials, programs and their bytes.
    Sessions,
    /// What the script did, and processes that begin and end.
    Faults,
    /// Deadlines, after each poll.
    Waits,
}

impl Trace {
    /// Makes one that keeps a line for each fact too. The first `gateways` nodes are gateways.
    #[must_use]
    pub fn with_lines(gateways: usize) -> Self {
        Self {
            lines: Some((Names { gateways }, Vec::new())),
            ..Self::default()
        }
    }

    /// Makes one that only counts: for runs so large that hashing would be most of the work.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            silent: true,
            ..Self::default()
        }
    }

    /// Takes a fact.
    pub fn note(&mut self, at: At, node: NodeId, fact: &Fact<'_>) {
        self.records += 1;
        if self.silent {
            return;
        }
        self.fields.clear();
        let record = record::encode(fact, &mut self.fields);
        let payload = record.payload;
        let head = |fields_len: usize| head(at, node, record.kind, fields_len, payload.len());
        let word = record.word(&self.fields);
        self.shape.put(&head(word.len()));
        self.shape.put(word);
        self.bytes.put(&head(self.fields.len()));
        self.bytes.put(&self.fields);
        self.bytes.put(payload);
        if let Some((names, lines)) = &mut self.lines {
            let (topic, text) = words::describe(*names, fact);
            let name = names.of(node).to_string();
            lines.push(Line {
                at,
                node,
                name,
                topic,
                text,
            });
        }
    }

    /// Takes a fact of the peers' world: what it is about, its text, and bytes that are hashed as they are.
    pub fn put(
        &mut self,
        at: At,
        node: NodeId,
        name: &str,
        (topic, text): (Topic, &str),
        payload: &[u8],
    ) {
        self.records += 1;
        let kind = PEERS_KIND;
        let word_len = text.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let word = text.get(..word_len).unwrap_or_default();
        self.shape
            .put(&head(at, node, kind, word.len(), payload.len()));
        self.shape.put(word.as_bytes());
        self.bytes
            .put(&head(at, node, kind, text.len(), payload.len()));
        self.bytes.put(text.as_bytes());
        self.bytes.put(payload);
        if let Some((_, lines)) = &mut self.lines {
            lines.push(Line {
                at,
                node,
                name: name.to_owned(),
                topic,
                text: text.to_owned(),
            });
        }
    }

    /// Takes the lines out, where they are kept.
    pub fn take_lines(&mut self) -> Vec<Line> {
        self.lines.take().unwrap_or_default().1
    }

    /// Gives the hashes so far.
    #[must_use]
    pub fn hashes(&self) -> Hashes {
        Hashes {
            bytes: self.bytes.hash(),
            shape: self.shape.hash(),
            records: self.records,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.at.as_micros();
        let (secs, us) = (us / 1_000_000, us % 1_000_000);
        write!(f, "{secs:>4}.{us:06} {:<8} {}", self.name, self.text)
    }
}

/// A hash that is fed in large pieces: many times faster than record by record.
#[derive(Debug, Default)]
struct Sink {
    hasher: blake3::Hasher,
    pending: Vec<u8>,
}

impl Sink {
    fn put(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PENDING_MAX {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
    }

    fn hash(&self) -> blake3::Hash {
        self.hasher.clone().update(&self.pending).finalize()
    }
}

const PENDING_MAX: usize = 32 << 10;
/// In the place of a fact's kind: one of the peers' world.
const PEERS_KIND: u8 = 32;

/// Lengths go before what they are the lengths of, so that no two runs of records are the same bytes.
fn head(at: At, node: NodeId, kind: u8, fields_len: usize, payload_len: usize) -> [u8; 33] {
    let mut head = [0; 33];
    let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    head[0] = kind;
    head[1..9].copy_from_slice(&nanos.to_le_bytes());
    head[9..17].copy_from_slice(&(node.0 as u64).to_le_bytes());
    head[17..25].copy_from_slice(&(fields_len as u64).to_le_bytes());
    head[25..].copy_from_slice(&(payload_len as u64).to_le_bytes());
    head
}
