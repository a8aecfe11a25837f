//! Ways in that would be open to more people than meant, and files that are named and cannot be used.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use adit::config::{GatewayConfig, Surroundings};

use crate::{load, load_with, operator_pair, problems};

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
