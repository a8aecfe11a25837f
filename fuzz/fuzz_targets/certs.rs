//! See `adit_fuzz::certs`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::certs(data));
#[cfg(not(fuzzing))]
fn main() {}
