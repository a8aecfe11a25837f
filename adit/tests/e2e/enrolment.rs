//! The enrolment listener in its three shapes: its own certificate, the operator's, and none.

use std::{fs, path::Path};

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::harness::{
    beside_others,
    process::run,
    site::{Gateway, Ports, Site},
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
