//! DNS routes: which names an agent reaches (agent-tunnel 6.1 and 10).

use std::fmt;

use crate::error::DecodeError;

/// A DNS route: one exact name, or every name below a suffix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern(Box<str>);

impl DomainPattern {
    /// Reads a route and lower-cases its ASCII letters.
    ///
    /// # Errors
    /// [`DecodeError::InvalidField`] with the field `domain`.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let rest = text.strip_prefix("*.").unwrap_or(text);
        let bad = |reason| {
            Err(DecodeError::InvalidField {
                field: "domain",
                reason,
            })
        };
        if rest.is_empty() {
            return bad("empty name");
        }
        if rest.contains('*') {
            return bad("wildcard other than a leading `*.`");
        }
        if rest.split('.').any(str::is_empty) {
            return bad("empty label");
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The route as it is written, in lower case, with its `*.` if it has one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The suffix below which every name matches, without `*.`; none for an exact route.
    #[must_use]
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }

    /// Tells whether a host name is covered. ASCII case does not count; a trailing dot is not removed
    /// (agent-tunnel 10). A wildcard covers one or more labels before its suffix, never the suffix itself.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self.suffix() {
            None => host.eq_ignore_ascii_case(&self.0),
            Some(suffix) => host
                .len()
                .checked_sub(suffix.len() + 1)
                .filter(|&at| {
                    at > 0 && host.as_bytes()[at] == b'.' && host.is_char_boundary(at + 1)
                })
                .is_some_and(|at| host[at + 1..].eq_ignore_ascii_case(suffix)),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// agent-tunnel 6.1: nothing else is looked at, so whoever shows a route must make it printable.
    #[test]
    fn odd_characters_are_let_through() {
        for text in ["a b", "a\n.local", "*.b\u{fc}ro.local"] {
            assert!(DomainPattern::parse(text).is_ok(), "{text:?}");
        }
    }
}
