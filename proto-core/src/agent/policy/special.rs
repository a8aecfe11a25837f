//! Addresses that no network operator means by a wide subnet or by a name.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What an address is that no network operator means by a wide subnet or by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialRange {
    /// The machine itself: `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Where clouds hand out credentials, to machines, containers and pods: `169.254.169.254`, `169.254.170.2`,
    /// `169.254.170.23`, `100.100.100.200`, `168.63.129.16`, `192.0.0.192`, `fd00:ec2::254`, `fd00:ec2::23`, `fd20:ce::254`.
    Metadata,
    /// `64:ff9b:1::/48`: leads to an IPv4 address that cannot be told from it.
    LocalNat64,
    /// `0.0.0.0/8`, `::`; connecting there reaches the machine itself.
    Unspecified,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
}

impl fmt::Display for SpecialRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::LocalNat64 => "an address of a local NAT64",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
        })
    }
}

/// The special ranges that `ip` may lie in; those of IPv4 also where they are embedded.
pub(super) fn special_ranges(ip: IpAddr) -> impl Iterator<Item = (SpecialRange, IpNet)> {
    let v4 = SPECIAL_V4.iter().map(|&(range, net)| (range, net.into()));
    let embedded = move |prefix: Ipv6Net| {
        let shift = 96 - prefix.prefix_len();
        SPECIAL_V4.iter().filter_map(move |&(range, net)| {
            let bits = prefix.addr().to_bits() | u128::from(net.addr().to_bits()) << shift;
            let len = prefix.prefix_len() + net.prefix_len();
            Some((range, Ipv6Net::new(bits.into(), len).ok()?.into()))
        })
    };
    let local = match ip {
        // Last bits of zero belong to a prefix that embeds the address further up.
        IpAddr::V6(ip) if LOCAL_NAT64.contains(&ip) && ip.to_bits() << 96 != 0 => {
            Ipv6Net::new(ip, 96).ok().map(|net| net.trunc())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let prefixes = [NAT64, SIX_TO_FOUR].into_iter().chain(local);
    let v6 = SPECIAL_V6.iter().map(|&(range, net)| (range, net.into()));
    v4.chain(prefixes.flat_map(embedded)).chain(v6)
}

/// RFC 6052 2.1.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
/// RFC 8215.
const LOCAL_NAT64: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
/// RFC 3056 2.
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

/// The narrower range of a nested pair first, so that a refusal names it.
const SPECIAL_V4: [(SpecialRange, Ipv4Net); 11] = [
    (SpecialRange::Metadata, v4([169, 254, 169, 254], 32)),
    (SpecialRange::Metadata, v4([169, 254, 170, 2], 32)),
    (SpecialRange::Metadata, v4([169, 254, 170, 23], 32)),
    (SpecialRange::Metadata, v4([100, 100, 100, 200], 32)),
    (SpecialRange::Metadata, v4([168, 63, 129, 16], 32)),
    (SpecialRange::Metadata, v4([192, 0, 0, 192], 32)),
    (SpecialRange::LinkLocal, v4([169, 254, 0, 0], 16)),
    (SpecialRange::Loopback, v4([127, 0, 0, 0], 8)),
    (SpecialRange::Unspecified, v4([0, 0, 0, 0], 8)),
    (SpecialRange::Multicast, v4([224, 0, 0, 0], 4)),
    (SpecialRange::Broadcast, v4([255, 255, 255, 255], 32)),
];

const SPECIAL_V6: [(SpecialRange, Ipv6Net); 8] = [
    (
        SpecialRange::Metadata,
        v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    ),
    (
        SpecialRange::Metadata,
        v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128),
    ),
    (
        SpecialRange::Metadata,
        v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    ),
    (SpecialRange::LocalNat64, LOCAL_NAT64),
    (
        SpecialRange::LinkLocal,
        v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    ),
    (SpecialRange::Loopback, v6([0, 0, 0, 0, 0, 0, 0, 1], 128)),
    (SpecialRange::Unspecified, v6([0; 8], 128)),
    (
        SpecialRange::Multicast,
        v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    ),
];

const fn v4(ip: [u8; 4], prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_octets(ip), prefix_len)
}

const fn v6(ip: [u16; 8], prefix_len: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = ip;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix_len)
}

/// The IPv4 addresses that an address may stand for: itself, or what is embedded where NAT64 and 6to4 have it.
pub(super) fn stands_for(ip: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let (own, six) = match ip {
        IpAddr::V4(ip) => (Some(ip), None),
        IpAddr::V6(ip) => (ip.to_ipv4_mapped(), Some(ip)),
    };
    let embedded = six.into_iter().flat_map(|six| {
        let low = move |shift: u32| {
            let bits = u32::try_from(six.to_bits() >> shift & u128::from(u32::MAX));
            bits.ok().map(Ipv4Addr::from_bits)
        };
        let last = NAT64.contains(&six) || LOCAL_NAT64.contains(&six);
        let places = [(last, 0), (SIX_TO_FOUR.contains(&six), 80)];
        places
            .into_iter()
            .filter_map(move |(is_there, shift)| low(shift).filter(|_| is_there))
    });
    own.into_iter().chain(embedded)
}
