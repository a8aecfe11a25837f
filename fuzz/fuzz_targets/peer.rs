//! See `adit_fuzz::peer`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::peer(data));
#[cfg(not(fuzzing))]
fn main() {}
