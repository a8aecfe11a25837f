//! The gateway's configuration: each bad input and what is said about it.
#![allow(
    clippy::unwrap_used,
    reason = "a failed test may panic, in its helpers too"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use adit::config::{ConfigError, EnrollTls, GatewayConfig, Loaded, Override, Source, Surroundings};
use adit_proto_core::gateway::dispatch::DirectRange;

fn load_with(
    dir: &Path,
    text: &str,
    overrides: &[Override],
    vars: &[(&str, &str)],
) -> Result<Loaded<GatewayConfig>, ConfigError> {
    let path = dir.join("gateway.toml");
    fs::write(&path, text).unwrap();
    let mut vars = vars.to_vec();
    vars.push(("HOME", "/home/u"));
    GatewayConfig::load(
        Some((path, true)),
        overrides,
        &Surroundings::new(vars, false),
    )
}

fn load(text: &str) -> Result<Loaded<GatewayConfig>, ConfigError> {
    load_with(tempfile::tempdir().unwrap().path(), text, &[], &[])
}

/// The problems without the directory of the file.
fn problems(text: &str) -> Vec<String> {
    let error = load(text).unwrap_err();
    let short = |p: &adit::config::Problem| {
        let line = p.to_string();
        let at = line.find("gateway.toml").unwrap_or_default();
        line[at..].to_owned()
    };
    error.problems.iter().map(short).collect()
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = load("").unwrap().config;
    assert_eq!(config.tunnel.listen.to_string(), "[::]:4433");
    assert_eq!(config.enroll.tls, EnrollTls::Own);
    assert!(config.direct.is_empty() && config.forwards.is_empty());
}

#[test]
fn what_only_talks_to_a_gateway_leaves_the_named_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
        state_dir = "/srv/adit"
        [[socks5]]
        name = "s"
        listen = "0.0.0.0:1080"
        users_file = "/nowhere/users"
        [[user]]
        name = "alice"
        targets = ["10.0.0.0/8"]
        [websocket]
        target_roots = "/nowhere/roots.pem"
        [provisioner]
        public_key_file = "/nowhere/key.pem"
        revocation_list = "/nowhere/jrl.json"
        "#;
    let told = load_with(dir.path(), text, &[], &[]).unwrap_err();
    assert_eq!(told.problems.len(), 4, "{told}");
    let state_dir = |text: &str| {
        let path = dir.path().join("gateway.toml");
        fs::write(&path, text).unwrap();
        GatewayConfig::state_dir(Some((path, true)), &[], &Surroundings::default())
    };
    assert_eq!(state_dir(text).unwrap(), Path::new("/srv/adit"));
    let told = state_dir("state_dirr = \"/srv/adit\"").unwrap_err();
    assert!(told.to_string().contains("unknown key"), "{told}");
}

#[test]
fn a_full_file_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = operator_pair(dir.path());
    let users = users_file(dir.path());
    let text = format!(
        r#"
        state_dir = "/srv/adit"
        threads = 2
        [tunnel]
        listen = "0.0.0.0:4433"
        public_endpoint = "gw.example.com:443"
        names = ["gw.example.com", "203.0.113.7"]
        [enroll]
        cert = {cert:?}
        key = {key:?}
        [[forward]]
        name = "db"
        listen = "127.0.0.1:5432"
        target = "db.corp.local:5432"
        agent = "7c4f5b1e-9d3e-4a52-8e0f-0a6b1d2c3e4f"
        [[forward]]
        name = "web"
        listen = "0.0.0.0:80"
        target = "10.0.0.5:80"
        public = true
        [[socks5]]
        name = "socks"
        listen = "0.0.0.0:1080"
        allow_from = ["10.0.0.0/8"]
        proxy_protocol = true
        users_file = {users:?}
        [[http_connect]]
        name = "http"
        listen = "[::1]:8080"
        [[user]]
        name = "alice"
        targets = ["10.0.0.0/8:22", "*.x.y"]
        [websocket]
        sessions = 5
        allow_from = ["::1"]
        [direct]
        allow = ["10.0.0.0/8", "*.x.y", "h.x:443", "[2001:db8::1]:22"]
        [limits]
        agents = 5
        [log]
        level = "info,adit=debug"
        format = "json"
        "#
    );
    let config = load_with(dir.path(), &text, &[], &[]).unwrap().config;
    assert_eq!(config.tunnel.names.len(), 2);
    assert!(matches!(config.enroll.tls, EnrollTls::Operator { .. }));
    assert!(config.forwards[0].agent.is_some());
    let users = config.socks5[0].users.as_ref().unwrap();
    let alice = users.check(b"alice", b"secret").unwrap();
    assert!(alice.may_open(&"10.9.9.9:22".parse().unwrap()));
    assert!(!alice.may_open(&"10.9.9.9:23".parse().unwrap()));
    assert!(config.socks5[0].entrance.admits([10, 0, 0, 1].into()));
    assert!(!config.socks5[0].entrance.admits([11, 0, 0, 1].into()));
    assert!(config.socks5[0].entrance.proxy_protocol);
    assert!(config.forwards[0].entrance.admits([11, 0, 0, 1].into()));
    assert_eq!(config.websocket.sessions.get(), 5);
    assert!(!config.websocket.entrance.admits([10, 0, 0, 1].into()));
    assert_eq!(config.direct[2].port, Some(443));
    assert!(matches!(config.direct[3].range, DirectRange::Subnet(_)));
    assert!(config.direct[0].allows(&"10.9.9.9:1".parse().unwrap()));
    assert!(!config.direct[2].allows(&"h.x:80".parse().unwrap()));
    assert_eq!(config.limits.agents.get(), 5);
}

/// Path of a file of users.
fn users_file(dir: &Path) -> PathBuf {
    let users = dir.join("users");
    fs::write(&users, "alice:secret\n").unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    users
}

/// Paths of a certificate and its key.
fn operator_pair(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("c.pem"), dir.join("k.pem"));
    let made = rcgen::generate_simple_self_signed(["gw.example.com".to_owned()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

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
        "gateway.toml:2: `tunnel.public_endpoint`: `gw`: no port",
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
    ("a = 1\na = 2", "gateway.toml:2: duplicate key"),
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
fn an_open_proxy_is_refused() {
    for (kind, listen, refused) in [
        ("socks5", "0.0.0.0:1080", true),
        ("socks5", "[::]:1080", true),
        ("socks5", "192.0.2.1:1080", true),
        ("http_connect", "0.0.0.0:8080", true),
        ("http_connect", "[::ffff:192.0.2.1]:8080", true),
        ("http_connect", "[::1]:8080", false),
        ("socks5", "127.0.0.2:1080", false),
        ("socks5", "[::ffff:127.0.0.1]:1080", false),
    ] {
        let text = format!("[[{kind}]]\nname = \"p\"\nlisten = \"{listen}\"");
        assert_eq!(load(&text).is_err(), refused, "{text}");
        if refused {
            let found = problems(&text);
            assert!(
                found[0].contains("gateway.toml:3: ") && found[0].contains("open proxy"),
                "{found:?}"
            );
            assert!(found[0].contains("users_file"), "{found:?}");
        }
    }
}

#[test]
fn a_forward_off_loopback_must_be_meant() {
    let text = "[[forward]]\nname = \"f\"\nlisten = \"0.0.0.0:80\"\ntarget = \"h:80\"\n";
    assert!(problems(text)[0].contains("`public = true`"));
    assert!(load(&format!("{text}public = true")).is_ok());
}

#[test]
fn users_files_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    let text = format!(
        "[[socks5]]\nname = \"s\"\nlisten = \"0.0.0.0:1080\"\nusers_file = \"{}\"\n\
         [[user]]\nname = \"a\"\ntargets = [\"10.0.0.0/8\"]",
        users.display()
    );
    let said = |content: Option<(&str, u32)>| {
        if let Some((content, mode)) = content {
            fs::write(&users, content).unwrap();
            fs::set_permissions(&users, fs::Permissions::from_mode(mode)).unwrap();
        }
        load_with(dir.path(), &text, &[], &[])
            .unwrap_err()
            .to_string()
    };
    let absent = said(None);
    assert!(absent.contains("gateway.toml:4: users file"), "{absent}");
    // Whom it would have named, nobody knows.
    assert!(!absent.contains("has a user"), "{absent}");
    assert!(said(Some(("a:b\n", 0o644))).contains("chmod o-rwx"));
    let line = said(Some(("a:hunter2\nhunter3\n", 0o600)));
    assert!(
        line.contains("users:2: no `:`") && !line.contains("hunter"),
        "{line}"
    );
}

#[test]
fn listeners_and_names_are_unique() {
    let two = |a: &str, b: &str| {
        format!(
            "[[http_connect]]\nname = \"a\"\nlisten = \"{a}\"\n[[http_connect]]\nname = \"b\"\nlisten = \"{b}\""
        )
    };
    for (a, b, clash) in [
        ("127.0.0.1:1", "127.0.0.1:1", true),
        ("127.0.0.1:1", "[::ffff:127.0.0.1]:1", true),
        ("127.0.0.1:7171", "[::1]:2", true),
        ("127.0.0.1:1", "127.0.0.1:2", false),
        ("127.0.0.1:1", "[::1]:1", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
    ] {
        assert_eq!(load(&two(a, b)).is_err(), clash, "{a} {b}");
    }
    let text = two("127.0.0.1:1", "127.0.0.1:2").replace("\"b\"", "\"a\"");
    assert!(problems(&text)[0].starts_with("gateway.toml:5: the name `a` is used twice"));
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[tunnel]\nlisten = \"127.0.0.1:3\"";
    let env = [("ADIT_TUNNEL_LISTEN", "127.0.0.1:2")];
    let flag = [Override {
        key: "tunnel.listen",
        flag: "--tunnel-listen",
        values: vec!["127.0.0.1:1".to_owned()],
    }];
    for (text, env, flag, port, source) in [
        (file, &env[..], &flag[..], 1, "flag --tunnel-listen"),
        (file, &env[..], &[], 2, "environment ADIT_TUNNEL_LISTEN"),
        (file, &[], &[], 3, "gateway.toml:2"),
        ("", &[], &[], 4433, "default"),
    ] {
        let loaded = load_with(dir.path(), text, flag, env).unwrap();
        assert_eq!(loaded.config.tunnel.listen.port(), port);
        let shown = loaded
            .settings
            .iter()
            .find(|s| s.key == "tunnel.listen")
            .unwrap();
        assert!(
            shown.source.to_string().ends_with(source),
            "{:?}",
            shown.source
        );
    }
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

#[test]
fn only_the_default_file_may_be_missing() {
    let around = Surroundings::new([("HOME", "/home/u")], false);
    let path = Path::new("/nonexistent/gateway.toml").to_owned();
    assert!(GatewayConfig::load(Some((path.clone(), false)), &[], &around).is_ok());
    let error = GatewayConfig::load(Some((path, true)), &[], &around).unwrap_err();
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn metrics_are_off_and_shown_to_others_only_on_request() {
    assert_eq!(load("").unwrap().config.metrics.listen, None);
    let listen = |text: &str| load(text).unwrap().config.metrics.listen.unwrap();
    let on = listen("[metrics]\nlisten = \"127.0.0.1:9100\"\n");
    assert_eq!(on.to_string(), "127.0.0.1:9100");
    let open = "[metrics]\nlisten = \"0.0.0.0:9100\"\n";
    let said = problems(open);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("gateway.toml:2: metrics would be shown on 0.0.0.0:9100"),
        "{said:?}"
    );
    let on = listen(&format!("{open}public = true\n"));
    assert_eq!(on.to_string(), "0.0.0.0:9100");
    let said = problems("[metrics]\nlisten = \"127.0.0.1:7171\"\n");
    assert!(said[0].contains("which `enroll` has taken"), "{said:?}");
}

#[test]
fn files_of_the_provisioner_are_read_with_the_configuration() {
    let provisioner = load("").unwrap().config.provisioner;
    assert!(provisioner.public_key.is_none() && provisioner.gateway_id.is_none());
    let said = problems(
        r#"[provisioner]
        public_key_file = "/nonexistent/key.pem"
        gateway_id = "5"
        revocation_list = "/nonexistent/jrl.json"
        "#,
    );
    assert_eq!(said.len(), 3, "{said:?}");
    for (line, says) in [
        ("gateway.toml:2:", "/nonexistent/key.pem cannot be read"),
        ("gateway.toml:3:", "`5` is no UUID"),
        ("gateway.toml:4:", "/nonexistent/jrl.json cannot be read"),
    ] {
        let found = said.iter().any(|p| p.starts_with(line) && p.contains(says));
        assert!(found, "{says}: {said:?}");
    }
}

#[test]
fn pings_of_websockets_can_be_turned_off() {
    for (text, ping) in [
        ("0", None),
        ("0s", None),
        ("45s", Some(Duration::from_secs(45))),
    ] {
        let text = format!("[websocket]\nping = \"{text}\"\n");
        assert_eq!(load(&text).unwrap().config.websocket.ping, ping);
    }
    let default = load("").unwrap().config.websocket.ping;
    assert_eq!(default, Some(Duration::from_secs(30)));
    assert!(load("[websocket]\nping = \"off\"\n").is_err());
}

#[test]
fn key_and_certificate_of_an_operator_fit_together() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (cert, key) = operator_pair(dir.path());
    let text = format!("[enroll]\ncert = {cert:?}\nkey = {key:?}\n");
    assert!(load(&text).is_ok());
    fs::copy(operator_pair(other.path()).1, &key).unwrap();
    let said = problems(&text);
    assert!(
        said[0].starts_with("gateway.toml:2: the listener's certificate cannot be used"),
        "{said:?}"
    );
}
