//! What a reload changes of doors, certificates and times, and what it must leave as it is.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    access::header,
    authority::https_leaf,
    harness::{
        beside_others,
        console::{Console, METRICS, metrics},
        site::{Site, forward},
        targets::{Target, drain, echo, ping},
        users::{connect, socks, socks_as},
        websocket::{association, enter, open, path},
    },
    reload_gateway::{Bed, NOTHING, change, secret},
};

#[test]
fn a_certificate_of_another_kind_waits_for_the_restart_and_strings_stay_good() {
    let _machine = beside_others();
    let bed = Bed::new("");
    let shown = https_leaf(bed.gateway.address("enroll"));
    let (cert, key) = certificate(&bed.site);
    let keys = bed.change(
        "[enroll]\n",
        &format!("[enroll]\ncert = {cert:?}\nkey = {key:?}\n"),
    );
    assert_eq!(keys, ["enroll.cert, enroll.key or enroll.insecure_http"]);
    assert_eq!(https_leaf(bed.gateway.address("enroll")), shown);
    let late = bed.site.agent("late");
    assert_eq!(late.up(&bed.gateway.token("late"), "", &[]).code, 0);
}

#[test]
fn the_operators_certificate_changes_and_a_bad_one_does_not() {
    let _machine = beside_others();
    let site = Site::new();
    let (cert, key) = certificate(&site);
    let rest = format!("[enroll]\nlisten = \"127.0.0.1:0\"\ncert = {cert:?}\nkey = {key:?}\n");
    let gateway = site.gateway("gw", &rest);
    let first = https_leaf(gateway.address("enroll"));
    certificate(&site);
    assert_eq!(gateway.ask(&["gateway", "reload"]).code, 0);
    let second = https_leaf(gateway.address("enroll"));
    assert_ne!(second, first);
    fs::write(&cert, "no certificate").unwrap();
    let named = cert.to_str().unwrap();
    gateway.ask(&["gateway", "reload"]).fails(1, &[named]);
    assert_eq!(https_leaf(gateway.address("enroll")), second);
}

#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_nobody_waits_for_it() {
    let _machine = beside_others();
    let bed = Bed::new("");
    fs::remove_file(&bed.users).unwrap();
    let made = Command::new("mkfifo")
        .args(["-m", "600"])
        .arg(&bed.users)
        .status();
    assert!(made.unwrap().success());
    let ran = bed.gateway.ask(&["gateway", "reload"]);
    ran.fails(1, &["no regular file"]);
    let target = echo().to_string();
    let opened = socks_as(bed.gateway.ingress("socks5"), &target, "alice", "first");
    ping(&opened.unwrap(), b"as before");
}

#[test]
fn who_may_come_in_and_what_targets_are_told_changes_at_each_door() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let console = Console::new(&site);
    let rest = forward("door", target.addr) + &console.sections();
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let own = format!("target = \"{}\"\n", target.addr);
    let strangers = "allow_from = [\"192.0.2.0/24\"]\n";
    let closed = [&own, strangers, "[websocket]\n", strangers].concat();
    assert_eq!(change(&gateway, &own, &closed), NOTHING);
    let refused = connect(gateway.ingress("door")).read(&mut [0]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let claims = association(target.addr);
    let token = console.sign("ASSOCIATION", &claims);
    let refused = enter(&gateway, &path("tcp", &claims), &token).map(|_| ());
    let (status, body) = refused.unwrap_err();
    let source = json!("urn:adit:problem:source");
    assert_eq!((status, &body["type"]), (403, &source));
    let of_tokens = metrics(&gateway).0.contains("cause=\"source\"");
    assert!(!of_tokens, "the token was not looked at");

    assert_eq!(
        change(&gateway, strangers, "proxy_protocol = true\n"),
        NOTHING
    );
    let user = connect(gateway.ingress("door"));
    let told = header(&mut target.accept());
    assert_eq!(told.0, user.local_addr().unwrap());
    let user = open(&gateway, &console, "tcp", &claims);
    assert_eq!(header(&mut target.accept()).0, user.addr);
}

#[test]
fn rules_for_users_and_times_of_sessions_change_for_those_who_come() {
    let _machine = beside_others();
    let target = echo();
    let mut bed = Bed::new(&forward("forward", target));
    let old = connect(bed.gateway.ingress("forward"));
    ping(&old, b"before");
    let proxy = bed.gateway.ingress("socks5");
    let alice = || socks_as(proxy, &target.to_string(), "alice", "first");
    ping(&alice().unwrap(), b"before");
    let rule = "[[user]]\nname = \"alice\"\ntargets = [\"192.0.2.1\"]\n[tunnel]\n";
    assert_eq!(bed.change("[tunnel]\n", rule), NOTHING);
    assert!(alice().is_err());
    bed.gateway.process().logged_nth("session ended", 1);

    let idle = "grace = \"300ms\"\n[limits]\nsession_idle = \"500ms\"\n[[user]]\n";
    assert_eq!(bed.change("[[user]]\n", idle), NOTHING);
    let user = connect(bed.gateway.ingress("forward"));
    ping(&user, b"and no more");
    assert!(drain(&user).1.is_err());
    assert_eq!(
        bed.gateway.ended(2),
        "idle for longer than limits.session_idle"
    );
    assert_eq!(bed.change("session_idle", "session_lifetime"), NOTHING);
    let mut user = connect(bed.gateway.ingress("forward"));
    while user.write_all(b"x").is_ok() && user.read_exact(&mut [0]).is_ok() {}
    assert_eq!(bed.gateway.ended(3), "lived for limits.session_lifetime");

    ping(&old, b"it came before");
    bed.gateway.process().signal(Signal::TERM);
    let stopping = "stopping: no new users; a second signal ends at once";
    assert_eq!(bed.gateway.process().logged(stopping)["grace_s"], 0);
    bed.gateway
        .process()
        .logged("grace period over; cutting the sessions left");
    assert_eq!(bed.gateway.process_mut().exit().code(), Some(0));
}

#[test]
fn a_door_that_is_to_move_goes_by_its_new_rules_where_it_is() {
    let _machine = beside_others();
    let target = echo().to_string();
    let bed = Bed::new(METRICS);
    secret(&bed.users, "bob:third\n");
    let listen = |at: &str| format!("name = \"socks5\"\nlisten = \"{at}:0\"\n");
    let keys = bed.change(&listen("127.0.0.1"), &listen("127.0.0.2"));
    assert_eq!(keys, ["ingress socks5 (listen)"]);
    let proxy = bed.gateway.ingress("socks5");
    let open = |user: &str, password: &str| socks_as(proxy, &target, user, password);
    assert!(open("alice", "first").is_err());
    ping(&open("bob", "third").unwrap(), b"bob");
}

#[test]
fn what_is_meant_for_this_machine_is_not_opened_to_all() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo().to_string());
    let users = site.path("users");
    secret(&users, "alice:first\n");
    let guarded = format!("listen = \"0.0.0.0:0\"\nusers_file = {users:?}\n");
    let rest = format!("[[socks5]]\nname = \"door\"\n{guarded}");
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let keys = change(&gateway, &guarded, "listen = \"127.0.0.1:0\"\n");
    assert_eq!(keys, ["ingress door (listen, and with it all its keys)"]);
    let port = gateway.ingress("door").port();
    let door = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert!(socks(door, &target).is_err(), "nobody without a password");
    ping(
        &socks_as(door, &target, "alice", "first").unwrap(),
        b"alice",
    );
}

/// Writes a certificate and its key, always to the same files.
fn certificate(site: &Site) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path = site.path(name);
        secret(Path::new(&path), &text);
        path
    };
    (
        write("cert.pem", made.cert.pem()),
        write("key.pem", made.signing_key.serialize_pem()),
    )
}
