//! Names and addresses of listeners, each of which is given away once.

use std::net::{IpAddr, SocketAddr};

use super::reader::{Reader, Sourced};

/// Names and TCP addresses that are given away already.
pub(super) struct Taken {
    names: Vec<Box<str>>,
    listeners: Vec<(String, SocketAddr)>,
}

impl Taken {
    /// One name is always given away: that of the way in which has no section of its own.
    pub(super) fn new() -> Self {
        Self {
            names: vec![crate::ingress::websocket::NAME.into()],
            listeners: Vec::new(),
        }
    }

    pub(super) fn name(&mut self, r: &mut Reader<'_>, name: &Sourced<Box<str>>) {
        if self.names.contains(&name.value) {
            let message = format!(
                "the name `{}` is used twice; every ingress has its own, and WebSockets come in as `websocket`",
                name.value
            );
            r.problem(name.source.clone(), message);
        }
        self.names.push(name.value.clone());
    }

    pub(super) fn listener(
        &mut self,
        r: &mut Reader<'_>,
        name: &str,
        listen: &Sourced<SocketAddr>,
    ) {
        let clash = self
            .listeners
            .iter()
            .find(|(_, other)| overlap(*other, listen.value));
        if let Some((other, addr)) = clash {
            let message = format!(
                "`{name}` listens on {}, which `{other}` has taken with {addr}; choose another port",
                listen.value
            );
            r.problem(listen.source.clone(), message);
        }
        self.listeners.push((name.to_owned(), listen.value));
    }
}

/// Two TCP listeners on one port exclude each other where one covers the other's address; `[::]` covers IPv4 too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    let (ip_a, ip_b) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() == b.port()
        && a.port() != 0
        && (ip_a == ip_b || covers(ip_a, ip_b) || covers(ip_b, ip_a))
}
