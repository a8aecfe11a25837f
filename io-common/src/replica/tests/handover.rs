//! A plain link that goes on in another process (replica-handshake 9).

use std::{
    env,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::*;

/// Set in the process that takes the socket over: this test, once more.
const HEIR: &str = "ADIT_REPLICA_HEIR";

#[test]
fn a_plain_link_goes_on_in_another_process() {
    if env::var_os(HEIR).is_some() {
        return inherit();
    }
    let [near, far] = meet(&replica(0, Seal::Never), 3, &replica(3, Seal::Never));
    let [mut near, far] = [near, far].map(|link| link.unwrap().into_socket().unwrap());
    // Bytes that came before the hand-over, which nobody has read here.
    near.write_all(b"early ").unwrap();

    let (ours, theirs) = UnixStream::pair().unwrap();
    let (_, name) = module_path!().split_once("::").unwrap();
    let mut heir = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("{name}::a_plain_link_goes_on_in_another_process"),
        ])
        .env(HEIR, "1")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    bequeath(&ours, far);

    near.write_all(b"and late").unwrap();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    near.set_nonblocking(false).unwrap();
    near.set_read_timeout(Some(SOON)).unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "another process has read: early and late");
    assert!(heir.wait().unwrap().success());
}

/// Passes a socket on, and closes the descriptor here.
fn bequeath(to: &UnixStream, socket: TcpStream) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)));
    let sent = sendmsg(to, &[IoSlice::new(b"r")], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(1));
}

/// The other process: takes the socket from its standard input and goes on with it.
fn inherit() {
    let mut socket = TcpStream::from(inherited(io::stdin()));
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut came = String::new();
    socket.read_to_string(&mut came).unwrap();
    write!(socket, "another process has read: {came}").unwrap();
}

fn inherited(from: impl AsFd) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let into = &mut [IoSliceMut::new(&mut word)];
    recvmsg(from, into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut passed = control.drain();
    let Some(RecvAncillaryMessage::ScmRights(mut sockets)) = passed.next() else {
        panic!("no socket came");
    };
    sockets.next().unwrap()
}
