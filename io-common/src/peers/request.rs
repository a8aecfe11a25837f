//! What peers ask, on its way to the application and back.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use adit_proto_core::{
    id::Slot,
    peer::{NodeId, interest::Interest, rpc_type::RpcType},
};
use bytes::Bytes;
use futures_channel::oneshot;

use super::{REQUESTS_LEN, role::PeerCommand, shares::Share};
use crate::{
    commands::{Command, Commands},
    handoff::{Receiver, Sender, handoff},
};

/// What a peer asks. Its sender was proved, and it is no repetition.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub from: NodeId,
    /// What is asked.
    pub kind: RpcType,
    /// The body.
    pub payload: Bytes,
    /// Whether anybody waits for the answer: what was given up meanwhile need not be executed.
    pub interest: Interest,
    /// The way for the answer.
    pub responder: Responder,
}

/// The way of one answer. Dropping it refuses the request as overload where the application never had it, so that nothing
/// was executed; of one that [`Requests`] have handed over that cannot be known, and dropping it is
/// [`fail`](Self::fail): the caller must not send it again.
#[derive(Debug)]
pub struct Responder {
    slot: Slot,
    way: Option<Commands<PeerCommand>>,
    /// The application has the request.
    is_taken: bool,
    /// Of what its node may have here, however long its connection lasts.
    share: Option<Share>,
}

impl Responder {
    pub(super) fn new(slot: Slot, way: Commands<PeerCommand>) -> Self {
        Self {
            slot,
            way: Some(way),
            is_taken: false,
            share: None,
        }
    }

    /// Holds a node's part until the request is answered or dropped.
    pub(super) fn hold(&mut self, share: Share) {
        self.share = Some(share);
    }

    /// Answers. A request that goes one way is answered by the end of its stream alone, whatever the body; a body that
    /// does not fit an envelope is no answer, as of [`fail`](Self::fail).
    pub fn answer(mut self, payload: Bytes) {
        self.tell(PeerCommand::Answer(self.slot, payload));
    }

    /// Does not answer: the caller cannot know whether the request was executed.
    pub fn fail(mut self) {
        self.tell(PeerCommand::Fail(self.slot));
    }

    /// Refuses what was not executed; a caller that knows refusals tries again after that time.
    pub fn refuse(mut self, retry_after: Duration) {
        self.tell(PeerCommand::Refuse(self.slot, retry_after));
    }

    /// A connection that has ended, or a caller that waits no more, needs no answer.
    fn tell(&mut self, command: PeerCommand) {
        if let Some(way) = self.way.take() {
            way.push_or_stop(Command::Role(command));
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.tell(match self.is_taken {
            true => PeerCommand::Fail(self.slot),
            false => PeerCommand::Refuse(self.slot, OVERLOAD_PAUSE),
        });
    }
}

/// Until a request that was refused without a time of its own may come again.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// What all peers ask, at most [`REQUESTS_LEN`] at a time beside those of the batch that was taken last.
#[derive(Debug)]
pub struct Requests {
    queue: Receiver<Request>,
    batch: VecDeque<Request>,
    /// Closed by the end of the owner.
    ended: oneshot::Receiver<()>,
}

/// Makes the queue of requests. The second value is the owner's: with it the queue ends.
#[must_use]
pub fn requests() -> (Sender<Request>, oneshot::Sender<()>, Requests) {
    let (sender, queue) = handoff(REQUESTS_LEN);
    let (end, ended) = oneshot::channel();
    let batch = VecDeque::new();
    let requests = Requests {
        queue,
        batch,
        ended,
    };
    (sender, end, requests)
}

impl Requests {
    /// The next request for which somebody waits still; none once the node has stopped.
    pub async fn next(&mut self) -> Option<Request> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same as a poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        loop {
            if self.batch.is_empty() && self.queue.poll_take(cx, &mut self.batch).is_pending() {
                return Pin::new(&mut self.ended).poll(cx).map(|_| None);
            }
            // What was given up while it waited must not be executed.
            let next = self.batch.pop_front();
            if let Some(mut request) = next.filter(|request| request.interest.lasts()) {
                request.responder.is_taken = true;
                return Poll::Ready(Some(request));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_proto_core::id::ConnId;

    use super::*;

    fn request(slot: u64, way: &Sender<(ConnId, Command<PeerCommand>)>) -> Request {
        let way = Commands::Shared(ConnId(1), way.clone());
        Request {
            from: NodeId(2),
            kind: RpcType::Ping,
            payload: Bytes::new(),
            interest: Interest::default(),
            responder: Responder::new(Slot(slot), way),
        }
    }

    fn told(commands: &Receiver<(ConnId, Command<PeerCommand>)>) -> Vec<PeerCommand> {
        let cx = Context::from_waker(std::task::Waker::noop());
        let mut batch = VecDeque::new();
        let _taken = commands.poll_take(&cx, &mut batch);
        let role = |(_, command)| {
            let Command::Role(command) = command else {
                panic!("of no role");
            };
            command
        };
        batch.into_iter().map(role).collect()
    }

    #[test]
    fn a_request_is_answered_once_or_refused_when_dropped() {
        let (way, commands) = handoff(8);
        request(1, &way).responder.answer(Bytes::from_static(b"x"));
        request(2, &way).responder.fail();
        drop(request(3, &way));
        let told = told(&commands);
        assert!(matches!(&told[0], PeerCommand::Answer(Slot(1), body) if body == "x"));
        assert!(matches!(told[1], PeerCommand::Fail(Slot(2))));
        assert!(matches!(
            told[2],
            PeerCommand::Refuse(Slot(3), OVERLOAD_PAUSE)
        ));
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn a_request_that_was_given_up_while_it_waited_is_not_handed_over() {
        let (way, _commands) = handoff(8);
        let (sender, end, mut requests) = requests();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let waiting = [1, 2, 3].map(|slot| request(slot, &way));
        let interests = waiting.each_ref().map(|request| request.interest.clone());
        for request in waiting {
            sender.push(request).unwrap();
        }
        interests[0].end();
        interests[1].end();
        let Poll::Ready(Some(taken)) = requests.poll_next(&mut cx) else {
            panic!("one waits");
        };
        assert_eq!(taken.responder.slot, Slot(3));
        assert!(requests.poll_next(&mut cx).is_pending());
        drop(end);
        assert!(matches!(requests.poll_next(&mut cx), Poll::Ready(None)));
    }

    #[test]
    fn a_request_that_the_application_has_is_not_refused_as_unexecuted() {
        let (way, commands) = handoff(8);
        let (sender, _end, mut requests) = requests();
        for slot in 1..=3 {
            sender.push(request(slot, &way)).unwrap();
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Some(taken)) = requests.poll_next(&mut cx) else {
            panic!("three wait");
        };
        drop(taken);
        assert!(matches!(told(&commands)[..], [PeerCommand::Fail(Slot(1))]));
        // The others were taken from the queue with it, and nobody has seen them.
        drop(requests);
        assert!(matches!(
            told(&commands)[..],
            [
                PeerCommand::Refuse(Slot(2), OVERLOAD_PAUSE),
                PeerCommand::Refuse(Slot(3), OVERLOAD_PAUSE)
            ]
        ));
    }

    #[test]
    fn the_queue_is_bounded_and_ends_with_its_owner() {
        let (way, commands) = handoff(8);
        let (sender, end, mut requests) = requests();
        for slot in 0..REQUESTS_LEN as u64 {
            sender.push(request(slot, &way)).unwrap();
        }
        drop(sender.push(request(77, &way)).unwrap_err());
        assert!(matches!(
            told(&commands)[..],
            [PeerCommand::Refuse(Slot(77), _)]
        ));
        drop(end);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for slot in 0..REQUESTS_LEN as u64 {
            let Poll::Ready(Some(request)) = requests.poll_next(&mut cx) else {
                panic!("what came before the end is handed over");
            };
            assert_eq!(request.responder.slot, Slot(slot));
            request.responder.fail();
            told(&commands);
        }
        assert!(matches!(requests.poll_next(&mut cx), Poll::Ready(None)));
    }
}
