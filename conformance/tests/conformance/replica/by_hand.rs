//! A reference replica at the other end of each driver, in both roles: its bytes are made here from the specification, and
//! adit's are read by it. Section numbers are those of the replica handshake's specification.

use adit_proto_core::replica::Profile;

use super::*;

const HELLO: u8 = 14;
const CHALLENGE: u8 = 15;
const FINISH: u8 = 16;
const NONCE: [u8; 32] = [0x11; 32];
const NO_NONCE: [u8; 32] = [0; 32];
const CLUSTER: &str = "c";

/// One handshake as the reference computes it (3, 4.2 and 4.3).
#[derive(Clone, Copy)]
struct Reference {
    key: &'static str,
    profile: Profile,
    dialer: u8,
    acceptor: u8,
}

impl Reference {
    /// The same with adit's own key, with which it makes its MAC whichever the other end has (11.1).
    fn of_adit(self) -> Self {
        Self { key: KEY, ..self }
    }

    /// `direction` is 1 for the dialer's, 2 for the acceptor's.
    fn mac(self, nonces: [&[u8]; 2], direction: u8) -> [u8; 32] {
        let mut covered = b"apache-iggy replica-auth v1".to_vec();
        covered.extend_from_slice(&cluster_id(CLUSTER));
        covered.extend_from_slice(&[self.dialer, self.acceptor]);
        covered.extend(nonces.concat());
        if self.profile == Profile::B {
            covered.extend_from_slice(&[0; 33]);
        }
        covered.push(direction);
        let context = "apache-iggy replica-auth v1 psk->mac-key";
        let key = blake3::derive_key(context, self.key.as_bytes());
        *blake3::keyed_hash(&key, &covered).as_bytes()
    }
}

fn cluster_id(name: &str) -> [u8; 16] {
    let digest = blake3::hash(name.as_bytes());
    *digest.as_bytes().first_chunk().unwrap()
}

/// Section 1.
fn frame(command: u8, replica: u8, nonce: &[u8; 32], mac: &[u8; 32], status: u8) -> [u8; 256] {
    let mut frame = [0; 256];
    frame[32..48].copy_from_slice(&cluster_id(CLUSTER));
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

fn read(socket: &mut TcpStream) -> [u8; 256] {
    let mut frame = [0; 256];
    socket.read_exact(&mut frame).unwrap();
    frame
}

/// What comes until the other end closes; a reset closes, too.
fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    let _reset = socket.read_to_end(&mut came);
    came
}

fn connect(addr: SocketAddr) -> TcpStream {
    waiting(TcpStream::connect(addr).unwrap())
}

/// Adit's end: it has a former key beside its own, and does not seal.
fn adit(id: u8, profile: Profile) -> Replica {
    let roster = Roster::dense(4, Seal::Never);
    let keys = Some(keys(KEY, Some(OTHER_KEY)));
    let config = Config::new(ClusterId::of(CLUSTER), ReplicaId(id), roster, keys).unwrap();
    Replica::new(config.with_profile(profile), Slots::default())
}

/// Each profile, with the key of the other end and with its former one.
fn references() -> [Reference; 4] {
    let with = |profile, key| Reference {
        key,
        profile,
        dialer: 0,
        acceptor: 3,
    };
    [
        with(Profile::A, KEY),
        with(Profile::A, OTHER_KEY),
        with(Profile::B, KEY),
        with(Profile::B, OTHER_KEY),
    ]
}

#[test]
fn a_reference_dialer_is_answered_in_its_bytes_and_has_the_plain_stream() {
    conform(|place| {
        for reference in references() {
            let profile = reference.profile;
            let (listener, acceptor) = (listener(), adit(3, profile));
            let addr = listener.local_addr().unwrap();
            let driver = place.pairing.gateway;
            let (near, far) = thread::scope(|scope| {
                let accepted = scope.spawn(|| driver.accept_replicas(&acceptor, listener, 1));
                let mut near = connect(addr);
                for byte in frame(HELLO, 0, &NONCE, &NO_NONCE, 0) {
                    near.write_all(&[byte]).unwrap();
                }
                let challenge = read(&mut near);
                let nonce = nonce_of(&challenge);
                let mac = reference.of_adit().mac([&NONCE, &nonce], 2);
                assert_eq!(challenge, frame(CHALLENGE, 3, &nonce, &mac, 0));
                let mac = reference.mac([&NONCE, &nonce], 1);
                let finish = frame(FINISH, 0, &NO_NONCE, &mac, 0);
                // What follows in the same segment belongs to the stream.
                near.write_all(&[&finish[..], b"glued"].concat()).unwrap();
                (near, accepted.join().unwrap().remove(0))
            });
            place.note_link("far", &far);
            let mut far = waiting(far.into_socket().unwrap());
            let mut glued = [0; 5];
            far.read_exact(&mut glued).unwrap();
            assert_eq!(&glued, b"glued");
            let there = carry(near.try_clone().unwrap(), far.try_clone().unwrap());
            place.note(&format!("{profile:?}: {there}, and {}", carry(far, near)));
        }
    });
}

#[test]
fn a_reference_acceptor_is_asked_in_its_bytes_and_has_the_plain_stream() {
    conform(|place| {
        for reference in references() {
            let profile = reference.profile;
            let (listener, dialer) = (listener(), adit(0, profile));
            let addr = listener.local_addr().unwrap();
            let (near, far) = thread::scope(|scope| {
                let far = scope.spawn(|| {
                    let mut far = waiting(listener.accept().unwrap().0);
                    let hello = read(&mut far);
                    let asked = nonce_of(&hello);
                    assert_ne!(asked, NO_NONCE);
                    assert_eq!(hello, frame(HELLO, 0, &asked, &NO_NONCE, 0));
                    let mac = reference.mac([&asked, &NONCE], 2);
                    for byte in frame(CHALLENGE, 3, &NONCE, &mac, 0) {
                        far.write_all(&[byte]).unwrap();
                    }
                    let mac = reference.of_adit().mac([&asked, &NONCE], 1);
                    assert_eq!(read(&mut far), frame(FINISH, 0, &NO_NONCE, &mac, 0));
                    far
                });
                (place.dial(&dialer, addr, 3).unwrap(), far.join().unwrap())
            });
            place.note_link("near", &near);
            let near = waiting(near.into_socket().unwrap());
            let back = carry(far.try_clone().unwrap(), near.try_clone().unwrap());
            place.note(&format!("{profile:?}: {back}, and {}", carry(near, far)));
        }
    });
}

/// What an acceptor sends to a dialer whose first frame is none for it (6 and 8), but that it names the cluster which the
/// dialer named (8, [GAP]).
#[test]
fn a_reference_dialer_is_refused_in_its_bytes() {
    conform(|place| {
        let (listener, acceptor) = (listener(), adit(3, Profile::B));
        let addr = listener.local_addr().unwrap();
        let driver = place.pairing.gateway;
        thread::scope(|scope| {
            let accepted = scope.spawn(|| driver.accept_replicas(&acceptor, listener, 1));
            let refused = |first: [u8; 256]| {
                let mut socket = connect(addr);
                socket.write_all(&first).unwrap();
                rest(socket)
            };
            let hello = frame(HELLO, 0, &NONCE, &NO_NONCE, 0);
            let with = |at: usize, value: u8| {
                let mut changed = hello;
                changed[at] = value;
                changed
            };
            let status = |status| frame(CHALLENGE, 3, &NO_NONCE, &NO_NONCE, status).to_vec();
            assert_eq!(refused(with(60, 1)), status(1), "another command");
            assert_eq!(refused(with(61, 3)), status(3), "itself");
            assert_eq!(refused(with(61, 9)), status(3), "not of the list");
            let named = with(32, 0xEE);
            let mut other = status(2);
            other[32..48].copy_from_slice(&named[32..48]);
            assert_eq!(refused(named), other, "another cluster");
            let bare = frame(HELLO, 0, &NO_NONCE, &NO_NONCE, 0);
            assert_eq!(refused(bare), b"", "no nonce");
            assert_eq!(refused(with(49, 2)), b"", "another size");

            // Behind the challenge nothing is said.
            for (what, second) in [
                ("another command", frame(HELLO, 0, &NONCE, &NO_NONCE, 0)),
                ("a wrong MAC", frame(FINISH, 0, &NO_NONCE, &NONCE, 0)),
            ] {
                let mut socket = connect(addr);
                socket.write_all(&hello).unwrap();
                assert_eq!(read(&mut socket)[192], 0);
                socket.write_all(&second).unwrap();
                assert_eq!(rest(socket), b"", "{what}");
            }
            let near = place.get_in(1, addr);
            assert_eq!(accepted.join().unwrap().len(), 1);
            place.note_link("near", &near);
        });
    });
}
