//! Which driver carries the tunnel.

use clap::ValueEnum;

use super::{file::Kind, reader::Reader};

/// What owns the tunnel's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// Tasks on tokio runtimes, one thread per core at a gateway.
    #[cfg(feature = "agent-tokio")]
    #[default]
    Tokio,
    /// One thread with one poll.
    #[cfg(feature = "agent-mio")]
    #[cfg_attr(not(feature = "agent-tokio"), default)]
    Mio,
}

/// Reads `driver`.
pub(super) fn driver(r: &mut Reader<'_>) -> Option<Driver> {
    let default = Driver::default().to_possible_value()?;
    let found = r.scalar("driver", Kind::Text, default.get_name(), |text| {
        Driver::from_str(text, false).map_err(|_| advice())
    });
    Some(found?.value)
}

/// The drivers that this build has.
fn advice() -> String {
    let names = Driver::value_variants()
        .iter()
        .filter_map(Driver::to_possible_value)
        .map(|value| format!("`{}`", value.get_name()));
    let names: Vec<_> = names.collect();
    match names.as_slice() {
        [only] => format!("write {only}, the one driver of this build"),
        names => format!("write {}", names.join(" or ")),
    }
}
