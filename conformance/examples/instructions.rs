//! Carries so many sessions or MiB through a gateway and an agent over loopback, for `bench/instructions.py` to count
//! what each costs. With tokio both live on one thread, as with a process each; with mio each has its own. The user and
//! the target have other ones.
//!
//! ```text
//! instructions tokio|mio[-journal] sessions|mib COUNT
//! ```
//!
//! With `-journal` both take a journal, into one file. A session carries one byte there and one back. MiB go there and back in turns, through one session.

use std::{
    any::Any,
    env,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

use adit_io_common::{
    agent::{
        AdvertiserConfig, AgentConfig, Credentials, KeptPairs, KeyPairs, Restrictions, Swap,
        Validity,
    },
    clock::system_env,
    gateway::{GatewayConfig, GatewayHandle, Hooks, OpenRequest},
    journal::JournalFile,
    tcp::tune,
};
use adit_io_tokio::{Gateway, agent::Agent, socket};
use adit_proto_core::{
    endpoint::EndpointLimits,
    env::{Env, WallClock},
    gateway::dispatch::DispatchConfig,
    identity::AgentIdentity,
    journal::Journal,
    limits::UNREAD_BUDGET,
    link::tls::{Admission, AgentTls},
    output::Renewed,
    route::RouteSet,
    session_timer::SessionBounds,
};
use adit_simtests::{
    crypto::Suite,
    pki::{Pair, Pki, WALL_START_MS},
};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::oneshot;

const MIB: usize = 1 << 20;
const YEAR_S: i64 = 365 * 86_400;
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Who carries it.
#[derive(Clone, Copy, Debug)]
enum Driver {
    Tokio,
    Mio,
}

/// What the user does.
#[derive(Clone, Copy, Debug)]
enum Load {
    Sessions(usize),
    Mib(usize),
}

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [driver, what, count] = args.as_slice() else {
        bail!("instructions tokio|mio[-journal] sessions|mib COUNT");
    };
    let (driver, journal) = match driver.strip_suffix("-journal") {
        Some(driver) => (driver, Some(Recorded::new()?)),
        None => (driver.as_str(), None),
    };
    let driver = match driver {
        "tokio" => Driver::Tokio,
        "mio" => Driver::Mio,
        other => bail!("{other} is neither tokio nor mio"),
    };
    let load = match what.as_str() {
        "sessions" => Load::Sessions(count.parse()?),
        "mib" => Load::Mib(count.parse()?),
        other => bail!("{other} is neither sessions nor mib"),
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(driver, load, journal.as_ref().map(Recorded::journal)))?;
    if let Some(journal) = journal {
        journal.file.finish();
    }
    Ok(())
}

/// Where a journal goes.
struct Recorded {
    file: JournalFile,
    _folder: TempDir,
}

impl Recorded {
    fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        Ok(Self {
            file: JournalFile::create(&folder.path().join("journal"), u64::MAX)?,
            _folder: folder,
        })
    }

    fn journal(&self) -> Journal {
        Journal::new(Instant::now(), self.file.sink())
    }
}

async fn run(driver: Driver, load: Load, journal: Option<Journal>) -> Result<()> {
    let env = Env {
        wall_clock: Arc::new(InTheirLife),
        ..system_env(None)?
    };
    let mut pki = Pki::new(Suite::Ecdsa, [7; 32]);
    let (_gateway, handle, addr) = gateway(driver, &mut pki, &env, journal.clone())?;
    let _agent = agent(driver, (pki, env), addr, journal)?;
    let target = TcpListener::bind((LOOPBACK, 0))?;
    let target_addr = target.local_addr()?;
    thread::spawn(move || serve(&target, load));
    let ingress = tokio::net::TcpListener::bind((LOOPBACK, 0)).await?;
    let ingress_addr = ingress.local_addr()?;
    routed(&handle, target_addr).await?;
    let (done, finished) = oneshot::channel();
    // Nobody waits for it any more where the gateway has failed.
    thread::spawn(move || done.send(use_it(ingress_addr, load)));
    tokio::select! {
        failed = accept(&ingress, &handle, target_addr) => failed,
        finished = finished => finished?,
    }
}

/// Passes users on to the target.
async fn accept(
    ingress: &tokio::net::TcpListener,
    handle: &GatewayHandle,
    target: SocketAddr,
) -> Result<()> {
    loop {
        let (user, user_addr) = ingress.accept().await?;
        tune(&user)?;
        let request = OpenRequest {
            association: None,
            target: target.into(),
            agent: None,
            user: user_addr,
            account: None,
            ingress: "instructions".into(),
        };
        let session = handle.open(request).await?;
        session.attach(socket(user)?, Bytes::new());
    }
}

/// Waits until the gateway routes to the agent.
async fn routed(handle: &GatewayHandle, target: SocketAddr) -> Result<()> {
    let explain = || handle.explain(target.into(), None);
    while explain()
        .await
        .ok()
        .context("the gateway has stopped")?
        .candidates
        .is_empty()
    {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// The user: one session after the other, or all in one.
fn use_it(ingress: SocketAddr, load: Load) -> Result<()> {
    match load {
        Load::Sessions(count) => {
            for _ in 0..count {
                let mut tcp = connect(ingress)?;
                exchange(&mut tcp, 1)?;
                tcp.shutdown(Shutdown::Write)?;
                // The session is over when its end has come back.
                if tcp.read(&mut [0])? != 0 {
                    bail!("bytes that nobody sent");
                }
            }
        }
        Load::Mib(count) => {
            let mut tcp = connect(ingress)?;
            for _ in 0..count / 2 {
                exchange(&mut tcp, MIB)?;
            }
        }
    }
    Ok(())
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let tcp = TcpStream::connect(addr)?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Sends so much, and then takes as much.
fn exchange(tcp: &mut TcpStream, len: usize) -> Result<()> {
    let mut bytes = vec![7; len];
    tcp.write_all(&bytes)?;
    tcp.read_exact(&mut bytes)?;
    Ok(())
}

/// The target: sends back what it has got, all of it at once.
fn serve(listener: &TcpListener, load: Load) -> Result<()> {
    let len = match load {
        Load::Sessions(_) => 1,
        Load::Mib(_) => MIB,
    };
    let mut bytes = vec![0; len];
    loop {
        let (mut tcp, _) = listener.accept()?;
        tcp.set_nodelay(true)?;
        while tcp.read_exact(&mut bytes).is_ok() {
            tcp.write_all(&bytes)?;
        }
    }
}

/// A gateway, for as long as the box lives, with its handle and its address.
fn gateway(
    driver: Driver,
    pki: &mut Pki,
    env: &Env,
    journal: Option<Journal>,
) -> Result<(Box<dyn Any>, GatewayHandle, SocketAddr)> {
    let pair = pki.gateway("localhost", &[LOOPBACK.into()]);
    let config = GatewayConfig {
        listen: (LOOPBACK, 0).into(),
        tls: pki.gateway_tls(&pair, Arc::new(Everybody)),
        limits: EndpointLimits::default(),
        dispatch: DispatchConfig::default(),
        sessions: SessionBounds::default(),
        drained: Vec::new(),
        hooks: Hooks {
            renew: Arc::new(|_, _, answer| answer(Err("not here".to_owned()))),
            is_renewed: Arc::new(|_| false),
            confirm: Arc::new(|_| {}),
            left: Arc::new(|_| {}),
        },
        journal,
        threads: 1,
    };
    Ok(match driver {
        Driver::Tokio => {
            let gateway = Gateway::start(config, env)?;
            let (handle, addr) = (gateway.handle(), gateway.local_addr());
            (Box::new(gateway), handle, addr)
        }
        Driver::Mio => {
            let gateway = adit_io_mio::Gateway::start(config, env)?;
            let (handle, addr) = (gateway.handle(), gateway.local_addr());
            (Box::new(gateway), handle, addr)
        }
    })
}

/// An agent, for as long as the box lives.
fn agent(
    driver: Driver,
    (mut pki, env): (Pki, Env),
    gateway: SocketAddr,
    journal: Option<Journal>,
) -> Result<Box<dyn Any>> {
    let pair = pki.agent(uuid::Uuid::from_u128(7), "agent");
    let config = AgentConfig {
        gateways: vec![gateway.into()],
        pairs: Arc::new(OnePair { pki, pair }),
        routes: Arc::new(RouteSet {
            subnets: vec![ipnet::Ipv4Net::from(LOOPBACK).into()],
            domains: Vec::new(),
        }),
        restrictions: Restrictions::default(),
        intervals: AdvertiserConfig::default(),
        unread: UNREAD_BUDGET,
        journal,
    };
    Ok(match driver {
        Driver::Tokio => Box::new(Agent::start(config, env)?),
        Driver::Mio => Box::new(adit_io_mio::Agent::start(config, env, Box::new(|_| {}))?),
    })
}

/// The moment for which the certificates were made.
struct InTheirLife;

impl WallClock for InTheirLife {
    fn unix_ms(&self) -> u64 {
        WALL_START_MS
    }
}

struct Everybody;

impl Admission for Everybody {
    fn admit(&self, _identity: &AgentIdentity) -> bool {
        true
    }
}

/// An agent's only pair, which is never renewed.
struct OnePair {
    pki: Pki,
    pair: Pair,
}

impl KeyPairs for OnePair {
    fn tls(&self, _which: Credentials) -> Result<AgentTls, String> {
        Ok(self.pki.agent_tls(&self.pair, None))
    }

    fn validity(&self) -> Result<Validity, String> {
        let start = (WALL_START_MS / 1_000).cast_signed();
        Ok(Validity {
            not_before: start - YEAR_S,
            not_after: start + YEAR_S,
        })
    }

    fn kept(&self) -> KeptPairs {
        KeptPairs::default()
    }

    fn swap(&self) -> Swap {
        Swap::Overlap
    }

    fn request(&self) -> Result<String, String> {
        Err("not here".to_owned())
    }

    fn store(&self, _renewed: Renewed) -> Result<(), String> {
        Err("not here".to_owned())
    }

    fn adopt(&self) -> Result<Validity, String> {
        Err("not here".to_owned())
    }

    fn discard(&self) -> Result<(), String> {
        Ok(())
    }

    fn revert(&self) -> Result<Validity, String> {
        Err("not here".to_owned())
    }
}
