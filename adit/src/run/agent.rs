//! `agent up`, `agent run`, and what is asked of a running agent.

use std::{
    io::{BufRead, Read, Write},
    path::PathBuf,
    sync::Arc,
};

use secrecy::SecretString;
use serde::Serialize;
use uuid::Uuid;

use super::{Context, odd_answer, print_reloaded, starter::Starter};
use crate::{
    admin::{AgentStatus, Answer, Request},
    args::{AgentUp, EnrollmentArg, Json},
    config::{AgentConfig, ENROLLMENT_STRING, Role, Surroundings, advertised},
    enroll::{
        client::{EnrolError, EnrolRequest, enrol},
        files::FilesError,
        routes::store_routes,
    },
    exit::{Code, CommandFailure},
    output::{printable, unix_time},
    pki::names::is_hostname,
    process::agent::{AgentProcess, ConfigSource, Signals},
    state::StateDir,
};

/// Enrols with a gateway.
pub(super) fn up(ctx: &Context<'_>, args: &AgentUp) -> Result<(), CommandFailure> {
    let string = enrollment_string(
        args.enrollment_string.as_ref(),
        &ctx.around,
        &mut std::io::stdin().lock(),
    )?;
    if matches!(args.enrollment_string, Some(EnrollmentArg::Literal(_))) {
        // Nobody is left to warn where stderr is closed.
        let _told = writeln!(anstream::stderr(), "adit: warning: {LITERAL_WARNING}");
    }
    let routes = advertised(
        &args.advertise,
        &args.advertise_subnets,
        &args.advertise_domains,
    )
    .map_err(|m| CommandFailure::message(Code::Usage, m))?;
    // The file may be absent even where `--config` names it, since this verb writes it.
    let file = ctx.file(Role::Agent).map(|(path, _)| path);
    let loaded = AgentConfig::load(
        file.clone().map(|path| (path, false)),
        &ctx.cli.overrides(),
        &ctx.around,
    )?;
    ctx.start_log(&loaded.config.log)?;
    let request = EnrolRequest {
        enrolment_string: string,
        gateway_url_override: args.gateway.clone(),
        allow_http: args.allow_http,
        hostname: rustix::system::uname()
            .nodename()
            .to_str()
            .ok()
            .filter(|name| is_hostname(name))
            .map(str::to_owned),
        state_dir: loaded.config.state_dir.clone(),
    };
    let files = enrol(&request).map_err(enrol_failure)?;
    // Who enrols again without naming routes keeps those of the first time.
    if !routes.is_empty() {
        let kept = StateDir::open(&loaded.config.state_dir).map_err(FilesError::from);
        kept.and_then(|dir| store_routes(&dir, &routes))
            .map_err(|e| CommandFailure::new(Code::Failure, e))?;
    }
    // The enrolment is done, whatever becomes of this.
    let starter = Starter::write(file, CONFIG, &loaded.config.state_dir, &[]);
    let starter = starter.unwrap_or_else(|error| {
        tracing::warn!(%error, "no configuration was written; the agent runs without one, with --state-dir as here");
        Starter::none()
    });
    let enrolled = Enrolled {
        id: files.id.0,
        name: files.name,
        gateways: files.quic_endpoints,
        state_dir: loaded.config.state_dir,
        config: starter.path,
        config_is_new: starter.is_new,
    };
    ctx.print(args.json.json, &enrolled, |out| enrolled.write(out))
}

/// What has come of an enrolment.
#[derive(Serialize)]
struct Enrolled {
    id: Uuid,
    name: String,
    gateways: Vec<String>,
    state_dir: PathBuf,
    /// None where there is no home directory to have one in.
    config: Option<PathBuf>,
    config_is_new: bool,
}

impl Enrolled {
    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "enrolled as {} ({})", self.name, self.id)?;
        writeln!(out, "gateway     {}", self.gateways.join(", "))?;
        writeln!(out, "state       {}", self.state_dir.display())?;
        if let Some(path) = &self.config {
            let how = match self.config_is_new {
                true => "new",
                false => "left as it is",
            };
            writeln!(out, "config      {} ({how})", path.display())?;
        }
        writeln!(out, "start it with: adit agent run")
    }
}

/// Runs the agent.
pub(super) fn run(ctx: &Context<'_>) -> Result<(), CommandFailure> {
    let loaded = ctx.agent_config()?;
    ctx.start_log(&loaded.config.log)?;
    let open_files = super::raise_open_files();
    tracing::debug!(?open_files, "limit of open descriptors");
    let signals = Signals::listen()?;
    let process = AgentProcess::start(&loaded.config)?;
    // A file that was there is not to go unmissed.
    let file = ctx.file(Role::Agent);
    let file = file.map(|(path, named)| (path.clone(), named || path.exists()));
    let (overrides, around) = (ctx.cli.overrides(), ctx.around.clone());
    let load = move || AgentConfig::load(file.clone(), &overrides, &around);
    let source: ConfigSource = Arc::new(move || load().map(|loaded| loaded.config));
    process.run(signals, &source)
}

fn enrol_failure(error: EnrolError) -> CommandFailure {
    CommandFailure::new(error.code(), error)
}

/// Has the running agent renew its certificate.
pub(super) fn renew(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    #[derive(Serialize)]
    struct Begun {
        begun: bool,
    }
    ctx.ask_agent(&Request::AgentRenew {})?;
    ctx.print(json.json, &Begun { begun: true }, |out| {
        writeln!(out, "renewal begun; `adit agent status` tells how it ends")
    })
}

/// Has the running agent read its configuration again.
pub(super) fn reload(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let answer = ctx.ask_agent(&Request::Reload {})?;
    print_reloaded(ctx, json, answer)
}

/// Asks the running agent how it is.
pub(super) fn status(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let Answer::Agent(status) = ctx.ask_agent(&Request::Status {})? else {
        return Err(odd_answer());
    };
    ctx.print(json.json, &status, |out| write_status(out, &status))
}

fn write_status(out: &mut dyn Write, status: &AgentStatus) -> std::io::Result<()> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let time = |s: Option<u64>| or_none(s.and_then(|s| i64::try_from(s).ok()).map(unix_time));
    let listed = |list: &[String]| or_none((!list.is_empty()).then(|| list.join(", ")));
    let ends = status.certificate_ends_unix_s.map(unix_time);
    let renewal = &status.renewal;
    let renewal = match (renewal.state.as_str(), &renewal.error) {
        (_, Some(error)) => {
            let next = or_none(renewal.next_unix_s.map(unix_time));
            let at = time(renewal.at_unix_s);
            format!("failed at {at}: {error}; tried again at {next}")
        }
        ("done", None) => format!("done at {}", time(renewal.at_unix_s)),
        ("under_way", None) => "under way".to_owned(),
        (_, None) => "none since the start".to_owned(),
    };
    let connected = if status.connected { "yes" } else { "no" };
    for (what, value) in [
        ("name", status.name.clone()),
        ("id", status.id.to_string()),
        ("connected", connected.to_owned()),
        ("gateway", or_none(status.gateway.map(|g| g.to_string()))),
        ("gateways", listed(&status.gateways)),
        ("since", time(status.since_unix_s)),
        ("sessions", status.sessions.to_string()),
        ("routes", listed(&status.routes)),
        ("certificate", format!("until {}", or_none(ends))),
        ("renewal", renewal),
        ("last error", or_none(status.last_error.clone())),
    ] {
        writeln!(out, "{what:<12}{}", printable(&value))?;
    }
    Ok(())
}

/// The enrolment string from the flag, from stdin, or from the environment.
fn enrollment_string(
    arg: Option<&EnrollmentArg>,
    around: &Surroundings,
    stdin: &mut impl BufRead,
) -> Result<SecretString, CommandFailure> {
    match arg {
        Some(EnrollmentArg::Literal(string)) => Ok(string.clone()),
        Some(EnrollmentArg::Stdin) => {
            let mut line = String::new();
            stdin.take(STRING_LEN_MAX).read_line(&mut line)?;
            match line.trim() {
                "" => Err(CommandFailure::message(
                    Code::Usage,
                    "stdin holds no enrolment string",
                )),
                string => Ok(string.into()),
            }
        }
        None => {
            let found = around.secret(ENROLLMENT_STRING);
            let found = found.map_err(|m| CommandFailure::message(Code::Config, m))?;
            found.ok_or_else(|| CommandFailure::message(Code::Usage, NO_STRING))
        }
    }
}

const CONFIG: &str = r#"# Configuration of an adit agent. `adit config check --role agent` checks it, `adit config show --role agent` shows every
# value. `adit agent reload` applies changes.
state_dir = STATE

# What users may reach through this agent; stands above what `adit agent up --advertise` was given.
# [advertise]
# subnets = ["10.0.0.0/8"]
# domains = ["*.corp.local"]
#
# [policy]
# ports = ["22", "443", "8000-8999"]
# deny = ["10.0.0.1"]
"#;
const NO_STRING: &str = "no enrolment string: give `--enrollment-string -` and the string on stdin, or set \
                         ADIT_ENROLLMENT_STRING or ADIT_ENROLLMENT_STRING_FILE";
const LITERAL_WARNING: &str = "other users of this machine can read command lines, and the shell keeps them; \
                               prefer `--enrollment-string -` or ADIT_ENROLLMENT_STRING_FILE";
/// Longest enrolment string, in bytes.
const STRING_LEN_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_string_comes_from_flag_stdin_or_environment() {
        let around = Surroundings::new([(ENROLLMENT_STRING, "env")], false);
        let get = |arg: Option<EnrollmentArg>, around: &Surroundings, mut stdin: &[u8]| {
            enrollment_string(arg.as_ref(), around, &mut stdin)
                .map(|s| s.expose_secret().to_owned())
        };
        assert_eq!(get(Some("lit".into()), &around, b"").unwrap(), "lit");
        assert_eq!(get(Some("-".into()), &around, b" in \nmore").unwrap(), "in");
        assert_eq!(get(None, &around, b"").unwrap(), "env");
        let nothing = Surroundings::default();
        assert_eq!(get(None, &nothing, b"").unwrap_err().code(), Code::Usage);
        assert_eq!(
            get(Some("-".into()), &nothing, b"\n").unwrap_err().code(),
            Code::Usage
        );
    }

    #[test]
    fn a_literal_string_is_not_shown() {
        assert_eq!(
            format!("{:?}", EnrollmentArg::from("secret")),
            "Literal(hidden)"
        );
    }
}
