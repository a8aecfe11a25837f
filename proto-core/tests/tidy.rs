//! What lints cannot check: file lengths, who may name the QUIC engine, what keeps the core pure, left-overs in the
//! text. Each rule is a function from text to findings, and is itself tested on a text that it must flag.
#![expect(
    clippy::expect_used,
    reason = "a rule that cannot read the workspace must fail"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Lines of a source file. 500 is the aim; a file above this is split by responsibility.
const SOURCE_LINES_MAX: usize = 600;
/// Lines of a file of tests.
const TEST_LINES_MAX: usize = 700;

/// A token that one file may hold although the rule is against it.
struct Exception {
    path: &'static str,
    token: &'static str,
    #[expect(dead_code, reason = "for the reader")]
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        path: "proto-core/src/env.rs",
        token: "rustls",
        reason: "CryptoProvider is how TLS takes its randomness and keys from outside",
    },
    Exception {
        path: "proto-core/src/endpoint.rs",
        token: "quinn_proto",
        reason: "wraps the engine's own endpoint, which hands out the connections that link/ wraps",
    },
    Exception {
        path: "proto-core/src/link/provider.rs",
        token: "aws_lc_rs::default_provider",
        reason: "the provider of real processes; a simulation hands in its own",
    },
    Exception {
        path: "proto-core/src/peer/ledger/shared.rs",
        token: "Mutex",
        reason: "what connections on several threads share; held for a look, never waited for (design 8.18)",
    },
    Exception {
        path: "simtests/src/world.rs",
        token: "Instant::now",
        reason: "the base of a run's virtual time; nothing but offsets from it is ever used",
    },
];

const ENGINE: &[&str] = &["quinn_proto", "rustls"];

const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    ".elapsed()",
    "thread::",
    "rand::rng",
    "rand::random",
    "Uuid::new_v4",
    "aws_lc_rs::default_provider",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::fs",
    "env::var",
    "HashMap",
    "HashSet",
    "RandomState",
    "Mutex",
    "RwLock",
    "async fn",
    ".await",
];

/// What would make two runs of a seed differ. Programs around the simulator may measure and use threads.
const NOT_IN_A_RUN: &[&str] = &[
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "thread::",
    "thread_rng",
    "rand::rng",
    "rand::random",
    "Uuid::new_v4",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "env::var",
    "HashMap",
    "HashSet",
    "RandomState",
    "async fn",
    ".await",
];

// In two halves, so that this file does not flag itself.
const LEFT_OVER: &[&str] = &[
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("#[ig", "nore"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("issue", " #"),
];

const SLEEP: &[&str] = &[concat!("thread::", "sleep"), concat!("time::", "sleep")];

/// Packages that the core must not depend on, whether directly or through others. A name that ends with `*` stands for
/// all that begin so.
const NOT_IN_THE_CORE: &[&str] = &[
    "tokio*",
    "async-*",
    "futures*",
    "mio",
    "polling",
    "smol",
    "socket2",
    "quinn",
    "quinn-udp",
    "hyper*",
    "reqwest",
];
/// Packages that no part of adit may bring to its users: one TLS stack, one provider of cryptography, our own sockets.
const NOT_IN_ADIT: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "ring",
    "quinn",
    "boring*",
    "s2n-*",
];

/// Packages that a build of the agent alone, on mio, must not bring: a runtime, and what only a gateway needs.
const NOT_IN_THE_SMALL_AGENT: &[&str] = &[
    "tokio*",
    "async-*",
    "axum*",
    "hyper*",
    "jsonwebtoken",
    "prometheus-client",
    "redb",
];

/// One file of the workspace, path relative to its root.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Tells whether all of it is tests. `test_modules` are the files that only `#[cfg(test)]` brings in.
    fn is_test(&self, test_modules: &BTreeSet<String>) -> bool {
        self.path.contains("/tests/")
            || self.path.contains("/benches/")
            || test_modules.contains(&self.path)
    }
}

#[test]
fn files_are_short() {
    let files = workspace();
    let test_modules = test_modules(&files);
    let found: Vec<String> = files
        .iter()
        .filter(|file| file.is_rust())
        .filter_map(|file| too_long(file, file.is_test(&test_modules)))
        .collect();
    assert!(
        found.is_empty(),
        "split by responsibility:\n{}",
        found.join("\n")
    );
}

#[test]
fn only_link_names_the_engine() {
    let files = workspace();
    let above = files
        .iter()
        .filter(|file| file.is_rust() && file.path.starts_with("proto-core/src/"))
        .filter(|file| !file.path.starts_with("proto-core/src/link/"));
    assert_clean(
        above.flat_map(|file| tokens(&file.path, &file.text, ENGINE)),
        ENGINE,
        "proto-core/",
    );
}

#[test]
fn the_core_is_pure() {
    let files = workspace();
    let test_modules = test_modules(&files);
    let code = files
        .iter()
        .filter(|file| file.is_rust() && file.path.starts_with("proto-core/src/"))
        .filter(|file| !file.is_test(&test_modules));
    let found = code.flat_map(|file| tokens(&file.path, without_tests(&file.text), IMPURE));
    assert_clean(found, IMPURE, "proto-core/");
}

#[test]
fn a_simulated_run_hangs_on_nothing_but_its_choices() {
    let files = workspace();
    let test_modules = test_modules(&files);
    let code = files
        .iter()
        .filter(|file| file.is_rust() && file.path.starts_with("simtests/src/"))
        .filter(|file| !file.path.starts_with("simtests/src/bin/"))
        .filter(|file| !file.is_test(&test_modules));
    let found = code.flat_map(|file| tokens(&file.path, without_tests(&file.text), NOT_IN_A_RUN));
    assert_clean(found, NOT_IN_A_RUN, "simtests/");
}

#[test]
fn nothing_is_left_over() {
    let files = workspace();
    assert_clean(
        files
            .iter()
            .flat_map(|file| lines(&file.path, &file.text, LEFT_OVER)),
        LEFT_OVER,
        "",
    );
}

#[test]
fn tests_do_not_sleep() {
    let files = workspace();
    let test_modules = test_modules(&files);
    let found = files.iter().filter(|file| file.is_rust()).flat_map(|file| {
        let code = if file.is_test(&test_modules) {
            ""
        } else {
            without_tests(&file.text)
        };
        tokens(&file.path, &file.text[code.len()..], SLEEP)
    });
    assert_clean(found, SLEEP, "");
}

#[test]
fn the_core_depends_on_no_driver() {
    let found = forbidden(&tree(&["-p", "adit-proto-core"]), NOT_IN_THE_CORE);
    assert!(found.is_empty(), "the core may not depend on: {found:?}");
}

#[test]
fn what_drivers_share_and_the_driver_mio_need_no_runtime() {
    for package in ["adit-io-common", "adit-io-mio"] {
        let found = forbidden(&tree(&["-p", package]), &["tokio*", "async-*", "smol"]);
        assert!(found.is_empty(), "{package} may not depend on: {found:?}");
    }
}

#[test]
fn there_is_one_tls_stack() {
    let packages = tree(&["--workspace"]);
    let found = forbidden(&packages, NOT_IN_ADIT);
    assert!(found.is_empty(), "adit may not depend on: {found:?}");
    assert!(
        packages.contains("aws-lc-rs"),
        "the tree was not read: {packages:?}"
    );
}

#[test]
fn the_small_agent_has_no_runtime() {
    let part = ["-p", "adit", "--no-default-features", "--features"];
    let packages = tree(&[&part[..], &["agent-mio"]].concat());
    let found = forbidden(&packages, NOT_IN_THE_SMALL_AGENT);
    assert!(
        found.is_empty(),
        "the small agent may not depend on: {found:?}"
    );
    assert!(
        packages.contains("mio"),
        "the tree was not read: {packages:?}"
    );
    let on_tokio = tree(&[&part[..], &["agent-tokio"]].concat());
    assert!(!forbidden(&on_tokio, NOT_IN_THE_SMALL_AGENT).is_empty());
}

// The rules on what they must flag.

#[test]
fn the_rules_flag_what_they_are_for() {
    let file = |lines: usize| File {
        path: "a/src/x.rs".to_owned(),
        text: "x\n".repeat(lines),
    };
    assert!(too_long(&file(SOURCE_LINES_MAX), false).is_none());
    assert!(too_long(&file(SOURCE_LINES_MAX + 1), false).is_some());
    assert!(too_long(&file(SOURCE_LINES_MAX + 1), true).is_none());
    assert!(too_long(&file(TEST_LINES_MAX + 1), true).is_some());
    let rules = ENGINE.iter().chain(IMPURE).chain(NOT_IN_A_RUN);
    for token in rules.chain(SLEEP) {
        assert_eq!(
            tokens("x.rs", &format!("a();\nb({token});\n"), &[token]).len(),
            1,
            "{token}"
        );
        assert_eq!(
            tokens("x.rs", &format!("a(); // not {token}\n"), &[token]).len(),
            0,
            "{token}"
        );
    }
    for token in LEFT_OVER {
        assert_eq!(
            lines("x.md", &format!("a\n// {token} b\n"), &[token]).len(),
            1,
            "{token}"
        );
    }
    let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    Instant::now();\n}\n";
    assert!(tokens("x.rs", without_tests(text), IMPURE).is_empty());
    assert_eq!(
        tokens("x.rs", &text[without_tests(text).len()..], IMPURE).len(),
        1
    );
    // A test module at the side hides nothing that follows it.
    let text = "#[cfg(test)]\nmod bed;\nfn a() { Instant::now(); }\n";
    assert_eq!(tokens("x.rs", without_tests(text), IMPURE).len(), 1);
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

#[test]
fn packages_are_matched_by_name() {
    let packages: BTreeSet<String> = ["tokio-util", "mio", "miow", "quinn-proto"]
        .map(str::to_owned)
        .into();
    assert_eq!(forbidden(&packages, NOT_IN_THE_CORE), ["mio", "tokio-util"]);
    // The driver is full of what the core may not have, so a tree that is read wrongly is noticed.
    assert!(!forbidden(&tree(&["-p", "adit-io-tokio"]), NOT_IN_THE_CORE).is_empty());
}

fn too_long(file: &File, is_test: bool) -> Option<String> {
    let max = if is_test {
        TEST_LINES_MAX
    } else {
        SOURCE_LINES_MAX
    };
    let count = file.text.lines().count();
    (count > max).then(|| format!("{}: {count} lines, at most {max}", file.path))
}

/// Where tokens stand in code; comments do not count.
fn tokens(path: &str, text: &str, wanted: &[&'static str]) -> Vec<Finding> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect();
    lines(path, &code.join("\n"), wanted)
}

/// Where tokens stand in any line.
fn lines(path: &str, text: &str, wanted: &[&'static str]) -> Vec<Finding> {
    let numbered = text.lines().enumerate();
    let found = numbered.flat_map(|(i, line)| {
        let held = wanted.iter().filter(move |token| line.contains(**token));
        held.map(move |token| Finding {
            path: path.to_owned(),
            line: i + 1,
            token,
        })
    });
    found.collect()
}

#[derive(Debug)]
struct Finding {
    path: String,
    line: usize,
    token: &'static str,
}

/// Fails on findings that are no exceptions, and on exceptions to the rule that are not needed any more. The rule is for
/// the files below a folder.
fn assert_clean(found: impl Iterator<Item = Finding>, rule: &[&str], below: &str) {
    let (excepted, bad): (Vec<Finding>, Vec<Finding>) = found.partition(|f| {
        EXCEPTIONS
            .iter()
            .any(|e| e.path == f.path && e.token == f.token)
    });
    let shown: Vec<String> = bad
        .iter()
        .map(|f| format!("{}:{}: {}", f.path, f.line, f.token))
        .collect();
    assert!(shown.is_empty(), "not allowed here:\n{}", shown.join("\n"));
    let of_rule = |e: &&Exception| rule.contains(&e.token) && e.path.starts_with(below);
    for e in EXCEPTIONS.iter().filter(of_rule) {
        let used = excepted
            .iter()
            .any(|f| f.path == e.path && f.token == e.token);
        assert!(
            used,
            "{}: the exception for {} is not needed",
            e.path, e.token
        );
    }
}

/// The part of a file before its module of tests.
fn without_tests(text: &str) -> &str {
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
fn test_modules(files: &[File]) -> BTreeSet<String> {
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

/// Names of the packages in a part of the tree that is built for users: neither for tests nor for build scripts.
fn tree(part: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-e", "normal", "--prefix", "none"])
        .args(part)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("package names are ASCII");
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn forbidden(packages: &BTreeSet<String>, patterns: &[&str]) -> Vec<String> {
    let matches = |package: &str, pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => package.starts_with(start),
        None => package == pattern,
    };
    let found = packages
        .iter()
        .filter(|package| patterns.iter().any(|pattern| matches(package, pattern)));
    found.cloned().collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// Every text file of the workspace, build output and hidden entries but `.ci` left out.
fn workspace() -> Vec<File> {
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
