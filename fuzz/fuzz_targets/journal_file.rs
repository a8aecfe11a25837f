//! See `adit_fuzz::journal_file`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::journal_file(data));
#[cfg(not(fuzzing))]
fn main() {}
