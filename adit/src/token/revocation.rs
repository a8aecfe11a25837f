//! The list of revoked tokens (agent-tunnel 14.4).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::regular;

/// Claims whose bearers are refused: for each name the values. Empty where none is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationList(BTreeMap<String, BTreeSet<String>>);

impl RevocationList {
    /// Reads a JSON file of at most 16 MiB: an object that maps names of claims to lists of values.
    ///
    /// # Errors
    /// [`RevocationError`], naming the file.
    pub fn read(path: &Path) -> Result<Self, RevocationError> {
        let failed = |cause| RevocationError {
            path: path.to_owned(),
            cause,
        };
        let io = |e| failed(Cause::Io(e));
        let mut text = Vec::new();
        let file = regular::open(path).map_err(io)?;
        file.take(LEN_MAX + 1).read_to_end(&mut text).map_err(io)?;
        if text.len() as u64 > LEN_MAX {
            return Err(failed(Cause::TooLong));
        }
        let lists: BTreeMap<String, Vec<Value>> =
            serde_json::from_slice(&text).map_err(|e| failed(Cause::Json(e)))?;
        let lists = lists
            .into_iter()
            .map(|(claim, values)| (claim, values.iter().map(canonical).collect()));
        Ok(Self(lists.collect()))
    }

    /// Tells whether a claim of a token stands on the list.
    pub(super) fn covers(&self, claims: &Map<String, Value>) -> bool {
        self.0.iter().any(|(name, values)| {
            claims
                .get(name)
                .is_some_and(|value| values.contains(&canonical(value)))
        })
    }
}

/// A revocation list cannot be used; without it, revoked tokens would be taken.
#[derive(Debug, thiserror::Error)]
#[error("the revocation list {} {cause}", path.display())]
pub struct RevocationError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("is longer than {LEN_MAX} bytes")]
    TooLong,
    #[error("is not a JSON object of lists, as {{\"jti\": [\"...\"]}}: {0}")]
    Json(serde_json::Error),
}

/// One text for all spellings of a value: a UUID may be written in several ways.
fn canonical(value: &Value) -> String {
    match value.as_str().and_then(|text| Uuid::try_parse(text).ok()) {
        Some(id) => Value::from(id.to_string()).to_string(),
        None => value.to_string(),
    }
}

/// About 400,000 token ids.
const LEN_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<RevocationList, RevocationError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jrl.json");
        std::fs::write(&path, text).unwrap();
        RevocationList::read(&path)
    }

    fn covers(list: &RevocationList, claims: Value) -> bool {
        list.covers(claims.as_object().unwrap())
    }

    #[test]
    fn any_listed_value_of_any_listed_claim_counts() {
        let id = "7c4f5b1e-9d3e-4a52-8e0f-0a6b1d2c3e4f";
        let list = read(&json!({"jti": [id, "x"], "n": [1, true, null]}).to_string()).unwrap();
        for claims in [
            json!({"jti": id}),
            json!({"jti": id.to_uppercase()}),
            json!({"jti": id.replace('-', "")}),
            json!({"jti": "x", "n": 2}),
            json!({"n": 1}),
            json!({"n": true}),
            json!({"n": null}),
        ] {
            assert!(covers(&list, claims.clone()), "{claims}");
        }
        for claims in [
            json!({}),
            json!({"jti": "7c4f5b1e-9d3e-4a52-8e0f-0a6b1d2c3e40"}),
            json!({"jti": "X"}),
            json!({"n": "1"}),
            json!({"other": "x"}),
        ] {
            assert!(!covers(&list, claims.clone()), "{claims}");
        }
        assert!(!covers(&RevocationList::default(), json!({"jti": id})));
    }

    #[test]
    fn bad_files_are_named() {
        let deep = "[".repeat(100_000);
        let long = " ".repeat((16 << 20) + 1);
        for (text, says) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{\"jti\": \"x\"}", "not a JSON object"),
            ("{\"jti\": [}", "not a JSON object"),
            (deep.as_str(), "not a JSON object"),
            (long.as_str(), "is longer"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(
                error.contains("jrl.json") && error.contains(says),
                "{error}"
            );
        }
        let error = RevocationList::read(Path::new("/nonexistent/jrl")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/nonexistent/jrl cannot be read")
        );
    }
}
