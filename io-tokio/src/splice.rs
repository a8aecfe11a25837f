//! Two TCP sockets joined: a session that the gateway carries itself.

use bytes::Bytes;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    sync::oneshot,
};

use crate::{
    connection_task::Over,
    pump::Traffic,
    socket::{Carried, Socket},
};

/// Moves bytes both ways until both directions have ended, with half-close, or an operator ends them. That, an error at
/// one end, or the end of the process becomes a reset at both, never a clean end.
pub(crate) async fn splice(
    user: Socket,
    target: TcpStream,
    early: Bytes,
    killed: oneshot::Receiver<()>,
) -> (Traffic, Over) {
    let (mut user, mut target) = (Carried::new(user), Carried::new(target));
    let mut traffic = Traffic::new();
    traffic.sent = early.len() as u64;
    let (Some(from), Some(to)) = (user.get_mut(), target.get_mut()) else {
        return (traffic, Over::TcpReset);
    };
    let moving = async {
        to.write_all(&early).await?;
        copy_bidirectional(from, to).await
    };
    let moved = tokio::select! {
        biased;
        // Whoever could do it may be gone; then it moves on.
        Ok(()) = killed => {
            user.reset(Over::Killed.text());
            return (traffic, Over::Killed);
        }
        moved = moving => moved,
    };
    match moved {
        Ok((sent, received)) => {
            traffic.sent += sent;
            traffic.received = received;
            drop((user.release(), target.release()));
            (traffic, Over::Clean)
        }
        Err(_) => (traffic, Over::TcpReset),
    }
}
