//! A replica made by hand at the gateway's port for replica links, and where the gateway dials one: its bytes are made here
//! from the replica handshake's specification, whose sections the numbers name. It speaks profile B, and seals nothing.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::harness::{
    SOON, beside_others,
    cluster::Cluster,
    site::{Agent, Site, free_port},
    targets::{echo, ping},
};

const HELLO: u8 = 14;
const CHALLENGE: u8 = 15;
const FINISH: u8 = 16;
const NONCE: [u8; 32] = [0x11; 32];
const NO_NONCE: [u8; 32] = [0; 32];
const NO_MAC: [u8; 32] = [0; 32];
const CLUSTER: &str = "adit-forward/1";
/// The gateway under test, and the peer in whose name the hand speaks.
const GATEWAY: u8 = 1;
const PEER: u8 = 2;

/// Two gateways with an agent at the second one. The first one's sessions go over links to `hand`, and the second one's
/// to the first; gives the address where the first one takes links, too.
fn running(hand: u16) -> (Cluster, Agent, SocketAddr) {
    let ports = [free_port(), free_port()];
    let section = |site: &Site, nth: usize, section: String| {
        let key = site.path("replica.key").to_string_lossy().into_owned();
        if !fs::exists(&key).unwrap() {
            assert_eq!(site.run(&["peers", "genkey", "--out", &key]).code, 0);
        }
        let there = [hand, ports[0]][nth];
        let node = format!("[[peers.peer]]\nid = {}\n", 2 - nth);
        let linked = format!("{node}forward = \"replica\"\nreplica = \"127.0.0.1:{there}\"\n");
        let own = ports[nth];
        let own = format!("replica_listen = \"127.0.0.1:{own}\"\nreplica_key_file = \"{key}\"\n");
        let section = section.replace(&node, &linked);
        section.replace("[peers]\n", &format!("[peers]\n{own}"))
    };
    let driver = std::env::var("ADIT_DRIVER").unwrap_or_else(|_| "tokio".to_owned());
    let (peers, agent) = Cluster::with(&[&driver, &driver], section).run();
    (peers, agent, (Ipv4Addr::LOCALHOST, ports[0]).into())
}

/// The shared secret as the reference has it: the text, without the line's end.
fn secret(peers: &Cluster) -> String {
    let text = fs::read_to_string(peers.path("replica.key")).unwrap();
    text.trim_end().to_owned()
}

fn cluster_id() -> [u8; 16] {
    *blake3::hash(CLUSTER.as_bytes())
        .as_bytes()
        .first_chunk()
        .unwrap()
}

/// Sections 4.2 and 4.3; `direction` is 1 for the dialler's, 2 for the acceptor's.
fn mac(secret: &str, ids: [u8; 2], nonces: [&[u8; 32]; 2], direction: u8) -> [u8; 32] {
    let mut covered = b"apache-iggy replica-auth v1".to_vec();
    covered.extend_from_slice(&cluster_id());
    covered.extend_from_slice(&ids);
    nonces
        .iter()
        .for_each(|nonce| covered.extend_from_slice(*nonce));
    covered.extend_from_slice(&[0; 33]);
    covered.push(direction);
    let key = blake3::derive_key(
        "apache-iggy replica-auth v1 psk->mac-key",
        secret.as_bytes(),
    );
    *blake3::keyed_hash(&key, &covered).as_bytes()
}

/// Section 1.
fn frame(command: u8, replica: u8, nonce: &[u8; 32], mac: &[u8; 32], status: u8) -> [u8; 256] {
    let mut frame = [0; 256];
    frame[32..48].copy_from_slice(&cluster_id());
    frame[48..52].copy_from_slice(&256_u32.to_le_bytes());
    frame[60] = command;
    frame[61] = replica;
    frame[128..160].copy_from_slice(nonce);
    frame[160..192].copy_from_slice(mac);
    frame[192] = status;
    frame
}

fn nonce_of(frame: &[u8; 256]) -> [u8; 32] {
    frame[128..160].try_into().unwrap()
}

fn patient(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn read(socket: &mut TcpStream) -> [u8; 256] {
    let mut frame = [0; 256];
    socket.read_exact(&mut frame).unwrap();
    frame
}

/// What comes until the other end closes, within the time of [`patient`]; a reset closes, too.
fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    if let Err(error) = socket.read_to_end(&mut came) {
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "it stays open"
        );
    }
    came
}

#[test]
fn a_dialler_made_by_hand_is_known_by_its_key_and_carries_nothing_in_the_clear() {
    let _machine = beside_others();
    let (peers, _agent, addr) = running(free_port());
    let secret = secret(&peers);
    let connect = || patient(TcpStream::connect(addr).unwrap());
    for first in [&b"plain bytes of a reference"[..], &[0; 4_096]] {
        let mut near = connect();
        near.write_all(&frame(HELLO, PEER, &NONCE, &NO_MAC, 0))
            .unwrap();
        let challenge = read(&mut near);
        let nonces = [&NONCE, &nonce_of(&challenge)];
        let theirs = mac(&secret, [PEER, GATEWAY], nonces, 2);
        assert_eq!(challenge, frame(CHALLENGE, GATEWAY, nonces[1], &theirs, 0));
        let ours = mac(&secret, [PEER, GATEWAY], nonces, 1);
        let finish = frame(FINISH, PEER, &NO_NONCE, &ours, 0);
        near.write_all(&[&finish[..], first].concat()).unwrap();
        // The gateway may have closed by now.
        let _closed = near.shutdown(Shutdown::Write);
        // One empty record, by which the gateway shows that it seals.
        assert_eq!(rest(near).len(), 20);
    }
    let unlinked = "no link with whoever connected to the replica port";
    let plain = |line: &serde_json::Value| {
        let error = line["error"].as_str().unwrap_or_default();
        line["message"] == unlinked && error.contains("the peer does not seal the link")
    };
    peers.process(0).logged_that(unlinked, plain, 2);

    // Refusals, to the byte (6 and 8).
    let refused = |first: [u8; 256]| {
        let mut near = connect();
        near.write_all(&first).unwrap();
        rest(near)
    };
    let status = |status| frame(CHALLENGE, GATEWAY, &NO_NONCE, &NO_MAC, status).to_vec();
    let hello = |replica| frame(HELLO, replica, &NONCE, &NO_MAC, 0);
    assert_eq!(
        refused(frame(FINISH, PEER, &NONCE, &NO_MAC, 0)),
        status(1),
        "no hello"
    );
    assert_eq!(refused(hello(GATEWAY)), status(3), "itself");
    assert_eq!(refused(hello(3)), status(3), "no peer");
    let mut elsewhere = hello(PEER);
    elsewhere[32] ^= 1;
    let mut other = status(2);
    other[32] ^= 1;
    assert_eq!(refused(elsewhere), other, "another cluster");
    let mut near = connect();
    near.write_all(&hello(PEER)).unwrap();
    let nonce = nonce_of(&read(&mut near));
    let wrong = mac(
        "another key of thirty-two bytes.",
        [PEER, GATEWAY],
        [&NONCE, &nonce],
        1,
    );
    near.write_all(&frame(FINISH, PEER, &NO_NONCE, &wrong, 0))
        .unwrap();
    assert_eq!(rest(near), b"", "nothing is said of a wrong MAC");
    peers.process(0).logged_nth(unlinked, 3);
}

/// How the acceptor made by hand behaves towards the gateway that dials it.
#[derive(Clone, Copy, Debug)]
enum Hand {
    /// Says with a status that there is no such peer.
    Refuses,
    /// Closes when it should answer.
    Leaves,
    /// Has another key.
    Forges,
    /// Has the key, and answers in the clear.
    SealsNothing,
}

/// Answers one link; gives what came behind the gateway's proof, which nobody who has not the key is sent.
fn answer(listener: &TcpListener, hand: Hand, secret: &str) -> Vec<u8> {
    let mut far = patient(listener.accept().unwrap().0);
    let hello = read(&mut far);
    let asked = nonce_of(&hello);
    assert_ne!(asked, NO_NONCE);
    assert_eq!(hello, frame(HELLO, GATEWAY, &asked, &NO_MAC, 0));
    let nonces = [&asked, &NONCE];
    let of = |secret: &str| mac(secret, [GATEWAY, PEER], nonces, 2);
    let challenge = match hand {
        Hand::Leaves => return Vec::new(),
        Hand::Refuses => frame(CHALLENGE, PEER, &NO_NONCE, &NO_MAC, 3),
        Hand::Forges => frame(
            CHALLENGE,
            PEER,
            &NONCE,
            &of("another key of thirty-two bytes."),
            0,
        ),
        Hand::SealsNothing => frame(CHALLENGE, PEER, &NONCE, &of(secret), 0),
    };
    far.write_all(&challenge).unwrap();
    if let Hand::SealsNothing = hand {
        let theirs = mac(secret, [GATEWAY, PEER], nonces, 1);
        assert_eq!(
            read(&mut far),
            frame(FINISH, GATEWAY, &NO_NONCE, &theirs, 0)
        );
        far.write_all(&[0; 300]).unwrap();
    }
    rest(far)
}

#[test]
fn an_acceptor_made_by_hand_gets_no_session_in_the_clear() {
    let _machine = beside_others();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (peers, _agent, _) = running(listener.local_addr().unwrap().port());
    let (secret, target) = (secret(&peers), echo().to_string());
    for hand in [
        Hand::Refuses,
        Hand::Leaves,
        Hand::Forges,
        Hand::SealsNothing,
    ] {
        let came = thread::scope(|scope| {
            let far = scope.spawn(|| answer(&listener, hand, &secret));
            let failed = peers.socks(0, &target).map(drop);
            failed.expect_err(&format!("{hand:?}"));
            far.join().unwrap()
        });
        let is_said = !came.is_empty();
        assert_eq!(is_said, matches!(hand, Hand::SealsNothing), "{hand:?}");
        // The header names the target, and is sealed.
        let name = target.as_bytes();
        assert!(!came.windows(name.len()).any(|part| part == name));
    }
    peers
        .process(0)
        .logged("no link with a replica that was dialled");
    // The gateway of the agent is as well as ever.
    ping(&peers.socks(1, &target).unwrap(), b"its own agent");
}
