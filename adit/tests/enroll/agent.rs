//! Enrolment as the agent does it: pins, keys, and what it keeps.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use adit::{
    enroll::{
        TransportError,
        client::{EnrolError, enrol},
        files::{AgentFiles, FilesError},
        pair::{KeyPairFile, PairName},
    },
    state::{StateDir, StateError},
    store::AdmitError,
};
use adit_proto_core::identity::AgentIdentity;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use crate::gateway::{Gateway, PIN, Scheme, state_of};

#[test]
fn agent_enrols_over_pinned_https() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let files = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    assert_eq!(files.name, "site a");
    assert_eq!(files.quic_endpoints, ["gw.example:4433"]);
    assert_eq!(files.server_spki_sha256, PIN);
    assert!(files.renews_with_new_key);

    let dir = StateDir::open_existing(state_of(&agent)).unwrap();
    let loaded = AgentFiles::load(&dir).unwrap();
    assert_eq!(loaded.id, files.id);
    assert_eq!(loaded.gateway_url, gateway.url());
    for name in ["agent-pair.json", "agent.json"] {
        let mode = fs::metadata(dir.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let records = gateway.store().agents().wait().unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].hostname.as_deref(), Some("host-1"));
    let mut identity = AgentIdentity {
        id: files.id,
        name: "site a".into(),
        fingerprint: records[0].fingerprint,
        spki_sha256: records[0].spki_sha256,
    };
    let directory = gateway.store().directory();
    assert_eq!(directory.admit(&identity), Ok(()));
    identity.spki_sha256[0] ^= 1;
    assert_eq!(directory.admit(&identity), Err(AdmitError::OtherKey));
}

#[test]
fn second_enrolment_keeps_id_and_key() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let first = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    let second = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    assert_eq!(second.id, first.id);
    assert_eq!(second.pair.key_pem, first.pair.key_pem);
    assert_ne!(second.pair.cert_pem, first.pair.cert_pem);
}

#[test]
fn whichever_of_its_keys_the_gateway_knows_an_agent_enrols_with_it() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let first = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    let dir = StateDir::open_existing(state_of(&agent)).unwrap();
    let stranger = || {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::default().self_signed(&key).unwrap();
        KeyPairFile {
            key_pem: key.serialize_pem().into(),
            cert_pem: cert.pem(),
            ca_pem: cert.pem(),
        }
    };
    // A renewed pair that the gateway never heard of.
    stranger().save(&dir, PairName::Next).unwrap();
    let second = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    assert_eq!(second.id, first.id);
    assert_eq!(second.pair.key_pem, first.pair.key_pem);
    // The gateway was restored from a backup that is older than the latest renewal.
    second.pair.save(&dir, PairName::Previous).unwrap();
    stranger().save(&dir, PairName::Current).unwrap();
    let third = enrol(&gateway.request(&agent, gateway.token())).unwrap();
    assert_eq!(third.id, first.id);
    assert_eq!(third.pair.key_pem, first.pair.key_pem);
    // None of them.
    stranger().save(&dir, PairName::Current).unwrap();
    let error = enrol(&gateway.request(&agent, gateway.token())).unwrap_err();
    assert!(
        matches!(error, EnrolError::Refused { status: 409, .. }),
        "{error}"
    );
}

#[test]
fn string_is_used_once_and_the_loser_changes_nothing() {
    let gateway = Gateway::start(Scheme::Https);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let token = gateway.token();
    enrol(&gateway.request(&one, token.clone())).unwrap();
    let error = enrol(&gateway.request(&two, token)).unwrap_err();
    assert!(
        matches!(error, EnrolError::Refused { status: 401, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("create a new one"), "{error}");
    assert_eq!(fs::read_dir(state_of(&two)).unwrap().count(), 0);
    let dir = StateDir::open_existing(state_of(&two)).unwrap();
    assert!(matches!(
        AgentFiles::load(&dir),
        Err(FilesError::NotEnrolled)
    ));
}

#[test]
fn other_server_than_the_pinned_one_is_not_trusted() {
    let gateway = Gateway::start(Scheme::Https);
    let imposter = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let token = gateway.token();
    let mut request = gateway.request(&agent, token.clone());
    request.gateway_url_override = Some(imposter.url());
    let error = enrol(&request).unwrap_err();
    assert!(
        matches!(error, EnrolError::Transport(TransportError::PinMismatch)),
        "{error}"
    );
    enrol(&gateway.request(&agent, token)).unwrap();
}

#[test]
fn without_a_pin_the_system_roots_decide() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let token = gateway.sign(json!({}), &gateway.claims());
    let error = enrol(&gateway.request(&agent, token)).unwrap_err();
    assert!(
        matches!(error, EnrolError::Transport(TransportError::Tls(_))),
        "{error}"
    );
}

#[test]
fn plain_http_is_used_on_request_only() {
    let gateway = Gateway::start(Scheme::Http);
    let agent = tempfile::tempdir().unwrap();
    let mut request = gateway.request(&agent, gateway.token());
    assert!(matches!(enrol(&request), Err(EnrolError::PlainHttp)));
    request.allow_http = true;
    enrol(&request).unwrap();
}

#[test]
fn unwritable_state_folder_spends_no_token() {
    let gateway = Gateway::start(Scheme::Https);
    let agent = tempfile::tempdir().unwrap();
    let token = gateway.token();
    let mut request = gateway.request(&agent, token.clone());
    request.state_dir = PathBuf::from("/proc/adit-agent");
    let error = enrol(&request).unwrap_err();
    assert!(
        matches!(error, EnrolError::State(StateError::Create { .. })),
        "{error}"
    );
    enrol(&gateway.request(&agent, token)).unwrap();
}
