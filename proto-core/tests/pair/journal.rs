//! What both ends of every test did is taken down, and done once more when the test is over (design 8.17).
#![expect(
    clippy::disallowed_types,
    reason = "the core holds no lock; what takes its records is shared"
)]

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::CloseReason,
    endpoint::Endpoint,
    id::Slot,
    journal::{Fault, Journal, Line, Said, Sink, Summary, replay},
    output::Event,
    route::RouteSet,
};
use ipnet::Ipv4Net;

use super::{
    peer::pattern,
    raw::RawConfig,
    world::{Joined, secs},
};

/// What is taken down of a world.
pub(crate) struct Kept {
    begun: Instant,
    streams: Arc<Streams>,
}

#[derive(Default)]
struct Streams {
    /// As they were handed on.
    chunks: Mutex<BTreeMap<u64, Vec<Vec<u8>>>>,
    next: AtomicU64,
}

impl Kept {
    pub(crate) fn new(begun: Instant) -> Self {
        Self {
            begun,
            streams: Arc::default(),
        }
    }

    pub(crate) fn record(&self, endpoint: &mut Endpoint) {
        let sink = Arc::clone(&self.streams) as _;
        endpoint.record_in(Journal::new(self.begun, sink));
    }

    /// Does all of it again, whether it ended or not.
    pub(crate) fn replay(&self) {
        for (stream, chunks) in &*self.streams.chunks.lock().unwrap() {
            let records = chunks.concat();
            if let (Err(fault), _) = self.again(&records) {
                panic!("stream {stream} of {} bytes: {fault}", records.len());
            }
        }
    }

    fn again(&self, records: &[u8]) -> (Result<Summary, Fault>, Vec<Line>) {
        let mut lines = Vec::new();
        let done = replay(records, self.begun, &mut |line| lines.push(line));
        (done, lines)
    }
}

impl Sink for Streams {
    fn begin(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn take(&self, stream: u64, records: &[u8]) -> bool {
        let mut streams = self.chunks.lock().unwrap();
        let kept: usize = streams.values().flatten().map(Vec::len).sum();
        // Of a test that moves much the beginning is enough.
        let has_room = kept < KEPT_MAX;
        if has_room {
            streams.entry(stream).or_default().push(records.to_vec());
        }
        has_room
    }
}

/// A session that was opened, used and ended, and what was taken down at both ends, the gateway's second.
fn of_a_session() -> (Joined, [Vec<Vec<u8>>; 2]) {
    let mut j = Joined::new(7);
    let slot = j.open();
    for at in [j.g, j.a] {
        j.w.flow_mut(at, slot, |flow| flow.goal = LEN);
        j.w.run_for(secs(1));
        j.w.flow_mut(at, slot, |flow| flow.finish = true);
    }
    j.w.run_for(secs(1));
    let now = j.w.now();
    (j.w).conn(j.a, |conn| conn.close(now, &CloseReason::AgentStopping));
    j.w.run_for(secs(1));
    let streams = j.w.kept.streams.chunks.lock().unwrap().clone();
    let streams = [0, 1].map(|stream| streams[&stream].clone());
    (j, streams)
}

#[test]
fn a_replay_says_what_was_said_when_it_was() {
    let (j, [agent, gateway]) = of_a_session();
    for (at, chunks) in [(j.a, agent), (j.g, gateway)] {
        let (done, lines) = j.w.kept.again(&chunks.concat());
        let said = |(at, event): &(Duration, Event)| Line {
            at: i64::try_from(at.as_nanos()).unwrap(),
            said: Said::Output(format!("{event:?}")),
        };
        let said: Vec<Line> = j.w.events(at).iter().map(said).collect();
        let is_output = |line: &&Line| matches!(line.said, Said::Output(_));
        let (outputs, calls): (Vec<_>, Vec<_>) = lines.iter().partition(is_output);
        assert!(outputs.into_iter().eq(&said));
        let done = done.unwrap();
        assert_eq!(done.outputs, said.len() as u64);
        assert_eq!(done.calls, calls.len() as u64);
    }
}

#[test]
fn no_byte_of_a_user_is_taken_down() {
    let (_, streams) = of_a_session();
    for records in streams.map(|chunks| chunks.concat()) {
        for by_gateway in [true, false] {
            let written = pattern(Slot(0), by_gateway, 0, usize::try_from(LEN).unwrap());
            assert_eq!(written.len() as u64, LEN);
            for part in written.chunks_exact(4) {
                assert!(!records.windows(4).any(|window| window == part));
            }
        }
    }
}

#[test]
fn what_is_changed_is_noticed_or_changes_nothing_that_is_said() {
    let (j, streams) = of_a_session();
    for records in streams.map(|chunks| chunks.concat()) {
        let hash = j.w.kept.again(&records).0.unwrap().hash;
        let mut noticed = 0;
        for at in 0..records.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut other = records.clone();
                other[at] ^= bits;
                match j.w.kept.again(&other).0 {
                    Ok(summary) => assert_eq!(summary.hash, hash, "byte {at}"),
                    Err(_) => noticed += 1,
                }
            }
        }
        assert!(
            noticed > records.len(),
            "{noticed} of {}",
            3 * records.len()
        );
    }
}

#[test]
fn a_journal_that_ends_with_any_chunk_is_good_and_one_that_lacks_a_chunk_is_not() {
    let (mut j, _) = of_a_session();
    // Answers that are larger than a chunk in the middle of a call.
    let agent = j.w.add_agent();
    let (routes, gateway) = (many_routes(), j.g.0);
    let at = j.w.connect(agent, gateway);
    j.w.run_for(secs(1));
    let now = j.w.now();
    (j.w)
        .conn(at, |conn| conn.as_agent().unwrap().set_routes(now, routes))
        .unwrap();
    j.w.run_for(secs(1));
    let streams = j.w.kept.streams.chunks.lock().unwrap().clone();
    let longest = streams.values().flatten().map(Vec::len).max().unwrap();
    assert!(longest > 1 << 15, "{longest}");
    for chunks in streams.values() {
        let whole = j.w.kept.again(&chunks.concat()).1;
        for len in 1..chunks.len() {
            let (done, lines) = j.w.kept.again(&chunks[..len].concat());
            done.unwrap();
            assert_eq!(lines, whole[..lines.len()]);
            let less = [&chunks[..len], &chunks[len + 1..]].concat().concat();
            let is_last_word = lines.len() == whole.len();
            let (done, lines) = j.w.kept.again(&less);
            assert!(
                done.is_err() || lines != whole || is_last_word,
                "without chunk {len}"
            );
        }
    }
}

#[test]
fn handshakes_that_come_to_nothing_take_no_room_at_a_gateway() {
    let mut j = Joined::new(8);
    let streams = |j: &Joined| j.w.kept.streams.chunks.lock().unwrap().len();
    let before = streams(&j);
    let stranger = j.w.add_raw_client(j.g.0, &RawConfig::default());
    j.w.run_for(secs(10));
    assert_eq!(j.w.endpoint(j.g.0).counters().accepted, 2);
    assert_eq!(streams(&j), before, "{stranger:?}");
}

fn many_routes() -> Arc<RouteSet> {
    let subnet = |n: u32| Ipv4Net::new_assert(Ipv4Addr::from(10 << 24 | n << 8), 24).into();
    Arc::new(RouteSet {
        subnets: (0..9_000).map(subnet).collect(),
        domains: Vec::new(),
    })
}

/// Bytes that are kept of a test.
const KEPT_MAX: usize = 1 << 20;
/// Bytes that each end writes.
const LEN: u64 = 64;
