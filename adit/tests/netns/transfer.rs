//! Bytes both ways at once, each of which is looked at.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    ops::Range,
    sync::mpsc,
    time::{Duration, Instant},
};

/// Sends so many blocks each way, and checks that all arrive unchanged and in order, up to a clean end. Gives the longest
/// time that the user waited for a block.
pub(crate) fn exchange(user: &TcpStream, far: &TcpStream, blocks: usize) -> Duration {
    exchange_over(user, far, blocks, None::<fn()>)
}

/// The same, with a change when half of what is for the user has come.
pub(crate) fn exchange_over_change(
    user: &TcpStream,
    far: &TcpStream,
    blocks: usize,
    change: impl FnOnce(),
) -> Duration {
    exchange_over(user, far, blocks, Some(change))
}

fn exchange_over(
    user: &TcpStream,
    far: &TcpStream,
    blocks: usize,
    change: Option<impl FnOnce()>,
) -> Duration {
    // Whichever direction is faster, the last block of the user's waits for the change.
    let (before, changed) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            send(user, UP, 0..blocks - 1);
            let _is_over = changed.recv();
            send(user, UP, blocks - 1..blocks);
            finish(user);
        });
        scope.spawn(|| {
            send(far, DOWN, 0..blocks);
            finish(far);
        });
        scope.spawn(|| {
            for n in 0..blocks {
                take(far, UP, n);
            }
            ends(far);
        });
        let first = (0..blocks / 2).map(|n| take(user, DOWN, n)).max();
        if let Some(change) = change {
            change();
        }
        drop(before);
        let then = (blocks / 2..blocks).map(|n| take(user, DOWN, n)).max();
        ends(user);
        first.max(then).unwrap_or_default()
    })
}

/// Block n of a direction; no two that follow one another, or cross one another, are alike.
fn block(direction: usize, n: usize) -> Vec<u8> {
    vec![u8::try_from((n * 2 + direction) % 251).unwrap(); BLOCK]
}

fn send(mut to: &TcpStream, direction: usize, blocks: Range<usize>) {
    for n in blocks {
        to.write_all(&block(direction, n)).unwrap();
    }
}

fn finish(to: &TcpStream) {
    to.shutdown(Shutdown::Write).unwrap();
}

fn take(mut from: &TcpStream, direction: usize, n: usize) -> Duration {
    let (start, mut got) = (Instant::now(), vec![0; BLOCK]);
    from.read_exact(&mut got).unwrap();
    assert!(got == block(direction, n), "block {n} came changed");
    start.elapsed()
}

fn ends(mut from: &TcpStream) {
    assert_eq!(from.read(&mut [0]).unwrap(), 0);
}

const UP: usize = 0;
const DOWN: usize = 1;
const BLOCK: usize = 250_000;
/// As many blocks as make a megabyte.
pub(crate) const MEGABYTE: usize = 4;
