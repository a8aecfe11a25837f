//! Connections to targets, each dial in a task.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream as StdStream},
    sync::Arc,
    time::Instant,
};

use adit_io_common::{
    dialling::{Dialler, Dialling, Done, Resolved, Step, UnderWay},
    resolver::Resolver,
    tcp::tune,
};
use adit_proto_core::{
    agent::{
        dial::{DialError, ResolveError},
        policy::Policy,
    },
    target::Target,
};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::sleep_until,
};

/// Dials on one runtime.
pub(crate) struct TokioDialler {
    runtime: Handle,
    resolver: Resolver,
}

impl TokioDialler {
    /// Dials on the present runtime.
    pub(crate) fn new(resolver: Resolver) -> Self {
        Self {
            runtime: Handle::current(),
            resolver,
        }
    }
}

impl Dialler for TokioDialler {
    fn dial(&self, target: Target, policy: Arc<Policy>, done: Done) -> UnderWay {
        let dialling = Dialling::new(Instant::now(), target, policy, self.resolver.clone());
        let task = self
            .runtime
            .spawn(async move { done(dial(dialling).await) });
        let task = task.abort_handle();
        UnderWay::new(move || task.abort())
    }
}

type Found = Result<Vec<IpAddr>, ResolveError>;

/// Dropping the future gives up.
async fn dial(mut dialling: Dialling<StdStream>) -> Result<StdStream, DialError> {
    let (tell, mut told) = mpsc::unbounded_channel::<Found>();
    let answer = || -> Resolved {
        let tell = tell.clone();
        Box::new(move |found| {
            // Whoever asked may have given up.
            let _gone = tell.send(found);
        })
    };
    // Dropping the set aborts what is left.
    let mut tasks = JoinSet::new();
    let mut connects: Vec<(usize, AbortHandle)> = Vec::new();
    loop {
        while let Some(step) = dialling.poll_step(answer) {
            match step {
                Step::Connect(index, addr) => {
                    let task = tasks.spawn(async move { (index, connect(addr).await) });
                    connects.push((index, task));
                }
                Step::Abort(index) => {
                    for (_, task) in connects.extract_if(.., |(i, _)| *i == index) {
                        task.abort();
                    }
                }
                Step::Over(outcome) => return outcome,
            }
        }
        let deadline = dialling.poll_timeout().unwrap_or_else(Instant::now);
        tokio::select! {
            Some(found) = told.recv() => dialling.handle_resolved(Instant::now(), found),
            Some(connected) = tasks.join_next() => match connected {
                Ok((index, Ok(tcp))) => dialling.handle_connected(Instant::now(), index, tcp),
                Ok((index, Err(error))) => dialling.handle_failed(Instant::now(), index, &error),
                // Aborted, as the machine asked.
                Err(_) => {}
            },
            () = sleep_until(deadline.into()) => dialling.handle_timeout(Instant::now()),
        }
    }
}

async fn connect(addr: SocketAddr) -> io::Result<StdStream> {
    let tcp = TcpStream::connect(addr).await?;
    // A socket that is gone already tells so at its first use.
    let _gone = tune(&tcp);
    tcp.into_std()
}
