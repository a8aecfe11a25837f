//! What lints cannot check: file lengths, who may name the QUIC engine, what keeps the core pure, left-overs in the
//! text. Each rule is a function from text to findings, and is itself tested on a text that it must flag.
#![expect(
    clippy::expect_used,
    reason = "a rule that cannot read the workspace must fail"
)]

mod findings;
mod packages;
mod threats;
mod workspace;

use self::{
    findings::{assert_clean, lines, tokens},
    workspace::{File, test_modules, without_tests, workspace},
};

/// Lines of a source file, tests included; one that has more is split by responsibility. Functions are held to 70 by
/// clippy's `too_many_lines`.
const LINES_MAX: usize = 500;

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

#[test]
fn files_are_short() {
    let files = workspace();
    let found: Vec<String> = files
        .iter()
        .filter(|file| file.is_rust())
        .filter_map(too_long)
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

// The rules on what they must flag.

#[test]
fn the_rules_flag_what_they_are_for() {
    let file = |lines: usize| File {
        path: "a/src/x.rs".to_owned(),
        text: "x\n".repeat(lines),
    };
    assert!(too_long(&file(LINES_MAX)).is_none());
    assert!(too_long(&file(LINES_MAX + 1)).is_some());
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

fn too_long(file: &File) -> Option<String> {
    let count = file.text.lines().count();
    (count > LINES_MAX).then(|| format!("{}: {count} lines, at most {LINES_MAX}", file.path))
}
