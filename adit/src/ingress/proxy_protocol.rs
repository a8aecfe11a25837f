//! The header of the PROXY protocol, version 2: tells a target whose bytes follow it.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};

/// Makes the header for a user's TCP connection: 28 bytes for IPv4, 52 for IPv6. Where the address that the user connected
/// to is not known or of another family, 16 bytes that say nothing of the user; the target then goes by what it sees.
pub(crate) fn header(user: SocketAddr, local: Option<SocketAddr>) -> Bytes {
    let mut out = BytesMut::with_capacity(LEN_MAX);
    out.put_slice(SIGNATURE);
    out.put_u8(VERSION_2_PROXY);
    let ends = local.map(|local| (user.ip().to_canonical(), local.ip().to_canonical(), local));
    match ends {
        Some((IpAddr::V4(from), IpAddr::V4(to), local)) => {
            out.put_u8(TCP_OVER_IPV4);
            out.put_u16(12);
            out.put_slice(&from.octets());
            out.put_slice(&to.octets());
            put_ports(&mut out, user, local);
        }
        Some((IpAddr::V6(from), IpAddr::V6(to), local)) => {
            out.put_u8(TCP_OVER_IPV6);
            out.put_u16(36);
            out.put_slice(&from.octets());
            out.put_slice(&to.octets());
            put_ports(&mut out, user, local);
        }
        Some((IpAddr::V4(_), IpAddr::V6(_), _) | (IpAddr::V6(_), IpAddr::V4(_), _)) | None => {
            out.put_u8(UNSPECIFIED);
            out.put_u16(0);
        }
    }
    out.freeze()
}

fn put_ports(out: &mut BytesMut, user: SocketAddr, local: SocketAddr) {
    out.put_u16(user.port());
    out.put_u16(local.port());
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const LEN_MAX: usize = 52;

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const SIGNATURE_BYTES: [u8; 12] = [
        0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
    ];

    #[test]
    fn ipv4_is_as_the_specification_lays_it_out() {
        let expected = [
            &SIGNATURE_BYTES[..],
            // Version 2, command PROXY; AF_INET, STREAM; 12 bytes of addresses.
            &[0x21, 0x11, 0x00, 0x0c],
            &[192, 0, 2, 1, 198, 51, 100, 2],
            // Ports 56324 and 443.
            &[0xdc, 0x04, 0x01, 0xbb],
        ]
        .concat();
        for user in ["192.0.2.1:56324", "[::ffff:192.0.2.1]:56324"] {
            assert_eq!(header(addr(user), Some(addr("198.51.100.2:443"))), expected);
        }
    }

    #[test]
    fn ipv6_is_as_the_specification_lays_it_out() {
        let mut expected = SIGNATURE_BYTES.to_vec();
        expected.extend([0x21, 0x21, 0x00, 0x24]);
        expected.extend([
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
        ]);
        expected.extend([
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02,
        ]);
        expected.extend([0x00, 0x01, 0xff, 0xff]);
        let made = header(addr("[2001:db8::1]:1"), Some(addr("[2001:db8::2]:65535")));
        assert_eq!(made, expected);
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let mut expected = SIGNATURE_BYTES.to_vec();
        expected.extend([0x21, 0x00, 0x00, 0x00]);
        let user = addr("192.0.2.1:1");
        for local in [None, Some(addr("[2001:db8::2]:2"))] {
            assert_eq!(header(user, local), expected);
        }
    }
}
