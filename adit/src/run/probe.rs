//! `agent probe`: what stands between an agent and its gateway, looked at from the agent's machine.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use adit_io_common::agent::probe;
use adit_proto_core::{
    close::Closed,
    link::tls::AgentTls,
    target::{Host, Target},
};
use rcgen::{CertificateParams, KeyPair};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Context;
use crate::{
    args::Json,
    enroll::files::AgentFiles,
    exit::{Code, CommandFailure},
    output::{printable, unix_time},
    process::unix_now,
    state::StateDir,
};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// What.
    check: &'static str,
    ok: bool,
    detail: String,
    /// What to do where it is not well.
    advice: Option<&'static str>,
    /// It tells of the network or the gateway, not of this machine.
    #[serde(skip)]
    is_remote: bool,
}

impl Check {
    fn ok(check: &'static str, detail: String) -> Self {
        Self {
            check,
            ok: true,
            detail,
            advice: None,
            is_remote: false,
        }
    }

    fn failed(check: &'static str, detail: String, advice: &'static str) -> Self {
        Self {
            ok: false,
            advice: Some(advice),
            ..Self::ok(check, detail)
        }
    }

    fn remote(self) -> Self {
        Self {
            is_remote: true,
            ..self
        }
    }
}

/// Looks at everything that can be looked at, and says of each whether it is well.
pub(super) fn probe(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let config = ctx.agent_config()?.config;
    let mut checks = Vec::new();
    let files = StateDir::open_existing(&config.state_dir)
        .map_err(|error| error.to_string())
        .and_then(|dir| AgentFiles::foresee(&dir).map_err(|error| error.to_string()));
    let files = match files {
        Ok((files, is_cut_short)) => {
            let how = match is_cut_short {
                true => "; cut short, and finished by `adit agent run`",
                false => "",
            };
            let who = format!("{} ({}){how}", files.name, files.id);
            checks.push(Check::ok("enrolment", who));
            checks.push(certificate(&files));
            Some(files)
        }
        Err(error) => {
            let advice = "enrol with `adit agent up`, or name its --state-dir";
            checks.push(Check::failed("enrolment", error, advice));
            None
        }
    };
    let enrolled = files.iter().flat_map(|files| &files.quic_endpoints);
    let mut gateways = config.endpoints;
    if gateways.is_empty() {
        gateways = enrolled.filter_map(|text| text.parse().ok()).collect();
    }
    for gateway in &gateways {
        reach(gateway, files.as_ref(), &mut checks)?;
    }
    ctx.print(json.json, &checks, |out| {
        for check in &checks {
            let state = if check.ok { "ok" } else { "failed" };
            let (name, detail) = (check.check, printable(&check.detail));
            writeln!(out, "{name:<12} {state:<7} {detail}")?;
            if let Some(advice) = check.advice {
                writeln!(out, "{:<20} {advice}", "")?;
            }
        }
        Ok(())
    })?;
    verdict(&checks)
}

/// What is wrong here stands before what is wrong elsewhere.
fn verdict(checks: &[Check]) -> Result<(), CommandFailure> {
    let failed = || checks.iter().filter(|check| !check.ok);
    let code = match (failed().next(), failed().all(|check| check.is_remote)) {
        (None, _) => return Ok(()),
        (Some(_), true) => Code::Unreachable,
        (Some(_), false) => Code::Failure,
    };
    let names: Vec<_> = failed().map(|check| check.check).collect();
    let text = format!("not well: {}", names.join(", "));
    Err(CommandFailure::message(code, text))
}

/// The dates of the agent's certificate against this machine's clock.
fn certificate(files: &AgentFiles) -> Check {
    const NAME: &str = "certificate";
    let now = i64::try_from(unix_now().as_secs()).unwrap_or(i64::MAX);
    let Ok(validity) = files.pair.validity() else {
        let text = "cannot be read".to_owned();
        return Check::failed(NAME, text, "enrol again with `adit agent up`");
    };
    let clock = unix_time(now);
    if now < validity.not_before {
        let begins = unix_time(validity.not_before);
        let text = format!("begins {begins}, and this machine's clock says {clock}");
        return Check::failed(NAME, text, "set this machine's clock");
    }
    let ends = unix_time(validity.not_after);
    if now > validity.not_after {
        let text = format!("has ended {ends}, and this machine's clock says {clock}");
        let advice = "set this machine's clock; if it is right, enrol again with `adit agent up`";
        return Check::failed(NAME, text, advice);
    }
    Check::ok(
        NAME,
        format!("ends {ends}; this machine's clock says {clock}"),
    )
}

/// The way to one gateway, step by step; a step that fails ends it.
fn reach(
    gateway: &Target,
    files: Option<&AgentFiles>,
    checks: &mut Vec<Check>,
) -> std::io::Result<()> {
    let found = (gateway.host.to_string(), gateway.port).to_socket_addrs();
    let addrs: Vec<SocketAddr> = match found {
        Ok(addrs) => addrs.collect(),
        Err(error) => {
            let text = format!("{}: {error}", gateway.host);
            let advice = "check this machine's DNS, and the gateway's name";
            checks.push(Check::failed("name", text, advice).remote());
            return Ok(());
        }
    };
    let Some(&addr) = addrs.first() else {
        let text = format!("{} has no address", gateway.host);
        checks.push(Check::failed("name", text, "check the gateway's name").remote());
        return Ok(());
    };
    let all: Vec<_> = addrs.iter().map(|addr| addr.ip().to_string()).collect();
    let text = format!("{} is {}", gateway.host, all.join(", "));
    checks.push(Check::ok("name", text));
    let mut answered = None;
    for addr in addrs {
        if let Some(time) = probe::ping(addr, PATIENCE)? {
            answered = Some((addr, time));
            break;
        }
    }
    let Some((addr, time)) = answered else {
        let text = format!("no answer from {addr} within {} s", PATIENCE.as_secs());
        let advice =
            "is the gateway running? Do firewalls let UDP to it pass, and the answers back?";
        checks.push(Check::failed("udp", text, advice).remote());
        return Ok(());
    };
    let text = format!("{addr} answered after {} ms", time.as_millis());
    checks.push(Check::ok("udp", text));
    if let Some(files) = files {
        checks.push(identity(gateway, addr, files)?);
    }
    Ok(())
}

/// Whether the gateway is the one that the agent enrolled with. The agent's own certificate is not shown: the running
/// agent's connection stays its newest.
fn identity(gateway: &Target, addr: SocketAddr, files: &AgentFiles) -> std::io::Result<Check> {
    const NAME: &str = "gateway";
    let tls = stranger(files).map_err(std::io::Error::other)?;
    let name = match &gateway.host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.to_string(),
    };
    Ok(match probe::handshake(tls, addr, &name, PATIENCE)? {
        Ok(time) => {
            let text = format!("proved its identity after {} ms", time.as_millis());
            Check::ok(NAME, text)
        }
        Err(why @ Closed::PeerNotTrusted { .. }) => {
            let advice = "it is not the gateway that this agent enrolled with, its certificate lacks this name, or a \
                          clock is wrong; enrol again only if the gateway was replaced on purpose";
            Check::failed(NAME, why.to_string(), advice)
        }
        Err(why) => {
            let advice = "look at the gateway's log";
            Check::failed(NAME, why.to_string(), advice).remote()
        }
    })
}

/// What an agent expects of its gateway, with a certificate that nobody knows.
fn stranger(files: &AgentFiles) -> Result<AgentTls, String> {
    let tls = files.pair.tls(files.server_spki_sha256)?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let cert = CertificateParams::default().self_signed(&key);
    let cert = cert.map_err(|error| error.to_string())?;
    Ok(AgentTls {
        cert_chain: vec![cert.der().to_vec()],
        key: Zeroizing::new(key.serialize_der()),
        ..tls
    })
}

/// Time for an answer of the gateway.
const PATIENCE: Duration = Duration::from_secs(3);
