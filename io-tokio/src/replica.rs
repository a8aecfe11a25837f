//! Links between replicas: the waiting around `adit_io_common::replica`.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    time::Instant,
};

use adit_io_common::replica::{CONNECT_TIMEOUT, Handshake, Link, LinkError, Replica, Turn};
use adit_proto_core::replica::{Config, ReplicaId};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout, timeout_at},
};

use crate::udp::register;

/// Connects to a replica, and has both prove to each other that they are of the cluster. It takes [`CONNECT_TIMEOUT`] and
/// the handshake's own time at most; dropping the future gives up. A failure is in the log as well.
///
/// # Errors
/// If `target` is not to be dialled, there is no connection, or the handshake fails.
pub async fn dial(
    replica: &Replica,
    addr: SocketAddr,
    target: ReplicaId,
) -> Result<Link, LinkError> {
    replica.may_dial(Instant::now(), target)?;
    let connected = connect(addr).await;
    let begun = connected
        .and_then(|tcp| replica.dial(Instant::now(), tcp, addr, target))
        .and_then(watch);
    shake(begun.map_err(|error| replica.tell_unconnected(addr, target, error))?).await
}

async fn connect(addr: SocketAddr) -> Result<StdStream, LinkError> {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await;
    let tcp = connected.map_err(|_| LinkError::ConnectTimedOut)?;
    let tcp = tcp.map_err(LinkError::of_connect)?;
    tcp.into_std().map_err(LinkError::Socket)
}

/// Accepts connections of other replicas. Each handshake is a task, so that none waits for another.
#[derive(Debug)]
pub struct Acceptor {
    replica: Replica,
    listener: TcpListener,
    /// As many as there are places, and the links that nobody has taken: without a caller no connection is accepted.
    handshakes: JoinSet<Result<Link, LinkError>>,
}

impl Acceptor {
    /// Accepts from a listener, on the present runtime.
    ///
    /// # Errors
    /// What the system says of the listener.
    pub fn new(replica: Replica, listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            replica,
            listener: TcpListener::from_std(listener)?,
            handshakes: JoinSet::new(),
        })
    }

    /// Brings something else to the handshakes that begin from here on.
    pub fn set_config(&mut self, config: Config) {
        self.replica.set_config(config);
    }

    /// Waits for the next link. What fails meanwhile is in the log. Dropping the future loses nothing, dropping the
    /// acceptor gives up all handshakes.
    pub async fn accept(&mut self) -> Link {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, peer)) => self.begin(tcp, peer),
                    Err(error) => {
                        if let Some(pause) = self.replica.accept_failed(&error) {
                            sleep(pause).await;
                        }
                    }
                },
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(link)) => return link,
                    // It was told by the handshake.
                    Ok(Err(_)) => {}
                    Err(error) => tracing::error!(%error, "a replica's handshake panicked"),
                },
            }
        }
    }

    fn begin(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let begun = match tcp.into_std() {
            Ok(tcp) => self.replica.accept(Instant::now(), tcp, peer).map(watch),
            Err(error) => Some(Err(LinkError::Socket(error))),
        };
        match begun {
            Some(Ok(handshake)) => {
                self.handshakes.spawn(shake(handshake));
            }
            Some(Err(error)) => self.replica.tell_unusable(peer, &error),
            // There is no place for it, which was told.
            None => {}
        }
    }
}

fn watch(handshake: Handshake) -> Result<AsyncFd<Handshake>, LinkError> {
    let both = Interest::READABLE | Interest::WRITABLE;
    register(handshake, both).map_err(LinkError::Socket)
}

/// Carries a handshake on to its end. The socket leaves the runtime with that.
async fn shake(mut handshake: AsyncFd<Handshake>) -> Result<Link, LinkError> {
    let mut turn = handshake.get_mut().turn(Instant::now());
    while turn == Turn::Waiting {
        let waiting = handshake.get_ref();
        let (interest, due) = (interest(waiting), waiting.poll_timeout());
        turn = match timeout_at(due.into(), handshake.ready_mut(interest)).await {
            Ok(Ok(mut ready)) => {
                let turn = ready.get_inner_mut().turn(Instant::now());
                // It went as far as the socket goes; what came since then is told of.
                ready.clear_ready();
                turn
            }
            // The runtime ends, and the handshake is given up with that.
            Ok(Err(_)) => break,
            Err(_) => handshake.get_mut().turn(Instant::now()),
        };
    }
    handshake.into_inner().end()
}

/// What a handshake that waits, waits for: one of them at least.
fn interest(handshake: &Handshake) -> Interest {
    match (handshake.awaits_read(), handshake.awaits_write()) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (true, false) => Interest::READABLE,
        (false, _) => Interest::WRITABLE,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::IpAddr,
        thread,
        time::Duration,
    };

    use adit_io_common::replica::SealedLink;
    use adit_proto_core::{
        limits::REPLICA_HANDSHAKES_PER_SOURCE_MAX,
        replica::{ClusterId, DialError, Fault, Keys, ReplicaKey, Roster, Seal, Slots},
    };
    use socket2::{Domain, Socket, Type};

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const OTHER_KEY: &[u8] = b"another key of thirty-two bytes.";
    const TARGET: ReplicaId = ReplicaId(1);
    /// Nothing on loopback takes that long.
    const SOON: Duration = Duration::from_secs(10);

    fn replica(id: u8, seal: Seal, key: &[u8]) -> Replica {
        let keys = Keys::new(ReplicaKey::new(key).unwrap(), None).unwrap();
        let roster = Roster::dense(2, seal);
        let config = Config::new(ClusterId::of("c"), ReplicaId(id), roster, Some(keys));
        Replica::new(config.unwrap(), Slots::default())
    }

    /// The replica that is dialled, and its address.
    fn acceptor(seal: Seal) -> (Acceptor, SocketAddr) {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(replica(1, seal, KEY), listener);
        (acceptor.unwrap(), addr)
    }

    #[tokio::test]
    async fn a_plain_socket_goes_to_another_thread() {
        let (mut acceptor, addr) = acceptor(Seal::Never);
        let dialer = replica(0, Seal::Never, KEY);
        let (near, far) = tokio::join!(dial(&dialer, addr, TARGET), acceptor.accept());
        let near = near.unwrap();
        assert_eq!((near.replica(), far.replica()), (TARGET, ReplicaId(0)));
        let mut near = near.into_socket().unwrap();
        near.write_all(b"bare").unwrap();
        drop(near);
        let carrier = thread::spawn(move || {
            let mut far = far.into_socket().unwrap();
            far.set_nonblocking(false).unwrap();
            far.set_read_timeout(Some(SOON)).unwrap();
            let mut came = String::new();
            far.read_to_string(&mut came).unwrap();
            came
        });
        assert_eq!(carrier.join().unwrap(), "bare");
    }

    #[tokio::test]
    async fn a_sealed_socket_does_not_go_alone() {
        let (mut acceptor, addr) = acceptor(Seal::Require);
        let dialer = replica(0, Seal::Require, KEY);
        let (near, far) = tokio::join!(dial(&dialer, addr, TARGET), acceptor.accept());
        for link in [near.unwrap(), far] {
            let SealedLink(link) = link.into_socket().unwrap_err();
            assert!(link.is_sealed());
        }
    }

    #[tokio::test]
    async fn a_failed_handshake_stops_no_later_one() {
        let (mut acceptor, addr) = acceptor(Seal::Never);
        let (good, bad) = (
            replica(0, Seal::Never, KEY),
            replica(0, Seal::Never, OTHER_KEY),
        );
        let dialled = async {
            let refused = dial(&bad, addr, TARGET).await.unwrap_err();
            assert!(
                matches!(refused, LinkError::Handshake(Fault::MacMismatch(_))),
                "{refused}"
            );
            dial(&good, addr, TARGET).await
        };
        let (near, far) = tokio::join!(dialled, acceptor.accept());
        assert_eq!(near.unwrap().peer_addr(), addr);
        assert_eq!(far.replica(), ReplicaId(0));
    }

    #[tokio::test]
    async fn silent_connections_of_one_source_keep_no_other_out() {
        let (mut acceptor, addr) = acceptor(Seal::Never);
        let flood: Vec<Socket> = (0..REPLICA_HANDSHAKES_PER_SOURCE_MAX + 8)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                let from = SocketAddr::new(IpAddr::from([127, 0, 0, 2]), 0);
                socket.bind(&from.into()).unwrap();
                socket.connect(&addr.into()).unwrap();
                socket
            })
            .collect();
        let dialer = replica(0, Seal::Never, KEY);
        let (near, far) = tokio::join!(dial(&dialer, addr, TARGET), acceptor.accept());
        assert_eq!(near.unwrap().replica(), TARGET);
        assert_eq!(far.replica(), ReplicaId(0));
        // Every one that came before the dialer had its place, or was closed.
        assert_eq!(
            acceptor.replica.accepting(),
            REPLICA_HANDSHAKES_PER_SOURCE_MAX
        );
        drop(flood);
    }

    #[tokio::test]
    async fn whoever_waits_may_stop_waiting() {
        let (mut acceptor, addr) = acceptor(Seal::Never);
        let dialer = replica(0, Seal::Never, KEY);
        let mut dialled = Box::pin(dial(&dialer, addr, TARGET));
        let near = loop {
            // A caller that asks anew each time it is woken.
            tokio::select! {
                biased;
                link = &mut dialled => break link.unwrap(),
                link = acceptor.accept() => {
                    assert_eq!(link.replica(), ReplicaId(0));
                    break dialled.await.unwrap();
                }
                () = tokio::task::yield_now() => {}
            }
        };
        assert_eq!(near.replica(), TARGET);
    }

    #[tokio::test]
    async fn who_does_not_answer_the_call_is_told_apart() {
        let dialer = replica(0, Seal::Never, KEY);
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let refused = dial(&dialer, addr, TARGET).await;
        assert!(matches!(refused, Err(LinkError::Connect(_))), "{refused:?}");
        let own = dial(&dialer, addr, ReplicaId(0)).await;
        let expected = DialError::NotHigher(ReplicaId(0));
        assert!(
            matches!(own, Err(LinkError::Dial(error)) if error == expected),
            "{own:?}"
        );
    }
}
