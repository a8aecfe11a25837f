//! A TOML file laid flat: dotted keys, each with its value as text, its type and its line.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The content of one file.
#[derive(Default)]
pub(super) struct Flat {
    /// Values and empty sections by key, as `tunnel.listen` or `forward[0].name`.
    pub(super) leaves: BTreeMap<String, Leaf>,
    /// Lines of the entries of each array of tables.
    pub(super) arrays: BTreeMap<String, Vec<usize>>,
    /// What is no TOML, with its line.
    pub(super) errors: Vec<(usize, String)>,
}

/// The TOML type of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Switch,
    Other(&'static str),
}

/// What a key stands for.
pub(super) enum Leaf {
    One(Item),
    List(usize, Vec<Item>),
    EmptySection(usize),
}

/// One value.
pub(super) struct Item {
    pub(super) line: usize,
    pub(super) kind: Kind,
    pub(super) text: String,
}

impl Flat {
    /// Takes out of a text what can be understood of it.
    pub(super) fn new(text: &str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut flat = Self::default();
        for error in errors {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            let key = error.span().and_then(|span| text.get(span));
            let message = match (error.message().trim(), key) {
                (DUPLICATE, Some(key)) => format!("`{key}` is there twice; keep one"),
                (message, _) => message.replace('\n', "; "),
            };
            flat.errors.push((line, message));
        }
        flat.take_table(text, "", table.get_ref());
        flat
    }

    fn take_table(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let line = line_of(text, name.span().start);
            match value.get_ref() {
                DeValue::Table(t) if t.is_empty() => {
                    self.leaves.insert(key, Leaf::EmptySection(line));
                }
                DeValue::Table(t) => self.take_table(text, &format!("{key}."), t),
                DeValue::Array(a) if !a.is_empty() && a.iter().all(|v| v.get_ref().is_table()) => {
                    let mut lines = Vec::new();
                    for (i, entry) in a.iter().enumerate() {
                        lines.push(line_of(text, entry.span().start));
                        if let DeValue::Table(t) = entry.get_ref() {
                            self.take_table(text, &format!("{key}[{i}]."), t);
                        }
                    }
                    self.arrays.insert(key, lines);
                }
                DeValue::Array(a) => {
                    let items = a.iter().map(|v| item(text, v)).collect();
                    self.leaves.insert(key, Leaf::List(line, items));
                }
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => {
                    let item = item(text, value);
                    self.leaves.insert(key, Leaf::One(Item { line, ..item }));
                }
            }
        }
    }
}

impl Leaf {
    pub(super) fn line(&self) -> usize {
        match self {
            Self::One(item) => item.line,
            Self::List(line, _) | Self::EmptySection(line) => *line,
        }
    }
}

impl Kind {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Switch => "a boolean",
            Self::Other(noun) => noun,
        }
    }

    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Text => "a text in quotes",
            Self::Number => "a whole number without quotes",
            Self::Switch => "true or false without quotes",
            Self::Other(_) => "another type",
        }
    }
}

fn item(text: &str, value: &Spanned<DeValue<'_>>) -> Item {
    let (kind, shown) = match value.get_ref() {
        DeValue::String(s) => (Kind::Text, s.to_string()),
        // `as_str` is the digits without their radix; only decimal ones read back as they were meant.
        DeValue::Integer(i) if i.radix() == 10 => (Kind::Number, i.as_str().to_owned()),
        DeValue::Boolean(b) => (Kind::Switch, b.to_string()),
        DeValue::Array(_) => (Kind::Other("a list"), String::new()),
        DeValue::Table(_) => (Kind::Other("a section"), String::new()),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) => {
            (Kind::Other("not a decimal whole number"), String::new())
        }
    };
    Item {
        line: line_of(text, value.span().start),
        kind,
        text: shown,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}

/// What the parser says of a key or section that was there before; it marks the key, and does not name it.
const DUPLICATE: &str = "duplicate key";
