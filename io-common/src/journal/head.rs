//! The first line of a journal.

use super::MAGIC;

/// What a journal tells of the process that wrote it. Words without spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Version of adit.
    pub version: String,
    /// `gateway` or `agent`.
    pub role: String,
    /// What carried the tunnel.
    pub driver: String,
    /// Unix time in milliseconds from which the journal's times count.
    pub begun_ms: u64,
}

impl Head {
    /// The head of a journal that this version writes.
    #[must_use]
    pub fn new(role: &str, driver: &str, begun_ms: u64) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: role.to_owned(),
            driver: driver.to_owned(),
            begun_ms,
        }
    }

    /// The line, with its end.
    pub(super) fn line(&self) -> String {
        let Self {
            version,
            role,
            driver,
            begun_ms,
        } = self;
        let magic = String::from_utf8_lossy(MAGIC);
        format!("{magic}{version} {role} {driver} {begun_ms}\n")
    }

    /// What a line tells that [`line`](Self::line) has written.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let words = line.strip_prefix(MAGIC)?.strip_suffix(b"\n")?;
        let mut words = std::str::from_utf8(words).ok()?.split(' ');
        let mut word = || words.next().filter(|word| !word.is_empty());
        let head = Self {
            version: word()?.to_owned(),
            role: word()?.to_owned(),
            driver: word()?.to_owned(),
            begun_ms: word()?.parse().ok()?,
        };
        words.next().is_none().then_some(head)
    }
}
