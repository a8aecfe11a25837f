//! Messages of the control stream (agent-tunnel 6).

use std::net::Ipv4Addr;

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{frame::encode_frame, reader::Reader, writer::Writer};
use crate::{
    domain::DomainPattern,
    error::{DecodeError, EncodeError},
    limits::{CONTROL_LEN_MAX, VERSION_MAX, VERSION_MIN},
    route::{DomainRoute, RouteSet},
};

/// A message of the control stream.
///
/// It decodes whatever its version is; [`check_version`] tells whether it may be acted on (agent-tunnel 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlMessage {
    /// Agent to gateway: what the agent reaches.
    RouteAdvertise(RouteAdvertise),
    /// Agent to gateway: the agent lives.
    Heartbeat {
        /// Protocol version.
        version: u16,
        /// Unix time of the sender in milliseconds.
        timestamp_ms: u64,
        /// Open sessions; always 0 from a reference agent.
        active_stream_count: u32,
    },
    /// Gateway to agent: the answer to a heartbeat.
    HeartbeatAck {
        /// Protocol version.
        version: u16,
        /// The timestamp of the heartbeat, as it came.
        timestamp_ms: u64,
    },
    /// Agent to gateway: asks for a fresh certificate.
    CertRenewalRequest {
        /// Protocol version.
        version: u16,
        /// Signing request in PEM.
        csr_pem: String,
    },
    /// Gateway to agent: the answer to a renewal request.
    CertRenewalResponse {
        /// Protocol version.
        version: u16,
        /// Certificates or a refusal.
        result: RenewalResult,
    },
}

/// What an agent reaches, as it travels (agent-tunnel 6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteAdvertise {
    /// Protocol version.
    pub version: u16,
    /// Grows whenever the routes change; the first one of a connection is 1 or more (agent-tunnel 9).
    pub epoch: u64,
    /// Address ranges with their host bits; there is no field for IPv6.
    pub subnets: Vec<Ipv4Net>,
    /// Names.
    pub domains: Vec<DomainRoute>,
}

/// The answer of a gateway to a renewal request (agent-tunnel 6.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalResult {
    /// The certificate was issued.
    Granted {
        /// Client certificate in PEM.
        client_cert_pem: String,
        /// Certificate of the gateway's CA in PEM.
        gateway_ca_cert_pem: String,
    },
    /// The certificate was not issued.
    Refused {
        /// Why, for a human.
        reason: String,
    },
}

/// A route set made ready to travel, with what version 1 leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Advertised {
    /// The message.
    pub message: RouteAdvertise,
    /// Subnets that the message has no field for, in their order; the agent still reaches them, but the gateway
    /// cannot learn of it (agent-tunnel 6.1).
    pub not_carried: Vec<Ipv6Net>,
}

/// Checks that a message's version is spoken here (agent-tunnel 8).
///
/// # Errors
/// [`DecodeError::UnsupportedVersion`].
pub fn check_version(version: u16) -> Result<(), DecodeError> {
    match (VERSION_MIN..=VERSION_MAX).contains(&version) {
        true => Ok(()),
        false => Err(DecodeError::UnsupportedVersion {
            received: version,
            min: VERSION_MIN,
            max: VERSION_MAX,
        }),
    }
}

impl ControlMessage {
    /// Reads the payload of one frame. Bytes behind the message are ignored (agent-tunnel 5).
    ///
    /// # Errors
    /// [`DecodeError`] of the kinds of agent-tunnel 6.6, except that a count which the remaining bytes cannot hold is
    /// `Truncated` at once, before its elements are looked at.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let tag = r.u8()?;
        // An unknown tag goes before a length that is too short (agent-tunnel 6.6).
        match tag {
            TAG_ROUTE_ADVERTISE => RouteAdvertise::decode_body(&mut r).map(Self::RouteAdvertise),
            TAG_HEARTBEAT => Ok(Self::Heartbeat {
                version: r.u16()?,
                timestamp_ms: r.u64()?,
                active_stream_count: r.u32()?,
            }),
            TAG_HEARTBEAT_ACK => Ok(Self::HeartbeatAck {
                version: r.u16()?,
                timestamp_ms: r.u64()?,
            }),
            TAG_CERT_RENEWAL_REQUEST => Ok(Self::CertRenewalRequest {
                version: r.u16()?,
                csr_pem: r.string()?.to_owned(),
            }),
            TAG_CERT_RENEWAL_RESPONSE => Ok(Self::CertRenewalResponse {
                version: r.u16()?,
                result: RenewalResult::decode(&mut r)?,
            }),
            tag => Err(DecodeError::UnknownTag { tag }),
        }
    }

    /// Writes one complete frame.
    ///
    /// # Errors
    /// [`EncodeError`] if the payload is above [`CONTROL_LEN_MAX`].
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        encode_frame(CONTROL_LEN_MAX, |w| match self {
            Self::RouteAdvertise(routes) => {
                w.u8(TAG_ROUTE_ADVERTISE);
                routes.encode_body(w);
            }
            Self::Heartbeat {
                version,
                timestamp_ms,
                active_stream_count,
            } => {
                w.u8(TAG_HEARTBEAT);
                w.u16(*version);
                w.u64(*timestamp_ms);
                w.u32(*active_stream_count);
            }
            Self::HeartbeatAck {
                version,
                timestamp_ms,
            } => {
                w.u8(TAG_HEARTBEAT_ACK);
                w.u16(*version);
                w.u64(*timestamp_ms);
            }
            Self::CertRenewalRequest { version, csr_pem } => {
                w.u8(TAG_CERT_RENEWAL_REQUEST);
                w.u16(*version);
                w.string(csr_pem);
            }
            Self::CertRenewalResponse { version, result } => {
                w.u8(TAG_CERT_RENEWAL_RESPONSE);
                w.u16(*version);
                result.encode(w);
            }
        })
    }

    /// The version that the message says it is of.
    #[must_use]
    pub fn version(&self) -> u16 {
        match self {
            Self::RouteAdvertise(routes) => routes.version,
            Self::Heartbeat { version, .. }
            | Self::HeartbeatAck { version, .. }
            | Self::CertRenewalRequest { version, .. }
            | Self::CertRenewalResponse { version, .. } => *version,
        }
    }
}

impl Advertised {
    /// Makes the message for a route set, in the highest version spoken here.
    pub fn new(epoch: u64, routes: &RouteSet) -> Self {
        let mut subnets = Vec::new();
        let mut not_carried = Vec::new();
        for net in &routes.subnets {
            match net {
                IpNet::V4(net) => subnets.push(*net),
                IpNet::V6(net) => not_carried.push(*net),
            }
        }
        Self {
            message: RouteAdvertise {
                version: VERSION_MAX,
                epoch,
                subnets,
                domains: routes.domains.clone(),
            },
            not_carried,
        }
    }
}

impl RouteAdvertise {
    /// The routes without version and epoch.
    #[must_use]
    pub fn into_routes(self) -> RouteSet {
        RouteSet {
            subnets: self.subnets.into_iter().map(IpNet::V4).collect(),
            domains: self.domains,
        }
    }

    fn decode_body(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u16()?;
        let epoch = r.u64()?;
        let count = r.count_of(SUBNET_LEN)?;
        let mut subnets = Vec::with_capacity(count);
        for _ in 0..count {
            subnets.push(decode_subnet(r)?);
        }
        // Elements are longer in memory than on the wire, so the vector grows as they prove good.
        let mut domains = Vec::new();
        for _ in 0..r.count_of(DOMAIN_LEN_MIN)? {
            domains.push(decode_domain(r)?);
        }
        Ok(Self {
            version,
            epoch,
            subnets,
            domains,
        })
    }

    fn encode_body(&self, w: &mut Writer) {
        w.u16(self.version);
        w.u64(self.epoch);
        w.count(self.subnets.len());
        for net in &self.subnets {
            w.bytes(&net.addr().octets());
            w.u8(net.prefix_len());
        }
        w.count(self.domains.len());
        for route in &self.domains {
            w.string(route.pattern.as_str());
            w.u8(route.auto_detected.into());
        }
    }
}

impl RenewalResult {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            RESULT_GRANTED => Ok(Self::Granted {
                client_cert_pem: r.string()?.to_owned(),
                gateway_ca_cert_pem: r.string()?.to_owned(),
            }),
            RESULT_REFUSED => Ok(Self::Refused {
                reason: r.string()?.to_owned(),
            }),
            tag => Err(DecodeError::UnknownTag { tag }),
        }
    }

    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Granted {
                client_cert_pem,
                gateway_ca_cert_pem,
            } => {
                w.u8(RESULT_GRANTED);
                w.string(client_cert_pem);
                w.string(gateway_ca_cert_pem);
            }
            Self::Refused { reason } => {
                w.u8(RESULT_REFUSED);
                w.string(reason);
            }
        }
    }
}

fn decode_subnet(r: &mut Reader<'_>) -> Result<Ipv4Net, DecodeError> {
    r.need(SUBNET_LEN)?;
    let addr = Ipv4Addr::from(r.array()?);
    Ipv4Net::new(addr, r.u8()?).map_err(|_| DecodeError::InvalidField {
        field: "subnet".into(),
        reason: "prefix length above 32".into(),
    })
}

fn decode_domain(r: &mut Reader<'_>) -> Result<DomainRoute, DecodeError> {
    let name = r.string()?;
    let auto_detected = r.u8()? != 0;
    Ok(DomainRoute {
        pattern: DomainPattern::parse(name)?,
        auto_detected,
    })
}

const TAG_ROUTE_ADVERTISE: u8 = 0x01;
const TAG_HEARTBEAT: u8 = 0x02;
const TAG_HEARTBEAT_ACK: u8 = 0x03;
const TAG_CERT_RENEWAL_REQUEST: u8 = 0x04;
const TAG_CERT_RENEWAL_RESPONSE: u8 = 0x05;
const RESULT_GRANTED: u8 = 0x00;
const RESULT_REFUSED: u8 = 0x01;
/// Address and prefix length.
const SUBNET_LEN: usize = 5;
/// An empty name and its flag; no such name is valid, but its error is another one.
const DOMAIN_LEN_MIN: usize = 5;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [u8; 35] = [
        1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 10, 1, 9, 32, 16, 0, 0, 0, 1, 0, 0, 0, 5,
        b'*', b'.', b'A', b'.', b'b', 7, 0xee,
    ];

    #[test]
    fn advertisement_keeps_host_bits_and_lowers_names() {
        let decoded = ControlMessage::decode(&FULL).unwrap();
        let ControlMessage::RouteAdvertise(routes) = decoded else {
            panic!("{decoded:?}");
        };
        assert_eq!(routes.subnets, ["10.1.9.32/16".parse().unwrap()]);
        assert_eq!(routes.domains[0].pattern.as_str(), "*.a.b");
        assert!(routes.domains[0].auto_detected);
    }

    #[test]
    fn every_cut_is_truncated() {
        // The last byte is behind the message.
        for len in 0..FULL.len() - 1 {
            let cut = ControlMessage::decode(&FULL[..len]);
            assert!(
                matches!(cut, Err(DecodeError::Truncated { .. })),
                "{len}: {cut:?}"
            );
        }
    }

    #[test]
    fn unbounded_counts_are_truncated() {
        let header = [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        let domains = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let subnets = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        for counts in [domains, subnets] {
            let decoded = ControlMessage::decode(&[header.as_slice(), &counts].concat());
            assert!(
                matches!(decoded, Err(DecodeError::Truncated { .. })),
                "{decoded:?}"
            );
        }
    }

    #[test]
    fn unknown_tag_goes_before_a_short_length() {
        for tag in [0, 6, 255] {
            assert_eq!(
                ControlMessage::decode(&[tag]),
                Err(DecodeError::UnknownTag { tag })
            );
        }
    }

    #[test]
    fn version_check_is_apart_from_decoding() {
        for (version, good) in [(0, false), (1, true), (2, false), (u16::MAX, false)] {
            let message = ControlMessage::HeartbeatAck {
                version,
                timestamp_ms: 1,
            };
            let frame = message.encode().unwrap();
            let decoded = ControlMessage::decode(&frame[4..]).unwrap();
            assert_eq!(decoded.version(), version);
            assert_eq!(check_version(version).is_ok(), good, "{version}");
        }
    }

    #[test]
    fn routes_without_a_field_are_given_back() {
        let routes = RouteSet {
            subnets: ["10.0.0.0/8", "2001:db8::/32", "10.1.9.32/16"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
            domains: Vec::new(),
        };
        let advertised = Advertised::new(7, &routes);
        assert_eq!(advertised.not_carried, ["2001:db8::/32".parse().unwrap()]);
        assert_eq!(advertised.message.epoch, 7);
        let carried = advertised.message.into_routes();
        assert_eq!(carried.subnets, [routes.subnets[0], routes.subnets[2]]);
    }
}
