//! The node's task, and a task for each session that the gateway carries itself.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use adit_io_common::{
    gateway::{Node, NodeHost, NodeInput, Spliced},
    handoff::{Receiver, Sender},
    over::Over,
    pump::Traffic,
    splice::{Splice, SpliceTurn},
};
use adit_proto_core::id::SessionId;
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep_until},
};

use crate::leg::TokioLeg;

/// Runs until told to stop and all connections that there were then have ended.
pub(super) async fn run(mut node: Node, inputs: Receiver<NodeInput>, own: Sender<NodeInput>) {
    let mut host = Host {
        own,
        kills: BTreeMap::new(),
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
                host.kills.remove(session);
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
    /// Ends a session whose sockets are joined.
    kills: BTreeMap<SessionId, oneshot::Sender<()>>,
}

impl NodeHost for Host {
    fn splice(&mut self, session: SessionId, spliced: Spliced) {
        let (kill, killed) = oneshot::channel();
        self.kills.insert(session, kill);
        let own = self.own.clone();
        tokio::spawn(async move {
            let (traffic, how) = splice(spliced, killed).await;
            own.push_or_stop(NodeInput::SessionOver {
                session,
                traffic,
                how,
            });
        });
    }

    fn end_splice(&mut self, session: SessionId) {
        if let Some(kill) = self.kills.remove(&session) {
            // One that has just ended by itself tells of that.
            let _ended = kill.send(());
        }
    }
}

async fn splice(spliced: Spliced, killed: oneshot::Receiver<()>) -> (Traffic, Over) {
    let Spliced {
        user,
        target,
        early,
        bounds,
    } = spliced;
    let alone = |socket| TokioLeg::alone(socket).ok();
    let (user, target) = (user.release(), target.release());
    let (Some(user), Some(target)) = (user.and_then(alone), target.and_then(alone)) else {
        return (Traffic::begin(), Over::TcpReset);
    };
    let splice = Splice::new(Instant::now(), (user, target), early, bounds);
    let mut joined = Joined(Some(splice));
    let mut timer = Box::pin(sleep_until(tokio::time::Instant::now()));
    let how = tokio::select! {
        biased;
        // Whoever could do it may be gone; then it goes on.
        Ok(()) = killed => Over::Killed,
        how = poll_fn(|cx| joined.poll(&mut timer, cx)) => how,
    };
    (joined.end(how), how)
}

/// Two sockets that are reset when nobody ends them, as when the process does.
struct Joined(Option<Splice<TokioLeg>>);

impl Joined {
    fn poll(&mut self, timer: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> Poll<Over> {
        let Some(splice) = &mut self.0 else {
            return Poll::Ready(Over::Cut);
        };
        let (user, target) = splice.legs();
        user.wake(cx);
        target.wake(cx);
        match splice.turn(Instant::now()) {
            SpliceTurn::Over(how) => return Poll::Ready(how),
            SpliceTurn::More => cx.waker().wake_by_ref(),
            SpliceTurn::Waiting => {}
        }
        if let Some(at) = splice.poll_timeout() {
            timer.as_mut().reset(at.into());
            if timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn end(&mut self, how: Over) -> Traffic {
        self.0
            .take()
            .map_or_else(Traffic::begin, |splice| splice.end(how))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.end(Over::Cut);
    }
}
