//! `demo`: gateway, enrolled agent and a web server on loopback, in one process.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::Context;
use crate::{
    admin::TokenRequest,
    args::DemoArgs,
    config::{AgentConfig, GatewayConfig, LogConfig, Surroundings},
    demo_target::DemoTarget,
    enroll::client::{EnrolRequest, enrol},
    exit::{Code, CommandFailure},
    process::{agent::AgentProcess, gateway::GatewayProcess, signals::StopSignals},
};

/// Runs gateway, agent and a web server on loopback.
pub(super) fn demo(ctx: &Context<'_>, args: &DemoArgs) -> Result<(), CommandFailure> {
    ctx.start_log(&LogConfig {
        level: "warn".to_owned(),
        ..LogConfig::default()
    })?;
    // A session takes two in each of gateway, agent and target.
    let open_files = super::raise_open_files();
    tracing::debug!(?open_files, "limit of open descriptors");
    let folder = Folder::make()?;
    super::of_gateway::runtime()?.block_on(run(ctx, args, &folder.0))
}

async fn run(ctx: &Context<'_>, args: &DemoArgs, folder: &Path) -> Result<(), CommandFailure> {
    // From the start, so that a signal at any time takes the folder away.
    let mut signals = StopSignals::listen()?;
    let target = DemoTarget::bind().await?;
    let target_addr = target.addr();
    let serving = tokio::spawn(target.serve());
    let around = Surroundings::default();
    let gateway = gateway(args, folder, target_addr, &around)?;
    let agent = agent(folder, &gateway, &around).await?;
    let (agent, connected) = blocking(move || {
        let connected = agent.connects(CONNECT_PATIENCE);
        Ok((agent, connected))
    })
    .await?;
    if !connected {
        return Err(CommandFailure::message(
            Code::Unreachable,
            "the demo's agent did not connect; try again with -v",
        ));
    }
    routed(&gateway, target_addr).await?;
    print(ctx, folder, &gateway, target_addr)?;
    signals.next().await;
    blocking(move || {
        agent.stop();
        Ok(())
    })
    .await?;
    gateway.stop().await;
    serving.abort();
    Ok(())
}

fn print(
    ctx: &Context<'_>,
    folder: &Path,
    gateway: &GatewayProcess,
    target_addr: std::net::SocketAddr,
) -> Result<(), CommandFailure> {
    let addr = |name| {
        gateway
            .ingress(name)
            .ok_or_else(|| CommandFailure::message(Code::Failure, "no ingress"))
    };
    let (socks5, connect, forward) = (addr("socks5")?, addr("connect")?, addr("forward")?);
    ctx.print(false, &(), |out| {
        writeln!(
            out,
            "A gateway, an enrolled agent and a web server run in this process, on loopback only."
        )?;
        writeln!(
            out,
            "The agent advertises {}/32; the web server is http://{target_addr}.\n",
            target_addr.ip()
        )?;
        writeln!(out, "Reach it through the tunnel, from another terminal:\n")?;
        writeln!(
            out,
            "  curl --socks5-hostname {socks5} http://{target_addr}/"
        )?;
        writeln!(
            out,
            "  curl --proxytunnel --proxy http://{connect} http://{target_addr}/"
        )?;
        writeln!(out, "  curl http://{forward}/\n")?;
        writeln!(out, "Look at it:\n")?;
        let state = folder.join("gateway");
        let program = std::env::current_exe().unwrap_or_else(|_| "adit".into());
        for verb in [
            "agents list".to_owned(),
            "sessions list".to_owned(),
            format!("route explain {target_addr}"),
        ] {
            writeln!(
                out,
                "  {} --state-dir {} {verb}",
                program.display(),
                state.display()
            )?;
        }
        writeln!(
            out,
            "\nCtrl-C ends the demo and removes {}.",
            folder.display()
        )
    })
}

fn gateway(
    args: &DemoArgs,
    folder: &Path,
    target: std::net::SocketAddr,
    around: &Surroundings,
) -> Result<GatewayProcess, CommandFailure> {
    let file = folder.join("gateway.toml");
    let text = GATEWAY
        .replace("STATE", &folder.join("gateway").to_string_lossy())
        .replace("SOCKS5", &args.socks5.to_string())
        .replace("TARGET", &target.to_string());
    std::fs::write(&file, text)?;
    let config = GatewayConfig::load(Some((file, true)), &[], around)?.config;
    GatewayProcess::start(&config)
}

/// Enrols through the real interface, then starts.
async fn agent(
    folder: &Path,
    gateway: &GatewayProcess,
    around: &Surroundings,
) -> Result<AgentProcess, CommandFailure> {
    let request = TokenRequest {
        name: "demo-agent".to_owned(),
        lifetime_s: 60,
        url: None,
    };
    let token = (gateway.tokens())(request)
        .await
        .map_err(|text| CommandFailure::message(Code::Failure, text))?;
    let state_dir = folder.join("agent");
    let request = EnrolRequest {
        enrolment_string: token.token.into(),
        gateway_url_override: None,
        allow_http: false,
        hostname: None,
        state_dir: state_dir.clone(),
    };
    let enrolled = move || enrol(&request).map_err(|e| CommandFailure::new(Code::Failure, e));
    blocking(enrolled).await?;
    let file = folder.join("agent.toml");
    std::fs::write(&file, AGENT.replace("STATE", &state_dir.to_string_lossy()))?;
    let config = AgentConfig::load(Some((file, true)), &[], around)?.config;
    blocking(move || AgentProcess::start(&config)).await
}

/// Does what waits, which the agent's own process may do on its thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommandFailure> + Send + 'static,
) -> Result<T, CommandFailure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CommandFailure::new(Code::Failure, error))?
}

/// Waits until the gateway routes to the agent: connected is one thing, its first advertisement another.
async fn routed(
    gateway: &GatewayProcess,
    target: std::net::SocketAddr,
) -> Result<(), CommandFailure> {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let stopped = |_| CommandFailure::message(Code::Failure, "the demo's gateway stopped");
    while gateway
        .handle()
        .explain(target.into(), None)
        .await
        .map_err(stopped)?
        .candidates
        .is_empty()
    {
        tick.tick().await;
    }
    Ok(())
}

/// The demo's folder, removed with everything in it at the end.
struct Folder(PathBuf);

impl Folder {
    fn make() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("adit-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "the demo's folder was not removed");
        }
    }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const GATEWAY: &str = r#"
state_dir = "STATE"

[tunnel]
listen = "127.0.0.1:0"
names = ["127.0.0.1", "localhost"]

[enroll]
listen = "127.0.0.1:0"

[[socks5]]
name = "socks5"
listen = "SOCKS5"

[[http_connect]]
name = "connect"
listen = "127.0.0.1:0"

[[forward]]
name = "forward"
listen = "127.0.0.1:0"
target = "TARGET"
"#;
const AGENT: &str = r#"
state_dir = "STATE"

[advertise]
subnets = ["127.0.0.1/32"]
"#;
