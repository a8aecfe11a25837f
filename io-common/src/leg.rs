//! What a driver's sockets have in common for whoever moves their bytes.

use std::{
    fmt::Debug,
    io::{self, IoSlice},
    task::Poll,
};

use bytes::Bytes;

/// The end of a session that is no tunnel: a TCP connection, or a pipe to whoever speaks to the user. Nothing blocks;
/// what is pending is tried again when the driver has said that the leg is ready.
pub trait Leg: Debug {
    /// What is read goes through this; the legs of one connection share it, so that an idle one owns no buffer.
    type Buffer: Debug + Default;

    /// A turn begins: what becomes ready from here on is told of again.
    fn begin_turn(&mut self);

    /// Reads what there is, one buffer's worth at most. Empty bytes are the end.
    fn poll_read(&mut self, buffer: &mut Self::Buffer) -> Poll<io::Result<Bytes>>;

    /// Writes some of these; gives how many bytes were taken.
    fn poll_write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Tells the other end that no more comes.
    fn poll_shutdown(&mut self) -> Poll<io::Result<()>>;

    /// Closes it hard: whoever is at the other end sees a reset, never a clean end.
    fn reset(self, why: &'static str);

    /// Tells whether it has failed, without reading from it.
    fn has_failed(&self) -> bool;
}
