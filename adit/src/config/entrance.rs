//! What every way in for users has, whatever is spoken there.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{file::Kind, parse, reader::Reader};

/// Who may come in at an ingress, and what its targets are told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// Addresses that may connect; empty: all.
    pub allow_from: Vec<IpNet>,
    /// Whether targets get a header of the PROXY protocol, version 2, before the user's bytes.
    pub proxy_protocol: bool,
}

impl Entrance {
    /// Tells whether a user may connect from an address.
    #[must_use]
    pub fn admits(&self, user: IpAddr) -> bool {
        let user = user.to_canonical();
        self.allow_from.is_empty() || self.allow_from.iter().any(|net| net.contains(&user))
    }

    /// What a target is told before the user's bytes; empty where it is told nothing. `local` is the address that the
    /// user connected to.
    pub(crate) fn preface(&self, user: SocketAddr, local: Option<SocketAddr>) -> bytes::Bytes {
        if self.proxy_protocol {
            crate::ingress::proxy_header(user, local)
        } else {
            bytes::Bytes::new()
        }
    }
}

/// Reads the keys of one section; `prefix` ends with a dot.
pub(super) fn entrance(r: &mut Reader<'_>, prefix: &str) -> Option<Entrance> {
    let allow_from = r.list(&format!("{prefix}allow_from"), parse::subnet);
    let header = format!("{prefix}proxy_protocol");
    let header = r.scalar(&header, Kind::Switch, "false", parse::switch);
    Some(Entrance {
        allow_from: allow_from?.into_iter().map(|net| net.value).collect(),
        proxy_protocol: header?.value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_compared_as_the_addresses_that_they_are() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let open = Entrance::default();
        assert!(open.admits(ip("203.0.113.9")) && open.admits(ip("2001:db8::1")));
        let some = Entrance {
            allow_from: vec![
                "192.0.2.0/24".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ],
            ..Entrance::default()
        };
        for (from, admitted) in [
            ("192.0.2.255", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.3.0", false),
            ("::ffff:192.0.3.0", false),
            ("2001:db8:1::", true),
            ("2001:db9::", false),
            ("::192.0.2.1", false),
        ] {
            assert_eq!(some.admits(ip(from)), admitted, "{from}");
        }
    }
}
