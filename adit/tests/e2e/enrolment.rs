//! The enrolment listener in its three shapes: its own certificate, the operator's, and none. And answers that get lost.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::harness::{
    SOON, beside_others,
    process::run,
    site::{Gateway, Ports, Site},
    until,
};

#[test]
fn plain_http_is_used_only_where_both_sides_ask_for_it() {
    let _machine = beside_others();
    let site = Site::new();
    let rest = "[enroll]\nlisten = \"127.0.0.1:0\"\ninsecure_http = true\n";
    let gateway = site.gateway("gw", rest);
    let token = gateway.token("site-a");
    let ran = site.agent("refused").up(&token, "", &[]);
    ran.fails(2, &["plain HTTP", "--allow-http"]);
    let ran = site.agent("allowed").up(&token, "", &["--allow-http"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // A string with a pin cannot be talked into plain HTTP.
    let pinned = site.gateway("pinned", "").token("site-b");
    let url = format!("http://{}", gateway.address("enroll"));
    let ran = site
        .agent("pinned-agent")
        .up(&pinned, "", &["--allow-http", "--gateway", &url]);
    ran.fails(2, &["demands https"]);
}

#[test]
fn an_operators_certificate_is_served_and_judged_by_the_systems_roots() {
    let _machine = beside_others();
    let site = Site::new();
    let (roots, gateway) = with_operator_certificate(&site);
    let token = gateway.token("site-a");
    let ran = site.agent("stranger").up(&token, "", &[]);
    assert_ne!(ran.code, 0, "not among the system's roots");
    assert!(!site.path("stranger").join("agent.json").exists());
    // The platform's verifier takes another file of roots from the environment.
    let agent = site.agent("friend");
    let mut command = agent.command(&["agent", "up", "--enrollment-string", "-"]);
    command.env("SSL_CERT_FILE", &roots);
    let ran = run(command, &token);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(agent.state.join("agent.json").exists());
}

#[test]
fn a_string_whose_answer_was_lost_is_good_for_the_same_agent_only() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let token = gateway.token("site-a");
    let agent = site.agent("site-a");
    let path = ToGateway::losing_answers(gateway.address("enroll"));
    let ran = std::thread::scope(|scope| {
        let up = scope.spawn(|| agent.up(&token, "", &["--gateway", &path.url]));
        gateway.process().logged("agent enrolled");
        path.cut();
        up.join().unwrap()
    });
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(!agent.state.join("agent.json").exists());
    for verb in [["agent", "probe"], ["agent", "run"]] {
        let ran = agent.ask(&verb);
        assert!(
            format!("{ran:?}").contains("same enrolment string"),
            "{ran:?}"
        );
    }
    let ran = site.agent("another").up(&token, "", &[]);
    ran.fails(4, &["used", "401"]);
    assert!(!site.path("another").join("agent.json").exists());
    let ran = agent.up(&token, "127.0.0.1/32", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(gateway.enrolled().len(), 1);
    assert!(!agent.state.join("agent-enrolling.json").exists());
    // It is good for that even now, but not for whoever has connected.
    let mut agent = agent;
    agent.serve(&gateway);
    let ran = agent.up(&token, "", &[]);
    ran.fails(4, &["used", "401"]);
    // Nor once it has gone.
    assert!(agent.process_mut().terminate().success());
    until("it has gone", SOON, || {
        gateway.agents().is_empty().then_some(())
    });
    let ran = agent.up(&token, "", &[]);
    ran.fails(4, &["used", "401"]);
}

/// A path to the enrolment listener on which the gateway's answers get lost.
struct ToGateway {
    url: String,
    user: Arc<Mutex<Option<TcpStream>>>,
}

impl ToGateway {
    fn losing_answers(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let user = Arc::new(Mutex::new(None));
        let accepted = Arc::clone(&user);
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            *accepted.lock().unwrap() = Some(stream.try_clone().unwrap());
            carry(stream, TcpStream::connect(gateway).unwrap());
        });
        Self { url, user }
    }

    fn cut(&self) {
        let user = self.user.lock().unwrap();
        user.as_ref().unwrap().shutdown(Shutdown::Both).unwrap();
    }
}

/// Carries the handshake, and then only what the agent says: all of it but its first record comes after the gateway's part.
fn carry(mut agent: TcpStream, mut gateway: TcpStream) {
    let has_asked = Arc::new(AtomicBool::new(false));
    let (mut to_agent, mut answers) = (agent.try_clone().unwrap(), gateway.try_clone().unwrap());
    let asked = Arc::clone(&has_asked);
    std::thread::spawn(move || {
        let mut buf = [0; 16 << 10];
        while let Ok(len @ 1..) = answers.read(&mut buf) {
            if !asked.load(Ordering::SeqCst) {
                drop(to_agent.write_all(&buf[..len]));
            }
        }
    });
    // A record of TLS: kind, version, and how much follows (RFC 8446, 5.1).
    let mut hello = vec![0; 5];
    agent.read_exact(&mut hello).unwrap();
    let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
    hello.resize(5 + length, 0);
    agent.read_exact(&mut hello[5..]).unwrap();
    gateway.write_all(&hello).unwrap();
    let mut buf = [0; 16 << 10];
    while let Ok(len @ 1..) = agent.read(&mut buf) {
        has_asked.store(true, Ordering::SeqCst);
        gateway.write_all(&buf[..len]).unwrap();
    }
}

fn with_operator_certificate(site: &Site) -> (std::path::PathBuf, Gateway) {
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = server.signed_by(&key, &ca).unwrap();
    let write = |name: &str, text: String| {
        let path = site.path(name);
        fs::write(&path, text).unwrap();
        path
    };
    let roots = write("roots.pem", ca.pem());
    let cert = write("cert.pem", server.pem());
    let key = write("key.pem", key.serialize_pem());
    (roots, start(site, &cert, &key))
}

fn start(site: &Site, cert: &Path, key: &Path) -> Gateway {
    let port = crate::harness::site::free_port();
    let rest = format!(
        "[enroll]\nlisten = \"127.0.0.1:{port}\"\nurl = \"https://localhost:{port}\"\n\
         cert = {cert:?}\nkey = {key:?}\n"
    );
    let mut gateway = site.gateway_with("gw", "", Ports::default(), &rest);
    gateway.start();
    gateway
}
