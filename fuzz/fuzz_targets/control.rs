//! See `adit_fuzz::control`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::control(data));
#[cfg(not(fuzzing))]
fn main() {}
