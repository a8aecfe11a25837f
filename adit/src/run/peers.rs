//! `peers`: keys and certificates of a cluster, and the running gateway's peers.

use std::{io::Write, path::Path};

use adit_proto_core::peer::NodeId;
use rustls_pki_types::UnixTime;
use serde::Serialize;

use super::{Context, odd_answer};
use crate::{
    admin::{Answer, PeerRow, Request},
    args::{Json, PeersGenkey, PeersInit, PeersIssue, PeersVerb},
    config::peers::spiffe_id,
    exit::{Code, CommandFailure},
    output::{self, printable},
    peers::{authority::PeerCa, key},
    pki::hex,
    state::{StateDir, write_new_secret},
};

pub(super) fn peers(ctx: &Context<'_>, verb: &PeersVerb) -> Result<(), CommandFailure> {
    match verb {
        PeersVerb::List(json) => list(ctx, *json),
        PeersVerb::Genkey(args) => genkey(args),
        PeersVerb::Init(args) => init(ctx, args),
        PeersVerb::Issue(args) => issue(ctx, args),
    }
}

fn list(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let Answer::Peers(view) = ctx.ask_gateway(&Request::PeersList {})? else {
        return Err(odd_answer());
    };
    // For programs, a list of peers; the gateway's own certificate is among its metrics.
    ctx.print(json.json, &view.peers, |mut out| {
        let heading = [
            "ID",
            "ADDRESS",
            "CONNECTED",
            "VERSION",
            "RTT",
            "AGENTS",
            "ROUTES",
            "FORWARD",
            "BREAKER",
            "CERTIFICATE ENDS",
            "LAST REFUSAL",
        ];
        output::table(&mut out, &heading, view.peers.iter().map(row).collect())?;
        match view.own_certificate_ends_unix_s.map(output::unix_time) {
            Some(ends) => writeln!(out, "this gateway's own certificate ends {ends}"),
            None => Ok(()),
        }
    })
}

fn row(peer: &PeerRow) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let connected = match (peer.connected, &peer.direction) {
        (true, Some(direction)) => direction.clone(),
        (true, None) => "yes".to_owned(),
        (false, _) => "no".to_owned(),
    };
    let rtt = peer
        .rtt_us
        .map(|us| format!("{}.{:03} ms", us / 1_000, us % 1_000));
    vec![
        peer.id.to_string(),
        peer.address.clone(),
        connected,
        or_none(peer.version.map(|version| version.to_string())),
        or_none(rtt),
        peer.agents.to_string(),
        peer.routes.to_string(),
        peer.forward.clone(),
        peer.breaker.clone(),
        or_none(peer.certificate_ends_unix_s.map(output::unix_time)),
        or_none(peer.last_refusal.clone()),
    ]
}

/// Nothing but the key goes to stdout, so that it can go on into a file.
fn genkey(args: &PeersGenkey) -> Result<(), CommandFailure> {
    let key = key::draw().map_err(|error| CommandFailure::new(Code::Failure, error))?;
    let Some(path) = &args.out else {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(key.as_bytes()).and_then(|()| writeln!(out));
        return Ok(output::quiet(written)?);
    };
    let line = zeroize::Zeroizing::new(format!("{}\n", *key));
    let is_new = write_new_secret(path, line.as_bytes()).map_err(|error| {
        let text = format!("cannot write {}: {error}", path.display());
        CommandFailure::message(Code::Failure, text)
    })?;
    match is_new {
        true => Ok(()),
        false => Err(CommandFailure::message(
            Code::Failure,
            format!(
                "{} is there already, and is left as it is; name another file",
                path.display()
            ),
        )),
    }
}

#[derive(Serialize)]
struct Made<'a> {
    /// Where the CA is.
    directory: &'a Path,
    /// It was not there before.
    made: bool,
}

fn init(ctx: &Context<'_>, args: &PeersInit) -> Result<(), CommandFailure> {
    let failed = |error| CommandFailure::new(Code::Failure, error);
    let dir =
        StateDir::open(&args.dir).map_err(|error| CommandFailure::new(Code::Failure, error))?;
    let made = PeerCa::init(&dir, UnixTime::now()).map_err(failed)?;
    let view = Made {
        directory: dir.path(),
        made,
    };
    ctx.print(args.json.json, &view, |out| {
        let shown = printable(&dir.path().to_string_lossy());
        match made {
            true => writeln!(out, "made a CA for peers in {shown}"),
            false => writeln!(out, "there is a CA for peers in {shown}; it stays"),
        }
    })
}

#[derive(Serialize)]
struct Issued {
    /// The node's id.
    id: u64,
    /// Where the others reach it.
    address: String,
    /// SHA-256 of its key, in hex.
    spki: String,
    /// The SPIFFE id in its certificate.
    spiffe: Option<String>,
    /// When its certificate ends, in Unix seconds.
    certificate_ends_unix_s: i64,
    /// Its key was there, and so the pin is the former one.
    kept_key: bool,
}

fn issue(ctx: &Context<'_>, args: &PeersIssue) -> Result<(), CommandFailure> {
    let failed = |error| CommandFailure::new(Code::Failure, error);
    if let Some(id) = &args.spiffe {
        spiffe_id(id).map_err(|text| CommandFailure::message(Code::Usage, text))?;
    }
    let state = |error| CommandFailure::new(Code::Failure, error);
    let ca = PeerCa::open(&StateDir::open_existing(&args.ca).map_err(state)?).map_err(failed)?;
    let out = StateDir::open(&args.out).map_err(state)?;
    let (node, spiffe) = (NodeId(args.node), args.spiffe.as_deref());
    let issued = ca.issue(&out, UnixTime::now(), node, spiffe, args.force);
    let issued = issued.map_err(failed)?;
    let view = Issued {
        id: args.node,
        address: args.address.to_string(),
        spki: hex(&issued.pin),
        spiffe: args.spiffe.clone(),
        certificate_ends_unix_s: issued.not_after,
        kept_key: issued.kept_key,
    };
    ctx.print(args.json.json, &view, |out| {
        let ends = output::unix_time(view.certificate_ends_unix_s);
        writeln!(
            out,
            "# For the other gateways; the certificate ends {ends}."
        )?;
        writeln!(out, "[[peers.peer]]")?;
        writeln!(out, "id = {}", view.id)?;
        writeln!(
            out,
            "address = {}",
            toml::Value::from(view.address.as_str())
        )?;
        writeln!(out, "spki = \"{}\"", view.spki)?;
        match &view.spiffe {
            Some(id) => writeln!(out, "spiffe = {}", toml::Value::from(id.as_str())),
            None => Ok(()),
        }
    })
}
