//! The threats that `docs/security.md` lists name the tests that stand against them: each is there.

use std::collections::BTreeSet;

use crate::workspace::{File, workspace};

const DOCUMENT: &str = "docs/security.md";

/// Names in the last column of the tables that end with a column of tests.
fn named(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut is_of_tests = false;
    for line in text.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|l| l.strip_suffix('|')) else {
            is_of_tests = false;
            continue;
        };
        let last = row.rsplit('|').next().unwrap_or_default().trim();
        if last == "Test" {
            is_of_tests = true;
        } else if is_of_tests {
            // Every other piece between the quotes is a name.
            names.extend(last.split('`').skip(1).step_by(2));
        }
    }
    names
}

/// Functions of the workspace, and targets of the fuzzers.
fn known(files: &[File]) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if let Some(target) = file.path.strip_prefix("fuzz/fuzz_targets/") {
            known.extend(target.strip_suffix(".rs"));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let after = file.text.split("fn ").skip(1);
        known.extend(after.filter_map(|rest| rest.split(|c| !is_name(c)).next()));
    }
    known
}

#[test]
fn each_threat_has_the_tests_that_it_names() {
    let files = workspace();
    let document = files.iter().find(|file| file.path == DOCUMENT);
    let text = document.map(|file| file.text.as_str()).unwrap_or_default();
    let (named, known) = (named(text), known(&files));
    assert!(named.len() > 50, "the tables were not found");
    let missing: Vec<&&str> = named.difference(&known).collect();
    assert!(missing.is_empty(), "{DOCUMENT} names no tests: {missing:?}");
}

#[test]
fn names_of_tests_are_found() {
    let text = "| Threat | Test |\n|---|---|\n| `a` | `b_c`, `d` and others |\n\n| Layer | Proves |\n| x | `y` |\n";
    assert_eq!(named(text), BTreeSet::from(["b_c", "d"]));
}
