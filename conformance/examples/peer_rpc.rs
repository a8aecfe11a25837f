//! Round trips of calls between two gateways over one connection on loopback, beside a plain request and response on a
//! stream each with the crate `quinn`, in turns; `docs/performance.md` has figures.
//!
//! ```text
//! peer_rpc tokio|mio COUNT ROUNDS
//! ```
//!
//! Each call carries 256 bytes there and back, and 64 are under way at a time. Each end has a thread with a runtime of its
//! own, which carries the application, too; with mio the driver has another one at each end. QUIC and TLS are the same
//! library, version and cipher suite in both. Beside the rates stands the CPU time of the whole process, both ends, for
//! one round trip.

use std::{
    cell::Cell,
    env,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use adit_io_common::{
    clock::system_env,
    peers::{PeersConfig, PeersHandle, Requests},
};
use adit_proto_core::{
    endpoint::EndpointLimits,
    link::{
        peer_tls::{PeerSecurity, PeerTls},
        provider::default_provider,
    },
    peer::{
        NodeId,
        breaker::BreakerSettings,
        config::PeerConfig,
        directory::Directory,
        epoch::EpochMark,
        identity::{Leaf, NodeRecord, PinSet},
        key::{ClusterSecret, KeyId, KeyRing},
        ledger::PeerLedger,
        receive::JoinCheck,
        rpc_type::RpcType,
    },
    target::Target,
};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use quinn::{
    ClientConfig, Connection, Endpoint, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::time::{ClockId, clock_gettime};
use rustls::{RootCertStore, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::LocalSet,
};

const BODY_LEN: usize = 256;
const UNDER_WAY: usize = 64;
const NAME: &str = "nodedb";
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Who carries adit's ends.
#[derive(Clone, Copy, Debug)]
enum Driver {
    Tokio,
    Mio,
}

#[expect(clippy::print_stdout, reason = "its result")]
fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [driver, count, rounds] = args.as_slice() else {
        bail!("usage: peer_rpc tokio|mio COUNT ROUNDS");
    };
    let driver = match driver.as_str() {
        "tokio" => Driver::Tokio,
        "mio" => Driver::Mio,
        other => bail!("no driver {other}"),
    };
    let count: usize = count.parse().context("COUNT is no number")?;
    let rounds: usize = rounds.parse().context("ROUNDS is no number")?;
    ensure!(count > 0 && rounds > 0, "nothing to do");
    let pki = Pki::new()?;
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        plain.push(with_quinn(&pki, count)?);
        ours.push(with_adit(driver, &pki, count)?);
        println!("{}", compare(driver, plain[round - 1], ours[round - 1]));
    }
    let medians = compare(driver, median(&plain), median(&ours));
    println!("medians: {medians}");
    Ok(())
}

/// What a turn came to.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Round trips in a second.
    rate: f64,
    /// Microseconds of CPU time of both ends for one.
    cpu: f64,
}

fn compare(driver: Driver, plain: Turn, ours: Turn) -> String {
    format!(
        "quinn {:.0}/s at {:.1} us, adit with {driver:?} {:.0}/s at {:.1} us, ratio {:.2}",
        plain.rate,
        plain.cpu,
        ours.rate,
        ours.cpu,
        ours.rate / plain.rate,
    )
}

fn median(turns: &[Turn]) -> Turn {
    let of = |figure: fn(&Turn) -> f64| {
        let mut figures: Vec<f64> = turns.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Turn {
        rate: of(|turn| turn.rate),
        cpu: of(|turn| turn.cpu),
    }
}

/// CPU time that the process has used.
fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::from_secs(used.tv_sec.unsigned_abs())
        + Duration::from_nanos(used.tv_nsec.unsigned_abs())
}

/// Whoever makes calls.
trait Caller: Clone + 'static {
    /// One round trip; gives the length of what came back.
    async fn call(&self, body: Bytes) -> Result<usize>;
}

/// Makes `count` calls with so many under way at a time.
async fn drive(count: usize, caller: impl Caller) -> Result<Turn> {
    let body = Bytes::from(vec![7; BODY_LEN]);
    // The first one waits for the connection.
    let first = caller.call(body.clone()).await?;
    ensure!(first == BODY_LEN, "another body came back");
    let (begun, used) = (Instant::now(), cpu_time());
    let left = Rc::new(Cell::new(count));
    let local = LocalSet::new();
    for _ in 0..UNDER_WAY {
        let (left, caller, body) = (Rc::clone(&left), caller.clone(), body.clone());
        local.spawn_local(async move {
            while let Some(rest) = left.get().checked_sub(1) {
                left.set(rest);
                match caller.call(body.clone()).await {
                    Ok(BODY_LEN) => {}
                    other => panic!("a call has failed: {other:?}"),
                }
            }
        });
    }
    local.await;
    Ok(Turn {
        rate: count as f64 / begun.elapsed().as_secs_f64(),
        cpu: (cpu_time() - used).as_secs_f64() * 1e6 / count as f64,
    })
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// One end on a thread of its own, which ends when the sender is dropped.
fn beside(
    serve: impl FnOnce(oneshot::Receiver<()>) -> Result<()> + Send + 'static,
) -> (oneshot::Sender<()>, JoinHandle<Result<()>>) {
    let (end, ended) = oneshot::channel();
    (end, thread::spawn(move || serve(ended)))
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("the other end panicked"),
    }
}

fn with_quinn(pki: &Pki, count: usize) -> Result<Turn> {
    let (server, client) = pki.quinn()?;
    let (tell, told) = std::sync::mpsc::channel();
    let (end, thread) = beside(move |ended| {
        runtime()?.block_on(async move {
            let endpoint = Endpoint::server(server, LOOPBACK)?;
            tell.send(endpoint.local_addr()?)?;
            let serving = tokio::spawn(async move {
                let incoming = endpoint.accept().await.context("no connection")?;
                answer_all(incoming.await?).await
            });
            // Ended from the other side.
            drop(ended.await);
            serving.abort();
            Ok(())
        })
    });
    let addr = told.recv()?;
    let turn = runtime()?.block_on(async move {
        let mut endpoint = Endpoint::client(LOOPBACK)?;
        endpoint.set_default_client_config(client);
        let connection = endpoint.connect(addr, NAME)?.await?;
        drive(count, connection).await
    });
    drop(end);
    joined(thread)?;
    turn
}

impl Caller for Connection {
    async fn call(&self, body: Bytes) -> Result<usize> {
        let (mut send, mut recv) = self.open_bi().await?;
        send.write_chunk(body).await?;
        send.finish()?;
        Ok(recv.read_to_end(BODY_LEN).await?.len())
    }
}

async fn answer_all(connection: Connection) -> Result<()> {
    loop {
        let (mut send, mut recv) = connection.accept_bi().await?;
        tokio::spawn(async move {
            let body = recv.read_to_end(BODY_LEN).await?;
            send.write_chunk(body.into()).await?;
            send.finish()?;
            anyhow::Ok(())
        });
    }
}

fn with_adit(driver: Driver, pki: &Pki, count: usize) -> Result<Turn> {
    let [one, two] = [pki.config(0)?, pki.config(1)?];
    let (tell, told) = std::sync::mpsc::channel();
    let (end, thread) = beside(move |ended| {
        runtime()?.block_on(async move {
            let (node, mut requests) = Node::start(driver, one)?;
            tell.send(node.addr)?;
            tokio::spawn(async move {
                while let Some(request) = requests.next().await {
                    request.responder.answer(request.payload);
                }
            });
            // Ended from the other side.
            drop(ended.await);
            Ok(())
        })
    });
    let addr = told.recv()?;
    let turn = runtime()?.block_on(async move {
        let (node, _requests) = Node::start(driver, two)?;
        let known = vec![(NodeId(1), Target::from(addr))];
        ensure!(node.handle.set_peers(known).await.is_ok(), "it has stopped");
        drive(count, node.handle.clone()).await
    });
    drop(end);
    joined(thread)?;
    turn
}

impl Caller for PeersHandle {
    async fn call(&self, body: Bytes) -> Result<usize> {
        Ok(Self::call(self, NodeId(1), RpcType::Execute, body)
            .await?
            .len())
    }
}

/// A node that lives as long as this does.
struct Node {
    handle: PeersHandle,
    addr: SocketAddr,
    _tokio: Option<adit_io_tokio::Peers>,
    mio: Option<adit_io_mio::Peers>,
}

impl Node {
    fn start(driver: Driver, config: PeersConfig) -> Result<(Self, Requests)> {
        let env = system_env(None)?;
        Ok(match driver {
            Driver::Tokio => {
                let (peers, requests) = adit_io_tokio::Peers::start(config, env)?;
                let node = Self {
                    handle: peers.handle(),
                    addr: peers.local_addr(),
                    _tokio: Some(peers),
                    mio: None,
                };
                (node, requests)
            }
            Driver::Mio => {
                let (peers, requests) = adit_io_mio::Peers::start(config, env)?;
                let node = Self {
                    handle: peers.handle(),
                    addr: peers.local_addr(),
                    _tokio: None,
                    mio: Some(peers),
                };
                (node, requests)
            }
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mio) = &self.mio {
            mio.quit();
        }
    }
}

/// A CA and two certificates of it.
struct Pki {
    ca: Vec<u8>,
    nodes: [(Vec<u8>, Vec<u8>); 2],
}

struct NoJoins;

impl JoinCheck for NoJoins {
    fn allows(&self, _from: NodeId, _payload: &[u8], _leaf: &Leaf) -> bool {
        false
    }
}

impl Pki {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let node = || -> Result<(Vec<u8>, Vec<u8>)> {
            let key = KeyPair::generate()?;
            let cert = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &ca)?;
            Ok((cert.der().to_vec(), key.serialize_der()))
        };
        Ok(Self {
            nodes: [node()?, node()?],
            ca: ca.der().to_vec(),
        })
    }

    fn quinn(&self) -> Result<(ServerConfig, ClientConfig)> {
        let provider = Arc::new(default_provider());
        let (cert, key) = &self.nodes[0];
        let key = PrivatePkcs8KeyDer::from(key.clone());
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![cert.clone().into()], key.into())?;
        server.alpn_protocols = vec![b"plain".to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone().into())?;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"plain".to_vec()];
        let server = QuicServerConfig::try_from(server)?;
        let client = QuicClientConfig::try_from(client)?;
        Ok((
            ServerConfig::with_crypto(Arc::new(server)),
            ClientConfig::new(Arc::new(client)),
        ))
    }

    /// Of node 1 or 2, by its place.
    fn config(&self, place: usize) -> Result<PeersConfig> {
        let mut topology = Directory::default();
        for (node, (cert, _)) in (1..).zip(&self.nodes) {
            topology.set(NodeRecord {
                node: NodeId(node),
                spki_pins: PinSet::new([Leaf::from_der(cert)?.spki])?,
                spiffe_id: None,
                address: String::new(),
            })?;
        }
        let (cert, key) = &self.nodes[place];
        let ring = KeyRing::new(KeyId(1), ClusterSecret::new([3; 32])?);
        let ledger = PeerLedger::new(1, ring, Box::new(EpochMark::new(0)));
        Ok(PeersConfig {
            listen: LOOPBACK,
            security: PeerSecurity::Mutual(Arc::new(PeerTls {
                local: NodeId(1 + place as u64),
                cert_chain: vec![cert.clone()],
                key: key.clone().into(),
                roots: vec![self.ca.clone()],
                crls: Vec::new(),
                identities: Arc::new(topology),
                bootstrap_until: 0,
            })),
            config: PeerConfig::new(Arc::new(ledger), Arc::new(NoJoins)),
            limits: EndpointLimits::default(),
            breaker: BreakerSettings::default(),
            peers: Vec::new(),
            catalogue: None,
            links: None,
        })
    }
}
