//! See `adit_fuzz::replica_acceptor`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::replica_acceptor(data));
#[cfg(not(fuzzing))]
fn main() {}
