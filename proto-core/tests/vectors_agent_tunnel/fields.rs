//! Messages as the vectors write them.

use adit_proto_core::{
    domain::DomainPattern,
    error::{DecodeError, EncodeError},
    id::SessionId,
    route::DomainRoute,
    wire::{
        connect::{ConnectRequest, ConnectResponse},
        control::{ControlMessage, RenewalResult, RouteAdvertise},
    },
};
use bytes::Bytes;
use ipnet::Ipv4Net;
use serde_json::Value;
use uuid::Uuid;

use crate::lines::Failure;

/// A message of any of the three channels.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    Control(ControlMessage),
    Request(ConnectRequest),
    Response(ConnectResponse),
}

impl Message {
    /// Builds the message that a line describes; a field that is not known is a failure.
    pub(crate) fn from_fields(kind: &str, fields: &Value) -> Result<Self, Failure> {
        let version = u16_of(fields, "protocol_version")?;
        let keys = |own: &[&str]| expect_keys(fields, &[own, &["protocol_version"]].concat());
        Ok(Self::Control(match kind {
            "RouteAdvertise" => {
                keys(&["epoch", "subnets", "domains"])?;
                ControlMessage::RouteAdvertise(RouteAdvertise {
                    version,
                    epoch: number(fields, "epoch")?,
                    subnets: each(fields, "subnets", subnet)?,
                    domains: each(fields, "domains", domain)?,
                })
            }
            "Heartbeat" => {
                keys(&["timestamp_ms", "active_stream_count"])?;
                let count = number(fields, "active_stream_count")?;
                ControlMessage::Heartbeat {
                    version,
                    timestamp_ms: number(fields, "timestamp_ms")?,
                    active_stream_count: u32::try_from(count).map_err(|e| e.to_string())?,
                }
            }
            "HeartbeatAck" => {
                keys(&["timestamp_ms"])?;
                ControlMessage::HeartbeatAck {
                    version,
                    timestamp_ms: number(fields, "timestamp_ms")?,
                }
            }
            "CertRenewalRequest" => {
                keys(&["csr_pem"])?;
                ControlMessage::CertRenewalRequest {
                    version,
                    csr_pem: owned(fields, "csr_pem")?,
                }
            }
            "CertRenewalResponse" => ControlMessage::CertRenewalResponse {
                version,
                result: renewal_result(fields)?,
            },
            "ConnectRequest" => {
                keys(&["session_id", "target"])?;
                let session = Uuid::parse_str(text(fields, "session_id")?);
                return Ok(Self::Request(ConnectRequest {
                    version,
                    session: SessionId(session.map_err(|e| e.to_string())?),
                    target: owned(fields, "target")?,
                }));
            }
            "ConnectResponse" => {
                let result = connect_result(fields)?;
                return Ok(Self::Response(ConnectResponse { version, result }));
            }
            other => return Err(format!("unknown message {other}")),
        }))
    }

    /// Reads one payload of a channel.
    pub(crate) fn decode(channel: &str, payload: &[u8]) -> Result<Self, DecodeError> {
        match channel {
            "control" => ControlMessage::decode(payload).map(Self::Control),
            "connect_request" => ConnectRequest::decode(payload).map(Self::Request),
            "connect_response" => ConnectResponse::decode(payload).map(Self::Response),
            other => panic!("unknown channel {other}"),
        }
    }

    pub(crate) fn encode(&self) -> Result<Bytes, EncodeError> {
        match self {
            Self::Control(m) => m.encode(),
            Self::Request(m) => m.encode(),
            Self::Response(m) => m.encode(),
        }
    }

    pub(crate) fn version(&self) -> u16 {
        match self {
            Self::Control(m) => m.version(),
            Self::Request(m) => m.version,
            Self::Response(m) => m.version,
        }
    }
}

/// Fails on a key that is not in `known`: a field that nobody checks.
pub(crate) fn expect_keys(object: &Value, known: &[&str]) -> Result<(), Failure> {
    let object = object.as_object().ok_or("no object")?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown field {key}")),
        None => Ok(()),
    }
}

/// A text field.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str, Failure> {
    let value = object[key].as_str();
    value.ok_or_else(|| format!("no text in field {key}"))
}

/// A number field, in all of its 64 bits.
pub(crate) fn number(object: &Value, key: &str) -> Result<u64, Failure> {
    let value = object[key].as_u64();
    value.ok_or_else(|| format!("no number in field {key}"))
}

fn owned(object: &Value, key: &str) -> Result<String, Failure> {
    text(object, key).map(str::to_owned)
}

fn u16_of(object: &Value, key: &str) -> Result<u16, Failure> {
    u16::try_from(number(object, key)?).map_err(|e| e.to_string())
}

fn each<T>(
    object: &Value,
    key: &str,
    read: fn(&Value) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let list = object[key].as_array();
    let list = list.ok_or_else(|| format!("no list in field {key}"))?;
    list.iter().map(read).collect()
}

fn subnet(value: &Value) -> Result<Ipv4Net, Failure> {
    expect_keys(value, &["ip", "prefix"])?;
    let ip = text(value, "ip")?.parse();
    let prefix = u8::try_from(number(value, "prefix")?).map_err(|e| e.to_string())?;
    Ipv4Net::new(ip.map_err(|_| "not an address")?, prefix).map_err(|e| e.to_string())
}

fn domain(value: &Value) -> Result<DomainRoute, Failure> {
    expect_keys(value, &["domain", "auto_detected"])?;
    let name = text(value, "domain")?;
    let pattern = DomainPattern::parse(name).map_err(|e| e.to_string())?;
    if pattern.as_str() != name {
        return Err(format!("{name} is not in lower case"));
    }
    let auto_detected = value["auto_detected"].as_bool();
    Ok(DomainRoute {
        pattern,
        auto_detected: auto_detected.ok_or("no flag in field auto_detected")?,
    })
}

fn renewal_result(fields: &Value) -> Result<RenewalResult, Failure> {
    match text(fields, "result")? {
        "success" => {
            expect_keys(
                fields,
                &[
                    "protocol_version",
                    "result",
                    "client_cert_pem",
                    "gateway_ca_cert_pem",
                ],
            )?;
            Ok(RenewalResult::Granted {
                client_cert_pem: owned(fields, "client_cert_pem")?,
                gateway_ca_cert_pem: owned(fields, "gateway_ca_cert_pem")?,
            })
        }
        "error" => {
            expect_keys(fields, &["protocol_version", "result", "reason"])?;
            Ok(RenewalResult::Refused {
                reason: owned(fields, "reason")?,
            })
        }
        other => Err(format!("unknown result {other}")),
    }
}

fn connect_result(fields: &Value) -> Result<Result<(), String>, Failure> {
    match text(fields, "result")? {
        "success" => {
            expect_keys(fields, &["protocol_version", "result"])?;
            Ok(Ok(()))
        }
        "error" => {
            expect_keys(fields, &["protocol_version", "result", "reason"])?;
            owned(fields, "reason").map(Err)
        }
        other => Err(format!("unknown result {other}")),
    }
}
