//! An imitation of the reference agent, written after the specification: what an adit gateway has to live with.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{io::AsyncWriteExt, sync::mpsc};

use super::{
    RUNTIME, SOON, block_on,
    reference::{ACCEPTED, ROUTE_ADVERTISE, Streams, dial, frame, framed},
    site::{Agent, Gateway},
};

/// An agent as section 18 describes it: it advertises once, sends no acknowledgement and no count, dials what it is
/// asked for, and ends its half only when both have ended (section 11.2).
pub(crate) struct ReferenceAgent {
    endpoint: quinn::Endpoint,
    pub(crate) connection: quinn::Connection,
    pub(crate) control: Streams,
    /// Sessions asked for so far.
    pub(crate) asked: Arc<AtomicUsize>,
    /// What was asked for, for each session.
    pub(crate) requests: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl ReferenceAgent {
    /// Connects with an enrolment, and waits until the gateway has its routes.
    pub(crate) fn connect(agent: &Agent, gateway: &Gateway) -> Self {
        let before = gateway.process().count("routes accepted");
        let reference = block_on(Self::start(agent, gateway.address("tunnel")));
        gateway.routes_to(&agent.id(), before + 1);
        reference
    }

    async fn start(agent: &Agent, gateway: SocketAddr) -> Self {
        let (endpoint, connection) = dial(&agent.state, gateway).await;
        let mut control = connection.open_bi().await.unwrap();
        control.0.write_all(&framed(ROUTE_ADVERTISE)).await.unwrap();
        let asked = Arc::<AtomicUsize>::default();
        let (tell, requests) = mpsc::unbounded_channel();
        let (accepting, count) = (connection.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok(streams) = accepting.accept_bi().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(streams, tell.clone()));
            }
        });
        Self {
            endpoint,
            connection,
            control,
            asked,
            requests,
        }
    }
}

impl Drop for ReferenceAgent {
    fn drop(&mut self) {
        self.connection.close(0u32.into(), b"shutting down");
        let idle = self.endpoint.wait_idle();
        let _told = RUNTIME.block_on(async { tokio::time::timeout(SOON, idle).await });
    }
}

async fn serve((mut send, mut recv): Streams, tell: mpsc::UnboundedSender<Vec<u8>>) {
    let request = frame(&mut recv).await;
    // agent-tunnel 7.1: TCP, version 1, 16 bytes of session id, a string.
    assert_eq!(request[..3], [1, 0, 1]);
    let (length, target) = request[19..].split_at(4);
    assert_eq!(
        u32::from_be_bytes(length.try_into().unwrap()) as usize,
        target.len()
    );
    let target = String::from_utf8(target.to_vec()).unwrap();
    // A test that does not look has dropped the other end.
    let _unseen = tell.send(request);
    let Ok(mut tcp) = tokio::net::TcpStream::connect(&target).await else {
        let reason = b"connect: refused";
        let mut refusal = b"\x01\x00\x01\x00\x00\x00\x10".to_vec();
        refusal.extend(reason);
        send.write_all(&framed(&refusal)).await.unwrap();
        send.finish().unwrap();
        return;
    };
    send.write_all(&framed(ACCEPTED)).await.unwrap();
    let (mut from, mut to) = tcp.split();
    // Neither end is passed on before both have come: a flaw that a gateway has to live with.
    let up = tokio::io::copy(&mut recv, &mut to);
    let down = tokio::io::copy(&mut from, &mut send);
    let (_up, _down) = tokio::join!(up, down);
    let _gone = to.shutdown().await;
    let _gone = send.finish();
}
