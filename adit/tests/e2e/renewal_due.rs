//! A certificate comes due in the middle of a transfer, and is renewed with no word from anybody.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use sha2::{Digest, Sha256, digest::Output};

use crate::harness::{
    SOON, alone,
    site::{Agent, Gateway, Site, forward},
    targets::{Target, expect},
    until,
    users::connect,
};

#[test]
fn a_certificate_that_comes_due_in_the_middle_of_a_transfer_is_renewed() {
    let _machine = alone();
    let (site, target) = (Site::new(), Target::listen());
    let gateway = site.gateway("gw", &forward("target", target.addr));
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    soon_due(&agent, &gateway);
    let before = agent.pair("");
    agent.serve(&gateway);
    let user = connect(gateway.ingress("target"));
    let far = target.accept();

    let (up, down) = (Way::default(), Way::default());
    std::thread::scope(|scope| {
        let sent = [(&user, &up), (&far, &down)].map(|(end, way)| scope.spawn(|| way.send(end)));
        let got = [(&far, &up), (&user, &down)].map(|(end, way)| scope.spawn(|| way.take(end)));
        let ends = Ends([&up, &down]);
        for way in [&up, &down] {
            way.goes_on();
        }
        assert_eq!(agent.process().count(ASKING), 0, "not due yet");
        agent.process().logged(ASKING);
        agent.process().logged(IN_USE);
        for way in [&up, &down] {
            way.goes_on();
        }
        drop(ends);
        let hashes = |threads: [std::thread::ScopedJoinHandle<'_, Output<Sha256>>; 2]| {
            threads.map(|thread| thread.join().unwrap())
        };
        assert_eq!(hashes(sent), hashes(got));
    });
    assert_eq!(gateway.ended(1), "clean");
    assert_eq!(agent.process().count(ASKING), 1);
    assert_eq!(agent.process().count("connection to the gateway lost"), 0);
    assert_ne!(agent.pair("")["key"], before["key"]);
    assert_eq!(agent.pair("-previous"), before);
    until("one connection", SOON, || {
        (gateway.agents().len() == 1).then_some(())
    });
    let mut user = connect(gateway.ingress("target"));
    user.write_all(b"over the new one").unwrap();
    expect(&target.accept(), b"over the new one");
}

/// Ends what is sent when it goes, also with a check that fails: the threads would be waited for without end.
struct Ends<'a>([&'a Way; 2]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        for way in self.0 {
            way.over.store(true, Ordering::Relaxed);
        }
    }
}

/// One direction of a session.
#[derive(Default)]
struct Way {
    /// Bytes that have come.
    came: AtomicU64,
    /// Enough is sent.
    over: AtomicBool,
}

impl Way {
    /// Sends until it is over, with no two blocks alike, and gives the hash of all.
    fn send(&self, mut to: &TcpStream) -> Output<Sha256> {
        let (mut hash, mut block) = (Sha256::new(), [0; 1 << 16]);
        for n in 0_u64.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            block[..8].copy_from_slice(&n.to_be_bytes());
            hash.update(block);
            to.write_all(&block).unwrap();
        }
        to.shutdown(Shutdown::Write).unwrap();
        hash.finalize()
    }

    /// Reads to the end, and gives the hash of all.
    fn take(&self, mut from: &TcpStream) -> Output<Sha256> {
        let (mut hash, mut buf) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            let length = from.read(&mut buf).unwrap();
            if length == 0 {
                return hash.finalize();
            }
            hash.update(&buf[..length]);
            self.came.fetch_add(length as u64, Ordering::Relaxed);
        }
    }

    /// Waits until more has come than can have been under way before.
    fn goes_on(&self) {
        let before = self.came.load(Ordering::Relaxed);
        until("bytes come", SOON, || {
            let more = self.came.load(Ordering::Relaxed) - before;
            (more > 32 << 20).then_some(())
        });
    }
}

/// Exchanges the agent's certificate for one of the same key and CA that will have a third of its life left in 9 to 12
/// seconds: an agent comes earlier than that by up to a tenth of the third.
fn soon_due(agent: &Agent, gateway: &Gateway) {
    const LEFT: Duration = Duration::from_secs(36);
    let of = |name: &str| fs::read_to_string(gateway.state.join(name)).unwrap();
    let ca_key = KeyPair::from_pem(&of("ca-key.pem")).unwrap();
    let ca = Issuer::from_ca_cert_pem(&of("ca-cert.pem"), ca_key).unwrap();
    let mut pair = agent.pair("");
    let key = KeyPair::from_pem(pair["key"].as_str().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    let uri = format!("urn:uuid:{}", agent.id());
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(DnType::CommonName, "site-a");
    params.use_authority_key_identifier_extension = true;
    let end = SystemTime::now() + LEFT;
    params.not_after = end.into();
    // 72 s in all, so that the third is 24 s.
    params.not_before = (end - LEFT * 2).into();
    pair["certificate"] = params.signed_by(&key, &ca).unwrap().pem().into();
    let path = agent.state.join("agent-pair.json");
    fs::write(&path, pair.to_string()).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
}

const ASKING: &str = "asking the gateway for a new certificate";
const IN_USE: &str = "renewed certificate in use";
