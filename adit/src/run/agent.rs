//! `agent up`, `agent run`, and what is asked of a running agent.

use std::io::{BufRead, Read, Write};

use secrecy::SecretString;

use super::{Context, odd_answer, print_reloaded};
use crate::{
    admin::{Answer, Request},
    args::{AgentUp, EnrollmentArg, Json},
    config::{ENROLLMENT_STRING, Surroundings, advertised},
    enroll::{
        client::{EnrolError, EnrolRequest, enrol},
        files::FilesError,
        routes::store_routes,
    },
    exit::{Code, CommandFailure},
    pki::names::is_hostname,
    process::{agent::AgentProcess, signals::Signals},
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
    let loaded = ctx.agent_config()?;
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
    ctx.print(false, &(), |out| {
        writeln!(out, "enrolled as {} ({})", files.name, files.id)?;
        writeln!(out, "gateway     {}", files.quic_endpoints.join(", "))?;
        writeln!(out, "start it with: adit agent run")
    })
}

/// Runs the agent.
pub(super) fn run(ctx: &Context<'_>) -> Result<(), CommandFailure> {
    let loaded = ctx.agent_config()?;
    ctx.start_log(&loaded.config.log)?;
    let open_files = super::raise_open_files();
    tracing::debug!(?open_files, "limit of open descriptors");
    super::runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let process = AgentProcess::start(&loaded.config)?;
        let source = || ctx.agent_config().map(|loaded| loaded.config);
        process.run(signals, &source).await
    })
}

fn enrol_failure(error: EnrolError) -> CommandFailure {
    CommandFailure::new(error.code(), error)
}

/// Has the running agent renew its certificate.
pub(super) fn renew(ctx: &Context<'_>) -> Result<(), CommandFailure> {
    ctx.ask_agent(&Request::AgentRenew {})?;
    ctx.print(false, &(), |out| {
        writeln!(out, "renewal begun; the agent's log tells how it ends")
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
    ctx.print(json.json, &status, |out| {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let since = status
            .since_unix_s
            .and_then(|s| jiff::Timestamp::from_second(i64::try_from(s).ok()?).ok());
        writeln!(
            out,
            "connected   {}",
            if status.connected { "yes" } else { "no" }
        )?;
        writeln!(
            out,
            "gateway     {}",
            or_none(status.gateway.map(|g| g.to_string()))
        )?;
        writeln!(out, "since       {}", or_none(since.map(|s| s.to_string())))?;
        writeln!(out, "sessions    {}", status.sessions)?;
        writeln!(
            out,
            "routes      {}",
            or_none((!status.routes.is_empty()).then(|| status.routes.join(", ")))
        )?;
        let error = status.last_error.as_deref().map(crate::output::printable);
        writeln!(out, "last error  {}", or_none(error))
    })
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
