//! Text to value, one function per type; each error says what to write.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use adit_proto_core::{
    domain::DomainPattern,
    gateway::dispatch::{DirectRange, DirectRule},
    id::AgentId,
    target::{Host, Target},
};
use ipnet::IpNet;

use crate::pki::names::ServerNames;

/// A span of time: a whole number with `ms`, `s`, `m`, `h` or `d` behind it.
///
/// # Errors
/// Says what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no span of time; write one as 500ms, 60s, 5m, 1h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number
        .checked_mul(ms)
        .filter(|&ms| ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(bad)
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address to listen on; write ADDRESS:PORT, as 127.0.0.1:1080 or [::1]:1080")
    })
}

pub(super) fn target(text: &str) -> Result<Target, String> {
    text.parse()
        .map_err(|e| format!("`{text}`: {e}; write HOST:PORT, as db.corp.local:5432"))
}

pub(super) fn host(text: &str) -> Result<Host, String> {
    text.parse()
        .map_err(|e| format!("{e}; write a name or an address without a port"))
}

/// A name or an address that can stand in a certificate.
pub(super) fn server_name(text: &str) -> Result<Host, String> {
    let name = host(text)?;
    ServerNames::parse([text]).map_err(|error| error.to_string())?;
    Ok(name)
}

pub(super) fn agent_id(text: &str) -> Result<AgentId, String> {
    text.parse()
        .map(AgentId)
        .map_err(|_| format!("`{text}` is no agent id; `adit agents list` shows them"))
}

/// A prefix, or one address, which stands for itself alone.
pub(super) fn subnet(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            "not an address range; write one as 10.0.0.0/8, 10.0.0.5 or 2001:db8::/32".to_owned()
        })
}

pub(super) fn domain(text: &str) -> Result<DomainPattern, String> {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*'));
    if text.contains(odd) || text.len() > 255 {
        return Err("not a domain; write one as db.corp.local or *.corp.local".to_owned());
    }
    DomainPattern::parse(text.strip_suffix('.').unwrap_or(text))
        .map_err(|e| format!("{e}; write a domain as db.corp.local or *.corp.local"))
}

/// `10.0.0.0/8`, `10.0.0.5`, `*.x.y`, each with or without `:PORT`; IPv6 with a port in brackets.
pub(super) fn target_rule(text: &str) -> Result<DirectRule, String> {
    let rule = |range, port| Ok(DirectRule { range, port });
    if let Ok(net) = subnet(text) {
        return rule(DirectRange::Subnet(net), None);
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((host, port)) => match port.parse() {
            Ok(port) if port > 0 => (host, Some(port)),
            Ok(_) | Err(_) => return Err("the port is not a number from 1 to 65535".to_owned()),
        },
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if let Ok(net) = subnet(bare.unwrap_or(host)) {
        return rule(DirectRange::Subnet(net), port);
    }
    match domain(host) {
        Ok(domain) => rule(DirectRange::Domain(domain), port),
        Err(_) => Err(
            "write a range, an address or a domain, as 10.0.0.0/8, *.x.y or h.x.y:443".to_owned(),
        ),
    }
}

/// A port, or a range of them.
pub(super) fn ports(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let bad = || "not a port; write one as 443, or a range as 8000-8999".to_owned();
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (port(low), port(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        (Some(_), Some(_)) => Err(format!("`{text}` ends before it begins")),
        (_, _) => Err(bad()),
    }
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "write true or false".to_owned())
}

/// A whole number from 1.
pub(super) fn count(text: &str) -> Result<NonZeroU32, String> {
    text.replace('_', "")
        .parse()
        .map_err(|_| format!("`{text}` is not a whole number from 1 to {}", u32::MAX))
}

pub(super) fn path(text: &str) -> Result<std::path::PathBuf, String> {
    if text.is_empty() {
        Err("the path is empty".to_owned())
    } else {
        Ok(text.into())
    }
}

/// The name of an ingress: it stands in logs and listings, so it is short and plain.
pub(super) fn label(text: &str) -> Result<Box<str>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err(format!(
            "`{text}` is no name; write 1 to 64 of the characters a-z, A-Z, 0-9, `-`, `_`, `.`"
        ));
    }
    Ok(text.into())
}

pub(super) fn url(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Ok(text.to_owned()),
        Some(_) | None => Err(format!(
            "`{text}` is no URL; write https://HOST or https://HOST:PORT"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [
            ("250ms", 250),
            ("60s", 60_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        for text in [
            "",
            "60",
            "s",
            "-1s",
            "1.5h",
            "1 h",
            "0s",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn subnets_are_ranges_or_single_addresses() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.5", "10.0.0.5/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(subnet(text).unwrap().to_string(), shown);
        }
        for text in ["10.0.0.0/33", "10.0.0/8", "x", ""] {
            assert!(subnet(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_single_or_ranges() {
        for (text, range) in [
            ("443", 443..=443),
            ("1-65535", 1..=65_535),
            ("80 - 81", 80..=81),
        ] {
            assert_eq!(ports(text), Ok(range), "{text}");
        }
        for text in [
            "", "0", "0-1", "65536", "2-1", "-1", "1-", "1-2-3", "http", "1,2",
        ] {
            assert!(ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_plain() {
        for text in ["", "a b", "a/b", "é"] {
            assert!(label(text).is_err(), "{text}");
        }
        assert!(label("web-1.x_y").is_ok());
        for text in ["*", "a.*.b", "a b", "a..b", ""] {
            assert!(domain(text).is_err(), "{text}");
        }
    }
}
