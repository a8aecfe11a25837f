//! The network of a run: hosts with addresses, some behind NATs, and between any two of them a path that is as bad as
//! the run wants it to be. Nothing here knows QUIC: datagrams go in and, perhaps, come out.

mod nat;
mod network;
mod path;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use bytes::BytesMut;

pub use nat::NatConfig;
pub use network::Network;
pub use path::{Burst, Path};

use crate::At;

/// One host of the network: its index in the order of adding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

/// A datagram that reached its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The sender.
    pub from: HostId,
    /// The receiver.
    pub to: HostId,
    /// The source as the receiver sees it, behind the sender's NAT.
    pub src: SocketAddr,
    /// The receiver's own address, inside its NAT.
    pub dst: SocketAddr,
    /// The ECN bits as they arrived.
    pub ecn: Option<u8>,
    /// The payload as it arrived.
    pub data: BytesMut,
    /// When it was sent.
    pub sent: At,
}

/// What became of a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It travels, perhaps more than once. Copies may still be lost where they arrive.
    OnTheWay {
        /// How many of it travel.
        copies: usize,
        /// How many of these have a bit that is wrong.
        spoilt: usize,
    },
    /// It vanished at once.
    Lost(LossCause),
}

/// Why a datagram vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossCause {
    /// The source is no address of the sender, is of another family than the destination, or the sender's NAT has no
    /// outer address of that family.
    BadSource,
    /// Nobody has the destination address.
    NoHost,
    /// Larger than the path's MTU.
    TooBig,
    /// The queue before the link was full.
    QueueFull,
    /// Random loss.
    Random,
    /// Loss within a burst.
    Burst,
    /// The way from the one host to the other is cut.
    Partition,
    /// UDP is blocked at one of the two hosts.
    Blocked,
    /// The receiver's NAT knows no mapping for it, or one for another remote.
    NoMapping,
}
