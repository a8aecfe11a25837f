//! State folders on disks that are full or read-only, by real mounts: what is told, what is lost (nothing), and what works
//! afterwards.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{
    SOON, beside_others,
    console::{METRICS, fetch, metrics_addr},
    process::run,
    site::{Agent, Gateway, Ports, Site, forward, free_udp_port},
    targets::{echo, ping},
    until,
    users::connect,
};

#[test]
fn an_enrolment_that_cannot_be_kept_spends_no_string() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let disk = Disk::new(&site, "agent-disk");
    let agent = site.agent("agent-disk/state");
    let token = gateway.token("site-a");
    for fault in Fault::ALL {
        let ran = disk.with(fault, || agent.up(&token, "127.0.0.1/32", &[]));
        ran.fails(1, &["agent-disk", fault.text()]);
        let left = fs::read_dir(&agent.state).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{ran:?}");
    }
    assert_eq!(agent.up(&token, "127.0.0.1/32", &[]).code, 0);
    // One that enrols again keeps what it has.
    let (record, pair) = (agent.record(), agent.pair(""));
    let token = gateway.token("site-a");
    for fault in Fault::ALL {
        let ran = disk.with(fault, || agent.up(&token, "127.0.0.1/32", &[]));
        ran.fails(1, &["agent-disk", fault.text()]);
        assert_eq!(
            (agent.record(), agent.pair("")),
            (record.clone(), pair.clone())
        );
    }
    assert_eq!(agent.up(&token, "127.0.0.1/32", &[]).code, 0);
}

#[test]
fn a_gateway_on_a_full_or_read_only_disk_does_not_begin_and_does_so_afterwards() {
    let _machine = beside_others();
    let site = Site::new();
    let disk = Disk::new(&site, "disk");
    let mut gateway = site.gateway_with("disk/state", "", Ports::default(), "");
    for fault in Fault::ALL {
        let ran = disk.with(fault, || run(gateway.command(&["gateway", "run"]), ""));
        ran.fails(1, &["disk/state", fault.text()]);
    }
    gateway.start();
    let pin = gateway.ask(&["ca", "export"]).out;
    gateway.process_mut().kill();
    // What is there already is enough on a full disk, and not on one where nothing can be locked or listened at.
    let read_only = Fault::ReadOnly;
    let ran = disk.with(read_only, || run(gateway.command(&["gateway", "run"]), ""));
    ran.fails(1, &["disk/state", read_only.text()]);
    gateway.start();
    assert_eq!(gateway.ask(&["ca", "export"]).out, pin);
}

#[test]
fn a_gateway_whose_disk_fails_refuses_what_it_cannot_keep_and_loses_nothing() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let disk = Disk::new(&site, "disk");
    let rest = forward("echo", target);
    let mut gateway = site.gateway_with("disk/state", "", Ports::default(), &rest);
    gateway.start();
    let mut serving = site.serving("site-a", &gateway, "127.0.0.1/32");
    let late = site.agent("late");
    let (token, other) = (gateway.token("late"), site.agent("other"));
    let user = connect(gateway.ingress("echo"));
    disk.fill();
    // What the file has room for is still kept.
    let mut kept = Vec::new();
    let full = until("the store finds the disk full", SOON, || {
        let ran = gateway.ask(&["token", "create", "--name", "x"]);
        if ran.code == 0 {
            kept.push(ran.out.trim().to_owned());
        }
        (ran.code != 0).then_some(ran)
    });
    full.fails(1, &["store.redb", Fault::Full.text()]);
    // The store has closed its file, so that it is opened on what is mounted now.
    disk.make_read_only();
    refuses(&gateway, &serving, &late, &token);
    ping(&user, b"nobody has noticed");
    serving.process_mut().kill();
    serving.spawn();
    until("who is enrolled is admitted", SOON, || {
        (gateway.process().count("routes accepted") == 2).then_some(())
    });
    disk.make_writable();
    disk.make_room();

    assert_eq!(late.up(&token, "127.0.0.1/32", &[]).code, 0);
    if let Some(token) = kept.last() {
        assert_eq!(other.up(token, "127.0.0.1/32", &[]).code, 0);
    }
    until("the agent serves", SOON, || {
        let online = |row: &Value| row["id"] == serving.id() && row["epoch"] != 0;
        gateway.agents().iter().any(online).then_some(())
    });
    ping(&connect(gateway.ingress("echo")), b"as before");
    let ran = gateway.ask(&["agents", "delete", &serving.id()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // And it is on the disk.
    let known = ids(&gateway);
    gateway.process_mut().kill();
    gateway.start();
    assert_eq!(ids(&gateway), known);
    assert!(known.contains(&late.id()) && !known.contains(&serving.id()));
}

/// The gateway keeps nothing at the moment, says so, and does nothing of it.
fn refuses(gateway: &Gateway, serving: &Agent, late: &Agent, token: &str) {
    let says = ["store.redb", Fault::ReadOnly.text()];
    let failed = gateway.process().count("enrolment failed");
    let ran = late.up(token, "127.0.0.1/32", &[]);
    ran.fails(1, &["the gateway has a problem of its own", "500"]);
    let told = gateway.process().logged_nth("enrolment failed", failed + 1);
    let error = told["error"].as_str().unwrap();
    assert!(says.iter().all(|word| error.contains(word)), "{told}");
    let ask = |words: &[&str]| gateway.ask(words).fails(1, &says);
    ask(&["token", "create", "--name", "x"]);
    ask(&["agents", "delete", &serving.id()]);
    ask(&["agents", "drain", &serving.id()]);
}

#[test]
fn a_gateway_on_a_full_disk_is_not_ready_until_there_is_room() {
    let _machine = beside_others();
    let site = Site::new();
    let disk = Disk::new(&site, "disk");
    let mut gateway = site.gateway_with("disk/state", "", Ports::default(), METRICS);
    gateway.start();
    let ready = || fetch(metrics_addr(&gateway), "/readyz").0;
    assert_eq!(ready(), 200);
    disk.fill();
    until("the store finds the disk full", SOON, || {
        let ran = gateway.ask(&["token", "create", "--name", "x"]);
        (ran.code != 0).then_some(())
    });
    // What only reads changes nothing, nor do two attempts to open the file again.
    assert_eq!(gateway.ask(&["agents", "list"]).code, 0);
    let found = Instant::now();
    until("the store has tried it twice", SOON, || {
        assert_eq!(ready(), 503, "{:?}", found.elapsed());
        (found.elapsed() > Duration::from_secs(12)).then_some(())
    });
    assert_eq!(gateway.process().count("written again"), 0);
    disk.make_room();
    until("it is ready by itself", SOON, || {
        (ready() == 200).then_some(())
    });
    assert_eq!(gateway.ask(&["token", "create", "--name", "x"]).code, 0);
}

#[test]
fn an_agent_whose_disk_fails_serves_and_renews_afterwards() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let disk = Disk::new(&site, "disk");
    let mut agent = site.enrol("disk/state", &gateway, "127.0.0.1/32");
    let before = agent.pair("");
    for fault in Fault::ALL {
        // On one connection a gateway renews once in a minute.
        agent.serve(&gateway);
        let user = connect(gateway.ingress("echo"));
        disk.with(fault, || {
            assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
            let told = agent.process().logged(NOT_KEPT);
            let error = told["error"].as_str().unwrap();
            assert!(error.contains("agent-pair-next.json"), "{told}");
            assert!(error.contains(fault.text()), "{told}");
            ping(&user, b"nobody has noticed");
            ping(&connect(gateway.ingress("echo")), b"and others come");
        });
        assert_eq!(agent.pair(""), before);
        assert!(!agent.state.join("agent-pair-next.json").exists());
        agent.process_mut().kill();
    }
    agent.serve(&gateway);
    assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
    agent.process().logged(IN_USE);
    assert_ne!(agent.pair("")["key"], before["key"]);
    assert_eq!(agent.pair("-previous"), before);
}

/// A renewed pair has been stored, and the disk fails before it has proved itself.
#[test]
fn a_renewed_pair_serves_though_it_cannot_be_put_in_its_place() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let ports = Ports {
        tunnel: free_udp_port(),
        enroll: 0,
    };
    let mut gateway = site.gateway_with("gw", "", ports, &forward("echo", target));
    gateway.start();
    let disk = Disk::new(&site, "disk");
    for fault in Fault::ALL {
        let mut agent = site.enrol(&format!("disk/{fault:?}"), &gateway, "127.0.0.1/32");
        let (current, next) = (agent.pair(""), agent.state.join("agent-pair-next.json"));
        // A pair that proves itself: the same once more.
        fs::copy(agent.state.join("agent-pair.json"), &next).unwrap();
        gateway.process_mut().kill();
        agent.spawn();
        agent.process().logged("agent running");
        disk.with(fault, || {
            gateway.start();
            gateway.routes_to(&agent.id(), 1);
            ping(&connect(gateway.ingress("echo")), b"by the renewed one");
            match fault {
                // A new name for a file needs no room; only the former pair could not be kept.
                Fault::Full => {
                    agent.process().logged("the former key pair is not kept");
                    agent.process().logged(IN_USE);
                }
                Fault::ReadOnly => {
                    let told = agent.process().logged(NOT_IN_PLACE);
                    let error = told["error"].as_str().unwrap();
                    assert!(error.contains(fault.text()), "{told}");
                    assert!(next.exists());
                }
            }
        });
        assert_eq!(agent.pair(""), current);
        agent.process_mut().kill();
        agent.serve(&gateway);
        until("one pair in its place", SOON, || {
            (!next.exists()).then_some(())
        });
        ping(&connect(gateway.ingress("echo")), b"as before");
        let ran = gateway.ask(&["agents", "delete", &agent.id()]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

fn ids(gateway: &Gateway) -> Vec<String> {
    let rows = gateway.enrolled();
    rows.iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Full,
    ReadOnly,
}

impl Fault {
    const ALL: [Self; 2] = [Self::Full, Self::ReadOnly];

    /// What the system says of it.
    fn text(self) -> &'static str {
        match self {
            Self::Full => "No space left on device",
            Self::ReadOnly => "Read-only file system",
        }
    }
}

/// A small file system of its own. Dropping it takes it away.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn new(site: &Site, name: &str) -> Self {
        let at = site.path(name);
        fs::create_dir(&at).unwrap();
        let disk = Self { at };
        disk.mount(&["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"]);
        disk
    }

    /// Does something while it has a fault.
    fn with<T>(&self, fault: Fault, act: impl FnOnce() -> T) -> T {
        match fault {
            Fault::Full => self.fill(),
            Fault::ReadOnly => self.make_read_only(),
        }
        let done = act();
        match fault {
            Fault::Full => self.make_room(),
            Fault::ReadOnly => self.make_writable(),
        }
        done
    }

    /// Leaves room for no block.
    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let full = loop {
            if let Err(error) = file.write_all(&[1; 4_096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Puts a read-only view of it in its place: the kernel exchanges none below files that are open for writing.
    fn make_read_only(&self) {
        let at = self.at.to_str().unwrap();
        self.mount(&["--bind", at]);
        self.mount(&["-o", "remount,bind,ro"]);
    }

    fn make_writable(&self) {
        assert!(unmount(&self.at));
    }

    fn mount(&self, words: &[&str]) {
        let done = Command::new("mount").args(words).arg(&self.at).output();
        let done = done.expect("these tests need `mount`");
        assert!(done.status.success(), "mount {words:?}: {done:?}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        while unmount(&self.at) {}
    }
}

/// Takes the uppermost mount away, in use or not.
fn unmount(at: &Path) -> bool {
    let done = Command::new("umount").arg("--lazy").arg(at).output();
    done.is_ok_and(|done| done.status.success())
}

const NOT_KEPT: &str = "renewed certificate not kept; trying again later";
const NOT_IN_PLACE: &str = "the certificate that works could not be put in its place; it stays beside the other one, and that is tried again";
const IN_USE: &str = "renewed certificate in use";
