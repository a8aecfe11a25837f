//! Where a session goes: a host and a port.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A host and a TCP port, as a `ConnectRequest` carries them (agent-tunnel 7.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// Who is to be reached.
    pub host: Host,
    /// TCP port, 1 to 65535; 0 is refused by [`Target::from_str`].
    pub port: u16,
}

/// An address, or a name that the agent resolves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IPv4 or IPv6 literal. IPv4-mapped IPv6 literals are held as the IPv4 address they stand for.
    Ip(IpAddr),
    /// A DNS name of 1 to 255 bytes, ASCII letters in lower case. A trailing dot stays and makes another name: routes
    /// have none, so such a name matches no route (agent-tunnel 10).
    Name(Box<str>),
}

/// Why a target is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is no `:port` at the end.
    #[error("it has no port")]
    NoPort,
    /// The port is not a decimal number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    /// The host is empty, too long, or holds spaces, control characters, brackets or a colon.
    #[error("the host is neither an address nor a name")]
    BadHost,
}

impl Target {
    /// Joins a host, as a program writes it, and a port.
    ///
    /// # Errors
    /// [`TargetError::BadHost`] or [`TargetError::BadPort`].
    pub fn new(host: &str, port: u16) -> Result<Self, TargetError> {
        if port == 0 {
            return Err(TargetError::BadPort);
        }
        Ok(Self {
            host: host.parse()?,
            port,
        })
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self {
            host: Host::Ip(addr.ip().to_canonical()),
            port: addr.port(),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(TargetError::BadHost)?;
            let ip: Ipv6Addr = host.parse().map_err(|_| TargetError::BadHost)?;
            let port = parse_port(port.strip_prefix(':').ok_or(TargetError::NoPort)?)?;
            return Ok(SocketAddr::from((ip, port)).into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::NoPort)?;
        Ok(Self {
            host: host.parse()?,
            port: parse_port(port)?,
        })
    }
}

impl FromStr for Host {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        let labels = text.strip_suffix('.').unwrap_or(text);
        let odd = |c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, ':' | '[' | ']' | '/' | '@' | '*')
        };
        if text.len() > NAME_LEN_MAX || labels.split('.').any(str::is_empty) || labels.contains(odd)
        {
            return Err(TargetError::BadHost);
        }
        Ok(Self::Name(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::from((*ip, self.port)).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    let port: u16 = match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse().map_err(|_| TargetError::BadPort)?,
        false => return Err(TargetError::BadPort),
    };
    if port == 0 {
        Err(TargetError::BadPort)
    } else {
        Ok(port)
    }
}

/// Longest DNS name in text form (RFC 1035 2.3.4).
const NAME_LEN_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_read_and_write_back() {
        for (text, shown) in [
            ("10.0.0.5:3389", "10.0.0.5:3389"),
            ("db01.Contoso.local:5432", "db01.contoso.local:5432"),
            ("[2001:db8::1]:22", "[2001:db8::1]:22"),
            ("[::ffff:10.0.0.5]:1", "10.0.0.5:1"),
            ("x.y.:80", "x.y.:80"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn odd_targets_are_refused() {
        for text in [
            "", "a", "a:", ":1", "a:0", "a:65536", "a:+1", "a:1x", "[::1]", "[::1]1", "[a]:1",
            "a b:1", "a..b:1", "::1:",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn addresses_read_back_in_canonical_form(ip: IpAddr, port in 1..=u16::MAX) {
            let addr = SocketAddr::new(ip, port);
            let target = Target::from(addr);
            let canonical = SocketAddr::new(ip.to_canonical(), port);
            prop_assert_eq!(target.to_string(), canonical.to_string());
            prop_assert_eq!(addr.to_string().parse(), Ok(target));
        }
    }
}
