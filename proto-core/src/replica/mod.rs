//! How two replicas of a cluster prove to each other, over one TCP connection, that both hold the cluster's pre-shared
//! key (replica-handshake), and how the stream behind it is sealed (design 8.16).
//!
//! [`Dialer`] and [`Acceptor`] are one handshake each: bytes in, bytes out, one outcome. Neither takes a byte more than
//! its handshake needs. [`Verified`] hands out who the peer is together with the [`Stream`] to speak with it.
// Nothing a peer sends may panic; tests may.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod acceptor;
mod cluster;
mod config;
mod dialer;
mod exchange;
mod fault;
mod frame;
mod key;
mod links;
mod mac;
mod outcome;
mod seal;
mod slots;
#[cfg(test)]
mod tests;

pub use self::{
    acceptor::Acceptor,
    cluster::{ClusterId, ReplicaId, Roster, Seal},
    config::{Conduct, Config, ConfigError, Dialling},
    dialer::{DialError, Dialer},
    fault::{Awaited, Fault, MacHint},
    frame::{Command, FRAME_LEN, Frame, FrameError, FrameReader, Status},
    key::{KeyError, KeyUsed, Keys, MacKey, Nonce, NonceError, ReplicaKey},
    links::{Duplicates, Installed, Links},
    mac::{Binding, Mac, Profile, Signer, Transcript},
    outcome::{Step, Stream, Verified},
    seal::{OpenFault, Opened, Opener, RECORD_HEAD, RECORD_OVERHEAD, SealError, Sealed, Sealer},
    slots::{NoPlace, Place, Slots},
};
