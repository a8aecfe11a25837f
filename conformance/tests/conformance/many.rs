//! A thousand sessions at once.

use std::{
    net::{SocketAddr, TcpStream as StdStream},
    sync::Arc,
    time::{Duration, Instant},
};

use adit_io_common::gateway::GatewayHandle;
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Barrier,
    task::JoinSet,
};

use crate::{
    bed::{
        end::user,
        request,
        wait::{RUNTIME, block_on},
    },
    conform_alone,
};

const COUNT: usize = 1_000;
/// A bound that only a fault exceeds.
const LONGEST: Duration = Duration::from_secs(10);

#[test]
fn a_thousand_sessions_are_open_at_once_and_end_cleanly() {
    many_files();
    conform_alone(|bed| {
        bed.begin();
        let began = Instant::now();
        let target = block_on(echo());
        let all_open = Arc::new(Barrier::new(COUNT + 1));
        let mut users = JoinSet::new();
        for n in 0..COUNT {
            let run = one(bed.gateway().clone(), target, n, Arc::clone(&all_open));
            users.spawn_on(run, RUNTIME.handle());
        }
        block_on(all_open.wait());
        let counters = block_on(bed.gateway().counters()).unwrap();
        assert_eq!(counters.sessions_open, COUNT);
        // Nobody ends before they are counted.
        block_on(all_open.wait());
        block_on(async { while let Some(()) = users.join_next().await.transpose().unwrap() {} });
        let took = began.elapsed();
        println!("{COUNT} sessions took {took:?}");
        assert!(took < LONGEST, "{took:?}");
    });
}

/// Opens, asks, waits for all others, asks once more, and ends.
async fn one(gateway: GatewayHandle, target: SocketAddr, n: usize, all_open: Arc<Barrier>) {
    let pending = gateway.open(request(&target.into())).await.unwrap();
    let (mut user, ingress) = connected();
    pending.attach(ingress, Bytes::new());
    ask(&mut user, n).await;
    all_open.wait().await;
    all_open.wait().await;
    ask(&mut user, n + COUNT).await;
    user.shutdown().await.unwrap();
    assert_eq!(user.read(&mut [0; 1]).await.unwrap(), 0, "a clean end");
}

async fn ask(user: &mut TcpStream, n: usize) {
    user.write_all(&n.to_le_bytes()).await.unwrap();
    let mut answer = [0; size_of::<usize>()];
    user.read_exact(&mut answer).await.unwrap();
    assert_eq!(usize::from_le_bytes(answer), n);
}

fn connected() -> (TcpStream, StdStream) {
    let (user, ingress) = user(None);
    user.set_nonblocking(true).unwrap();
    (TcpStream::from_std(user).unwrap(), ingress)
}

/// Sends everything back.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    RUNTIME.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            RUNTIME.spawn(async move {
                let (mut from, mut to) = socket.split();
                // A user that goes away ends it.
                let _copied = tokio::io::copy(&mut from, &mut to).await;
                let _ended = to.shutdown().await;
            });
        }
    });
    addr
}

/// Allows this process as many files as it may have.
pub(crate) fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}
