//! The path of packets: two connections joined in memory, with all of QUIC, TLS and packet protection, and no socket.
#![expect(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may fail the test"
)]

mod pair;

use divan::{Bencher, counter::BytesCount};

use crate::pair::{carry, carry_both_ways, joined, set_up, whole_session};

fn main() {
    divan::main();
}

const MIB: u64 = 1 << 20;

#[divan::bench(sample_count = 50, sample_size = 1)]
fn connection_set_up(bencher: Bencher<'_, '_>) {
    bencher.bench_local(joined);
}

#[divan::bench(sample_count = 200, sample_size = 1)]
fn session_set_up(bencher: Bencher<'_, '_>) {
    let mut j = joined();
    bencher.bench_local(|| set_up(&mut j));
}

#[divan::bench(sample_count = 200, sample_size = 1)]
fn whole_session_with_a_byte_each_way(bencher: Bencher<'_, '_>) {
    let mut j = joined();
    bencher.bench_local(|| whole_session(&mut j));
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn mib_to_the_agent(bencher: Bencher<'_, '_>) {
    let mut j = joined();
    let slot = j.open();
    bencher
        .counter(BytesCount::new(MIB))
        .bench_local(|| carry(&mut j, slot, true, MIB));
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn mib_each_way(bencher: Bencher<'_, '_>) {
    let mut j = joined();
    let slot = j.open();
    bencher
        .counter(BytesCount::new(2 * MIB))
        .bench_local(|| carry_both_ways(&mut j, slot, MIB));
}
