//! Handshakes between replicas over TCP on loopback, both ends in one thread; `docs/performance.md` has figures.
//!
//! ```text
//! replica tokio|mio COUNT ROUNDS
//! ```
//!
//! Each connection is made, shaken hands on, and closed; a few are under way at a time. What counts is the CPU time of the
//! process, both ends and the kernel's part in it.

use std::{
    cell::Cell,
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    rc::Rc,
    time::Instant,
};

use adit_io_common::replica::Replica;
use adit_io_mio::replica::{Outcome, Replicas};
use adit_io_tokio::replica::{Acceptor, dial};
use adit_proto_core::replica::{
    ClusterId, Config, Keys, ReplicaId, ReplicaKey, Roster, Seal, Slots,
};
use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Poll, Token};
use tokio::{runtime::Builder, task::LocalSet};

/// Fewer than an acceptor takes from one source.
const UNDER_WAY: usize = 16;
const DIALER: ReplicaId = ReplicaId(0);
const ACCEPTOR: ReplicaId = ReplicaId(1);
/// Where the acceptor's tokens begin; the dialer takes one for each of its connections from 0 on.
const TOKENS: usize = 1 << 40;
/// Ticks of /proc are 10 ms on every Linux.
const TICK_SECONDS: f64 = 0.01;

#[expect(clippy::print_stdout, reason = "its result")]
fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [driver, count, rounds] = args.as_slice() else {
        bail!("usage: replica tokio|mio COUNT ROUNDS");
    };
    let with = match driver.as_str() {
        "tokio" => with_tokio,
        "mio" => with_mio,
        other => bail!("no driver {other}"),
    };
    let count: usize = count.parse().context("COUNT is no number")?;
    let rounds: usize = rounds.parse().context("ROUNDS is no number")?;
    ensure!(count > 0 && rounds > 0, "nothing to do");
    for (seal, kind) in [(Seal::Never, "bare"), (Seal::Require, "sealed")] {
        let mut rates = Vec::new();
        for _ in 0..rounds {
            let (before, begun) = (cpu()?, Instant::now());
            with(seal, count)?;
            let (user, system) = (cpu()?.0 - before.0, cpu()?.1 - before.1);
            let (took, count) = (begun.elapsed().as_secs_f64(), count as f64);
            let rate = count / (user + system);
            let share = 100.0 * system / (user + system);
            println!(
                "{kind}: {rate:.0} per CPU second, {share:.0} % of it the kernel's; {:.0} per second",
                count / took
            );
            rates.push(rate);
        }
        rates.sort_by(f64::total_cmp);
        println!("{kind}, median: {:.0} per CPU second", rates[rounds / 2]);
    }
    Ok(())
}

fn with_tokio(seal: Seal, count: usize) -> Result<()> {
    let (listener, addr) = listen()?;
    let (dialer, acceptor) = (replica(DIALER, seal)?, replica(ACCEPTOR, seal)?);
    let (runtime, local) = (
        Builder::new_current_thread().enable_all().build()?,
        LocalSet::new(),
    );
    let left = Rc::new(Cell::new(count));
    let dialling = (0..UNDER_WAY).map(|_| {
        let (left, dialer) = (Rc::clone(&left), dialer.clone());
        local.spawn_local(async move {
            while let Some(rest) = left.get().checked_sub(1) {
                left.set(rest);
                drop(dial(&dialer, addr, ACCEPTOR).await?);
            }
            anyhow::Ok(())
        })
    });
    let dialling: Vec<_> = dialling.collect();
    runtime.block_on(local.run_until(async {
        let mut acceptor = Acceptor::new(acceptor, listener)?;
        for _ in 0..count {
            drop(acceptor.accept().await);
        }
        for task in dialling {
            task.await??;
        }
        Ok(())
    }))
}

fn with_mio(seal: Seal, count: usize) -> Result<()> {
    let (listener, addr) = listen()?;
    let mut poll = Poll::new()?;
    let registry = || poll.registry().try_clone();
    let mut dialer = Replicas::new(replica(DIALER, seal)?, registry()?, Token(0));
    let mut acceptor = Replicas::new(replica(ACCEPTOR, seal)?, registry()?, Token(TOKENS));
    acceptor.listen(listener)?;
    let (mut events, mut begun, mut dialled, mut accepted) = (Events::with_capacity(64), 0, 0, 0);
    while dialled < count || accepted < count {
        while begun < count && begun - dialled < UNDER_WAY {
            dialer.dial(Instant::now(), addr, ACCEPTOR)?;
            begun += 1;
        }
        let due = dialer
            .poll_timeout()
            .into_iter()
            .chain(acceptor.poll_timeout());
        let wait = due
            .min()
            .map(|at| at.saturating_duration_since(Instant::now()));
        poll.poll(&mut events, wait)?;
        let now = Instant::now();
        for event in &events {
            match event.token().0 < TOKENS {
                true => dialer.ready(now, event.token()),
                false => acceptor.ready(now, event.token()),
            }
        }
        dialer.handle_timeout(now);
        acceptor.handle_timeout(now);
        while let Some(Outcome::Dialled(_, link)) = dialer.poll_outcome() {
            drop(link?);
            dialled += 1;
        }
        while let Some(Outcome::Accepted(link)) = acceptor.poll_outcome() {
            drop(link);
            accepted += 1;
        }
    }
    Ok(())
}

fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

fn replica(id: ReplicaId, seal: Seal) -> Result<Replica> {
    let key = ReplicaKey::new(b"0123456789abcdef0123456789abcdef")?;
    let keys = Keys::new(key, None)?;
    let roster = Roster::dense(2, seal);
    let config = Config::new(ClusterId::of("bench"), id, roster, Some(keys))?;
    Ok(Replica::new(config, Slots::default()))
}

/// Seconds of user and system that this process has had.
fn cpu() -> Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("an odd /proc")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<f64>);
    let mut next = || anyhow::Ok(times.next().context("an odd /proc")?? * TICK_SECONDS);
    Ok((next()?, next()?))
}
