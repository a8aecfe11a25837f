//! See `adit_fuzz::hello`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::hello(data));
#[cfg(not(fuzzing))]
fn main() {}
