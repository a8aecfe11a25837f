//! An attacker on the path between two gateways: a relay of UDP datagrams that keeps what it has seen.

use std::{
    collections::VecDeque,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Passes datagrams between a gateway that dials its address and the one that it stands before. Clients with several
/// addresses would get several ways; gateways have one.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// What the dialling gateway takes for the other one.
    front: UdpSocket,
    /// What the other one takes for the dialling gateway.
    back: UdpSocket,
    /// The dialling gateway.
    client: Mutex<Option<SocketAddr>>,
    to_server: Mutex<VecDeque<Vec<u8>>>,
    to_client: Mutex<VecDeque<Vec<u8>>>,
    is_cut: AtomicBool,
    swallowed: AtomicUsize,
}

impl Relay {
    /// A relay before a gateway.
    pub(crate) fn before(port: u16) -> Self {
        let [front, back] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        back.connect(("127.0.0.1", port)).unwrap();
        let addr = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            front,
            back,
            client: Mutex::default(),
            to_server: Mutex::default(),
            to_client: Mutex::default(),
            is_cut: AtomicBool::new(false),
            swallowed: AtomicUsize::new(0),
        });
        // Both end with the test process.
        for pass in [Shared::pass_to_server, Shared::pass_to_client] {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || pass(&shared));
        }
        Self { addr, shared }
    }

    /// How many datagrams it has, of both directions.
    pub(crate) fn seen(&self) -> usize {
        let of = |seen: &Mutex<VecDeque<Vec<u8>>>| seen.lock().unwrap().len();
        of(&self.shared.to_server) + of(&self.shared.to_client)
    }

    /// What went to the gateway behind it, oldest first.
    pub(crate) fn to_server(&self) -> Vec<Vec<u8>> {
        self.shared
            .to_server
            .lock()
            .unwrap()
            .iter()
            .cloned()
            .collect()
    }

    /// What went to the gateway that dials it, oldest first.
    pub(crate) fn to_client(&self) -> Vec<Vec<u8>> {
        self.shared
            .to_client
            .lock()
            .unwrap()
            .iter()
            .cloned()
            .collect()
    }

    /// Sends the gateway behind it a datagram as if the other one had.
    pub(crate) fn inject_to_server(&self, datagram: &[u8]) {
        self.shared.send_to_server(datagram);
    }

    /// Sends the dialling gateway a datagram as if the other one had.
    pub(crate) fn inject_to_client(&self, datagram: &[u8]) {
        self.shared.send_to_client(datagram);
    }

    /// Passes nothing, or everything again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// Datagrams that were lost here.
    pub(crate) fn swallowed(&self) -> usize {
        self.shared.swallowed.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn pass_to_server(&self) {
        let mut buf = [0; LARGEST];
        loop {
            // A gateway that has stopped is told of as an error.
            let Ok((len, from)) = self.front.recv_from(&mut buf) else {
                continue;
            };
            *self.client.lock().unwrap() = Some(from);
            if self.keep(&self.to_server, &buf[..len]) {
                self.send_to_server(&buf[..len]);
            }
        }
    }

    fn pass_to_client(&self) {
        let mut buf = [0; LARGEST];
        loop {
            let Ok(len) = self.back.recv(&mut buf) else {
                continue;
            };
            if self.keep(&self.to_client, &buf[..len]) {
                self.send_to_client(&buf[..len]);
            }
        }
    }

    /// Keeps a datagram; tells whether it is to be passed on.
    fn keep(&self, seen: &Mutex<VecDeque<Vec<u8>>>, datagram: &[u8]) -> bool {
        if self.is_cut.load(Ordering::Relaxed) {
            self.swallowed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let mut seen = seen.lock().unwrap();
        if seen.len() == KEPT {
            // The first ones are handshakes, which are worth most.
            seen.remove(HANDSHAKES);
        }
        seen.push_back(datagram.to_vec());
        true
    }

    // What cannot be sent is lost, as datagrams are.

    fn send_to_server(&self, datagram: &[u8]) {
        let _lost = self.back.send(datagram);
    }

    fn send_to_client(&self, datagram: &[u8]) {
        if let Some(client) = *self.client.lock().unwrap() {
            let _lost = self.front.send_to(datagram, client);
        }
    }
}

/// Larger than any datagram of a gateway.
const LARGEST: usize = 65_536;

/// Datagrams that are kept of each direction.
const KEPT: usize = 4_000;

/// The first of them that are never forgotten.
const HANDSHAKES: usize = 200;
