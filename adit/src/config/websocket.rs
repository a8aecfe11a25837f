//! The section `[websocket]`: users who come in over the enrolment listener, each with a token of the provisioner.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use rustls_pki_types::CertificateDer;

use super::{
    Entrance, entrance,
    file::Kind,
    parse,
    reader::{Reader, Sourced},
};
use crate::regular;

/// How users come in by WebSocket. They do only where a provisioner's key is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Who may come in, and what targets are told of them.
    pub entrance: Entrance,
    /// Users at a time.
    pub sessions: NonZeroU32,
    /// How long nothing goes to a user until a Ping does, for proxies on the way that end idle connections; none: never.
    pub ping: Option<Duration>,
    /// Who vouches for targets that are spoken to in TLS, beside the system's roots.
    pub target_roots: Vec<CertificateDer<'static>>,
}

/// Reads the section, and the file that it names.
pub(super) fn websocket(r: &mut Reader<'_>) -> Option<WebSocketConfig> {
    let entrance = entrance::entrance(r, "websocket.");
    let sessions = r.scalar("websocket.sessions", Kind::Number, "1024", parse::count);
    let ping = r.scalar("websocket.ping", Kind::Text, "30s", ping);
    let roots = r.optional("websocket.target_roots", Kind::Text, parse::path);
    let target_roots = roots_of(r, roots?);
    Some(WebSocketConfig {
        entrance: entrance?,
        sessions: sessions?.value,
        ping: ping?.value,
        target_roots: target_roots?,
    })
}

/// A span of time, or `0` for none.
fn ping(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "0" | "0s" => Ok(None),
        _ => parse::duration(text).map(Some),
    }
}

fn roots_of(
    r: &mut Reader<'_>,
    file: Option<Sourced<PathBuf>>,
) -> Option<Vec<CertificateDer<'static>>> {
    let Some(file) = file.filter(|_| r.reads_named_files()) else {
        return Some(Vec::new());
    };
    match regular::pem(&file.value) {
        Ok(roots) => Some(roots),
        Err(error) => {
            r.problem(file.source, format!("{}: {error}", file.value.display()));
            None
        }
    }
}
