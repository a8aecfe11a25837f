//! The binary as its users see it: help, exit codes, what goes to stdout and what to stderr.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    reason = "a failed test may panic, in its helpers too"
)]

use std::path::Path;

use assert_cmd::Command;

fn adit(home: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("adit").unwrap();
    let output = command
        .args(args)
        .env_clear()
        .env("HOME", home)
        .env("ADIT_STATE_DIR", home.join("state"))
        .write_stdin("")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

const VERBS: [&[&str]; 32] = [
    &["demo"],
    &["gateway", "init"],
    &["gateway", "run"],
    &["gateway", "reload"],
    &["gateway", "status"],
    &["agent", "up"],
    &["agent", "run"],
    &["agent", "status"],
    &["agent", "renew"],
    &["agent", "reload"],
    &["agent", "probe"],
    &["token", "create"],
    &["token", "list"],
    &["token", "revoke"],
    &["agents", "list"],
    &["agents", "show"],
    &["agents", "delete"],
    &["agents", "drain"],
    &["sessions", "list"],
    &["sessions", "show"],
    &["sessions", "kill"],
    &["route", "explain"],
    &["config", "show"],
    &["config", "check"],
    &["ca", "export"],
    &["ca", "show"],
    &["ca", "rotate"],
    &["ca", "retire"],
    &["health"],
    &["completion"],
    &["man"],
    &["version"],
];

#[test]
fn every_verb_explains_itself() {
    let home = tempfile::tempdir().unwrap();
    for verb in VERBS {
        let (code, out, err) = adit(home.path(), &[verb, &["--help"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{verb:?}");
        let line = format!("  adit {}", verb.join(" "));
        for part in [
            "Usage:",
            "Examples:",
            line.as_str(),
            "Exit codes: 0 ok",
            "--config",
        ] {
            assert!(out.contains(part), "{verb:?} lacks {part}:\n{out}");
        }
    }
}

#[test]
fn nonsense_is_a_usage_error() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["fly"],
        &["agents"],
        &["route", "explain", "no-port"],
        &["token", "create"],
        &["token", "create", "--name", "x", "--lifetime", "60"],
        &["token", "create", "--name", "x", "--lifetime", "500ms"],
        &["agent", "up"],
        &["agent", "up", "--enrollment-string", "-"],
        &[
            "agent",
            "up",
            "--enrollment-string",
            "x",
            "--advertise",
            "10.0.0.0/99",
        ],
        &["agents", "list", "-v", "-q"],
    ] {
        let (code, out, err) = adit(home.path(), args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(!err.is_empty());
    }
}

#[test]
fn without_a_gateway_its_verbs_say_so() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["agents", "list"][..],
        &["sessions", "list", "--json"],
        &["sessions", "kill", "00000000-0000-0000-0000-000000000000"],
        &["agents", "delete", "x"],
        &["token", "list"],
        &["route", "explain", "h:1"],
        &["token", "create", "--name", "x"],
        &["agent", "status"],
        &["gateway", "reload"],
        &["agent", "reload"],
        &["ca", "rotate"],
        &["health"],
    ] {
        let (code, out, err) = adit(home.path(), args);
        assert_eq!((code, out.as_str()), (5, ""), "{args:?}: {err}");
        assert!(err.contains("nothing is running"), "{err}");
    }
}

#[test]
fn a_bad_configuration_is_told_with_file_and_line() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("g.toml");
    std::fs::write(&file, "[tunnel]\nlissten = 1\nnames = [\"gw.x\"]\n").unwrap();
    let file = file.to_str().unwrap();
    for verb in [
        &["config", "check"][..],
        &["config", "show"],
        &["gateway", "run"],
        &["agents", "list"],
    ] {
        let (code, out, err) = adit(home.path(), &[verb, &["--config", file]].concat());
        assert_eq!((code, out.as_str()), (3, ""), "{verb:?}");
        assert!(
            err.contains(&format!("{file}:2: unknown key `tunnel.lissten`")),
            "{err}"
        );
    }
    let (code, out, _) = adit(
        home.path(),
        &["config", "check", "--json", "--config", file],
    );
    assert_eq!(code, 3);
    let verdict: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(verdict["ok"], false);
    assert_eq!(verdict["problems"].as_array().unwrap().len(), 1);
}

#[test]
fn a_good_configuration_is_shown_with_sources() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("g.toml");
    std::fs::write(&file, "[tunnel]\nnames = [\"gw.example.com\"]\n").unwrap();
    let check = ["config", "check", "--config", file.to_str().unwrap()];
    let (code, out, _) = adit(home.path(), &check);
    assert_eq!((code, out.as_str()), (0, "ok\n"));
    let (code, out, _) = adit(home.path(), &["config", "check", "--role", "agent"]);
    assert_eq!((code, out.as_str()), (0, "ok\n"));
    let (code, out, _) = adit(
        home.path(),
        &["config", "show", "--json", "--log-format", "json"],
    );
    assert_eq!(code, 0);
    let settings: serde_json::Value = serde_json::from_str(&out).unwrap();
    let source = |key: &str| {
        let found = settings
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["key"] == key);
        found.unwrap()["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(source("state_dir"), "environment ADIT_STATE_DIR");
    assert_eq!(source("log.format"), "flag --log-format");
    assert_eq!(source("tunnel.listen"), "default");
    let (code, out, _) = adit(home.path(), &["config", "show", "--role", "agent"]);
    assert!(code == 0 && out.contains("heartbeat.interval"), "{out}");
}

#[test]
fn what_a_gateway_refuses_to_run_with_is_told_beforehand() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("g.toml");
    let says = |text: &str, told: &str| {
        std::fs::write(&file, text).unwrap();
        for verb in [["config", "check"], ["gateway", "run"]] {
            let args = [&verb[..], &["--config", file.to_str().unwrap()]].concat();
            let (code, out, err) = adit(home.path(), &args);
            assert_eq!((code, out.as_str()), (3, ""), "{args:?}: {err}");
            let told = format!("{}{told}", file.display());
            assert!(err.contains(&told), "{told} is not in {err}");
        }
    };
    says("", ": `tunnel.names` is missing");
    says("[tunnel]\nnames = []\n", ":2: `tunnel.names` is missing");
    says("[tunnel]\nnames = [\"a b\"]\n", ":2: `tunnel.names`: `a b`");
    says(
        "[tunnel]\nnames = [\n  \"gw.x\",\n  \"-gw.x\",\n]\n",
        ":4: `tunnel.names`: `-gw.x`",
    );
    says(
        "[tunnel]\nnames = [\"gw.x\"]\npublic_endpoint = \"other.x:1\"\n",
        ":3: `tunnel.public_endpoint`: add other.x to `tunnel.names`",
    );
    let names = "[tunnel]\nnames = [\"gw.x\"]\n[enroll]\n";
    says(
        &format!("{names}cert = \"/nowhere/c.pem\"\nkey = \"/nowhere/k.pem\"\n"),
        ":4: cannot use /nowhere/c.pem",
    );
    let cert = home.path().join("c.pem");
    let made = rcgen::generate_simple_self_signed(["gw.x".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    says(
        &format!("{names}cert = {cert:?}\nkey = \"/nowhere/k.pem\"\n"),
        ":5: cannot use /nowhere/k.pem",
    );
    // A configuration to begin with may be looked at.
    let (code, out, _) = adit(home.path(), &["config", "show"]);
    assert!(code == 0 && out.contains("tunnel.names"), "{out}");
}

#[test]
fn an_enrolment_string_on_the_command_line_is_warned_about() {
    let home = tempfile::tempdir().unwrap();
    let args = [
        "agent",
        "up",
        "--enrollment-string",
        "s3cret",
        "--advertise",
        "10.0.0.0/8",
    ];
    let (_, _, err) = adit(home.path(), &args);
    assert!(err.contains("warning: other users"), "{err}");
    assert!(!err.contains("s3cret"), "{err}");
}

#[test]
fn init_writes_the_configuration_that_it_is_pointed_at_and_keeps_one_that_is_there() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("etc/gateway.toml");
    let state = home.path().join("state");
    let (path, state) = (file.to_str().unwrap(), state.to_str().unwrap());
    let init = [
        "gateway",
        "init",
        "--config",
        path,
        "--name",
        "gw.example.com",
    ];
    let (code, out, err) = adit(home.path(), &[&init[..], &["--state-dir", state]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("pin ") && out.contains("new"), "{out}");
    // The state directory of the first call is in the file, so that later verbs find it.
    let (code, out, err) = adit(home.path(), &["config", "show", "--config", path]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains(state) && out.contains("gw.example.com"),
        "{out}"
    );
    let before = std::fs::read_to_string(&file).unwrap();
    let (code, out, err) = adit(home.path(), &init);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("left as it is"), "{out}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn the_version_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (code, out, _) = adit(home.path(), &["version", "--json"]);
    let version: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, version["version"].as_str()),
        (0, Some(env!("CARGO_PKG_VERSION")))
    );
}
