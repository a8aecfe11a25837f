//! How far away a peer is, as far as its address tells, and so how large its datagrams may become.

use std::net::IpAddr;

/// Bytes of UDP payload that every path carries: a connection begins with them (RFC 9000 14).
pub(crate) const PAYLOAD_MIN: u16 = 1_200;
/// Bytes of UDP payload that any endpoint takes: the most that QUIC can name (RFC 9000 18.2). Receive buffers hold
/// 64 KiB.
pub(crate) const PAYLOAD_MAX: u16 = 65_527;
/// Bytes that one segmented send may have: an IPv4 packet without its headers.
pub(crate) const SEND_MAX: usize = 65_507;

/// What lies between two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The same machine.
    Machine,
    /// A network of one owner.
    Site,
    /// Anything else.
    Internet,
}

impl Reach {
    pub(crate) fn of(peer: IpAddr) -> Self {
        let (machine, site) = match peer.to_canonical() {
            IpAddr::V4(ip) => (ip.is_loopback(), ip.is_private() || ip.is_link_local()),
            IpAddr::V6(ip) => (
                ip.is_loopback(),
                ip.is_unique_local() || ip.is_unicast_link_local(),
            ),
        };
        match (machine, site) {
            (true, _) => Self::Machine,
            (false, true) => Self::Site,
            (false, false) => Self::Internet,
        }
    }

    /// Up to how many bytes of UDP payload the discovery of the path's MTU searches. A probe that is too large is lost
    /// and costs time, so what cannot be is not tried. The peer's own limit stands above.
    pub(crate) fn payload_bound(self) -> u16 {
        match self {
            // Two of them fill a segmented send. Beyond, little is gained per packet and each loss costs more.
            Self::Machine => 32_752,
            // Jumbo frames of 9,000 bytes, without the headers of IPv6 and UDP.
            Self::Site => 8_952,
            // Ethernet, as the engine has it, with room for a tunnel's header or two.
            Self::Internet => 1_452,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_how_far_its_host_is() {
        let of = |ip: &str| Reach::of(ip.parse().unwrap());
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.2"] {
            assert_eq!(of(ip), Reach::Machine, "{ip}");
        }
        for ip in [
            "10.1.2.3",
            "192.168.0.9",
            "169.254.1.1",
            "fd00::1",
            "fe80::1",
            "::ffff:172.16.0.1",
        ] {
            assert_eq!(of(ip), Reach::Site, "{ip}");
        }
        for ip in ["192.0.2.1", "100.64.0.1", "2001:db8::1", "172.32.0.1"] {
            assert_eq!(of(ip), Reach::Internet, "{ip}");
        }
    }
}
