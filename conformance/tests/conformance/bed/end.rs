//! One end of a session: the user's socket or the target's, used by blocking calls that do not wait for ever.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{
    journal::Journal,
    wait::{SOON, until},
};

/// Notes what happens to it.
pub(crate) struct End {
    pub(crate) stream: TcpStream,
    journal: Journal,
    subject: String,
    /// What is still to be sent.
    pub(crate) left: Vec<u8>,
}

/// Sizes of a socket's buffers, in bytes; none for the system's own.
pub(crate) type Buffers = Option<usize>;

impl End {
    pub(crate) fn new(stream: TcpStream, journal: &Journal, subject: String) -> Self {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self {
            stream,
            journal: journal.clone(),
            subject,
            left: Vec::new(),
        }
    }

    /// The same socket, for another thread.
    pub(crate) fn duplicate(&self) -> Self {
        let stream = self.stream.try_clone().unwrap();
        Self::new(stream, &self.journal, self.subject.clone())
    }

    fn note(&self, line: &str) {
        self.journal.note(&self.subject, line);
    }

    /// Sends all of these, without a note.
    pub(crate) fn stream_send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            panic!("{}: {error}", self.subject);
        }
    }

    /// Sends all of these.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream_send(bytes);
        self.note(&format!("sent {}", shown(bytes)));
    }

    /// Reads exactly so many bytes, without a note.
    pub(crate) fn stream_receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        if let Err(error) = self.stream.read_exact(&mut bytes) {
            panic!("{}: {error}", self.subject);
        }
        bytes
    }

    /// Reads exactly so many bytes.
    pub(crate) fn receive(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.stream_receive(len);
        self.note(&format!("received {}", shown(&bytes)));
        bytes
    }

    /// Says that no more comes.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self.note("half-closed");
    }

    /// The same without a note.
    pub(crate) fn finish_quietly(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads to a clean end, so many bytes at a time, without a note.
    pub(crate) fn trickle(&mut self, step: usize) -> Vec<u8> {
        let (mut bytes, mut some) = (Vec::new(), vec![0; step]);
        loop {
            match self.stream.read(&mut some) {
                Ok(0) => return bytes,
                Ok(len) => bytes.extend_from_slice(&some[..len]),
                Err(error) => panic!("{}: {error} after {}", self.subject, bytes.len()),
            }
        }
    }

    /// Reads to a clean end.
    pub(crate) fn receive_rest(&mut self) -> Vec<u8> {
        let (bytes, end) = self.drain();
        assert_eq!(end, "end", "{}", self.subject);
        self.note(&format!("received {} and the end", shown(&bytes)));
        bytes
    }

    /// Reads until the connection is reset. How much came before is not the same from run to run.
    pub(crate) fn receive_reset(&mut self) -> Vec<u8> {
        let (bytes, end) = self.drain();
        assert_eq!(
            end,
            "reset",
            "{}: after {} bytes",
            self.subject,
            bytes.len()
        );
        self.note("reset");
        bytes
    }

    /// Waits for a reset where the end was read already.
    pub(crate) fn see_reset(&self) {
        let error = until("it is reset", || self.stream.take_error().unwrap());
        // What the system calls a reset behind an end.
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{}", self.subject);
        self.note("reset after the end");
    }

    fn drain(&mut self) -> (Vec<u8>, &'static str) {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => (bytes, "end"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, "reset"),
            Err(error) => panic!("{}: {error} after {} bytes", self.subject, bytes.len()),
        }
    }

    /// Writes until the other end takes no more for a while or the connection fails, and tells how much was taken.
    pub(crate) fn pour(&mut self, bytes: &[u8], patience: Duration) -> usize {
        self.stream.set_write_timeout(Some(patience)).unwrap();
        let mut taken = 0;
        while let Some(left) = bytes.get(taken..).filter(|left| !left.is_empty()) {
            match self.stream.write(left) {
                Ok(len) => taken += len,
                Err(_) => break,
            }
        }
        self.stream.set_write_timeout(Some(SOON)).unwrap();
        taken
    }

    /// Closes the connection so that the other end sees a reset.
    pub(crate) fn reset(self) {
        self.note("resets");
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

/// A target's listener on loopback.
pub(crate) struct Target {
    listener: TcpListener,
}

impl Target {
    pub(crate) fn new(buffers: Buffers) -> Self {
        Self {
            listener: listener(buffers),
        }
    }

    pub(crate) fn addr(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn accept(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }
}

/// Makes a user's connection: the user's end, and the one that an ingress would have.
pub(crate) fn user(buffers: Buffers) -> (TcpStream, TcpStream) {
    let listener = listener(None);
    let user = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    set_buffers(&user, buffers);
    user.connect(&listener.local_addr().unwrap().into())
        .unwrap();
    let (ingress, _) = listener.accept().unwrap();
    ingress.set_nonblocking(true).unwrap();
    (user.into(), ingress)
}

fn listener(buffers: Buffers) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Inherited by what is accepted.
    set_buffers(&socket, buffers);
    socket
        .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    socket.listen(1_024).unwrap();
    // That long an accept waits.
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.into()
}

fn set_buffers(socket: &Socket, buffers: Buffers) {
    if let Some(len) = buffers {
        socket.set_recv_buffer_size(len).unwrap();
        socket.set_send_buffer_size(len).unwrap();
    }
}

/// Bytes that differ from place to place, and from one `seed` to another.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// How many bytes they are, and a hash of them.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let hash = blake3::hash(bytes).to_hex();
    format!("{} bytes {}", bytes.len(), &hash[..8])
}
