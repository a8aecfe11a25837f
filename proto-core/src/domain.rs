//! DNS routes: which names an agent reaches (agent-tunnel 6.1 and 10).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::DecodeError;

/// A DNS route: one exact name, or every name below a suffix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Box<str>")]
pub struct DomainPattern(Box<str>);

impl DomainPattern {
    /// Reads a route and lower-cases its ASCII letters.
    ///
    /// # Errors
    /// [`DecodeError::InvalidField`] with the field `domain`.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let rest = text.strip_prefix("*.").unwrap_or(text);
        let bad = |reason: &'static str| {
            Err(DecodeError::InvalidField {
                field: "domain".into(),
                reason: reason.into(),
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

impl TryFrom<Box<str>> for DomainPattern {
    type Error = DecodeError;

    fn try_from(text: Box<str>) -> Result<Self, DecodeError> {
        Self::parse(&text)
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
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// agent-tunnel 6.1: nothing else is looked at, so whoever shows a route must make it printable.
    #[test]
    fn odd_characters_are_let_through() {
        for text in ["a b", "a\n.local", "*.b\u{fc}ro.local"] {
            assert!(DomainPattern::parse(text).is_ok(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_reads_back_and_matches_label_by_label(
            wildcard: bool,
            pattern in vec(label(), 1..4),
            above in vec(label(), 0..3),
            host in vec(label(), 1..5),
        ) {
            let name = pattern.join(".");
            let text = if wildcard { format!("*.{name}") } else { name };
            let route = DomainPattern::parse(&text).unwrap();
            prop_assert_eq!(DomainPattern::parse(route.as_str()), Ok(route.clone()));
            prop_assert_eq!(route.as_str(), text.to_ascii_lowercase());
            // A label that only ends like the first one of the pattern.
            let glued = [&above[..], &[format!("b{}", pattern[0])], &pattern[1..]].concat();
            for host in [host, glued, [above, pattern.clone()].concat()] {
                let longer = host.len().checked_sub(pattern.len());
                let covered = longer.is_some_and(|more| {
                    let same = |(a, b): (&String, &String)| a.eq_ignore_ascii_case(b);
                    (more > 0) == wildcard && host[more..].iter().zip(&pattern).all(same)
                });
                let host = host.join(".");
                prop_assert_eq!(route.matches(&host), covered, "{} {}", route, host);
                let rooted = format!("{host}.");
                prop_assert!(!route.matches(&rooted), "{} {}", route, rooted);
            }
        }

        #[test]
        fn any_text_reads_back_or_is_no_route(text in "[a-cA-C*.é ]{0,9}") {
            match DomainPattern::parse(&text) {
                Ok(route) => {
                    prop_assert!(route.as_str().eq_ignore_ascii_case(&text));
                    prop_assert_eq!(DomainPattern::parse(route.as_str()), Ok(route));
                }
                Err(error) => {
                    let is_field = matches!(&error, DecodeError::InvalidField { field, .. } if field == "domain");
                    prop_assert!(is_field, "{error}");
                }
            }
        }
    }

    fn label() -> impl Strategy<Value = String> {
        select(vec!["a", "A", "b", "ab", "é", "É", "a-"]).prop_map(str::to_owned)
    }
}
