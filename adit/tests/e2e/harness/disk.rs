//! Disks that take nothing, for root and for everybody else alike: the limit of a file's length makes the kernel refuse
//! what is written, in the midst of it too, as a full disk does.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::process::Process;

/// The same command in a process that is told of a refused write, and not killed by a signal.
pub(crate) fn surviving(command: &Command) -> Command {
    in_shell("trap '' XFSZ", command)
}

/// The same command where a file can hold so many times 512 bytes.
pub(crate) fn with_room(blocks: u32, command: &Command) -> Command {
    in_shell(&format!("trap '' XFSZ; ulimit -S -f {blocks}"), command)
}

/// From here on every write of this process to a file is refused. It must be a surviving one.
pub(crate) fn fill(process: &Process) {
    set(process, Some(0));
}

/// There is room again.
pub(crate) fn make_room(process: &Process) {
    set(process, getrlimit(Resource::Fsize).current);
}

fn set(process: &Process, current: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limit = Rlimit { current, maximum };
    prlimit(Some(process.id()), Resource::Fsize, limit).unwrap();
}

/// The shell becomes the command, so that the process keeps its id.
fn in_shell(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.env_clear();
    for (name, value) in command.get_envs() {
        shell.env(name, value.expect("set, not removed"));
    }
    let script = format!("{first}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(command.get_program());
    shell.args(command.get_args());
    shell
}
