//! See `adit_fuzz::connect`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::connect(data));
#[cfg(not(fuzzing))]
fn main() {}
