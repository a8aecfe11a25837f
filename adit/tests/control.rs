//! What operators change in a running gateway, without a process of its own.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    reason = "a failed test may panic, in its helpers too"
)]

use std::{future::Future, path::Path, pin::Pin, task::Poll, time::Duration};

use adit::{
    admin::TokenRequest,
    config::{AgentConfig, GatewayConfig, Surroundings},
    control::{Actor, ControlError},
    enroll::client::{EnrolRequest, enrol},
    process::{agent::AgentProcess, gateway::GatewayProcess},
};
use adit_proto_core::gateway::info::AgentInfo;

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_a_change_half_way() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = gateway(dir.path());
    let agent = connected(&gateway, dir.path()).await;
    let (id, control) = (only_agent(&gateway).await.identity.id, gateway.control());
    // The deletion waits for its turn when its caller goes away.
    let mut draining = Box::pin(control.drain_agent(BY, id, true));
    assert!(begins(&mut draining).await);
    let mut deleting = Box::pin(control.delete_agent(BY, id));
    assert!(begins(&mut deleting).await);
    drop(deleting);
    assert_eq!(draining.await.unwrap().agent.id, id);
    let drained = control.drain_agent(BY, id, true).await;
    assert!(matches!(drained, Err(ControlError::UnknownAgent(_))));
    assert!(control.agents().await.unwrap().is_empty());
    assert!(!gateway.handle().is_connected(id).await.unwrap());
    tokio::task::spawn_blocking(|| agent.stop()).await.unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn changes_that_come_at_once_leave_store_and_gateway_agreed() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = gateway(dir.path());
    let agent = connected(&gateway, dir.path()).await;
    let (id, control) = (only_agent(&gateway).await.identity.id, gateway.control());
    let mut changes = tokio::task::JoinSet::new();
    for n in 0..32 {
        let control = control.clone();
        changes.spawn(async move { control.drain_agent(BY, id, n % 3 == 0).await });
    }
    for change in changes.join_all().await {
        assert_eq!(change.unwrap().agent.id, id);
    }
    let stored = control.agent("site-a").await.unwrap().drained;
    assert_eq!(only_agent(&gateway).await.drained, stored);
    assert_eq!(control.delete_agent(BY, id).await.unwrap().closed, 1);
    let again = control.delete_agent(BY, id).await;
    assert!(matches!(again, Err(ControlError::UnknownAgent(unknown)) if unknown == id));
    tokio::task::spawn_blocking(|| agent.stop()).await.unwrap();
    gateway.stop().await;
}

/// Polls a future once; tells whether it has more to do.
async fn begins<F: Future + Unpin>(future: &mut F) -> bool {
    let mut future = Pin::new(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

const BY: Actor = Actor::LocalUser { uid: 0 };

fn gateway(dir: &Path) -> GatewayProcess {
    let file = dir.join("gateway.toml");
    let text = format!(
        "state_dir = {:?}\n[tunnel]\nlisten = \"127.0.0.1:0\"\nnames = [\"127.0.0.1\"]\n\
         [enroll]\nlisten = \"127.0.0.1:0\"\n",
        dir.join("state")
    );
    std::fs::write(&file, text).unwrap();
    let loaded = GatewayConfig::load(Some((file, true)), &[], &Surroundings::default()).unwrap();
    GatewayProcess::start(&loaded.config).unwrap()
}

/// Enrols an agent through the real interface, starts it, and waits until the gateway knows it.
async fn connected(gateway: &GatewayProcess, dir: &Path) -> AgentProcess {
    let request = TokenRequest {
        name: "site-a".to_owned(),
        lifetime_s: 60,
        url: None,
    };
    let token = (gateway.tokens())(request).await.unwrap().token;
    let state_dir = dir.join("agent");
    let request = EnrolRequest {
        enrolment_string: token.into(),
        gateway_url_override: None,
        allow_http: false,
        hostname: None,
        state_dir: state_dir.clone(),
    };
    let enrolling = tokio::task::spawn_blocking(move || enrol(&request));
    let id = enrolling.await.unwrap().unwrap().id;
    let file = dir.join("agent.toml");
    std::fs::write(&file, format!("state_dir = {state_dir:?}\n")).unwrap();
    let loaded = AgentConfig::load(Some((file, true)), &[], &Surroundings::default()).unwrap();
    let agent = AgentProcess::start(&loaded.config).unwrap();
    let known = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !gateway.handle().is_connected(id).await.unwrap() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), known)
        .await
        .unwrap();
    agent
}

async fn only_agent(gateway: &GatewayProcess) -> AgentInfo {
    let mut agents = gateway.handle().agents().await.unwrap();
    assert_eq!(agents.len(), 1);
    agents.remove(0)
}
