//! Certificates that are not what they should be, on either side.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, date_time_ymd,
};
use serde_json::json;

use crate::harness::{
    beside_others, block_on,
    console::{METRICS, metrics},
    reference::{GatewayFiles, listen},
    site::{Gateway, Site, forward},
    targets::{echo, ping},
    users::connect,
};

#[test]
fn an_agents_certificate_that_is_not_good_is_refused_and_disturbs_nobody() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let rest = forward("echo", target) + METRICS;
    let gateway = site.gateway("gw", &rest);
    // It is connected all the while, with the same id.
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let user = connect(gateway.ingress("echo"));
    let pair = agent.pair("");
    let key = KeyPair::from_pem(pair["key"].as_str().unwrap()).unwrap();
    let other_key = KeyPair::generate().unwrap();
    let (ca, stranger) = (ca_of(&gateway), stranger());
    let good = |when| agents(&agent.id(), when);
    for (what, key, cert, says) in [
        ("expired", &key, good(PAST).signed_by(&key, &ca), "clocks"),
        ("early", &key, good(FUTURE).signed_by(&key, &ca), "clocks"),
        (
            "foreign",
            &key,
            good(NOW).signed_by(&key, &stranger),
            "alert 48",
        ),
        (
            "other key",
            &other_key,
            good(NOW).signed_by(&other_key, &ca),
            "alert",
        ),
    ] {
        let mut bad = agent.copy(&site.path(what));
        let mut changed = pair.clone();
        changed["certificate"] = json!(cert.unwrap().pem());
        changed["key"] = json!(key.serialize_pem());
        secret(&bad.state.join("agent-pair.json"), &changed.to_string());
        bad.spawn();
        let waits = bad
            .process()
            .logged("waiting before the next attempt to connect");
        assert_eq!(waits["cause"], "IdentityRefused", "{what}");
        let error = bad.status()["last_error"].as_str().unwrap().to_owned();
        assert!(error.contains("refused our identity"), "{what}: {error}");
        assert!(error.contains(says), "{what}: {error}");
        ping(&user, b"undisturbed");
    }
    let refused = "adit_agents_refused_total{cause=\"other_key\"}";
    assert_eq!(metrics(&gateway).value(refused), 1);
    assert_eq!(gateway.process().count("agent connected"), 1);
    assert_eq!(gateway.process().count("agent disconnected"), 0);
    ping(&connect(gateway.ingress("echo")), b"and others are served");
}

#[test]
fn a_gateways_certificate_that_is_not_good_is_not_trusted() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    let pem = fs::read_to_string(gateway.state.join("server-key.pem")).unwrap();
    let (key, other_key) = (
        KeyPair::from_pem(&pem).unwrap(),
        KeyPair::generate().unwrap(),
    );
    let (ca, stranger) = (ca_of(&gateway), stranger());
    let good = |when| servers("localhost", when);
    for (what, key, cert, says) in [
        ("expired", &key, good(PAST).signed_by(&key, &ca), "clocks"),
        ("early", &key, good(FUTURE).signed_by(&key, &ca), "clocks"),
        (
            "foreign",
            &key,
            good(NOW).signed_by(&key, &stranger),
            "UnknownIssuer",
        ),
        (
            "other key",
            &other_key,
            good(NOW).signed_by(&other_key, &ca),
            "alert",
        ),
        (
            "other name",
            &key,
            servers("other.test", NOW).signed_by(&key, &ca),
            "name",
        ),
        ("good", &key, good(NOW).signed_by(&key, &ca), ""),
    ] {
        let files = GatewayFiles {
            ca_pem: fs::read_to_string(gateway.state.join("ca-cert.pem")).unwrap(),
            cert_pem: cert.unwrap().pem(),
            key_pem: key.serialize_pem(),
        };
        let shown = block_on(async { listen(&files) });
        let port = shown.local_addr().unwrap().port();
        let mut record = agent.record();
        record["quic_endpoints"] = json!([format!("localhost:{port}")]);
        secret(&agent.state.join("agent.json"), &record.to_string());
        agent.spawn();
        let met = block_on(async { shown.accept().await.unwrap().await });
        if what == "good" {
            agent.process().logged("connected to the gateway");
            drop(met.unwrap());
        } else {
            // The agent has not shown who it is, nor said a word.
            assert!(met.is_err(), "{what}");
            let waits = agent
                .process()
                .logged("waiting before the next attempt to connect");
            assert_eq!(waits["cause"], "IdentityRefused", "{what}");
            let error = agent.status()["last_error"].as_str().unwrap().to_owned();
            assert!(
                error.contains("identity is not acceptable"),
                "{what}: {error}"
            );
            assert!(error.contains(says), "{what}: {error}");
        }
        agent.process_mut().kill();
    }
}

/// The gateway's CA, which nobody else has.
fn ca_of(gateway: &Gateway) -> Issuer<'static, KeyPair> {
    let read = |name: &str| fs::read_to_string(gateway.state.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    Issuer::from_ca_cert_pem(&read("ca-cert.pem"), key).unwrap()
}

/// A CA that nobody knows.
fn stranger() -> CertifiedIssuer<'static, KeyPair> {
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
}

/// First and last year of a certificate.
type Years = (i32, i32);

fn agents(id: &str, when: Years) -> CertificateParams {
    let mut params = params(vec![], when);
    params.distinguished_name.push(DnType::CommonName, "site-a");
    let uri = format!("urn:uuid:{id}").try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn servers(name: &str, when: Years) -> CertificateParams {
    let mut params = params(vec![name.to_owned()], when);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn params(names: Vec<String>, (first, last): Years) -> CertificateParams {
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(first, 1, 1);
    params.not_after = date_time_ymd(last, 1, 1);
    params
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

const PAST: Years = (2001, 2002);
const NOW: Years = (2001, 2999);
const FUTURE: Years = (2998, 2999);
