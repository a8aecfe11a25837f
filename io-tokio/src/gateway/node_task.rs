//! The node's task, and a task for each session that the gateway carries itself.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    time::{Duration, Instant},
};

use adit_io_common::{
    gateway::{Node, NodeHost, NodeInput},
    handoff::{Receiver, Sender},
    over::Over,
    pump::Traffic,
    splice::Spliced,
};
use adit_proto_core::id::SessionId;
use tokio::{sync::oneshot, time::sleep_until};

use crate::{joined::Joined, leg::TokioLeg};

/// Runs until told to stop and nothing is left.
pub(super) async fn run(mut node: Node, inputs: Receiver<NodeInput>, own: Sender<NodeInput>) {
    let mut host = Host {
        own,
        ends: BTreeMap::new(),
    };
    let mut batch = VecDeque::new();
    loop {
        let far = Instant::now() + Duration::from_secs(3_600);
        let deadline = node.poll_timeout().unwrap_or(far);
        tokio::select! {
            () = inputs.take(&mut batch) => {}
            () = sleep_until(deadline.into()) => {}
        }
        let now = Instant::now();
        while let Some(input) = batch.pop_front() {
            if let NodeInput::SessionOver { session, .. } = &input {
                host.ends.remove(session);
            }
            node.handle_input(now, input, &mut host);
        }
        if node.is_over() {
            return;
        }
        node.handle_timeout(now);
    }
}

/// What the task does for the node.
struct Host {
    own: Sender<NodeInput>,
    /// Ends a session whose sockets are joined; dropping it cuts the session.
    ends: BTreeMap<SessionId, oneshot::Sender<Over>>,
}

impl NodeHost for Host {
    fn splice(&mut self, session: SessionId, spliced: Spliced) {
        let (end, ended) = oneshot::channel();
        self.ends.insert(session, end);
        let own = self.own.clone();
        tokio::spawn(async move {
            let (traffic, how) = splice(spliced, ended).await;
            own.push_or_stop(NodeInput::SessionOver {
                session,
                traffic,
                how,
            });
        });
    }

    fn end_splice(&mut self, session: SessionId, how: Over) {
        if let Some(end) = self.ends.remove(&session) {
            // One that has just ended by itself tells of that.
            let _ended = end.send(how);
        }
    }
}

async fn splice(spliced: Spliced, ended: oneshot::Receiver<Over>) -> (Traffic, Over) {
    let alone = |_, socket| TokioLeg::alone(socket);
    let Some(splice) = spliced.join(Instant::now(), alone) else {
        return (Traffic::begin(), Over::TcpReset);
    };
    let mut joined = Joined::new(splice);
    let how = tokio::select! {
        biased;
        // Without a node the gateway is gone.
        how = ended => how.unwrap_or(Over::Cut),
        how = poll_fn(|cx| joined.poll(cx)) => how,
    };
    (joined.end(how), how)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as StdStream};

    use adit_io_common::socket::Carried;
    use adit_proto_core::session_timer::SessionBounds;
    use tokio::{io::AsyncReadExt, net::TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_session_whose_gateway_is_gone_is_cut() {
        let ((mut user, near), (mut target, far)) = (connected(), connected());
        let spliced = Spliced {
            user: Carried::new(near),
            target: Carried::new(far),
            early: bytes::Bytes::new(),
            bounds: SessionBounds::default(),
        };
        let (end, ended) = oneshot::channel();
        let splice = tokio::spawn(splice(spliced, ended));
        drop(end);
        assert_eq!(splice.await.unwrap().1, Over::Cut);
        for end in [&mut user, &mut target] {
            let error = end.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }

    /// A connection's two ends; the second is on its way to whoever carries it.
    fn connected() -> (TcpStream, StdStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let end = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        for stream in [&end, &other] {
            stream.set_nonblocking(true).unwrap();
        }
        (TcpStream::from_std(end).unwrap(), other)
    }
}
