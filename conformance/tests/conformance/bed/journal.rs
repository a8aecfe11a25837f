//! What was seen from outside, in order, for each of those who were looked at.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

/// Lines by subject: what happens to one of them is in order, and nothing is said about the order between two. Clones
/// write to the same journal.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lines: BTreeMap<String, Vec<String>>,
    names: BTreeMap<String, String>,
}

impl Journal {
    /// Adds a line about a subject. Addresses that are known are written by their names, so that runs can be compared.
    pub(crate) fn note(&self, subject: &str, line: &str) {
        let mut state = self.0.lock().unwrap();
        let line = (state.names.iter().rev()).fold(line.to_owned(), |line, (addr, name)| {
            line.replace(addr, name)
        });
        let lines = state.lines.entry(subject.to_owned()).or_default();
        lines.push(line);
    }

    /// Has an address written by a name.
    pub(crate) fn name(&self, addr: SocketAddr, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.names.insert(addr.to_string(), format!("<{name}>"));
    }

    /// All of it as text.
    pub(crate) fn text(&self) -> String {
        let state = self.0.lock().unwrap();
        let mut text = String::new();
        for (subject, lines) in &state.lines {
            for line in lines {
                writeln!(text, "{subject}: {line}").unwrap();
            }
        }
        text
    }
}
