//! The gateway's tunnel, whichever driver carries it.

use std::{io, net::SocketAddr, time::Duration};

use adit_io_common::gateway::{GatewayConfig, GatewayHandle, StartError};
use adit_io_mio::Gateway as MioGateway;
use adit_io_tokio::Gateway as TokioGateway;
use adit_proto_core::env::Env;
use tokio::time::timeout;

use crate::config::Driver;

/// A running tunnel.
#[derive(Debug)]
pub(super) enum Tunnel {
    Tokio(TokioGateway),
    Mio(MioGateway),
}

impl Tunnel {
    /// Starts a tunnel; needs a tokio runtime.
    pub(super) fn start(
        driver: Driver,
        config: GatewayConfig,
        env: &Env,
    ) -> Result<Self, StartError> {
        match driver {
            Driver::Tokio => TokioGateway::start(config, env).map(Self::Tokio),
            Driver::Mio => MioGateway::start(config, env).map(Self::Mio),
        }
    }

    /// The way in for users and administration.
    pub(super) fn handle(&self) -> GatewayHandle {
        match self {
            Self::Tokio(gateway) => gateway.handle(),
            Self::Mio(gateway) => gateway.handle(),
        }
    }

    /// The UDP address in use.
    pub(super) fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Tokio(gateway) => gateway.local_addr(),
            Self::Mio(gateway) => gateway.local_addr(),
        }
    }

    /// Waits for an end that never comes by itself, and tells why it did. The process should end too.
    pub(super) async fn failed(&mut self) -> io::Error {
        match self {
            Self::Tokio(gateway) => gateway.failed().await,
            Self::Mio(gateway) => match gateway.ended().await {
                Ok(why) => why,
                Err(_panicked) => io::Error::other("the tunnel's thread has panicked"),
            },
        }
    }

    /// Closes every connection as soon as its agent has all that sessions which are over have sent, however long that
    /// takes; those that are open are cut then. Afterwards, or to give up on it, call [`stop`](Self::stop).
    pub(super) async fn farewell(&mut self) {
        match self {
            Self::Tokio(gateway) => gateway.farewell().await,
            Self::Mio(gateway) => {
                // A loop that has ended is over too.
                let _over = gateway.farewell().await;
            }
        }
    }

    /// Closes every connection, so that agents know at once, and sessions with them. Returns when the closes have been
    /// sent and the sessions' ends logged, or after `patience`.
    pub(super) async fn stop(self, patience: Duration) {
        match self {
            Self::Tokio(gateway) => gateway.stop(patience).await,
            Self::Mio(mut gateway) => {
                gateway.stop();
                if timeout(patience, gateway.ended()).await.is_err() {
                    gateway.quit();
                }
            }
        }
    }
}
