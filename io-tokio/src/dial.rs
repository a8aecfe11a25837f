//! Performs the core's `Dial`: the system resolver off the data path, TCP connections, timers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use adit_proto_core::{
    agent::{
        dial::{ConnectErrorKind, Dial, DialError, DialStep, ResolveError},
        policy::Policy,
    },
    target::Target,
};
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
};

use crate::{resolver::Resolver, tcp::tune};

enum Answer {
    Resolved(Result<Vec<IpAddr>, ResolveError>),
    Connected(usize, Result<TcpStream, ConnectErrorKind>),
}

/// Connects to a target as the policy allows. Dropping the future gives up.
///
/// # Errors
/// [`DialError`], within 20 s at the latest.
pub(crate) async fn dial(
    target: Target,
    policy: Arc<Policy>,
    resolver: &Resolver,
) -> Result<TcpStream, DialError> {
    let mut machine = Dial::new(Instant::now(), target, policy);
    // Dropping the set aborts what is left.
    let mut tasks: JoinSet<Answer> = JoinSet::new();
    let mut connects: Vec<(usize, AbortHandle)> = Vec::new();
    let mut winner: Option<(usize, TcpStream)> = None;
    loop {
        while let Some(step) = machine.poll_step() {
            match step {
                DialStep::Resolve(name) => {
                    let resolver = resolver.clone();
                    tasks.spawn(async move { Answer::Resolved(resolver.resolve(&name).await) });
                }
                DialStep::Connect(index, addr) => {
                    let task =
                        tasks.spawn(async move { Answer::Connected(index, connect(addr).await) });
                    connects.push((index, task));
                }
                DialStep::Abort(index) => {
                    for (_, task) in connects.extract_if(.., |(i, _)| *i == index) {
                        task.abort();
                    }
                }
                DialStep::Won(index) => {
                    if let Some((won, tcp)) = winner.take().filter(|(won, _)| *won == index) {
                        tracing::trace!(won, "connected");
                        return Ok(tcp);
                    }
                }
                DialStep::Failed(error) => return Err(error),
            }
        }
        let deadline = machine.poll_timeout().unwrap_or_else(Instant::now);
        tokio::select! {
            Some(answer) = tasks.join_next() => match answer {
                Ok(Answer::Resolved(answer)) => machine.handle_resolved(Instant::now(), answer),
                Ok(Answer::Connected(index, Ok(tcp))) => {
                    winner = Some((index, tcp));
                    machine.handle_connected(Instant::now(), index);
                }
                Ok(Answer::Connected(index, Err(kind))) => machine.handle_failed(Instant::now(), index, kind),
                // Aborted, as the machine asked.
                Err(_) => {}
            },
            () = tokio::time::sleep_until(deadline.into()) => machine.handle_timeout(Instant::now()),
        }
    }
}

async fn connect(addr: SocketAddr) -> Result<TcpStream, ConnectErrorKind> {
    let tcp = TcpStream::connect(addr)
        .await
        .map_err(|error| connect_error(&error))?;
    // A socket that is gone already tells so at its first use.
    let _gone = tune(&tcp);
    Ok(tcp)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not told apart is one kind, whatever the system adds"
)]
fn connect_error(error: &io::Error) -> ConnectErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectErrorKind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            ConnectErrorKind::Reset
        }
        io::ErrorKind::TimedOut => ConnectErrorKind::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ConnectErrorKind::Unreachable
        }
        _ => ConnectErrorKind::Other(error.raw_os_error()),
    }
}
