//! The command `adit`.

use std::process::ExitCode;

fn main() -> ExitCode {
    adit::run::main()
}
