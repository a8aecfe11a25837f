//! `gateway init` and `gateway run`.

use std::{path::Path, sync::Arc};

use super::{Context, print_reloaded};
use crate::{
    admin::Request,
    args::{GatewayInit, Json},
    config::{GatewayConfig, Role},
    exit::{Code, CommandFailure},
    pki::hex,
    process::{
        gateway::{GatewayProcess, GatewayState},
        signals::Signals,
    },
};

/// Makes CA, keys and store, and a configuration file to begin with where there is none.
pub(super) fn init(ctx: &Context<'_>, _args: &GatewayInit) -> Result<(), CommandFailure> {
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
    let written = match &file {
        Some(path) if !path.exists() => write_config(path, &loaded.config).map(|()| true),
        Some(_) | None => Ok(false),
    }?;
    ctx.print(false, &(), |out| {
        writeln!(out, "state   {}", loaded.config.state_dir.display())?;
        writeln!(out, "pin     {}", hex(&state.tunnel_pin()))?;
        match &file {
            Some(path) if written => writeln!(
                out,
                "config  {} (new; add an ingress to it)",
                path.display()
            ),
            Some(path) => writeln!(out, "config  {} (left as it is)", path.display()),
            None => Ok(()),
        }
    })
}

/// Runs the gateway.
pub(super) fn run(ctx: &Context<'_>) -> Result<(), CommandFailure> {
    let loaded = ctx.gateway_config()?;
    ctx.start_log(&loaded.config.log)?;
    if loaded.config.tunnel.names.is_empty() {
        return Err(CommandFailure::message(Code::Config, NO_NAME));
    }
    let open_files = super::raise_open_files();
    tracing::debug!(?open_files, "limit of open descriptors");
    super::runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let process = GatewayProcess::start(&loaded.config)?;
        let (file, overrides) = (ctx.file(Role::Gateway), ctx.cli.overrides());
        let around = ctx.around.clone();
        let load = move || GatewayConfig::load(file.clone(), &overrides, &around);
        let source = move || load().map(|loaded| loaded.config);
        process.run(signals, Arc::new(source)).await
    })
}

/// Has the running gateway read its configuration again.
pub(super) fn reload(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let answer = ctx.ask_gateway(&Request::Reload {})?;
    print_reloaded(ctx, json, answer)
}

fn write_config(path: &Path, config: &GatewayConfig) -> Result<(), CommandFailure> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let names: Vec<String> = config
        .tunnel
        .names
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    let state_dir = toml::Value::from(config.state_dir.to_string_lossy().as_ref());
    let text = CONFIG
        .replace("STATE", &state_dir.to_string())
        .replace("NAMES", &names.join(", "));
    Ok(std::fs::write(path, text)?)
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
"#;
