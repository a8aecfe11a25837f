//! See `adit_fuzz::socks5`.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::socks5(data));
#[cfg(not(fuzzing))]
fn main() {}
