//! The agent's configuration, `agent.toml`.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use adit_proto_core::{
    agent::policy::Restrictions,
    limits,
    route::{DomainRoute, RouteSet},
    target::Target,
};

use super::{
    ConfigError, Driver, JournalConfig, Loaded, LogConfig, Override, Surroundings, common,
    file::Kind,
    parse,
    reader::{Reader, Source},
};

/// What an agent runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Where key, certificate and the gateway's address are kept.
    pub state_dir: PathBuf,
    /// What carries the tunnel.
    pub driver: Driver,
    /// Where what happens is taken down.
    pub journal: Option<JournalConfig>,
    /// What is offered to the gateway.
    pub advertise: RouteSet,
    /// Where no domain is given: offer the one that the system's resolver searches (agent-tunnel 16.1).
    pub detect_domain: bool,
    /// What is out of reach whatever is offered.
    pub restrictions: Restrictions,
    /// How often the agent speaks up.
    pub heartbeat: HeartbeatConfig,
    /// MiB that may wait for targets that do not read.
    pub unread: NonZeroU32,
    /// Time that sessions have to end after the first signal to stop.
    pub grace: Duration,
    /// Addresses of the gateway in the order of preference; empty: the one from the enrolment.
    pub endpoints: Vec<Target>,
    /// Logging.
    pub log: LogConfig,
}

/// How often the agent speaks up (agent-tunnel 16.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Time between heartbeats.
    pub interval: Duration,
    /// Time between repetitions of the routes.
    pub routes_interval: Duration,
}

impl AgentConfig {
    /// Reads and checks the configuration. `file` is the path and whether it must exist.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(
        file: Option<(PathBuf, bool)>,
        overrides: &[Override],
        around: &Surroundings,
    ) -> Result<Loaded<Self>, ConfigError> {
        Self::read(Reader::new(file, overrides, around), around)
    }

    /// Gives the state directory to what only talks to a running agent. Files that the configuration names are left alone:
    /// they must keep no operator from the agent.
    ///
    /// # Errors
    /// Every other problem at once.
    pub fn state_dir(
        file: Option<(PathBuf, bool)>,
        overrides: &[Override],
        around: &Surroundings,
    ) -> Result<PathBuf, ConfigError> {
        let r = Reader::new(file, overrides, around).without_named_files();
        Self::read(r, around).map(|loaded| loaded.config.state_dir)
    }

    fn read(mut r: Reader<'_>, around: &Surroundings) -> Result<Loaded<Self>, ConfigError> {
        let state_dir = common::state_dir(&mut r, around);
        let driver = super::driver::driver(&mut r);
        let journal = super::journal::journal(&mut r);
        let grace = common::grace(&mut r);
        let subnets = r.list("advertise.subnets", parse::subnet);
        let domains = r.list("advertise.domains", parse::domain);
        let detect = r.scalar(
            "advertise.detect_domain",
            Kind::Switch,
            "false",
            parse::switch,
        );
        let ports = r.list("policy.ports", parse::ports);
        let deny = r.list("policy.deny", parse::subnet);
        let heartbeat = heartbeat(&mut r);
        let unread = common::unread(&mut r, limits::UNREAD_BUDGET);
        let endpoints = r.list("gateway.endpoints", parse::target);
        let log = common::log(&mut r);
        let gateways = endpoints.iter().flatten().map(|e| &e.source);
        at_most(&mut r, limits::GATEWAYS_MAX, "gateways", gateways);
        let routes = subnets.iter().flatten().map(|s| &s.source);
        let routes = routes.chain(domains.iter().flatten().map(|d| &d.source));
        at_most(&mut r, limits::ROUTES_PER_AGENT_MAX, "routes", routes);
        let config = || {
            let domain = |d: super::reader::Sourced<_>| DomainRoute {
                pattern: d.value,
                auto_detected: false,
            };
            Some(Self {
                state_dir: state_dir?,
                driver: driver?,
                journal: journal?,
                grace: grace?,
                advertise: RouteSet {
                    subnets: subnets?.into_iter().map(|s| s.value).collect(),
                    domains: domains?.into_iter().map(domain).collect(),
                },
                detect_domain: detect?.value,
                restrictions: Restrictions {
                    ports: ports?.into_iter().map(|p| p.value).collect(),
                    deny: deny?.into_iter().map(|d| d.value).collect(),
                },
                heartbeat: heartbeat?,
                unread: unread?,
                endpoints: endpoints?.into_iter().map(|e| e.value).collect(),
                log: log?,
            })
        };
        r.finish(config())
    }
}

/// Joins what the flags of `agent up` advertise: a mixed list, address ranges and domains.
///
/// # Errors
/// Names the first entry that is neither, and says what to write.
pub fn advertised(
    mixed: &[String],
    subnets: &[String],
    domains: &[String],
) -> Result<RouteSet, String> {
    let mut routes = RouteSet::default();
    let wrong = |text: &str, message: String| format!("`{text}`: {message}");
    let domain = |text: &str| {
        let pattern = parse::domain(text).map_err(|m| wrong(text, m))?;
        Ok::<_, String>(DomainRoute {
            pattern,
            auto_detected: false,
        })
    };
    for text in mixed.iter().map(|t| t.trim()) {
        // What looks like an address is never taken for a name, so that `10.0.0/8` is an error.
        let address =
            text.contains(['/', ':']) || text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match address {
            true => routes
                .subnets
                .push(parse::subnet(text).map_err(|m| wrong(text, m))?),
            false => routes.domains.push(domain(text)?),
        }
    }
    for text in subnets.iter().map(|t| t.trim()) {
        routes
            .subnets
            .push(parse::subnet(text).map_err(|m| wrong(text, m))?);
    }
    for text in domains.iter().map(|t| t.trim()) {
        routes.domains.push(domain(text)?);
    }
    match routes.len() {
        0..=limits::ROUTES_PER_AGENT_MAX => Ok(routes),
        count => Err(format!(
            "{count} routes; an agent advertises at most {}",
            limits::ROUTES_PER_AGENT_MAX
        )),
    }
}

/// Takes the first entry beyond a bound for a problem.
fn at_most<'a>(
    r: &mut Reader<'_>,
    max: usize,
    what: &str,
    mut entries: impl Iterator<Item = &'a Source>,
) {
    if let Some(over) = entries.nth(max) {
        r.problem(over.clone(), format!("more than {max} {what}; remove some"));
    }
}

fn heartbeat(r: &mut Reader<'_>) -> Option<HeartbeatConfig> {
    let interval = r.scalar("heartbeat.interval", Kind::Text, "5s", beat);
    let routes = r.scalar("heartbeat.routes_interval", Kind::Text, "30s", beat);
    Some(HeartbeatConfig {
        interval: interval?.value,
        routes_interval: routes?.value,
    })
}

fn beat(text: &str) -> Result<Duration, String> {
    let span = parse::duration(text)?;
    let max = limits::ADVERTISE_INTERVAL_MAX;
    if (Duration::from_secs(1)..=max).contains(&span) {
        Ok(span)
    } else {
        let max = max.as_secs();
        Err(format!(
            "`{text}` is not between 1s and {max}s; a gateway takes an agent that is silent for 90 s for offline"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, vars: &[(&str, &str)]) -> Result<Loaded<AgentConfig>, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        let mut vars = vars.to_vec();
        vars.push(("HOME", "/home/u"));
        let around = Surroundings::new(vars, false);
        AgentConfig::load(Some((path, true)), &[], &around)
    }

    #[test]
    fn a_journal_that_cannot_be_made_keeps_nobody_from_a_running_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "[journal]\nfile = \"/none/journal\"\n").unwrap();
        let around = Surroundings::new([("HOME", "/home/u")], false);
        let file = Some((path, true));
        let problem = AgentConfig::load(file.clone(), &[], &around).unwrap_err();
        let told = "agent.toml:2: `journal.file`: /none: No such file";
        assert!(problem.to_string().contains(told), "{problem}");
        let dir = AgentConfig::state_dir(file, &[], &around).unwrap();
        assert_eq!(dir, PathBuf::from("/home/u/.local/state/adit"));
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = load("", &[]).unwrap().config;
        assert!(config.advertise.is_empty() && config.endpoints.is_empty());
        assert_eq!(config.heartbeat.interval, Duration::from_secs(5));
        assert_eq!(config.state_dir, PathBuf::from("/home/u/.local/state/adit"));
    }

    #[test]
    fn intervals_are_those_that_the_core_takes() {
        let interval = |text: &str| load(&format!("[heartbeat]\ninterval = \"{text}\"\n"), &[]);
        assert!(interval("1s").is_ok() && interval("60s").is_ok());
        for bad in ["999ms", "61s", "1h"] {
            let problem = interval(bad).unwrap_err().to_string();
            assert!(problem.contains("between 1s and 60s"), "{problem}");
        }
    }

    #[test]
    fn a_section_without_values_is_fine_if_it_is_known() {
        assert!(load("[advertise]\n[heartbeat]\n# interval = \"60s\"\n", &[]).is_ok());
        let problems = load("[heart]\n", &[]).unwrap_err().to_string();
        assert!(problems.contains("unknown key `heart`"), "{problems}");
    }

    #[test]
    fn lists_come_from_file_or_environment() {
        let text = "[advertise]\nsubnets = [\"10.0.0.0/8\"]\ndomains = [\"*.Corp.local\"]\n";
        let config = load(text, &[]).unwrap().config;
        assert_eq!(config.advertise.subnets[0].to_string(), "10.0.0.0/8");
        assert_eq!(config.advertise.domains[0].pattern.as_str(), "*.corp.local");
        let vars = [("ADIT_ADVERTISE_SUBNETS", "192.168.0.0/16, 10.1.2.3")];
        let config = load(text, &vars).unwrap().config;
        let shown: Vec<String> = config
            .advertise
            .subnets
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["192.168.0.0/16", "10.1.2.3/32"]);
    }

    #[test]
    fn what_an_agent_cannot_have_so_many_of_is_told_with_its_line() {
        let endpoints = |count: usize| {
            let list: Vec<_> = (0..count).map(|i| format!("  \"gw{i}:4433\",\n")).collect();
            load(
                &format!("[gateway]\nendpoints = [\n{}]\n", list.concat()),
                &[],
            )
        };
        assert_eq!(endpoints(16).unwrap().config.endpoints.len(), 16);
        let problem = endpoints(17).unwrap_err().to_string();
        assert!(
            problem.contains("agent.toml:19: more than 16 gateways"),
            "{problem}"
        );
        let subnets: Vec<_> = (0..9_999).map(|_| "\"10.0.0.0/8\"").collect();
        let subnets = subnets.join(",");
        let routes = |domains: &str| {
            load(
                &format!("[advertise]\nsubnets = [{subnets}]\ndomains = [{domains}]\n"),
                &[],
            )
        };
        assert!(routes("\"a.b\"").is_ok());
        let problem = routes("\"a.b\", \"c.d\"").unwrap_err().to_string();
        assert!(
            problem.contains("agent.toml:3: more than 10000 routes"),
            "{problem}"
        );
        let many = vec!["10.0.0.0/8".to_owned(); 10_001];
        assert!(advertised(&many, &[], &[]).is_err());
    }

    #[test]
    fn a_mixed_list_is_sorted_out() {
        let list = |l: &[&str]| l.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mixed = list(&["10.0.0.0/8", " *.corp.local", "10.1.2.3", "::1"]);
        let routes = advertised(&mixed, &list(&["fd00::/8"]), &list(&["db.x"])).unwrap();
        assert_eq!((routes.subnets.len(), routes.domains.len()), (4, 2));
        for bad in ["10.0.0/8", "10.0.0", "a/b", "", "*"] {
            assert!(advertised(&list(&[bad]), &[], &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn restrictions_are_ports_and_addresses() {
        let text = "[policy]\nports = [\"22\", \"8000-8999\"]\ndeny = [\"10.0.0.1\"]\n[advertise]\ndetect_domain = true\n";
        let config = load(text, &[]).unwrap().config;
        assert_eq!(config.restrictions.ports, [22..=22, 8_000..=8_999]);
        assert_eq!(config.restrictions.deny[0].to_string(), "10.0.0.1/32");
        assert!(config.detect_domain);
        let bad = load("[policy]\nports = [\"0\"]\n", &[]).unwrap_err();
        assert!(
            bad.to_string().contains("agent.toml:2: `policy.ports`"),
            "{bad}"
        );
    }

    #[test]
    fn bad_values_name_their_lines() {
        let text = "[advertise]\nsubnets = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/99\",\n]\n[heartbeat]\ninterval = \"0s\"\n";
        let problems = load(text, &[]).unwrap_err().to_string();
        assert!(
            problems.contains("agent.toml:4: `advertise.subnets`: `10.0.0.0/99`"),
            "{problems}"
        );
        assert!(
            problems.contains("agent.toml:7: `heartbeat.interval`"),
            "{problems}"
        );
    }
}
