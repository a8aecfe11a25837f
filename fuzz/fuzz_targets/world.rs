//! See `adit_fuzz::world`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::world(data));
#[cfg(not(fuzzing))]
fn main() {}
