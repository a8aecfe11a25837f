use std::path::Path;

use super::*;
use crate::{
    config::{GatewayConfig, Surroundings},
    process::gateway::GatewayProcess,
};

#[tokio::test]
async fn certificates_are_made_again_by_time_and_steps_of_the_clock_change_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut gateway = start(root.path());
    let certificates = &mut gateway.certificates;
    let first = certificates.shown.clone();
    let clocks: [fn() -> UnixTime; 3] = [|| at(-1), || at(1), || at(300)];
    for clock in clocks {
        certificates.clock = clock;
        certificates.check().await;
        assert_eq!(certificates.shown.tunnel.chain(), first.tunnel.chain());
    }
    certificates.clock = || at(340);
    certificates.check().await;
    let second = certificates.shown.clone();
    assert_ne!(second.tunnel.chain(), first.tunnel.chain());
    assert_ne!(second.https.chain(), first.https.chain());
    assert_eq!(second.tunnel.spki_sha256(), first.tunnel.spki_sha256());
    assert_eq!(second.https.spki_sha256(), first.https.spki_sha256());
    // Made by a clock that was a day ahead: it is good for the day before, too.
    certificates.clock = || at(339);
    certificates.check().await;
    assert_eq!(certificates.shown.tunnel.chain(), second.tunnel.chain());
    gateway.stop().await;
}

#[tokio::test]
async fn a_former_ca_is_retired_when_its_last_certificate_has_ended() {
    let root = tempfile::tempdir().unwrap();
    let mut gateway = start(root.path());
    let certificates = &mut gateway.certificates;
    let view = certificates.rotate(BY).await.unwrap();
    let until = view.former_until_unix_s.unwrap();
    let year = i64::try_from(at(365).as_secs()).unwrap();
    assert!((year - 100..=year).contains(&until), "{until} {year}");
    let clocks: [fn() -> UnixTime; 2] = [|| at(364), || at(367)];
    for clock in clocks {
        certificates.clock = clock;
        certificates.check().await;
        assert!(certificates.ca.get().former().is_some());
    }
    certificates.clock = || at(369);
    certificates.check().await;
    assert!(certificates.ca.get().former().is_none());
    assert_eq!(certificates.view().await.unwrap().former_until_unix_s, None);
    gateway.stop().await;
}

#[tokio::test]
async fn a_ca_whose_certificates_cannot_be_written_takes_over_later() {
    let root = tempfile::tempdir().unwrap();
    let mut gateway = start(root.path());
    let file = root.path().join("state/server-cert.pem");
    let certificates = &mut gateway.certificates;
    let before = certificates.ca.get().spki_sha256();
    // No file can take the place of a folder that is not empty.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    let error = certificates.rotate(BY).await.unwrap_err().to_string();
    let says = |part: &str| error.contains(part);
    assert!(
        says("server-cert.pem") && says("not in force yet"),
        "{error}"
    );
    assert_eq!(certificates.ca.get().spki_sha256(), before, "not yet");
    certificates.check().await;
    assert_eq!(certificates.ca.get().spki_sha256(), before);
    std::fs::remove_dir_all(&file).unwrap();
    certificates.check().await;
    let ca = certificates.ca.get();
    assert!(ca.spki_sha256() != before && ca.former().is_some());
    gateway.stop().await;
}

#[tokio::test]
async fn a_rotation_that_cannot_be_carried_out_is_told_and_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let mut gateway = start(root.path());
    let file = root.path().join("state/ca-former.json");
    let certificates = &mut gateway.certificates;
    let before = certificates.ca.get().spki_sha256();
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    let error = certificates.rotate(BY).await.unwrap_err().to_string();
    let says = |part: &str| error.contains(part);
    assert!(
        says("ca-former.json") && says("not in force yet"),
        "{error}"
    );
    certificates.check().await;
    assert_eq!(certificates.ca.get().spki_sha256(), before);
    std::fs::remove_dir_all(&file).unwrap();
    // The former one has signed until now.
    certificates.clock = || at(10);
    certificates.check().await;
    let ca = certificates.ca.get();
    assert_ne!(ca.spki_sha256(), before);
    let until = ca.former().unwrap().last_not_after();
    let end = i64::try_from(at(375).as_secs()).unwrap();
    assert!((end - 100..=end).contains(&until), "{until} {end}");
    gateway.stop().await;
}

const BY: Actor = Actor::LocalUser { uid: 0 };

/// So many days from now.
fn at(days: i64) -> UnixTime {
    let now = unix_now().as_secs();
    let then = now.saturating_add_signed(days * 86_400);
    UnixTime::since_unix_epoch(Duration::from_secs(then))
}

fn start(root: &Path) -> GatewayProcess {
    let file = root.join("gateway.toml");
    let text = format!(
        "state_dir = {:?}\n[tunnel]\nlisten = \"127.0.0.1:0\"\nnames = [\"127.0.0.1\"]\n[enroll]\nlisten = \
         \"127.0.0.1:0\"\n",
        root.join("state")
    );
    std::fs::write(&file, text).unwrap();
    let loaded = GatewayConfig::load(Some((file, true)), &[], &Surroundings::default()).unwrap();
    GatewayProcess::start(&loaded.config).unwrap()
}
