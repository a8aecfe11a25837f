//! Where tokens stand in text, and the files that may hold one although the rule is against it.

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

/// Where tokens stand in code; comments do not count.
pub(crate) fn tokens(path: &str, text: &str, wanted: &[&'static str]) -> Vec<Finding> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect();
    lines(path, &code.join("\n"), wanted)
}

/// Where tokens stand in any line.
pub(crate) fn lines(path: &str, text: &str, wanted: &[&'static str]) -> Vec<Finding> {
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
pub(crate) struct Finding {
    path: String,
    line: usize,
    token: &'static str,
}

/// Fails on findings that are no exceptions, and on exceptions to the rule that are not needed any more. The rule is for
/// the files below a folder.
pub(crate) fn assert_clean(found: impl Iterator<Item = Finding>, rule: &[&str], below: &str) {
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
