//! A long or lossy path on one machine: passes UDP datagrams between one agent and its gateway, each after a delay,
//! some of them never. `bench/path.sh` measures through it.
//!
//! ```text
//! relay LISTEN GATEWAY DELAY_MS LOSS_PERCENT DATAGRAM_MAX
//! ```
//!
//! The delay is that of one direction, the loss that of each. Datagrams above DATAGRAM_MAX vanish, as on a path of
//! that MTU. Which are lost is the same in every run over the same datagrams.
#![expect(
    clippy::print_stderr,
    reason = "a tool of the benchmarks, run by hand or by its script"
)]

use std::{
    collections::VecDeque,
    env,
    error::Error,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::SockRef;
use tokio::{io::Interest, net::UdpSocket, time::sleep_until};

/// Datagrams that are under way in one direction, in bytes: 1 Gbit/s for half a second. More are dropped.
const UNDER_WAY_MAX: usize = 64 << 20;
const SOCKET_BUFFER: usize = 4 << 20;
const RECV_BATCH: usize = 8;
const RECV_BUFFER: usize = 64 << 10;

/// What the path does to datagrams.
#[derive(Clone, Copy, Debug)]
struct Path {
    delay: Duration,
    /// Chance of a loss, of 2^32.
    loss: u64,
    datagram_max: usize,
}

struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Where to send; learnt from what is received.
    peer: Mutex<Option<SocketAddr>>,
}

impl Port {
    async fn bind(addr: SocketAddr, peer: Option<SocketAddr>) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr).await?;
        SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
        SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let peer = Mutex::new(peer);
        Ok(Self {
            socket,
            state,
            peer,
        })
    }

    fn peer(&self) -> Option<SocketAddr> {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, peer: SocketAddr) {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
    }

    async fn send(&self, parcel: &Parcel) -> io::Result<()> {
        let Some(destination) = self.peer() else {
            return Ok(());
        };
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: &parcel.bytes,
            segment_size: (parcel.bytes.len() > parcel.stride).then_some(parcel.stride),
            src_ip: None,
        };
        loop {
            self.socket.writable().await?;
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                self.state
                    .try_send(UdpSockRef::from(&self.socket), &transmit)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The process there may be restarting.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
                sent => return sent,
            }
        }
    }
}

/// Datagrams of one size, but for the last, that came together.
struct Parcel {
    due: Instant,
    bytes: Vec<u8>,
    stride: usize,
}

/// One direction.
struct Way {
    path: Path,
    from: Arc<Port>,
    to: Arc<Port>,
    under_way: VecDeque<Parcel>,
    len: usize,
    random: u64,
    dropped: u64,
}

impl Way {
    fn new(path: Path, from: &Arc<Port>, to: &Arc<Port>, seed: u64) -> Self {
        Self {
            path,
            from: Arc::clone(from),
            to: Arc::clone(to),
            under_way: VecDeque::new(),
            len: 0,
            random: seed,
            dropped: 0,
        }
    }

    async fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; RECV_BUFFER * RECV_BATCH];
        loop {
            let due = self.under_way.front().map(|parcel| parcel.due);
            let far = Instant::now() + Duration::from_secs(3_600);
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or(far).into()), if due.is_some() => self.deliver().await?,
                ready = self.from.socket.readable() => {
                    ready?;
                    self.receive(&mut buffer)?;
                }
            }
        }
    }

    async fn deliver(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some(parcel) = self.under_way.pop_front_if(|parcel| parcel.due <= now) {
            self.len -= parcel.bytes.len();
            self.to.send(&parcel).await?;
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let from = Arc::clone(&self.from);
        let mut chunks = buffer.chunks_exact_mut(RECV_BUFFER);
        let mut buffers: [IoSliceMut<'_>; RECV_BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let mut metas = [RecvMeta::default(); RECV_BATCH];
        let received = from.socket.try_io(Interest::READABLE, || {
            let socket = UdpSockRef::from(&from.socket);
            from.state.recv(socket, &mut buffers, &mut metas)
        });
        let count = match received {
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let due = Instant::now() + self.path.delay;
        for (meta, bytes) in metas.iter().zip(&buffers).take(count) {
            from.learn(meta.addr);
            self.take(due, meta.stride, bytes.get(..meta.len).unwrap_or_default());
        }
        Ok(())
    }

    /// Takes what came together, without what is lost.
    fn take(&mut self, due: Instant, stride: usize, bytes: &[u8]) {
        let stride = stride.max(1);
        if stride > self.path.datagram_max {
            return;
        }
        let mut kept = Vec::with_capacity(bytes.len());
        for datagram in bytes.chunks(stride) {
            if !self.is_lost() {
                kept.extend_from_slice(datagram);
            }
        }
        if self.len + kept.len() > UNDER_WAY_MAX {
            self.dropped += 1;
            eprintln!("the path is full; {} batches dropped", self.dropped);
        } else if !kept.is_empty() {
            self.len += kept.len();
            self.under_way.push_back(Parcel {
                due,
                bytes: kept,
                stride,
            });
        }
    }

    /// The next of a series by Marsaglia's xorshift.
    fn is_lost(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 32 < self.path.loss
    }
}

fn argument<T: FromStr>(index: usize) -> Result<T, Box<dyn Error>>
where
    T::Err: Error + 'static,
{
    let usage = "usage: relay LISTEN GATEWAY DELAY_MS LOSS_PERCENT DATAGRAM_MAX";
    Ok(env::args().nth(index).ok_or(usage)?.parse()?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let percent: f64 = argument(4)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates, and a chance has no use for more"
    )]
    let loss = (percent / 100.0 * f64::from(u32::MAX)) as u64;
    let path = Path {
        delay: Duration::from_millis(argument(3)?),
        loss,
        datagram_max: argument(5)?,
    };
    let front = Arc::new(Port::bind(argument(1)?, None).await?);
    let any = (Ipv4Addr::UNSPECIFIED, 0).into();
    let back = Arc::new(Port::bind(any, Some(argument(2)?)).await?);
    let there = Way::new(path, &front, &back, 0x9e37_79b9_7f4a_7c15);
    let and_back = Way::new(path, &back, &front, 0xd1b5_4a32_d192_ed03);
    tokio::try_join!(there.run(), and_back.run())?;
    Ok(())
}
