//! The calls under way on one connection: one per stream, each with its deadline (peer-rpc 8 and 9.2).
//!
//! [`Incoming`] is the side that was dialled, [`Outgoing`] the one that dialled. Both only read envelopes and keep time;
//! what an envelope says is judged by [`receive`](super::receive) and [`response`](super::response).

mod incoming;
mod outgoing;

pub use self::{
    incoming::{Incoming, Received, StreamRefused},
    outgoing::{Answered, Outgoing, TimedOut, TooManyCalls},
};
