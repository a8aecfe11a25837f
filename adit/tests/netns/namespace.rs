//! Network namespaces that end with their test.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    panic::resume_unwind,
    process::{Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::{
    process::geteuid,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// A machine, as far as its network goes. Dropping it takes its name away; the kernel keeps it for as long as a process
/// or a socket in it is left.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        assert!(
            geteuid().is_root(),
            "these tests make network namespaces, which only root may: `cargo test --test netns --config \
             'target.\"cfg(all())\".runner = \"sudo\"'` runs them as root"
        );
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("adit-{}-{nth}-{role}", std::process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        // Addresses of IPv6 are usable at once: nobody else is there to have the same.
        namespace.set("ipv6/conf/default/accept_dad", "0");
        namespace.ip("link set lo up");
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` for it.
    pub(crate) fn ip(&self, args: &str) {
        ip(&format!("-netns {} {args}", self.name));
    }

    /// Runs `tc` for it.
    pub(crate) fn tc(&self, args: &str) {
        let done = run("tc", &format!("-netns {} {args}", self.name));
        assert!(done.status.success(), "tc {args}: {done:?}");
    }

    /// Changes a setting of its kernel: a path below `/proc/sys/net`.
    pub(crate) fn set(&self, setting: &str, value: &str) {
        self.within(|| fs::write(format!("/proc/sys/net/{setting}"), value).unwrap());
    }

    /// Does something in it: sockets that are made and processes that are started there stay there.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let place = File::open(format!("/run/netns/{}", self.name)).unwrap();
            move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let gone = run("ip", &format!("netns delete {}", self.name));
        if !gone.status.success() {
            eprintln!("{} stays: {gone:?}", self.name);
        }
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(args: &str) {
    let done = run("ip", args);
    assert!(done.status.success(), "ip {args}: {done:?}");
}

fn run(program: &str, args: &str) -> Output {
    let mut command = Command::new(program);
    let done = command.args(args.split_whitespace()).output();
    done.expect("these tests need `ip` and `tc`: install iproute2")
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
