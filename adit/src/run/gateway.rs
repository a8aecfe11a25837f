//! `gateway init` and `gateway run`.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use serde::Serialize;

use super::{Context, odd_answer, print_reloaded, starter::Starter};
use crate::{
    admin::{Answer, Request, UsageRow},
    args::{GatewayInit, Json},
    config::{GatewayConfig, Role},
    exit::{Code, CommandFailure},
    output,
    pki::hex,
    process::{
        gateway::{GatewayProcess, GatewayState},
        signals::Signals,
    },
};

/// Makes CA, keys and store, and a configuration file to begin with where there is none.
pub(super) fn init(ctx: &Context<'_>, args: &GatewayInit) -> Result<(), CommandFailure> {
    // `--name` is in the configuration already: it overrides `tunnel.names`. The file may be absent even where
    // `--config` names it, since this verb writes it.
    let file = ctx.file(Role::Gateway).map(|(path, _)| path);
    let loaded = GatewayConfig::load(
        file.clone().map(|path| (path, false)),
        &ctx.cli.overrides(),
        &ctx.around,
    )?;
    ctx.start_log(&loaded.config.log)?;
    if loaded.config.tunnel.names.is_empty() {
        return Err(CommandFailure::message(Code::Usage, NO_NAME));
    }
    let state = GatewayState::open(&loaded.config)?;
    let names = loaded.config.tunnel.names.iter().map(ToString::to_string);
    let names: Vec<String> = names.collect();
    let starter = Starter::write(file, CONFIG, &loaded.config.state_dir, &names)?;
    let made = Made {
        state_dir: loaded.config.state_dir,
        pin: hex(&state.tunnel_pin()),
        config: starter.path,
        config_is_new: starter.is_new,
    };
    ctx.print(args.json.json, &made, |out| made.write(out))
}

/// What a gateway begins with.
#[derive(Serialize)]
struct Made {
    state_dir: PathBuf,
    /// SHA-256 of the tunnel's public key, in hex.
    pin: String,
    /// None where there is no home directory to have one in.
    config: Option<PathBuf>,
    config_is_new: bool,
}

impl Made {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "state   {}", self.state_dir.display())?;
        writeln!(out, "pin     {}", self.pin)?;
        let Some(path) = &self.config else {
            return Ok(());
        };
        let how = match self.config_is_new {
            true => "new; add an ingress to it",
            false => "left as it is",
        };
        writeln!(out, "config  {} ({how})", path.display())
    }
}

/// Runs the gateway.
pub(super) fn run(ctx: &Context<'_>) -> Result<(), CommandFailure> {
    let loaded = ctx.gateway_config()?;
    ctx.start_log(&loaded.config.log)?;
    let open_files = super::raise_open_files();
    tracing::debug!(?open_files, "limit of open descriptors");
    super::of_gateway::runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let process = GatewayProcess::start(&loaded.config)?;
        let (file, overrides) = (ctx.file(Role::Gateway), ctx.cli.overrides());
        let around = ctx.around.clone();
        let load = move || GatewayConfig::load_to_run(file.clone(), &overrides, &around);
        let source = move || load().map(|loaded| loaded.config);
        process.run(signals, Arc::new(source)).await
    })
}

/// Has the running gateway read its configuration again.
pub(super) fn reload(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let answer = ctx.ask_gateway(&Request::Reload {})?;
    print_reloaded(ctx, json, answer)
}

/// Asks the running gateway how it is.
pub(super) fn status(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let Answer::Gateway(status) = ctx.ask_gateway(&Request::Status {})? else {
        return Err(odd_answer());
    };
    ctx.print(json.json, &status, |mut out| {
        writeln!(
            out,
            "agents    {} connected, {} of them take sessions",
            status.agents, status.agents_online
        )?;
        writeln!(out, "sessions  {}\n", status.sessions)?;
        let row = |row: &UsageRow| {
            // Names of ingresses stay as they are.
            let (kind, of) = row.what.split_once(':').unwrap_or((&row.what, ""));
            let what = format!("{} {of}", kind.replace('_', " "));
            vec![
                what.trim_end().to_owned(),
                row.used.to_string(),
                row.limit.to_string(),
            ]
        };
        let rows = status.usage.iter().map(row).collect();
        output::table(&mut out, &["BOUND", "USED", "LIMIT"], rows)
    })
}

const NO_NAME: &str = "the gateway needs a name that agents can reach it by: give `gateway init --name NAME`, or set \
                       tunnel.names in the configuration";
const CONFIG: &str = r#"# Configuration of an adit gateway. `adit config check` checks it, `adit config show` shows every value.
state_dir = STATE

[tunnel]
names = [NAMES]

# Users come in by an ingress. On addresses other than loopback a proxy needs `users_file`.
# [[socks5]]
# name = "socks5"
# listen = "127.0.0.1:1080"
#
# [[http_connect]]
# name = "connect"
# listen = "127.0.0.1:3128"
#
# [[forward]]
# name = "database"
# listen = "127.0.0.1:5432"
# target = "db.corp.local:5432"

# Other gateways of one cluster; `adit peers issue` makes the files and prints the entries.
# [peers]
# node = 1
# cert = "/etc/adit/node-cert.pem"
# key = "/etc/adit/node-key.pem"
# ca = "/etc/adit/peer-ca-cert.pem"
# cluster_key_file = "/etc/adit/cluster.key"
#
# [[peers.peer]]
# id = 2
# address = "gw2.example.com:4434"
# spki = "..."
"#;
