//! Users whose end of a session is a pipe within the process.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    task::{Context, Poll},
    thread,
};

use adit_io_common::pipe::Pipe;
use bytes::Bytes;

use crate::{
    bed::{
        Bed,
        end::{End, bytes, shown},
        wait::block_on,
    },
    conform,
};

#[test]
fn a_pipe_carries_bytes_both_ways_until_both_ends_have_ended() {
    conform(|bed| {
        let (mut user, mut target) = begin(bed);
        user.send(b"question");
        target.receive(8);
        user.0.shutdown();
        target.receive_rest();
        target.send(b"answer");
        target.finish();
        assert_eq!(user.receive_rest().unwrap(), b"answer");
    });
}

#[test]
fn a_pipe_that_is_not_read_holds_its_target_up_and_loses_nothing() {
    conform(|bed| {
        let (mut user, target) = begin(bed);
        let (up, down) = (bytes(1, 1 << 20), bytes(2, 1 << 20));
        let mut writes = target.duplicate();
        let sent = down.clone();
        let sends = thread::spawn(move || {
            writes.stream_send(&sent);
            writes.finish_quietly();
        });
        let mut reads = target.duplicate();
        let received = thread::spawn(move || reads.trickle(10_000));
        user.send(&up);
        user.0.shutdown();
        assert_eq!(shown(&received.join().unwrap()), shown(&up));
        assert_eq!(shown(&user.receive_rest().unwrap()), shown(&down));
        sends.join().unwrap();
    });
}

#[test]
fn a_pipe_gets_to_know_why_it_was_reset() {
    conform(|bed| {
        let (mut user, mut target) = begin(bed);
        target.send(b"half");
        assert_eq!(user.receive(4), b"half");
        target.reset();
        let error = user.receive_rest().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        bed.note("pipe", &format!("reset: {error}"));
    });
}

#[test]
fn a_pipe_that_is_dropped_resets_its_target() {
    conform(|bed| {
        let (mut user, mut target) = begin(bed);
        user.send(b"half");
        target.receive(4);
        drop(user);
        target.receive_reset();
    });
}

fn begin(bed: &mut Bed) -> (User, End) {
    bed.begin();
    let target = bed.target("target", None);
    let pending = bed.ask(&target.addr().into()).unwrap();
    let (user, ingress) = Pipe::pair();
    pending.attach(ingress, Bytes::new());
    let target = bed.end(target.accept(), "target".to_owned());
    (User(user), target)
}

/// The user's end of a pipe, used by calls that wait.
struct User(Pipe);

impl User {
    fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let write = |cx: &mut Context<'_>| self.0.poll_write(cx, &[IoSlice::new(bytes)]);
            let len = block_on(poll_fn(write)).unwrap();
            bytes = &bytes[len..];
        }
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let read = |cx: &mut Context<'_>| -> Poll<_> { self.0.poll_read(cx, 10_000) };
        block_on(poll_fn(read))
    }

    fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            bytes.extend(self.read().unwrap());
        }
        bytes
    }

    fn receive_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            match self.read()? {
                end if end.is_empty() => return Ok(bytes),
                read => bytes.extend(read),
            }
        }
    }
}
