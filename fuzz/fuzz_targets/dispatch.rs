//! See `adit_fuzz::dispatch`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::dispatch(data));
#[cfg(not(fuzzing))]
fn main() {}
