//! Looks every setting up in its four places (flag, environment, file, default), remembers where it was found, and
//! collects problems instead of stopping at the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    ConfigError, Loaded, Problem, Surroundings,
    file::{Flat, Kind, Leaf},
};
use serde::Serialize;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag of the command line.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// A credential of systemd.
    Credential(&'static str),
    /// A line of a file, from 1; 0 for the file as a whole.
    File(Arc<Path>, usize),
    /// Built in.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::File(path, 0) => path.display().fmt(f),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One value in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key, as `tunnel.listen` or `forward[0].name`.
    pub key: String,
    /// The value as text; lists are joined by commas.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// A value from a flag of the command line; it stands above all others.
#[derive(Clone, Debug)]
pub struct Override {
    /// The key that it sets.
    pub key: &'static str,
    /// The flag, for `config show` and for problems.
    pub flag: &'static str,
    /// One text, or several for a list.
    pub values: Vec<String>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) source: Source,
}

/// Reads one configuration.
pub(super) struct Reader<'a> {
    around: &'a Surroundings,
    overrides: &'a [Override],
    path: Arc<Path>,
    leaves: BTreeMap<String, Leaf>,
    arrays: BTreeMap<String, Vec<usize>>,
    known: BTreeSet<String>,
    settings: Vec<Setting>,
    problems: Vec<Problem>,
    reads_named_files: bool,
    is_for_a_start: bool,
}

impl<'a> Reader<'a> {
    /// Starts with a file, which may be missing if it is the default one.
    pub(super) fn new(
        file: Option<(PathBuf, bool)>,
        overrides: &'a [Override],
        around: &'a Surroundings,
    ) -> Self {
        let (path, required) = file.unwrap_or_default();
        let mut reader = Self {
            around,
            overrides,
            path: path.into(),
            leaves: BTreeMap::new(),
            arrays: BTreeMap::new(),
            known: BTreeSet::new(),
            settings: Vec::new(),
            problems: Vec::new(),
            reads_named_files: true,
            is_for_a_start: false,
        };
        if reader.path.as_os_str().is_empty() {
            return reader;
        }
        match std::fs::read_to_string(&reader.path) {
            Ok(text) => {
                let flat = Flat::new(&text);
                (reader.leaves, reader.arrays) = (flat.leaves, flat.arrays);
                for (line, message) in flat.errors {
                    reader.problem(reader.at(line), message);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => {}
            Err(e) => reader.problem(
                reader.at(0),
                format!("cannot be read: {e}; name another file with --config"),
            ),
        }
        reader
    }

    /// Leaves the files alone that settings name: their content is absent, and never wrong.
    pub(super) fn without_named_files(mut self) -> Self {
        self.reads_named_files = false;
        self
    }

    /// Takes for a problem what a process could not start without.
    pub(super) fn for_a_start(mut self) -> Self {
        self.is_for_a_start = true;
        self
    }

    pub(super) fn is_for_a_start(&self) -> bool {
        self.is_for_a_start
    }

    /// Where a key stands that has not been looked up yet, or would stand.
    pub(super) fn place(&self, key: &str) -> Source {
        match self.leaves.get(key) {
            None if self.path.as_os_str().is_empty() => Source::Default,
            leaf => self.at(leaf.map_or(0, Leaf::line)),
        }
    }

    pub(super) fn reads_named_files(&self) -> bool {
        self.reads_named_files
    }

    /// Looks a setting up that has a default.
    pub(super) fn scalar<T>(
        &mut self,
        key: &str,
        kind: Kind,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Sourced<T>> {
        let (text, source) = self
            .lookup(key, kind)?
            .unwrap_or_else(|| (default.to_owned(), Source::Default));
        self.parsed(key, text, source, parse)
    }

    /// Looks a setting up that may be absent. The outer option is none after a problem.
    #[allow(
        clippy::option_option,
        reason = "a problem and an absence are two things"
    )]
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        kind: Kind,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<Sourced<T>>> {
        let Some((text, source)) = self.lookup(key, kind)? else {
            return Some(None);
        };
        self.parsed(key, text, source, parse).map(Some)
    }

    /// Looks a setting up that an entry of an array of tables must have.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        kind: Kind,
        entry: &Source,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Sourced<T>> {
        let found = self.optional(key, kind, parse)?;
        if found.is_none() {
            let name = key.rsplit('.').next().unwrap_or(key);
            self.problem(
                entry.clone(),
                format!("`{key}` is missing; add `{name} = ...`"),
            );
        }
        found
    }

    /// Looks a list of texts up; absent is empty.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<Sourced<T>>> {
        let items = self.list_items(key)?;
        self.settings.push(Setting {
            key: key.to_owned(),
            value: items
                .iter()
                .map(|(text, _)| text.as_str())
                .collect::<Vec<_>>()
                .join(","),
            source: items
                .first()
                .map_or(Source::Default, |(_, source)| source.clone()),
        });
        let mut good = Some(Vec::new());
        for (text, source) in items {
            match (parse(&text), &mut good) {
                (Ok(value), Some(list)) => list.push(Sourced { value, source }),
                (Ok(_), None) => {}
                (Err(message), _) => {
                    self.problem(source, format!("`{key}`: `{text}`: {message}"));
                    good = None;
                }
            }
        }
        good
    }

    /// The entries of an array of tables, each with its prefix for keys and its place.
    pub(super) fn entries(&mut self, key: &str) -> Vec<(String, Source)> {
        self.known.insert(format!("{key}[]"));
        let stray: Vec<String> = self
            .leaves
            .keys()
            .filter(|k| {
                *k == key
                    || k.strip_prefix(key)
                        .is_some_and(|rest| rest.starts_with('.'))
            })
            .cloned()
            .collect();
        if let Some(leaf) = stray.first().and_then(|k| self.leaves.get(k)) {
            let source = self.at(leaf.line());
            let message = format!("`{key}` is a list of sections: write `[[{key}]]`");
            self.problem(source, message);
        }
        for k in stray {
            self.leaves.remove(&k);
        }
        let lines = self.arrays.remove(key).unwrap_or_default();
        let entry = |(i, line)| (format!("{key}[{i}]."), self.at(line));
        lines.into_iter().enumerate().map(entry).collect()
    }

    /// Notes something that is wrong beyond one value.
    pub(super) fn problem(&mut self, source: Source, message: String) {
        self.problems.push(Problem { source, message });
    }

    /// Reports the keys that nobody asked for, and gives the configuration out if nothing is wrong.
    pub(super) fn finish<T>(mut self, config: Option<T>) -> Result<Loaded<T>, ConfigError> {
        let leftover: Vec<(String, usize)> = self
            .leaves
            .iter()
            .filter(|(key, leaf)| !self.is_empty_section(key, leaf))
            .map(|(key, leaf)| (key.clone(), leaf.line()))
            .collect();
        let arrays = std::mem::take(&mut self.arrays);
        let array = |(key, lines): (String, Vec<usize>)| {
            let line = lines.first().copied().unwrap_or_default();
            (key, line)
        };
        for (key, line) in leftover.into_iter().chain(arrays.into_iter().map(array)) {
            let message = self.unknown(&key);
            self.problem(self.at(line), message);
        }
        match config {
            Some(config) if self.problems.is_empty() => Ok(Loaded {
                config,
                settings: self.settings,
            }),
            _ => {
                self.problems.sort_by_key(|p| match &p.source {
                    Source::File(_, line) => *line,
                    Source::Flag(_)
                    | Source::Environment(_)
                    | Source::Credential(_)
                    | Source::Default => 0,
                });
                Err(ConfigError {
                    problems: self.problems,
                })
            }
        }
    }

    /// A known section without a value, as where all of its lines are comments.
    fn is_empty_section(&self, key: &str, leaf: &Leaf) -> bool {
        let below = |known: &String| {
            let rest = known.strip_prefix(key);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        matches!(leaf, Leaf::EmptySection(_)) && self.known.iter().any(below)
    }

    fn unknown(&self, key: &str) -> String {
        let (section, _) = key.rsplit_once('.').unwrap_or(("", key));
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for known in &self.known {
            match known.rsplit_once('.') {
                Some((s, name)) if s == section => names.insert(name),
                None if section.is_empty() => names.insert(known),
                Some(_) | None => false,
            };
        }
        if names.is_empty() {
            let top = self
                .known
                .iter()
                .map(|k| k.split(['.', '[']).next().unwrap_or(k));
            names.extend(top);
        }
        let names: Vec<&str> = names
            .into_iter()
            .map(|n| n.trim_end_matches("[]"))
            .collect();
        format!(
            "unknown key `{key}`; the keys known here are {}",
            names.join(", ")
        )
    }

    fn at(&self, line: usize) -> Source {
        Source::File(self.path.clone(), line)
    }

    fn parsed<T>(
        &mut self,
        key: &str,
        text: String,
        source: Source,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Sourced<T>> {
        let result = parse(&text);
        let shown = Setting {
            key: key.to_owned(),
            value: text,
            source: source.clone(),
        };
        self.settings.push(shown);
        match result {
            Ok(value) => Some(Sourced { value, source }),
            Err(message) => {
                self.problem(source, format!("`{key}`: {message}"));
                None
            }
        }
    }

    /// None after a problem, `Some(None)` where the setting is nowhere.
    #[allow(
        clippy::option_option,
        reason = "a problem and an absence are two things"
    )]
    fn lookup(&mut self, key: &str, kind: Kind) -> Option<Option<(String, Source)>> {
        self.known.insert(key.to_owned());
        let leaf = self.leaves.remove(key);
        if let Some((values, source)) = self.outer(key) {
            return Some(values.last().map(|text| (text.clone(), source)));
        }
        let (line, found) = match leaf {
            None => return Some(None),
            Some(Leaf::One(item)) if item.kind == kind => {
                return Some(Some((item.text, self.at(item.line))));
            }
            Some(Leaf::One(item)) => (item.line, item.kind.noun()),
            Some(leaf) => (leaf.line(), "a list"),
        };
        let message = format!("`{key}` is {found}; write {}", kind.advice());
        self.problem(self.at(line), message);
        None
    }

    fn list_items(&mut self, key: &str) -> Option<Vec<(String, Source)>> {
        self.known.insert(key.to_owned());
        let leaf = self.leaves.remove(key);
        if let Some((values, source)) = self.outer(key) {
            let split = values.iter().flat_map(|v| v.split(',')).map(str::trim);
            return Some(split.map(|v| (v.to_owned(), source.clone())).collect());
        }
        let (line, items) = match leaf {
            None => return Some(Vec::new()),
            Some(Leaf::List(_, items)) if items.iter().all(|i| i.kind == Kind::Text) => {
                return Some(
                    items
                        .into_iter()
                        .map(|i| (i.text, self.at(i.line)))
                        .collect(),
                );
            }
            Some(Leaf::List(line, items)) => (line, items),
            Some(leaf) => (leaf.line(), Vec::new()),
        };
        let odd = items.iter().find(|i| i.kind != Kind::Text);
        let line = odd.map_or(line, |i| i.line);
        let message = format!("`{key}`: write a list of texts, as [\"a\", \"b\"]");
        self.problem(self.at(line), message);
        None
    }

    /// The flag or the environment variable that sets a key. Entries of arrays have neither.
    fn outer(&self, key: &str) -> Option<(Vec<String>, Source)> {
        if let Some(o) = self.overrides.iter().find(|o| o.key == key) {
            return Some((o.values.clone(), Source::Flag(o.flag)));
        }
        if key.contains('[') {
            return None;
        }
        let name = format!("ADIT_{}", key.to_uppercase().replace('.', "_"));
        let text = self.around.var(&name)?;
        Some((vec![text.to_owned()], Source::Environment(name)))
    }
}
