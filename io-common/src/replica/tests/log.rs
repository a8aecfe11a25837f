//! What is in the log, for whoever is to find out why a link does not come about.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use tracing::subscriber::with_default;

use super::*;

#[test]
fn the_log_says_who_why_and_what_to_do() {
    let zero = || replica(0, Seal::Never);
    let three = || replica(3, Seal::Never);
    let other_key = with(CLUSTER, 0, Seal::Never, Some(keys(OTHER_KEY, None)));
    let old = with(CLUSTER, 0, Seal::Never, Some(keys(OTHER_KEY, Some(KEY))));
    let new = with(CLUSTER, 3, Seal::Never, Some(keys(KEY, Some(OTHER_KEY))));
    let silent = with(CLUSTER, 0, Seal::Never, None);
    let rows = [
        (
            zero(),
            3,
            three(),
            [" INFO", "link with a replica", "replica=r3"],
            [" INFO", "link with a replica", "replica=r0"],
        ),
        (
            other_key,
            3,
            three(),
            [
                " WARN",
                "no link with a replica that was dialled",
                "compare the shared secrets",
            ],
            [
                " WARN",
                "no link with whoever connected",
                "found this end's proof wrong",
            ],
        ),
        (
            zero(),
            2,
            three(),
            [" WARN", "replica=r2", "the address belongs to replica r3"],
            [
                " WARN",
                "no link with whoever connected",
                "closed the connection",
            ],
        ),
        (
            old,
            3,
            new,
            [" WARN", "previous shared secret", "change it there"],
            [" WARN", "previous shared secret", "replica=r0"],
        ),
        (
            silent,
            3,
            three(),
            [" WARN", "has proven nothing", "set the shared secret"],
            [
                " WARN",
                "replica r0 does not authenticate",
                "set the shared secret there",
            ],
        ),
    ];
    for (dialer, target, acceptor, near, far) in rows {
        let logs = logs_of(&dialer, target, &acceptor);
        for (log, words) in logs.iter().zip([near, far]) {
            assert_eq!(log.lines().count(), 1, "{log}");
            for word in words.into_iter().chain(["peer=127.0.0.1:"]) {
                assert!(log.contains(word), "{word}: {log}");
            }
            assert!(!log.contains(KEY) && !log.contains(OTHER_KEY), "{log}");
        }
    }
}

#[test]
fn who_has_no_place_is_told_and_a_flood_of_them_is_cut() {
    let (now, port, acceptor) = (Instant::now(), Port::open(), replica(3, Seal::Never));
    let log = Log::default();
    log.listen(|| {
        let mut open = Vec::new();
        for _ in 0..32 + 40 {
            let (near, (far, from)) = port.connect();
            open.push((near, acceptor.accept(now, far, from)));
        }
    });
    let text = log.text();
    assert_eq!(text.lines().count(), 20, "{text}");
    assert!(
        text.contains("32 replica handshakes from one source"),
        "{text}"
    );
}

/// What a handshake has both ends write down.
fn logs_of(dialer: &Replica, target: u8, acceptor: &Replica) -> [String; 2] {
    let now = Instant::now();
    let both = Port::open().begin(now, dialer, target, acceptor);
    thread::scope(|scope| {
        let threads = both.map(|handshake| {
            scope.spawn(move || {
                let log = Log::default();
                let outcome = log.listen(|| finish(now, handshake));
                (log.text(), outcome)
            })
        });
        // Both links are kept until both have been told.
        let ended = threads.map(|thread| thread.join().unwrap());
        ended.map(|(log, _)| log)
    })
}

/// The log of one thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen<T>(&self, act: impl FnOnce() -> T) -> T {
        let log = self.clone();
        let lines = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        with_default(lines, act)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
