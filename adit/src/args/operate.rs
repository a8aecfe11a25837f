//! Verbs that ask or change a running gateway.

use std::time::Duration;

use adit_proto_core::target::Target;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::Json;
use crate::config::duration;

/// `token`.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make one enrolment string, good for one agent and once, and print it on stdout
    ///
    /// Asks the running gateway. The string is a secret until it is used; hand it to `adit agent up`. With --json its
    /// id comes too.
    #[command(after_help = help!(
        "  adit token create --name branch-1\n  adit token create --name branch-1 --lifetime 15m --json"
    ))]
    Create(TokenCreate),
    /// List the enrolment strings that have not expired, by id, and what has become of them
    ///
    /// The strings themselves are not kept. STATE is `issued`, `used` or `revoked`.
    #[command(after_help = help!("  adit token list\n  adit token list --json | jq '.[] | select(.state == \"issued\")'"))]
    List(Json),
    /// Revoke an enrolment string that has not been used
    ///
    /// An agent that has enrolled with it already is kept out by `adit agents delete`.
    #[command(after_help = help!("  adit token revoke 5f0c1d5e-8f0e-4d0b-9f4b-2a6a3c0d7e11"))]
    Revoke(TokenRevoke),
}

/// `token create`.
#[derive(Debug, Args)]
pub struct TokenCreate {
    /// Name of the agent: 1 to 255 printable ASCII characters
    #[arg(long, value_parser = agent_name)]
    pub name: String,
    /// Time in which the string must be used: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    pub lifetime: Duration,
    /// Base URL of the gateway as the agent reaches it [default: `enroll.url` of the configuration]
    #[arg(long)]
    pub url: Option<String>,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `token revoke`.
#[derive(Debug, Args)]
pub struct TokenRevoke {
    /// Its id, as `adit token list` shows it
    #[arg(value_name = "ID")]
    pub jti: Uuid,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `agents`.
#[derive(Debug, Subcommand)]
pub enum AgentsVerb {
    /// List the enrolled agents with their state, sessions and routes
    ///
    /// An agent without a connection is `offline`; one with two has two lines. SILENT is the time since the agent's
    /// last control message. New sessions go to none that is `drained`.
    #[command(after_help = help!("  adit agents list\n  adit agents list --json | jq '.[].name'"))]
    List(Json),
    /// Show all that is known of an agent: enrolment, certificate, connections, routes, sessions
    #[command(after_help = help!("  adit agents show branch-1\n  adit agents show branch-1 --json"))]
    Show(AgentsShow),
    /// Delete an agent: its connections and sessions are cut at once, and its certificate is refused from then on
    ///
    /// It can enrol again with a new string from `adit token create`.
    #[command(after_help = help!("  adit agents delete branch-1\n  adit agents delete branch-1 --json"))]
    Delete(AgentsDelete),
    /// Keep new sessions away from an agent, or end that; the sessions that it carries go on
    ///
    /// Lasts until it is undone, also over reconnections and restarts. A session that asks for the agent by its id, as a
    /// forward with `agent` does, still goes there.
    #[command(after_help = help!("  adit agents drain branch-1\n  adit agents drain branch-1 --undo"))]
    Drain(AgentsDrain),
}

/// The agent that a verb is about.
#[derive(Debug, Args)]
pub struct OneAgent {
    /// Its id, or its name where no other agent has the same
    #[arg(value_name = "ID|NAME")]
    pub agent: String,
}

/// `agents show`.
#[derive(Debug, Args)]
pub struct AgentsShow {
    /// The agent.
    #[command(flatten)]
    pub which: OneAgent,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `agents delete`.
#[derive(Debug, Args)]
pub struct AgentsDelete {
    /// The agent.
    #[command(flatten)]
    pub which: OneAgent,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `agents drain`.
#[derive(Debug, Args)]
pub struct AgentsDrain {
    /// The agent.
    #[command(flatten)]
    pub which: OneAgent,
    /// Let it have new sessions again
    #[arg(long)]
    pub undo: bool,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `sessions`.
#[derive(Debug, Subcommand)]
pub enum SessionsVerb {
    /// List the open sessions, oldest first
    #[command(after_help = help!("  adit sessions list\n  adit sessions list --json | jq length"))]
    List(Json),
    /// Show one open session
    #[command(after_help = help!("  adit sessions show 9b7e3c52-6a0f-4c1e-8f57-0d5b1f6a2c33 --json"))]
    Show(SessionsShow),
    /// End a session now: its user and its target see a reset
    #[command(after_help = help!("  adit sessions kill 9b7e3c52-6a0f-4c1e-8f57-0d5b1f6a2c33"))]
    Kill(SessionsKill),
}

/// The session that a verb is about.
#[derive(Debug, Args)]
pub struct OneSession {
    /// Its id, as `adit sessions list` shows it
    pub id: Uuid,
}

/// `sessions kill`.
#[derive(Debug, Args)]
pub struct SessionsKill {
    /// The session.
    #[command(flatten)]
    pub which: OneSession,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `sessions show`.
#[derive(Debug, Args)]
pub struct SessionsShow {
    /// The session.
    #[command(flatten)]
    pub which: OneSession,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `route`.
#[derive(Debug, Subcommand)]
pub enum RouteVerb {
    /// Tell which agents would be tried for a target, in which order and why
    ///
    /// ROUTE is what the agent advertises that covers the target. RUNG 0 is the most specific match; agents of a
    /// higher rung are tried after those of the lower ones have failed. Agents that have a route and would not be tried
    /// are named below, with the reason.
    #[command(after_help = help!(
        "  adit route explain 10.0.0.5:5432\n  adit route explain db.corp.local:5432 --json"
    ))]
    Explain(RouteExplain),
}

/// `route explain`.
#[derive(Debug, Args)]
pub struct RouteExplain {
    /// HOST:PORT; an IPv6 address in brackets
    pub target: Target,
    /// Only this agent, by its id
    #[arg(long, value_name = "ID")]
    pub agent: Option<Uuid>,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

fn agent_name(text: &str) -> Result<String, String> {
    // agent-tunnel 14.3
    if (1..=255).contains(&text.len()) && text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        Ok(text.to_owned())
    } else {
        Err("a name is 1 to 255 printable ASCII characters".to_owned())
    }
}

/// Tokens know whole seconds only.
fn lifetime(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match time.subsec_nanos() {
        0 => Ok(time),
        _ => Err(format!(
            "`{text}` is no whole number of seconds; write one as 60s, 5m or 1h"
        )),
    }
}
