//! Which address of a gateway's name answers.

use std::{
    net::{SocketAddr, TcpStream},
    sync::mpsc::channel,
    time::Duration,
};

use adit_proto_core::limits::DIAL_STAGGER;
use ureq::{
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// Resolves a name and puts the address that answers first in front (RFC 8305 section 5), since the client's own
/// connector tries one after the other and gives the first of two almost seven seconds.
#[derive(Debug, Default)]
pub(super) struct NearestFirst {
    names: DefaultResolver,
}

impl Resolver for NearestFirst {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addrs = self.names.resolve(uri, config, timeout)?;
        if let Some(front) = nearest(&addrs).and_then(|n| addrs.get_mut(..=n)) {
            front.rotate_right(1);
        }
        Ok(addrs)
    }
}

/// The place of the address that accepts a connection first, each tried a moment after the one before; none where there
/// is no choice or nobody answers.
fn nearest(addrs: &[SocketAddr]) -> Option<usize> {
    if addrs.len() < 2 {
        return None;
    }
    let (tell, told) = channel();
    for (n, addr) in addrs.iter().copied().enumerate() {
        let tell = tell.clone();
        // Ends by itself, as it has a deadline.
        std::thread::spawn(move || {
            if TcpStream::connect_timeout(&addr, PATIENCE).is_ok() {
                // Whoever comes late tells nobody.
                let _late = tell.send(n);
            }
        });
        if let Ok(n) = told.recv_timeout(DIAL_STAGGER) {
            return Some(n);
        }
    }
    drop(tell);
    told.recv().ok()
}

/// Two repetitions of a TCP SYN.
const PATIENCE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn who_answers_comes_first() {
        let silent = silent();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = listener.local_addr().unwrap();
        let dead = silent.0.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(nearest(&[dead, live]), Some(1));
        assert_eq!(nearest(&[live, dead]), Some(0));
        assert_eq!(nearest(&[live]), None);
    }

    #[test]
    fn where_nobody_answers_nobody_is_preferred() {
        let refusing = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        refusing.bind(&any.into()).unwrap();
        let addr = refusing.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(nearest(&[addr, addr]), None);
    }

    /// Listens with a queue that is full, so that further connections get no answer.
    fn silent() -> (Socket, Vec<TcpStream>) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let moment = Duration::from_millis(200);
        let fill = || TcpStream::connect_timeout(&addr, moment).ok();
        let full = std::iter::from_fn(fill).collect();
        (socket, full)
    }
}
