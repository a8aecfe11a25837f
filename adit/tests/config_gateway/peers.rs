//! The section `[peers]`: what it means, what is wrong with it, and what a change of it does.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use adit::{
    config::{
        ForwardLink, GatewayConfig, PeerCredentials, PeerSecurity, PeersConfig, SealLink,
        Surroundings,
    },
    peers::authority::{CA_CERT_FILE, NODE_CERT_FILE, NODE_KEY_FILE, PeerCa},
    state::StateDir,
};
use adit_proto_core::{peer::NodeId, replica::Profile};
use rustls_pki_types::UnixTime;

use crate::load_with;

const KEY: &str = "an operator's own text, long enough";
const OTHER_KEY: &str = "another text of an operator, as long";
const PIN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER_PIN: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// Files of node 1 in a directory, and how the section begins with them.
fn section(dir: &Path) -> String {
    let (ca, out) = (dir.join("ca"), dir.join("out"));
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_000));
    let open = |path: &Path| StateDir::open(path).unwrap();
    if PeerCa::init(&open(&ca), now).unwrap() {
        let ca = PeerCa::open(&open(&ca)).unwrap();
        let out = open(&out);
        ca.issue(&out, now, NodeId(1), None, false).unwrap();
    }
    let [cert, key, root] = [NODE_CERT_FILE, NODE_KEY_FILE, CA_CERT_FILE].map(|f| out.join(f));
    format!("[peers]\nnode = 1\ncert = {cert:?}\nkey = {key:?}\nca = {root:?}\n")
}

fn key_file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_string_lossy().into_owned()
}

fn peer(id: u64, rest: &str) -> String {
    format!("[[peers.peer]]\nid = {id}\naddress = \"gw{id}.x:4434\"\n{rest}\n")
}

fn load(dir: &Path, text: &str, vars: &[(&str, &str)]) -> Result<PeersConfig, Vec<String>> {
    match load_with(dir, text, &[], vars) {
        Ok(loaded) => Ok(loaded.config.peers.unwrap()),
        Err(error) => Err(error.problems.iter().map(ToString::to_string).collect()),
    }
}

fn credentials(config: &PeersConfig) -> &PeerCredentials {
    let PeerSecurity::Mutual(Some(credentials)) = &config.security else {
        panic!("{:?}", config.security)
    };
    credentials
}

#[test]
fn a_full_section_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let file = key_file(dir.path(), "key", &format!("{KEY}\n"));
    let text = section(dir.path())
        + &format!("listen = \"[::]:9\"\ncluster_key_file = {file:?}\n")
        + &peer(3, "spiffe = \"spiffe://c/3\"\nseal = \"never\"")
        + &peer(2, &format!("spki = \"{PIN}\"\nspki_next = \"{OTHER_PIN}\""));
    let config = load(dir.path(), &text, &[]).unwrap();
    assert_eq!((config.node, config.listen.port()), (NodeId(1), 9));
    let [two, three] = config.peers.as_slice() else {
        panic!("{config:?}")
    };
    assert_eq!((two.id, two.pins.len()), (NodeId(2), 2));
    assert_eq!(
        (two.forward, two.seal),
        (ForwardLink::Quic, SealLink::Require)
    );
    assert_eq!(
        (three.forward, three.seal),
        (ForwardLink::Quic, SealLink::Never)
    );
    assert_eq!(config.replica, None);
    assert_eq!(three.record().address, "gw3.x:4434");
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("operator") && !shown.contains("PRIVATE"),
        "{shown}"
    );
    // The files are not touched where somebody only talks to a running gateway.
    fs::remove_file(dir.path().join("key")).unwrap();
    let path = dir.path().join("gateway.toml");
    let around = Surroundings::new([("HOME", "/home/u")], false);
    assert!(GatewayConfig::state_dir(Some((path, true)), &[], &around).is_ok());
}

#[test]
fn without_the_section_there_are_no_peers() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["", "[peers]\n"] {
        let loaded = load_with(dir.path(), text, &[], &[]).unwrap();
        assert_eq!(loaded.config.peers, None);
    }
}

#[test]
fn a_key_comes_from_a_file_the_environment_or_a_credential() {
    let dir = tempfile::tempdir().unwrap();
    let text = section(dir.path());
    let of = |config: &PeersConfig| credentials(config).keys.clone();
    let named = load(dir.path(), &text, &[("ADIT_PEERS_CLUSTER_KEY", KEY)]).unwrap();
    let file = key_file(dir.path(), "key", KEY);
    let by_file = load(dir.path(), &text, &[("ADIT_PEERS_CLUSTER_KEY_FILE", &file)]).unwrap();
    key_file(dir.path(), "adit-cluster-key", KEY);
    let folder = dir.path().to_string_lossy().into_owned();
    let by_credential = load(dir.path(), &text, &[("CREDENTIALS_DIRECTORY", &folder)]).unwrap();
    assert!(of(&named) == of(&by_file) && of(&named) == of(&by_credential));
    key_file(dir.path(), "adit-previous-cluster-key", OTHER_KEY);
    let both = load(dir.path(), &text, &[("CREDENTIALS_DIRECTORY", &folder)]).unwrap();
    assert_ne!(of(&named), of(&both));
    let change = PeersConfig::change(Some(&named), Some(&both));
    assert!(change.keys && !change.files && change.restart.is_empty());
}

/// What stands behind a good section, and what is said of it.
const BAD: &[(&str, &str)] = &[
    ("nodes = 1", "unknown key `peers.nodes`"),
    (
        "[[peers.peer]]\nid = 2",
        "`peers.peer[0].address` is missing",
    ),
    ("PEER 2\npin = \"x\"", "unknown key `peers.peer[0].pin`"),
    ("PEER 0\nSPKI", "`0` is no node id"),
    ("PEER 2\nspki = \"x\"", "`x` is no pin"),
    ("PEER 2\nspiffe = \"x\"", "`x` is no SPIFFE id"),
    (
        "PEER 2\nSPKI\nforward = \"x\"",
        "write \"quic\" or \"replica\"",
    ),
    (
        "PEER 2\nSPKI\nseal = \"x\"",
        "write \"require\" or \"never\"",
    ),
    ("PEER 2", "neither `spki` nor `spiffe`"),
    ("PEER 1\nSPKI", "is this gateway itself"),
    ("PEER 2\nSPKI\nPEER 2\nSPKI", "peer 2 is there twice"),
    ("PEER 2\nSPKI\nPEER 3\nSPKI", "have one key"),
    (
        "PEER 256\nSPKI\nforward = \"replica\"",
        "replicas have numbers up to 255",
    ),
    (
        "PEER 2\nSPKI\nforward = \"replica\"\nreplica = \"gw2.x:4435\"\nseal = \"never\"",
        "sealed links only",
    ),
    (
        "PEER 2\nSPKI\nforward = \"replica\"",
        "say where it accepts replica links",
    ),
    (
        "PEER 2\nSPKI\nforward = \"replica\"\nreplica = \"gw2.x:4435\"",
        "the key of replica links is missing",
    ),
    ("replica_profile = \"c\"", "write \"b\" or \"a\""),
    ("replica_key_file = \"/nowhere\"", "/nowhere"),
    ("insecure = true", "`peers.insecure_network = \"loopback\"`"),
    (
        "insecure = true\ninsecure_network = \"loopback\"",
        "`peers.listen` is another address",
    ),
];

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let good = section(dir.path());
    let key = [("ADIT_PEERS_CLUSTER_KEY", KEY)];
    for (rest, wanted) in BAD {
        let mut rest = rest.replace("SPKI", &format!("spki = \"{PIN}\""));
        for id in [0, 1, 2, 3, 256] {
            rest = rest.replace(&format!("PEER {id}\n"), &peer(id, ""));
        }
        let rest = rest.replace("PEER 2", &peer(2, ""));
        is_told(dir.path(), &(good.clone() + &rest), &key, wanted);
    }
    for (text, wanted) in [
        (
            "[peers]\ncert = \"/x\"\n".to_owned(),
            "`peers.node` is missing",
        ),
        (peer(2, ""), "`peers.node` is missing"),
        (
            "[peers]\nlisten = \"[::]:9\"\n".to_owned(),
            "`peers.node` is missing",
        ),
        (
            "[peers]\nreplica_profile = \"a\"\n".to_owned(),
            "`peers.node` is missing",
        ),
        ("[peers]\nnode = 0\n".to_owned(), "`0` is no node id"),
        (
            "[peers]\nnode = 1\n".to_owned(),
            "`adit peers issue` makes all three",
        ),
        (good.replace("node-key.pem", "none.pem"), "none.pem"),
        (good.replace("node-key.pem", "node-cert.pem"), "cannot use"),
        (
            good.replace("node-cert.pem", "peer-ca-cert.pem"),
            "not valid for the name `nodedb`",
        ),
    ] {
        is_told(dir.path(), &text, &key, wanted);
    }
    let config = load(dir.path(), &good, &key).unwrap();
    let own = credentials(&config).files.leaf().spki.0;
    let own: String = own.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = good + &peer(2, &format!("spki = \"{own}\""));
    is_told(dir.path(), &text, &key, "peer 2 has this gateway's own key");
}

#[test]
fn what_is_wrong_with_a_key_is_said_without_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let good = section(dir.path());
    let file = key_file(dir.path(), "key", KEY);
    let exposed = fs::Permissions::from_mode(0o644);
    fs::set_permissions(dir.path().join("key"), exposed).unwrap();
    let by_file = format!("{good}cluster_key_file = {file:?}\n");
    let key = ("ADIT_PEERS_CLUSTER_KEY", KEY);
    let previous = ("ADIT_PEERS_PREVIOUS_KEY", KEY);
    let short = ("ADIT_PEERS_CLUSTER_KEY", "an operator's");
    for (text, vars, wanted) in [
        (&good, &[][..], "the cluster's key is missing"),
        (&good, &[short], "needs 32 or more"),
        (
            &good,
            &[key, previous],
            "environment ADIT_PEERS_PREVIOUS_KEY: the cluster's key: the previous",
        ),
        (&by_file, &[key], "both give the key"),
        (&by_file, &[], "chmod 600"),
    ] {
        is_told(dir.path(), text, vars, wanted);
    }
    key_file(dir.path(), "adit-cluster-key", "an operator's");
    let folder = dir.path().to_string_lossy().into_owned();
    let credential = [("CREDENTIALS_DIRECTORY", folder.as_str())];
    let wanted = "credential adit-cluster-key: the shared secret has 13 bytes";
    is_told(dir.path(), &good, &credential, wanted);
}

fn is_told(dir: &Path, text: &str, vars: &[(&str, &str)], wanted: &str) {
    let found = load(dir, text, vars).unwrap_err();
    assert!(
        found.iter().any(|p| p.contains(wanted)),
        "{text}\nwanted {wanted}\nfound {found:#?}"
    );
    assert!(!found.iter().any(|p| p.contains("operator")), "{found:#?}");
}

#[test]
fn insecure_mode_takes_two_options() {
    let dir = tempfile::tempdir().unwrap();
    let begin = "[peers]\nnode = 1\ninsecure = true\n";
    for rest in [
        "insecure_network = \"any\"\n",
        "insecure_network = \"loopback\"\nlisten = \"127.0.0.1:9\"\n",
    ] {
        let text = format!("{begin}{rest}{}", peer(2, ""));
        let config = load(dir.path(), &text, &[]).unwrap();
        assert_eq!(config.security, PeerSecurity::Insecure);
    }
}

#[test]
fn a_change_is_told_by_what_can_be_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let key = [("ADIT_PEERS_CLUSTER_KEY", KEY)];
    let base = section(dir.path());
    let (pin, other) = (
        format!("spki = \"{PIN}\""),
        format!("spki = \"{OTHER_PIN}\""),
    );
    let now = base.clone() + &peer(2, &pin) + &peer(3, &other);
    let now = load(dir.path(), &now, &key).unwrap();
    let new = base.replace("node = 1", "node = 9")
        + &peer(4, &other)
        + &peer(2, "spiffe = \"spiffe://x/2\"");
    let new = load(dir.path(), &new, &key).unwrap();
    let change = PeersConfig::change(Some(&now), Some(&new));
    assert_eq!(change.added, [NodeId(4)]);
    assert_eq!(change.removed, [NodeId(3)]);
    assert_eq!(change.changed, [NodeId(2)]);
    assert_eq!(change.restart, ["peers.node"]);
    assert!(!change.keys && !change.files);
    assert_eq!(
        PeersConfig::change(Some(&now), Some(&now)),
        Default::default()
    );
    let gone = PeersConfig::change(Some(&now), None);
    assert_eq!(gone.restart, ["peers (added or removed)"]);
}

/// Neither trimmed nor guessed to be of another type, and never told (replica-handshake 11).
#[test]
fn a_key_of_the_environment_is_the_text_as_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let linked = format!("spki = \"{PIN}\"\nforward = \"replica\"\nreplica = \"gw2.x:4435\"");
    let text = section(dir.path()) + &peer(2, &linked);
    let of = |key: &str| {
        let around = [
            ("ADIT_PEERS_CLUSTER_KEY", KEY),
            ("ADIT_PEERS_REPLICA_KEY", key),
        ];
        let config = load(dir.path(), &text, &around).unwrap();
        config.replica.unwrap().keys.unwrap()
    };
    let digits = "12345678901234567890123456789012";
    let like_others = [
        digits.to_owned(),
        format!("{digits}e7"),
        format!("[{digits}]"),
        format!("{digits} "),
        format!("{digits}\n"),
        format!(" {digits}"),
    ];
    for (nth, key) in like_others.iter().enumerate() {
        for other in &like_others[..nth] {
            assert!(of(key) != of(other), "{key:?} {other:?}");
        }
    }
    let short = &digits[..31];
    let around = [
        ("ADIT_PEERS_CLUSTER_KEY", KEY),
        ("ADIT_PEERS_REPLICA_KEY", short),
    ];
    is_told(dir.path(), &text, &around, "has 31 bytes");
}

#[test]
fn replica_links_take_a_key_an_address_and_each_peers_own() {
    let dir = tempfile::tempdir().unwrap();
    let linked = format!("spki = \"{PIN}\"\nforward = \"replica\"\nreplica = \"gw2.x:4435\"");
    let text = section(dir.path());
    let with = |rest: &str| text.clone() + rest + &peer(2, &linked);
    let cluster = ("ADIT_PEERS_CLUSTER_KEY", KEY);
    let key = ("ADIT_PEERS_REPLICA_KEY", OTHER_KEY);
    let config = load(dir.path(), &with(""), &[cluster, key]).unwrap();
    let replica = config.replica.clone().unwrap();
    assert_eq!((replica.listen.port(), replica.profile), (4435, Profile::B));
    let [two] = config.peers.as_slice() else {
        panic!("{config:?}")
    };
    assert_eq!(two.forward, ForwardLink::Replica);
    assert_eq!(two.replica.as_ref().unwrap().to_string(), "gw2.x:4435");
    assert!(!format!("{config:?}").contains("operator"));

    let file = key_file(dir.path(), "replica", &format!("{OTHER_KEY}\n"));
    let by_file = with(&format!("replica_key_file = {file:?}\n"));
    let by_file = load(dir.path(), &by_file, &[cluster]).unwrap();
    key_file(dir.path(), "adit-replica-key", OTHER_KEY);
    let folder = dir.path().to_string_lossy().into_owned();
    let credentials = [cluster, ("CREDENTIALS_DIRECTORY", &folder)];
    let by_credential = load(dir.path(), &with(""), &credentials).unwrap();
    for other in [&by_file, &by_credential] {
        assert!(other.replica == config.replica);
    }
    key_file(dir.path(), "adit-previous-replica-key", KEY);
    let both = load(dir.path(), &with(""), &credentials).unwrap();
    let change = PeersConfig::change(Some(&config), Some(&both));
    assert!(change.keys && change.restart.is_empty(), "{change:?}");
    let moved = with("replica_listen = \"[::]:9\"\nreplica_profile = \"a\"\n");
    let moved = load(dir.path(), &moved, &[cluster, key]).unwrap();
    let change = PeersConfig::change(Some(&config), Some(&moved));
    assert_eq!(change.restart, ["peers.replica_listen"]);
    assert!(change.keys, "the links shake hands by another profile");
    let quic = text.clone() + &peer(2, &format!("spki = \"{PIN}\""));
    let quic = load(dir.path(), &quic, &[cluster]).unwrap();
    let change = PeersConfig::change(Some(&config), Some(&quic));
    assert_eq!(change.restart, ["peers.peer.forward"]);
    for (text, vars, wanted) in [
        (
            with(""),
            &[cluster, ("ADIT_PEERS_REPLICA_KEY", "an operator's")][..],
            "needs 32 or more",
        ),
        (
            with(""),
            &[cluster, key, ("ADIT_PEERS_PREVIOUS_REPLICA_KEY", OTHER_KEY)],
            "previous",
        ),
        (
            with("").replace("node = 1", "node = 300"),
            &[cluster, key],
            "replicas have numbers",
        ),
        (
            with("insecure = true\ninsecure_network = \"any\"\n"),
            &[cluster, key],
            "do not go together",
        ),
    ] {
        is_told(dir.path(), &text, vars, wanted);
    }
}
