//! See `adit_fuzz::forward`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::forward(data));
#[cfg(not(fuzzing))]
fn main() {}
