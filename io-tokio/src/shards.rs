//! Threads with one runtime each: a connection and all its sessions stay on one of them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The threads of a driver. The first shard is the runtime of the caller, which also receives; a process with one
/// connection so stays on one thread, which costs less than any hand-over between threads.
#[derive(Debug)]
pub(crate) struct Shards {
    list: Vec<Shard>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shard {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place on a shard; it counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl Shards {
    /// Starts `count - 1` threads beside the caller's runtime.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let mut shards = Self {
            list: Vec::new(),
            stop: CancellationToken::new(),
            threads: Vec::new(),
        };
        shards.add(Handle::current());
        for index in 1..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            shards.add(runtime.handle().clone());
            let stop = shards.stop.clone();
            let thread = std::thread::Builder::new()
                .name(format!("adit-shard-{index}"))
                .spawn(move || runtime.block_on(stop.cancelled()))?;
            shards.threads.push(thread);
        }
        Ok(shards)
    }

    fn add(&mut self, runtime: Handle) {
        self.list.push(Shard {
            runtime,
            connections: Arc::default(),
        });
    }

    /// Gives a place on the shard with the fewest connections, the first of equals.
    pub(crate) fn place(&self) -> Place {
        let by_load = |shard: &&Shard| shard.connections.load(Ordering::Relaxed);
        let (runtime, connections) = match self.list.iter().min_by_key(by_load) {
            Some(shard) => (shard.runtime.clone(), Arc::clone(&shard.connections)),
            // There is always the caller's.
            None => (Handle::current(), Arc::default()),
        };
        connections.fetch_add(1, Ordering::Relaxed);
        Place {
            runtime,
            connections,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _panicked = thread.join();
        }
    }
}
