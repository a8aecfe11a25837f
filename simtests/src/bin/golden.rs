//! Writes the pinned hashes again, after a change that was meant.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "says what it has written")]

use adit_simtests::golden::{PATH, text};

fn main() -> std::io::Result<()> {
    let text = text();
    std::fs::write(PATH, &text)?;
    print!("{text}");
    Ok(())
}
