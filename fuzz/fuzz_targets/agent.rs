//! See `adit_fuzz::agent`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::agent(data));
#[cfg(not(fuzzing))]
fn main() {}
