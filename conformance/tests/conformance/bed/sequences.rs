//! What each connection was told by its driver and what it said, in order, from the journals of runs that are to be
//! compared (style 5).
//!
//! Left out is what time decides, and how bytes come in batches: what the engine passed on, deadlines, readiness, reads and
//! writes, liveness. Sessions of a connection are independent of each other and of the connection's own affairs, as are
//! connections: of the order between two of them nothing is said.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use adit_proto_core::journal::{Line, Said};
use uuid::Uuid;

/// The sequences of one run, in words, each with how often it was there.
#[derive(Debug, Default)]
pub(crate) struct Sequences(BTreeMap<String, usize>);

impl Sequences {
    /// Adds that of a machine, if it is a connection.
    pub(super) fn add(&mut self, machine: &str, sequence: &Sequence) {
        let Some((whose, _)) = machine.split_once(" connection ") else {
            return;
        };
        let count = (self.0)
            .entry(format!("{whose} connection\n{sequence}"))
            .or_default();
        // How often one is begun in vain is a matter of time.
        *count = match sequence.is_established {
            true => *count + 1,
            false => 1,
        };
    }

    /// What only one of two has, in words; nothing where they are the same.
    pub(crate) fn difference(&self, other: &Self) -> String {
        let only = |sign, one: &Self, other: &Self| -> String {
            let differs = |(text, count): &(&String, &usize)| other.0.get(*text) != Some(*count);
            let told = |(text, count): (&String, &usize)| format!("{sign} {count} times {text}");
            one.0.iter().filter(differs).map(told).collect()
        };
        only('-', self, other) + &only('+', other, self)
    }
}

/// What one connection was told and said.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// About itself.
    own: Vec<String>,
    /// About each session, by its place on the connection; before it has one, by the attempt to open it.
    sessions: BTreeMap<String, Vec<String>>,
    is_established: bool,
    is_closed: bool,
    /// Calls and events that count for nothing, beside [`LEFT_OUT`].
    passed_over: &'static [&'static str],
}

impl Sequence {
    pub(super) fn new(passed_over: &'static [&'static str]) -> Self {
        Self {
            passed_over,
            ..Self::default()
        }
    }

    pub(super) fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    pub(super) fn take(&mut self, line: &Line) {
        let (sign, text) = match &line.said {
            Said::Call(_) if self.is_closed => return,
            Said::Call(text) => ('>', text),
            Said::Output(text) => ('<', text),
        };
        let text = without_keys(text);
        let (what, rest) = text.split_at(text.find(NO_NAME).unwrap_or(text.len()));
        if LEFT_OUT.contains(&what) || self.passed_over.contains(&what) {
            return;
        }
        self.is_established |= what == "Established";
        self.is_closed |= what == "Closed";
        let mut names = rest.split(NO_NAME).filter(|word| is_session(word));
        match (what, names.next(), names.next()) {
            ("SessionOpened", Some(attempt), Some(slot)) => {
                let mut lines = self.sessions.remove(attempt).unwrap_or_default();
                lines.push(format!("{sign} {what}"));
                self.sessions.insert(slot.to_owned(), lines);
            }
            (_, Some(session), _) => {
                let lines = self.sessions.entry(session.to_owned()).or_default();
                lines.push(format!("{sign} {}", alike(text)));
            }
            (_, None, _) => {
                let line = format!("{sign} {}", alike(text));
                // A node and its endpoint stop a connection, and in either order.
                if what != "Stop" || self.own.last() != Some(&line) {
                    self.own.push(line);
                }
            }
        }
    }
}

impl Display for Sequence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for line in &self.own {
            writeln!(f, "    {line}")?;
        }
        // The last acknowledgement of a session races with a stop: of one that this side has finished, its clean end may be
        // told before the connection is closed or not.
        let is_stopped = self.own.iter().any(|line| line.starts_with("> Stop"));
        let counts_for_nothing = |line: &str| is_stopped && line.contains("how: Clean");
        let mut counts = BTreeMap::<Vec<_>, usize>::new();
        for lines in self.sessions.values() {
            let counted = lines.iter().filter(|line| !counts_for_nothing(line));
            *counts.entry(counted.collect()).or_default() += 1;
        }
        for (lines, count) in counts {
            writeln!(f, "    {count} times a session")?;
            for line in lines {
                writeln!(f, "        {line}")?;
            }
        }
        Ok(())
    }
}

/// A text up to the first key, certificate or fingerprint, in whose digits any name may stand.
fn without_keys(text: &str) -> &str {
    let text = text.split(", fingerprint: ").next().unwrap_or(text);
    text.split("-----BEGIN").next().unwrap_or(text)
}

/// A text without what differs between two runs that are the same: what is drawn, and ports.
fn alike(text: &str) -> String {
    let mut alike = String::new();
    let mut before = "";
    for piece in text.split_inclusive(NO_NAME) {
        let word = piece.trim_end_matches(NO_NAME);
        let is_port = alike.ends_with(':') || before == "port";
        let is_drawn =
            is_port && is_number(word) || is_session(word) || Uuid::try_parse(word).is_ok();
        alike += if is_drawn { "_" } else { word };
        alike += &piece[word.len()..];
        before = if word.is_empty() { before } else { word };
    }
    alike
}

/// Tells whether a word names a slot or an attempt.
fn is_session(word: &str) -> bool {
    word.strip_prefix(['s', 't']).is_some_and(is_number)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// What stands between words.
const NO_NAME: fn(char) -> bool = |c| !c.is_alphanumeric() && c != '-';
const LEFT_OUT: [&str; 13] = [
    "Heard",
    "Unread",
    "Timeout",
    "SocketRebound",
    "Process",
    "Read",
    "Write",
    "Seen",
    "SessionReadable",
    "SessionWritable",
    // What of a session is read before its connection ends, and what after.
    "SessionRest",
    "PathSuspect",
    "PathRecovered",
];

#[test]
fn only_what_is_told_and_said_and_its_order_counts() {
    let run = |lines: &[&str]| {
        let mut sequence = Sequence::new(&["Cancel"]);
        for line in lines {
            let (sign, text) = line.split_at(1);
            let said = match sign {
                ">" => Said::Call(text.to_owned()),
                _ => Said::Output(text.to_owned()),
            };
            sequence.take(&Line { at: 0, said });
        }
        let mut sequences = Sequences::default();
        sequences.add("agent's connection c0", &sequence);
        sequences
    };
    let request =
        "SessionRequested { slot: s0, session: 729803f9-6fa0-46f9-bcb5-89b17d16568c, port: 80 }";
    let other =
        "SessionRequested { slot: s7, session: 629803f9-6fa0-46f9-bcb5-89b17d16568c, port: 81 }";
    let one = run(&[
        "<Established",
        &format!("<{request}"),
        ">Accept(s0)",
        "<Closed",
        ">Reset(s0, 1)",
    ]);
    let same = run(&[
        &format!("<{other}"),
        ">Read(s7, 9)",
        "<Established",
        ">Cancel(t1)",
        ">Accept(s7)",
        "<Closed",
    ]);
    assert_eq!(one.difference(&same), "");
    let stopped = |last: &[&str]| {
        let begin = ["<Established", ">Accept(s0)", ">Finish(s0)"];
        run(&[&begin[..], last, &["<Closed"]].concat())
    };
    let clean = "<SessionEnded { slot: s0, how: Clean }";
    let in_time = stopped(&[clean, ">Stop(Because)"]);
    assert_eq!(in_time.difference(&stopped(&[">Stop(Because)"])), "");
    assert_ne!(stopped(&[clean]).difference(&stopped(&[])), "");
    let refused = run(&[
        "<Established",
        &format!("<{request}"),
        ">Refuse(s0)",
        "<Closed",
    ]);
    assert!(one.difference(&refused).contains("> Refuse(_)"));
    let renewed = |digits: &str| {
        let pem = format!(">Renew(\"-----BEGIN CERTIFICATE REQUEST-----\\n{digits}");
        run(&["<Established", &pem, "<Closed"])
    };
    assert_eq!(renewed("MIHZ/s4+t1/").difference(&renewed("MIHZ")), "");
    let before = run(&[
        "<Established",
        ">Accept(s0)",
        &format!("<{request}"),
        "<Closed",
    ]);
    assert!(!one.difference(&before).is_empty());
}
