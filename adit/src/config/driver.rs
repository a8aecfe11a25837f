//! Which driver carries the tunnel.

use super::{file::Kind, reader::Reader};

/// What owns the tunnel's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Driver {
    /// Tasks on tokio runtimes, one thread per core at a gateway.
    #[default]
    Tokio,
    /// One thread with one poll.
    Mio,
}

/// Reads `driver`.
pub(super) fn driver(r: &mut Reader<'_>) -> Option<Driver> {
    let found = r.scalar("driver", Kind::Text, "tokio", |text| {
        clap::ValueEnum::from_str(text, false).map_err(|_| "write `tokio` or `mio`".to_owned())
    });
    Some(found?.value)
}
