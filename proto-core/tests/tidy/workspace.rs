//! The workspace's files as text, and which part of them is tests.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// One file of the workspace, path relative to its root.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Tells whether all of it is tests. `test_modules` are the files that only `#[cfg(test)]` brings in.
    pub(crate) fn is_test(&self, test_modules: &BTreeSet<String>) -> bool {
        self.path.contains("/tests/")
            || self.path.contains("/benches/")
            || test_modules.contains(&self.path)
    }
}

/// Every text file of the workspace, build output and hidden entries but `.ci` left out.
pub(crate) fn workspace() -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the workspace is readable") {
            let path = entry.expect("the workspace is readable").path();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            if name.starts_with('.') && name != ".ci" {
                continue;
            }
            if path.is_dir() {
                // Cargo marks its output folders, however they are called.
                if !path.join("CACHEDIR.TAG").exists() {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).expect("below the root");
                files.push(File {
                    path: path.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
    }
    assert!(files.len() > 50, "the workspace was not found");
    files
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// The part of a file before its module of tests.
pub(crate) fn without_tests(text: &str) -> &str {
    let mut at = 0;
    let mut attribute = None;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        match attribute {
            Some(start) if trimmed.starts_with("mod ") && trimmed.ends_with('{') => {
                return &text[..start];
            }
            Some(_) if !trimmed.starts_with("#[") => attribute = None,
            _ => {}
        }
        if trimmed == "#[cfg(test)]" {
            attribute = Some(at);
        }
        at += line.len();
    }
    text
}

/// Paths of the files that `#[cfg(test)] mod NAME;` brings in.
pub(crate) fn test_modules(files: &[File]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let path = Path::new(&file.path);
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let stem = path
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default();
        let below = match stem {
            "mod" | "lib" | "main" => folder.to_owned(),
            _ => folder.join(stem),
        };
        let mut attributed = false;
        let mut named = None;
        for line in file.text.lines().map(str::trim) {
            if line == "#[cfg(test)]" {
                attributed = true;
            } else if let Some(name) = line
                .strip_prefix("#[path = \"")
                .and_then(|l| l.strip_suffix("\"]"))
            {
                named = Some(folder.join(name));
            } else if !line.starts_with("#[") {
                let name = line.strip_prefix("mod ").and_then(|l| l.strip_suffix(';'));
                if let (true, Some(name)) = (attributed, name) {
                    let at = named
                        .take()
                        .unwrap_or_else(|| below.join(format!("{name}.rs")));
                    found.insert(at.to_string_lossy().into_owned());
                }
                attributed = false;
                named = None;
            }
        }
    }
    found
}

#[test]
fn modules_of_tests_are_found_beside_and_below() {
    let of = |path: &str| {
        let text = "#[cfg(test)]\nmod bed;\n#[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;\nmod code;\n".to_owned();
        test_modules(&[File {
            path: path.to_owned(),
            text,
        }])
    };
    assert!(of("p/src/x.rs").contains("p/src/x/bed.rs"));
    assert!(of("p/src/x/mod.rs").contains("p/src/x/bed.rs"));
    assert!(of("p/src/lib.rs").contains("p/src/bed.rs"));
    assert!(of("p/src/x.rs").contains("p/src/x_tests.rs"));
    assert!(!of("p/src/x.rs").contains("p/src/x/code.rs"));
}
