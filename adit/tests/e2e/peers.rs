//! Verbs around the peers of a gateway, and what a gateway with peers tells.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::harness::{
    beside_others,
    site::{Ports, Site},
};

#[test]
fn a_cluster_key_is_drawn_once() {
    let site = Site::new();
    let (one, other) = (
        site.run(&["peers", "genkey"]),
        site.run(&["peers", "genkey"]),
    );
    assert_eq!((one.code, one.out.trim_end().len()), (0, 64));
    assert_ne!(one.out, other.out);
    let path = site.path("cluster.key");
    let out = path.to_string_lossy();
    let written = site.run(&["peers", "genkey", "--out", &out]);
    assert_eq!((written.code, &*written.out), (0, ""));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = fs::read_to_string(&path).unwrap();
    site.run(&["peers", "genkey", "--out", &out])
        .fails(1, &["is there already"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
}

#[test]
fn certificates_are_issued_and_a_gateway_runs_with_them() {
    let _machine = beside_others();
    let site = Site::new();
    let path = |name: &str| site.path(name).to_string_lossy().into_owned();
    let (ca, one, two) = (path("peer-ca"), path("one"), path("two"));
    let issue_with = |node: &str, out: &str, rest: &[&str]| {
        let address = format!("127.0.0.1:1{node}");
        let args = ["--node", node, "--address", &address, "--out", out];
        site.run(&[&["peers", "issue", "--ca", &ca][..], &args, rest].concat())
    };
    let issue = |node: &str, out: &str| issue_with(node, out, &[]);
    issue("1", &one).fails(1, &["peer-ca"]);
    assert!(site.run(&["peers", "init", &ca]).out.contains("made a CA"));
    assert!(site.run(&["peers", "init", &ca]).out.contains("it stays"));
    assert_eq!(issue("1", &one).code, 0);
    let block = issue("2", &two);
    assert!(
        block
            .out
            .contains("[[peers.peer]]\nid = 2\naddress = \"127.0.0.1:12\"\nspki = \"")
    );
    let key = fs::metadata(format!("{two}/node-key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    issue("1", &two).fails(1, &["node-cert.pem is there already", "--force"]);
    assert_eq!(issue("2", &two).code, 1);
    // The same key, and so the same pin.
    let spki = |text: &str| {
        text.lines()
            .find(|l| l.starts_with("spki"))
            .map(str::to_owned)
    };
    let renewed = issue_with("2", &two, &["--force"]);
    assert_eq!(spki(&renewed.out), spki(&block.out));
    site.run(&["peers", "genkey", "--out", &path("key")]);
    let section = format!(
        "[peers]\nnode = 1\nlisten = \"127.0.0.1:0\"\ncert = \"{one}/node-cert.pem\"\nkey = \"{one}/node-key.pem\"\n\
         ca = \"{one}/peer-ca-cert.pem\"\ncluster_key_file = {:?}\n{}",
        path("key"),
        block.out
    );
    let ports = Ports {
        tunnel: 0,
        enroll: 0,
    };
    let mut gateway = site.gateway_with("gw", "", ports, &section);
    gateway
        .ask(&["peers", "list"])
        .fails(5, &["nothing is running"]);
    gateway.start();
    gateway.process().logged("one of several gateways");
    let listed = gateway.ask(&["peers", "list", "--json"]).json();
    let peer = &listed[0];
    assert_eq!(
        (&peer["id"], &peer["address"], &peer["connected"]),
        (&2.into(), &"127.0.0.1:12".into(), &false.into())
    );
    assert!(gateway.ask(&["peers", "list"]).out.contains("127.0.0.1:12"));
    let epoch = || fs::read_to_string(gateway.state.join("peers-boot-epoch")).unwrap();
    assert_eq!(epoch(), "1\n");
}
