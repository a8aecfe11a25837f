//! What is said of each bad value.

use adit::config::Source;

use crate::{load_with, problems};

/// A file, and how one of its problems begins.
const BAD: &[(&str, &str)] = &[
    (
        "\nthread = 1",
        "gateway.toml:2: unknown key `thread`; the keys known here are",
    ),
    (
        "[tunnel]\nlisten = \"[::]:1\"\nlisten_on = 1",
        "gateway.toml:3: unknown key `tunnel.listen_on`; the keys known here are listen, names, public_endpoint",
    ),
    (
        "[tunel]\nlisten = \"x\"",
        "gateway.toml:2: unknown key `tunel.listen`",
    ),
    ("[tunel]", "gateway.toml:1: unknown key `tunel`"),
    (
        "[[forwards]]\nname = \"x\"",
        "gateway.toml:1: unknown key `forwards`",
    ),
    (
        "threads = \"2\"",
        "gateway.toml:1: `threads` is a text; write a whole number without quotes",
    ),
    (
        "threads = 0",
        "gateway.toml:1: `threads`: `0` is not a whole number from 1",
    ),
    (
        "threads = 0x10",
        "gateway.toml:1: `threads` is not a decimal whole number",
    ),
    ("threads = [1]", "gateway.toml:1: `threads` is a list"),
    (
        "[journal]\nfile = \"/dev/null\"",
        "gateway.toml:2: `journal.file`: /dev/null is no journal of adit, and is left alone",
    ),
    (
        "[journal]\nfile = \"/dev\"",
        "gateway.toml:2: `journal.file`: /dev is no journal of adit, and is left alone",
    ),
    (
        "[journal]\nfile = \"/dev/null/journal\"",
        "gateway.toml:2: `journal.file`: /dev/null is no folder",
    ),
    (
        "[journal]\nfile = \"/none/journal\"",
        "gateway.toml:2: `journal.file`: /none: No such file",
    ),
    (
        "[tunnel]\nnames = \"x\"",
        "gateway.toml:2: `tunnel.names`: write a list of texts",
    ),
    (
        "[tunnel]\nnames = [\n\"a\",\n\"b:1\"]",
        "gateway.toml:4: `tunnel.names`: `b:1`: the host is neither",
    ),
    (
        "[tunnel]\nnames = [\n\"a\",\n2]",
        "gateway.toml:4: `tunnel.names`: write a list of texts",
    ),
    (
        "[tunnel]\nlisten = \"4433\"",
        "gateway.toml:2: `tunnel.listen`: `4433` is no address",
    ),
    (
        "[tunnel]\npublic_endpoint = \"gw\"",
        "gateway.toml:2: `tunnel.public_endpoint`: `gw`: it has no port; write HOST:PORT, as",
    ),
    (
        "[enroll]\ncert = \"c\"",
        "gateway.toml:2: `enroll.cert` and `enroll.key` go together",
    ),
    (
        "[enroll]\ncert = \"c\"\nkey = \"k\"\ninsecure_http = true",
        "gateway.toml:4: `enroll.insecure_http` means no TLS",
    ),
    (
        "[enroll]\nurl = \"gw\"",
        "gateway.toml:2: `enroll.url`: `gw` is no URL",
    ),
    (
        "[direct]\nallow = [\"10.0.0.0/40\"]",
        "gateway.toml:2: `direct.allow`: `10.0.0.0/40`: write a range",
    ),
    (
        "[direct]\nallow = [\"*\"]",
        "gateway.toml:2: `direct.allow`: `*`: write a range",
    ),
    (
        "[forward]\nname = \"x\"",
        "gateway.toml:2: `forward` is a list of sections: write `[[forward]]`",
    ),
    (
        "[[forward]]\nname = \"x\"\nlisten = \"127.0.0.1:1\"",
        "gateway.toml:1: `forward[0].target` is missing; add `target = ...`",
    ),
    (
        "[[forward]]\nname = \"x y\"\nlisten = \"127.0.0.1:1\"\ntarget = \"h:1\"",
        "gateway.toml:2: `forward[0].name`: `x y` is no name",
    ),
    (
        "[[forward]]\nname = \"x\"\nlisten = \"127.0.0.1:1\"\ntarget = \"h:1\"\nagent = \"a\"",
        "gateway.toml:5: `forward[0].agent`: `a` is no agent id",
    ),
    (
        "[[forward]]\nname = \"x\"\nallow_from = [\"10.0.0.0/40\"]",
        "gateway.toml:3: `forward[0].allow_from`: `10.0.0.0/40`: ",
    ),
    (
        "[[socks5]]\nname = \"x\"\nproxy_protocol = 2",
        "gateway.toml:3: `socks5[0].proxy_protocol` is a number",
    ),
    (
        "[[socks5]]\nname = \"websocket\"",
        "gateway.toml:2: the name `websocket` is used twice",
    ),
    (
        "[[user]]\ntargets = [\"10.0.0.0/8\"]",
        "gateway.toml:1: `user[0].name` is missing",
    ),
    (
        "[[user]]\nname = \"a\"\ntargets = []",
        "gateway.toml:1: `user[0].targets` is missing or empty",
    ),
    (
        "[[user]]\nname = \"a\"\ntargets = [\"*\"]",
        "gateway.toml:3: `user[0].targets`: `*`: write a range",
    ),
    (
        "[[user]]\nname = \"a\"\ntargets = [\"h.x\"]\n[[user]]\nname = \"a\"\ntargets = [\"h.y\"]",
        "gateway.toml:5: the user `a` has two entries; join them",
    ),
    (
        "[[user]]\nname = \"a\"\ntargets = [\"h.x\"]",
        "gateway.toml:2: no users file that is used has a user `a`",
    ),
    (
        "[websocket]\nsessions = 0",
        "gateway.toml:2: `websocket.sessions`",
    ),
    (
        "[websocket]\ntarget_roots = \"/nonexistent.pem\"",
        "gateway.toml:2: /nonexistent.pem: ",
    ),
    (
        "[log]\nlevel = \"adit=loud\"",
        "gateway.toml:2: `log.level`",
    ),
    (
        "[log]\nformat = \"xml\"",
        "gateway.toml:2: `log.format`: write `text`, `json` or `auto`",
    ),
    ("[limits]\nagents = -1", "gateway.toml:2: `limits.agents`"),
    (
        "threads = 1\nthreads = 2",
        "gateway.toml:2: `threads` is there twice; keep one",
    ),
    (
        "[tunnel]\nlisten = \"[::]:1\"\n[tunnel]\n",
        "gateway.toml:3: `tunnel` is there twice; keep one",
    ),
    (
        "log = { level = \"info\", level = \"debug\" }",
        "gateway.toml:1: `level` is there twice; keep one",
    ),
    ("[tunnel\n", "gateway.toml:1: "),
];

#[test]
fn each_bad_value_names_its_line_and_what_to_do() {
    for &(text, wanted) in BAD {
        let found = problems(text);
        assert!(
            found.iter().any(|p| p.starts_with(wanted)),
            "{text}\nwanted {wanted}\nfound {found:#?}"
        );
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let found = problems("threads = 0\nx = 1\n[tunnel]\nlisten = \"y\"\n[log]\nformat = \"z\"");
    let lines: Vec<&str> = found
        .iter()
        .map(|p| p.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "gateway.toml:1",
            "gateway.toml:2",
            "gateway.toml:4",
            "gateway.toml:6"
        ]
    );
}

#[test]
fn a_bad_environment_names_its_variable() {
    let dir = tempfile::tempdir().unwrap();
    let vars = [
        ("ADIT_THREADS", "many"),
        ("ADIT_LOG_LEVEL", "info,adit=debug"),
    ];
    let error = load_with(dir.path(), "", &[], &vars).unwrap_err();
    assert_eq!(error.problems.len(), 1);
    assert_eq!(
        error.problems[0].source,
        Source::Environment("ADIT_THREADS".to_owned())
    );
}
