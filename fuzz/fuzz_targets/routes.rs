//! See `adit_fuzz::routes`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::routes(data));
#[cfg(not(fuzzing))]
fn main() {}
