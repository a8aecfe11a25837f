//! From where this machine sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The address from which this machine would send to another one now; none without a route.
pub(super) fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket only looks the route up.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// From where this machine would send: to a gateway, and to anywhere by IPv4 and by IPv6.
pub(super) type Sources = [Option<IpAddr>; 3];

/// Looks the routes up.
pub(super) fn sources(gateway: Option<SocketAddr>) -> Sources {
    // Addresses that are nobody's (RFC 5737, RFC 3849); nothing is sent to them.
    let anywhere = [
        IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    ];
    let [v4, v6] = anywhere.map(|ip| source_towards((ip, 9).into()));
    [gateway.and_then(source_towards), v4, v6]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback() {
        for ip in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
            assert_eq!(source_towards((ip, 9).into()), Some(ip));
        }
    }
}
