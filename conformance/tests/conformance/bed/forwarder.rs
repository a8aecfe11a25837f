//! A NAT between an agent and its gateway that gives the agent another port when it is told to.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Passes datagrams on, both ways.
pub(crate) struct Forwarder {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Where the agent sends to.
    front: UdpSocket,
    /// What the gateway sees.
    back: Mutex<Arc<UdpSocket>>,
    agent: Mutex<Option<SocketAddr>>,
    gateway: SocketAddr,
    /// Nothing comes from the gateway.
    hushed: AtomicBool,
    over: AtomicBool,
}

impl Forwarder {
    pub(crate) fn new(gateway: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            front: socket(),
            back: Mutex::new(Arc::new(socket())),
            agent: Mutex::new(None),
            gateway,
            hushed: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let front = Arc::clone(&shared);
        let mut forwarder = Self {
            shared,
            threads: vec![thread::spawn(move || front.to_gateway())],
        };
        forwarder.return_from_back();
        forwarder
    }

    /// Where the agent sends to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.shared.front.local_addr().unwrap()
    }

    /// The port that the gateway sees.
    pub(crate) fn port(&self) -> u16 {
        self.shared.back().local_addr().unwrap().port()
    }

    /// From here on the agent has another port; the former one is gone.
    pub(crate) fn rebind(&mut self) {
        *self.shared.back.lock().unwrap() = Arc::new(socket());
        self.return_from_back();
    }

    /// From here on the agent hears nothing of the gateway.
    pub(crate) fn hush(&self) {
        self.shared.hushed.store(true, Ordering::Relaxed);
    }

    fn return_from_back(&mut self) {
        let (shared, back) = (Arc::clone(&self.shared), self.shared.back());
        let run = move || shared.to_agent(&back);
        self.threads.push(thread::spawn(run));
    }
}

impl Shared {
    fn back(&self) -> Arc<UdpSocket> {
        Arc::clone(&self.back.lock().unwrap())
    }

    fn to_gateway(&self) {
        let mut buffer = vec![0; 1 << 16];
        while !self.over.load(Ordering::Relaxed) {
            if let Some((len, agent)) = receive(&self.front, &mut buffer) {
                *self.agent.lock().unwrap() = Some(agent);
                // A full buffer loses it, as a network does.
                let _lost = self.back().send_to(&buffer[..len], self.gateway);
            }
        }
    }

    fn to_agent(&self, back: &Arc<UdpSocket>) {
        let mut buffer = vec![0; 1 << 16];
        while !self.over.load(Ordering::Relaxed) && Arc::ptr_eq(back, &self.back()) {
            if let Some((len, _)) = receive(back, &mut buffer)
                && !self.hushed.load(Ordering::Relaxed)
                && let Some(agent) = *self.agent.lock().unwrap()
            {
                let _lost = self.front.send_to(&buffer[..len], agent);
            }
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// One datagram, or none for a while.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(buffer) {
        Ok(received) => Some(received),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
            ) =>
        {
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // How soon a thread sees that it is over.
    let pause = Duration::from_millis(50);
    socket.set_read_timeout(Some(pause)).unwrap();
    socket
}
