//! The messages of RFC 1928 and RFC 1929, and what can be wrong with them.

use std::net::{IpAddr, SocketAddr};

use crate::target::{Target, TargetError};

/// Why a handshake failed: the client's fault, in words for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Socks5Error {
    /// The first byte is a capital letter: most likely an HTTP request.
    #[error(
        "client speaks HTTP, not SOCKS5: use the HTTP ingress or set the client's proxy type to socks5"
    )]
    LooksLikeHttp,
    /// The first byte begins a TLS handshake.
    #[error("client speaks TLS, not SOCKS5: set the client's proxy type to socks5 without TLS")]
    LooksLikeTls,
    /// The first byte is version 4.
    #[error("client speaks SOCKS4: set its proxy type to socks5")]
    LooksLikeSocks4,
    /// The first byte is of no protocol that is known.
    #[error("client does not speak SOCKS5: its first byte is {0:#04x}, not 0x05")]
    NotSocks(u8),
    /// Credentials are required and the client does not offer to give any.
    #[error("client offers no username and password, which this ingress requires")]
    CredentialsNotOffered,
    /// No credentials are wanted and the client does not offer to go without.
    #[error(
        "client does not offer to connect without authentication, the only method of this ingress"
    )]
    NoMethod,
    /// The version byte of the credentials is not 1 (RFC 1929 section 2).
    #[error("credentials of version {0}, not 1")]
    CredentialsVersion(u8),
    /// The user name is not UTF-8.
    #[error("user name is not UTF-8")]
    UserNotText,
    /// The credentials were not accepted.
    #[error("wrong username or password")]
    CredentialsRefused,
    /// The version byte of the request is not 5.
    #[error("request of version {0}, not 5")]
    RequestVersion(u8),
    /// BIND (2), UDP ASSOCIATE (3), or a command that is not known.
    #[error("command {0} is not supported, only CONNECT (1)")]
    Command(u8),
    /// The address is neither IPv4, IPv6 nor a name.
    #[error("address type {0} is not supported, only IPv4 (1), name (3) and IPv6 (4)")]
    AddressType(u8),
    /// The request names no target that could be reached.
    #[error("target is not valid: {0}")]
    Target(#[from] TargetError),
}

/// The outcome that the client is told (RFC 1928 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The session is open; its bytes follow.
    Succeeded,
    /// None of the other reasons.
    GeneralFailure,
    /// A rule forbids the target.
    NotAllowed,
    /// The target's network has no route.
    NetworkUnreachable,
    /// The target has no route, or its name no address.
    HostUnreachable,
    /// The target refused the connection.
    ConnectionRefused,
    /// The target did not answer in time.
    TtlExpired,
    /// The command is not CONNECT.
    CommandNotSupported,
    /// The address is neither IPv4, IPv6 nor a name.
    AddressTypeNotSupported,
}

/// Why a message cannot be acted on yet, or at all.
#[derive(Debug)]
pub(super) enum Stop {
    /// So many bytes more are part of the message for sure.
    Missing(usize),
    /// Nothing can make it good.
    Bad(Socks5Error),
}

impl Reply {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0x00,
            Self::GeneralFailure => 0x01,
            Self::NotAllowed => 0x02,
            Self::NetworkUnreachable => 0x03,
            Self::HostUnreachable => 0x04,
            Self::ConnectionRefused => 0x05,
            Self::TtlExpired => 0x06,
            Self::CommandNotSupported => 0x07,
            Self::AddressTypeNotSupported => 0x08,
        }
    }

    /// The whole message. Its bound address is 0.0.0.0:0: the agent's address is nobody's business.
    pub(super) fn encode(self) -> [u8; 10] {
        [VERSION, self.code(), 0, ADDRESS_V4, 0, 0, 0, 0, 0, 0]
    }
}

impl From<Socks5Error> for Stop {
    fn from(error: Socks5Error) -> Self {
        Self::Bad(error)
    }
}

/// Reads the greeting: the methods that the client offers (RFC 1928 section 3).
pub(super) fn greeting(message: &[u8]) -> Result<&[u8], Stop> {
    let mut rest = message;
    let version = byte(&mut rest)?;
    if version != VERSION {
        return Err(other_protocol(version).into());
    }
    let count = byte(&mut rest)?;
    bytes(&mut rest, count.into())
}

/// Reads user name and password (RFC 1929 section 2). Empty ones are let through: clients send empty passwords.
pub(super) fn credentials(message: &[u8]) -> Result<(&str, &[u8]), Stop> {
    let mut rest = message;
    let version = byte(&mut rest)?;
    if version != CREDENTIALS_VERSION {
        return Err(Socks5Error::CredentialsVersion(version).into());
    }
    let user_len = byte(&mut rest)?;
    let user = bytes(&mut rest, user_len.into())?;
    let password_len = byte(&mut rest)?;
    let password = bytes(&mut rest, password_len.into())?;
    let user = str::from_utf8(user).map_err(|_| Socks5Error::UserNotText)?;
    Ok((user, password))
}

/// Reads a request (RFC 1928 section 4).
///
/// It is judged once it is whole, where its length can be known: a connection that is closed with bytes unread may
/// be reset, and the client would never see the reply.
pub(super) fn request(message: &[u8]) -> Result<Target, Stop> {
    let mut rest = message;
    let version = byte(&mut rest)?;
    if version != VERSION {
        return Err(Socks5Error::RequestVersion(version).into());
    }
    let [command, _reserved, address_type] = array(&mut rest)?;
    let connect = match command {
        COMMAND_CONNECT => Ok(()),
        other => Err(Socks5Error::Command(other)),
    };
    let host = match address_type {
        ADDRESS_V4 => Address::Ip(array::<4>(&mut rest)?.into()),
        ADDRESS_V6 => Address::Ip(array::<16>(&mut rest)?.into()),
        ADDRESS_NAME => {
            let len = byte(&mut rest)?;
            Address::Name(bytes(&mut rest, len.into())?)
        }
        other => {
            connect?;
            return Err(Socks5Error::AddressType(other).into());
        }
    };
    let port = u16::from_be_bytes(array(&mut rest)?);
    connect?;
    Ok(target(host, port).map_err(Socks5Error::from)?)
}

/// An address as it stands in a request.
enum Address<'a> {
    Ip(IpAddr),
    Name(&'a [u8]),
}

fn target(host: Address<'_>, port: u16) -> Result<Target, TargetError> {
    match host {
        Address::Ip(_) if port == 0 => Err(TargetError::BadPort),
        Address::Ip(ip) => Ok(SocketAddr::from((ip, port)).into()),
        Address::Name(name) => {
            let name = str::from_utf8(name).map_err(|_| TargetError::BadHost)?;
            Target::new(name, port)
        }
    }
}

/// Guesses by a first byte what a client speaks that does not speak SOCKS5.
fn other_protocol(first: u8) -> Socks5Error {
    match first {
        b'A'..=b'Z' => Socks5Error::LooksLikeHttp,
        TLS_HANDSHAKE => Socks5Error::LooksLikeTls,
        SOCKS4 => Socks5Error::LooksLikeSocks4,
        other => Socks5Error::NotSocks(other),
    }
}

fn byte(rest: &mut &[u8]) -> Result<u8, Stop> {
    array(rest).map(u8::from_be_bytes)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Stop> {
    let (head, tail) = rest.split_first_chunk().ok_or_else(|| missing(rest, N))?;
    *rest = tail;
    Ok(*head)
}

fn bytes<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Stop> {
    let (head, tail) = rest
        .split_at_checked(len)
        .ok_or_else(|| missing(rest, len))?;
    *rest = tail;
    Ok(head)
}

fn missing(rest: &[u8], len: usize) -> Stop {
    Stop::Missing(len.saturating_sub(rest.len()))
}

/// Version of the greeting, the request and the reply.
pub(super) const VERSION: u8 = 5;
/// Version of the credentials and their answer.
pub(super) const CREDENTIALS_VERSION: u8 = 1;
/// No authentication.
pub(super) const METHOD_NONE: u8 = 0x00;
/// Username and password.
pub(super) const METHOD_PASSWORD: u8 = 0x02;
/// Answer to a greeting that offers nothing usable.
pub(super) const METHOD_NOT_ACCEPTABLE: u8 = 0xff;
/// The longest message: credentials of two lengths, two fields and a version.
pub(super) const MESSAGE_LEN_MAX: usize = 513;
const COMMAND_CONNECT: u8 = 1;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;
const SOCKS4: u8 = 4;
/// Content type of a TLS handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
