//! The names under which agents and users reach a gateway.

use std::{collections::BTreeSet, net::IpAddr};

use rcgen::SanType;
use rustls_pki_types::DnsName;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::PkiError;

/// DNS names and addresses of a gateway, at least one, in the order of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames(Vec<ServerName>);

impl ServerNames {
    /// Checks names as the configuration gives them; repetitions are dropped.
    ///
    /// # Errors
    /// [`PkiError::NoName`] for an empty list, [`PkiError::BadName`] for the first bad one.
    pub fn parse<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self, PkiError> {
        let mut seen = BTreeSet::new();
        let mut checked = Vec::new();
        for name in names {
            let name = ServerName::parse(name.as_ref())?;
            if seen.insert(name.clone()) {
                checked.push(name);
            }
        }
        if checked.is_empty() {
            return Err(PkiError::NoName);
        }
        Ok(Self(checked))
    }

    pub(super) fn common_name(&self) -> String {
        match self.0.first() {
            Some(ServerName::Dns(name)) => name.clone(),
            Some(ServerName::Ip(addr)) => addr.to_string(),
            None => String::new(),
        }
    }

    pub(super) fn to_sans(&self) -> Result<Vec<SanType>, PkiError> {
        self.0
            .iter()
            .map(|name| match name {
                ServerName::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into()?)),
                ServerName::Ip(addr) => Ok(SanType::IpAddress(*addr)),
            })
            .collect()
    }

    /// Whether a certificate names exactly these.
    pub(super) fn are_of(&self, certificate: &X509Certificate<'_>) -> bool {
        let Ok(Some(sans)) = certificate.subject_alternative_name() else {
            return false;
        };
        let theirs: Option<BTreeSet<_>> = sans.value.general_names.iter().map(from_san).collect();
        theirs.is_some_and(|theirs| theirs == self.0.iter().cloned().collect())
    }
}

/// Whether an agent's host name can stand in a certificate.
#[must_use]
pub fn is_hostname(name: &str) -> bool {
    !name.ends_with('.') && DnsName::try_from(name).is_ok()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ServerName {
    Dns(String),
    Ip(IpAddr),
}

impl ServerName {
    fn parse(name: &str) -> Result<Self, PkiError> {
        let bare = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(name);
        if let Ok(addr) = bare.parse() {
            return Ok(Self::Ip(addr));
        }
        if is_hostname(name) {
            return Ok(Self::Dns(name.to_ascii_lowercase()));
        }
        Err(PkiError::BadName(name.to_owned()))
    }
}

fn from_san(san: &GeneralName<'_>) -> Option<ServerName> {
    if let GeneralName::DNSName(name) = san {
        return Some(ServerName::Dns(name.to_ascii_lowercase()));
    }
    let GeneralName::IPAddress(bytes) = san else {
        return None;
    };
    let addr = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
        _ => return None,
    };
    Some(ServerName::Ip(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let names = ServerNames::parse(["GW.example", "10.0.0.1", "[::1]", "gw.example"]).unwrap();
        assert_eq!(
            names.0,
            [
                ServerName::Dns("gw.example".to_owned()),
                ServerName::Ip("10.0.0.1".parse().unwrap()),
                ServerName::Ip("::1".parse().unwrap()),
            ]
        );
        assert_eq!(names.common_name(), "gw.example");
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "a..b", "-a", "a b", "*.a", "a.", "gw:443", "ü"] {
            assert!(ServerNames::parse([bad]).is_err(), "{bad:?}");
        }
        assert!(matches!(ServerNames::parse([""; 0]), Err(PkiError::NoName)));
    }
}
