//! Fuzz targets of adit's core. Each is a plain function, so that what fuzzing found is replayed by a stable compiler.
//!
//! A target panics where a property does not hold. To add one: a file here, its two lines and its place in [`TARGETS`],
//! a wrapper in `fuzz_targets/` and its block in `Cargo.toml`.

mod agent;
pub mod archive;
mod certs;
mod connect;
mod control;
mod dispatch;
mod envelope;
mod fixtures;
mod forward;
mod frame;
mod hello;
mod input;
mod journal;
mod journal_file;
mod peer;
mod replica;
mod routes;
mod routing;
mod socks5;
mod tokens;
mod world;

pub use self::{
    agent::agent,
    certs::certs,
    connect::connect,
    control::control,
    dispatch::dispatch,
    envelope::envelope,
    forward::forward,
    frame::frame,
    hello::hello,
    journal::journal,
    journal_file::journal_file,
    peer::peer,
    replica::{replica_acceptor, replica_dialer, replica_seal},
    routes::routes,
    socks5::socks5,
    world::world,
};

/// What eats an input and panics where a property does not hold.
pub type Target = fn(&[u8]);

/// Every target under its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("agent", agent),
    ("certs", certs),
    ("connect", connect),
    ("control", control),
    ("dispatch", dispatch),
    ("envelope", envelope),
    ("forward", forward),
    ("frame", frame),
    ("hello", hello),
    ("journal", journal),
    ("journal_file", journal_file),
    ("peer", peer),
    ("replica_acceptor", replica_acceptor),
    ("replica_dialer", replica_dialer),
    ("replica_seal", replica_seal),
    ("routes", routes),
    ("socks5", socks5),
    ("world", world),
];
