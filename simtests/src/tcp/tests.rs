use uuid::Uuid;

use super::*;
use crate::{oracle::Oracles, trace::Trace};

const SESSION: SessionId = SessionId(Uuid::from_u128(7));
const LATENCY: At = At::from_micros(300);

/// One program, and a node that this test plays.
struct Bed {
    legs: Legs,
    log: Log,
    at: At,
    leg: LegId,
}

impl Bed {
    fn new(side: Side, script: Script) -> Self {
        let mut legs = Legs::default();
        let mut log = Log::new(Trace::with_lines(1), Oracles::default());
        let place = (ConnId(1), Slot(2));
        let leg = legs.attach(
            At::ZERO,
            &mut log,
            NodeId(0),
            place,
            (side, SESSION, script),
        );
        Self {
            legs,
            log,
            at: At::ZERO,
            leg,
        }
    }

    fn of(script: Script) -> Self {
        Self::new(Side::User, script)
    }

    /// Lets programs act until then.
    fn run_to(&mut self, until: At) {
        while let Some(at) = self.legs.next_at().filter(|at| *at <= until) {
            self.at = at.max(self.at);
            self.legs.run(self.at, &mut self.log);
        }
        self.at = until;
    }

    fn run_for(&mut self, time: At) {
        self.run_to(self.at + time);
    }

    /// Reads all that is there, and says what was found behind it.
    fn read(&mut self) -> (Vec<u8>, Taken) {
        let mut read = Vec::new();
        loop {
            match self.legs.read(self.at, self.leg, 10_000) {
                Taken::Bytes(bytes) => read.extend_from_slice(&bytes),
                end @ (Taken::End | Taken::Reset | Taken::Nothing) => return (read, end),
            }
        }
    }

    fn write(&mut self, bytes: &mut Bytes) -> Given {
        self.legs.write(self.at, &mut self.log, self.leg, bytes)
    }

    fn finish(&mut self) -> bool {
        self.legs.finish(self.at, &mut self.log, self.leg)
    }

    fn is_ready(&mut self) -> bool {
        let ready = self.legs.poll_ready();
        while self.legs.poll_ready().is_some() {}
        ready == Some((NodeId(0), ConnId(1), Slot(2)))
    }

    fn said(&mut self, what: &str) -> bool {
        let lines = self.log.trace.take_lines();
        lines.iter().any(|line| line.text.ends_with(what))
    }
}

fn whole(from: Side, total: u64) -> Vec<u8> {
    let mut whole = Vec::new();
    while (whole.len() as u64) < total {
        let at = whole.len() as u64;
        whole.extend_from_slice(&pattern(SESSION, from, at, total - at));
    }
    whole
}

#[test]
fn a_program_writes_its_pattern_and_ends() {
    let mut bed = Bed::of(Script {
        ending: Ending::Fin,
        ..Script::short(40_000)
    });
    assert_eq!(bed.read(), (vec![], Taken::Nothing));
    bed.run_to(LATENCY);
    assert!(bed.is_ready());
    assert_eq!(bed.read(), (whole(Side::User, 40_000), Taken::End));
}

#[test]
fn a_program_keeps_its_pace() {
    let mut bed = Bed::of(Script {
        total: 25,
        chunk: 10,
        gap: At::from_millis(5),
        ending: Ending::Fin,
        ..Script::silent()
    });
    let mut seen = Vec::new();
    for _ in 0..4 {
        bed.run_for(At::from_millis(4));
        seen.push(bed.read().0.len());
    }
    assert_eq!(seen, [10, 10, 5, 0]);
    assert_eq!(bed.read().1, Taken::End);
}

#[test]
fn a_program_writes_no_more_than_the_window() {
    let mut bed = Bed::of(Script::short(100_000));
    bed.run_for(At::from_secs(9));
    assert_eq!(bed.read().0.len() as u64, WINDOW);
    assert_eq!(bed.read(), (vec![], Taken::Nothing));
    bed.run_for(LATENCY);
    assert!(bed.is_ready());
    assert_eq!(bed.read().0.len() as u64, 100_000 - WINDOW);
}

#[test]
fn a_node_writes_no_more_than_the_window() {
    let mut bed = Bed::of(Script::silent());
    bed.run_for(At::from_secs(1));
    let mut bytes = Bytes::from(whole(Side::Target, WINDOW + 5));
    assert_eq!(bed.write(&mut bytes), Given::Blocked);
    assert_eq!(bytes.len(), 5);
    assert_eq!(bed.write(&mut bytes), Given::Blocked);
    bed.run_for(LATENCY);
    assert!(bed.is_ready());
    assert_eq!(bed.write(&mut bytes), Given::All);
}

#[test]
fn a_program_that_stalls_reads_on_later() {
    let mut bed = Bed::of(Script {
        stall: Some((100, At::from_secs(2))),
        ..Script::silent()
    });
    let mut bytes = Bytes::from(whole(Side::Target, WINDOW + 1));
    assert_eq!(bed.write(&mut bytes), Given::Blocked);
    bed.run_for(At::from_secs(2));
    assert_eq!(bed.write(&mut bytes), Given::Blocked);
    bed.run_for(At::from_millis(1));
    assert_eq!(bed.write(&mut bytes), Given::All);
}

#[test]
fn a_reset_comes_behind_what_was_written_unless_it_discards() {
    for (discards, left) in [(false, 500), (true, 0)] {
        let mut bed = Bed::of(Script {
            reset_after: Some(At::from_millis(10)),
            reset_discards: discards,
            ..Script::short(500)
        });
        bed.run_to(At::from_millis(9));
        assert!(bed.finish());
        bed.run_to(At::from_millis(10));
        let (bytes, end) = bed.read();
        assert_eq!((bytes.len(), end), (left, Taken::Reset));
        assert_eq!(bed.write(&mut Bytes::from_static(b"x")), Given::Reset);
        assert!(!bed.finish());
        assert!(!bed.legs.is_empty());
        bed.legs.release(bed.leg);
        assert!(bed.legs.is_empty());
        assert!(!bed.legs.is_done(SESSION));
    }
}

#[test]
fn a_program_may_wait_for_its_peers_end() {
    let mut bed = Bed::of(Script::short(10));
    bed.run_for(At::from_secs(5));
    assert_eq!(bed.read(), (whole(Side::User, 10), Taken::Nothing));
    assert!(bed.finish());
    bed.run_for(At::from_secs(1));
    assert_eq!(bed.read(), (vec![], Taken::End));
    bed.run_for(LATENCY);
    assert!(bed.legs.is_empty());
    assert!(bed.legs.is_done(SESSION));
    assert!(bed.said("Done"));
}

#[test]
fn only_users_make_a_session_done() {
    let mut bed = Bed::new(Side::Target, Script::silent());
    assert!(bed.finish());
    bed.run_for(LATENCY);
    assert_eq!(bed.read(), (vec![], Taken::End));
    bed.run_for(LATENCY);
    assert!(bed.legs.is_empty());
    assert!(!bed.legs.is_done(SESSION));
}

#[test]
fn in_the_calm_programs_write_read_and_end() {
    let mut bed = Bed::of(Script {
        total: 3_000,
        chunk: 1,
        gap: At::from_secs(60),
        ending: Ending::Hold,
        stall: Some((0, At::from_secs(60))),
        reset_after: Some(At::from_secs(2)),
        ..Script::silent()
    });
    assert_eq!(
        bed.write(&mut Bytes::from(whole(Side::Target, 9))),
        Given::All
    );
    assert!(bed.finish());
    bed.run_to(At::from_secs(1));
    assert_eq!(bed.read(), (whole(Side::User, 1), Taken::Nothing));
    bed.legs.calm(bed.at);
    bed.run_for(LATENCY);
    assert_eq!(
        bed.read(),
        (whole(Side::User, 3_000)[1..].to_vec(), Taken::End)
    );
    bed.run_for(At::from_secs(3));
    assert!(bed.legs.is_done(SESSION));
}

#[test]
fn a_node_that_closes_hard_leaves_nothing() {
    let mut bed = Bed::of(Script::short(10));
    bed.run_for(LATENCY);
    bed.legs.abort(bed.at, &mut bed.log, bed.leg);
    assert!(bed.legs.is_empty());
    assert_eq!(bed.read(), (vec![], Taken::Reset));
    assert!(bed.said("GotReset"));
    // A program's wake that is still to come finds nobody.
    bed.run_for(At::from_secs(1));
}

#[test]
fn patterns_differ_by_side_session_and_offset() {
    let of = |session, side, offset| pattern(SessionId(Uuid::from_u128(session)), side, offset, 64);
    let one = of(1, Side::User, 0);
    for other in [
        of(2, Side::User, 0),
        of(1, Side::Target, 0),
        of(1, Side::User, 1),
    ] {
        assert_ne!(one, other);
    }
    for power in 0..40 {
        assert_ne!(one, of(1, Side::User, 1 << power), "2^{power}");
    }
    let whole = whole(Side::User, 200_000);
    for offset in [0, 1, 65_520, 65_521, 131_070, 199_000] {
        let piece = pattern(SESSION, Side::User, offset, 100);
        let start = usize::try_from(offset).unwrap();
        assert_eq!(piece, whole[start..start + piece.len()]);
    }
}
