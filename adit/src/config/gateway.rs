//! The gateway's configuration, `gateway.toml`.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use adit_proto_core::{
    gateway::dispatch::{DirectRange, DirectRule},
    id::AgentId,
    limits,
    target::{Host, Target},
};

use super::{
    ConfigError, Loaded, LogConfig, MetricsConfig, Override, ProvisionerConfig, Surroundings,
    Users, UsersError,
    file::Kind,
    log, metrics, parse, provisioner,
    reader::{Reader, Source, Sourced},
};

/// What a gateway runs with.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where the CA, the store and the administration socket are.
    pub state_dir: PathBuf,
    /// Threads of the runtime.
    pub threads: NonZeroU32,
    /// Time that sessions have to end after the first signal to stop.
    pub grace: Duration,
    /// Where agents connect to.
    pub tunnel: TunnelConfig,
    /// Where agents enrol.
    pub enroll: EnrollConfig,
    /// Whose tokens are taken.
    pub provisioner: ProvisionerConfig,
    /// Where the gateway tells how it fares.
    pub metrics: MetricsConfig,
    /// Fixed forwards.
    pub forwards: Vec<ForwardConfig>,
    /// SOCKS5 listeners.
    pub socks5: Vec<ProxyConfig>,
    /// HTTP CONNECT listeners.
    pub http_connect: Vec<ProxyConfig>,
    /// Targets that the gateway may dial itself; empty: none.
    pub direct: Vec<DirectRule>,
    /// Bounds.
    pub limits: LimitsConfig,
    /// Logging.
    pub log: LogConfig,
}

/// Where agents connect to.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// What agents are told to connect to; none: the first name with the listening port.
    pub public_endpoint: Option<Target>,
    /// Names and addresses in the server certificate.
    pub names: Vec<Host>,
}

/// Where agents enrol.
#[derive(Clone, Debug)]
pub struct EnrollConfig {
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// Base URL that goes into enrolment strings; none: from the first name and the listening port.
    pub url: Option<String>,
    /// How the listener is secured.
    pub tls: EnrollTls,
}

/// How the enrolment listener is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrollTls {
    /// By a certificate of the gateway's own, pinned in the enrolment string.
    Own,
    /// By the operator's certificate chain and key, both PEM.
    Operator {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Not at all; the operator has asked for it.
    PlainHttp,
}

/// A fixed forward.
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    /// Its name in logs and listings.
    pub name: Box<str>,
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// Where its sessions go.
    pub target: Target,
    /// The agent that must carry them; none: the routing table decides.
    pub agent: Option<AgentId>,
}

/// A listener of a proxy protocol.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Its name in logs and listings.
    pub name: Box<str>,
    /// TCP address to listen on; on loopback where `users` is none.
    pub listen: SocketAddr,
    /// Who may use it; none: everybody on this machine.
    pub users: Option<Users>,
}

/// Bounds; each refusal that they cause is counted and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Sessions through one agent.
    pub sessions_per_agent: NonZeroU32,
    /// Connected agents.
    pub agents: NonZeroU32,
    /// QUIC handshakes in progress.
    pub handshakes: NonZeroU32,
    /// QUIC handshakes in progress from one address.
    pub handshakes_per_source: NonZeroU32,
    /// Users in the middle of a proxy handshake, for each ingress.
    pub ingress_handshakes: NonZeroU32,
    /// Sessions being opened.
    pub opening: NonZeroU32,
}

impl GatewayConfig {
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

    /// Gives the state directory to what only talks to a running gateway. The files that the configuration names are
    /// left alone: a bad one must keep no operator from the gateway.
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
        let mut taken = Taken::default();
        let state_dir = state_dir(&mut r, around);
        let (threads, grace) = (threads(&mut r), grace(&mut r));
        let tunnel = tunnel(&mut r);
        let enroll = enroll(&mut r, &mut taken);
        let provisioner = provisioner::provisioner(&mut r);
        let metrics = metrics::metrics(&mut r, |r, l| taken.listener(r, "metrics", l));
        let forwards = forwards(&mut r, &mut taken);
        let socks5 = proxies(&mut r, &mut taken, "socks5");
        let http_connect = proxies(&mut r, &mut taken, "http_connect");
        let direct = r.list("direct.allow", direct_rule);
        let (limits, log) = (limits_section(&mut r), log(&mut r));
        let config = || {
            Some(Self {
                state_dir: state_dir?,
                threads: threads?,
                grace: grace?,
                tunnel: tunnel?,
                enroll: enroll?,
                provisioner: provisioner?,
                metrics: metrics?,
                forwards: forwards?,
                socks5: socks5?,
                http_connect: http_connect?,
                direct: direct?.into_iter().map(|d| d.value).collect(),
                limits: limits?,
                log: log?,
            })
        };
        r.finish(config())
    }
}

pub(super) fn state_dir(r: &mut Reader<'_>, around: &Surroundings) -> Option<PathBuf> {
    let default = around.state_dir().unwrap_or_default();
    let default = default.to_string_lossy();
    let found = r.scalar("state_dir", Kind::Text, &default, |text| match text {
        "" => {
            Err("there is no home directory to keep state in; set it with --state-dir".to_owned())
        }
        _ => parse::path(text),
    });
    Some(found?.value)
}

pub(super) fn threads(r: &mut Reader<'_>) -> Option<NonZeroU32> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let default = cores.to_string();
    Some(
        r.scalar("threads", Kind::Number, &default, parse::count)?
            .value,
    )
}

pub(super) fn grace(r: &mut Reader<'_>) -> Option<Duration> {
    Some(r.scalar("grace", Kind::Text, "10s", parse::duration)?.value)
}

fn tunnel(r: &mut Reader<'_>) -> Option<TunnelConfig> {
    let listen = r.scalar("tunnel.listen", Kind::Text, "[::]:4433", parse::address);
    let public_endpoint = r.optional("tunnel.public_endpoint", Kind::Text, parse::target);
    let names = r.list("tunnel.names", parse::host);
    Some(TunnelConfig {
        listen: listen?.value,
        public_endpoint: public_endpoint?.map(|e| e.value),
        names: names?.into_iter().map(|n| n.value).collect(),
    })
}

fn enroll(r: &mut Reader<'_>, taken: &mut Taken) -> Option<EnrollConfig> {
    let listen = r.scalar("enroll.listen", Kind::Text, "0.0.0.0:7171", parse::address);
    let url = r.optional("enroll.url", Kind::Text, parse::url);
    let cert = r.optional("enroll.cert", Kind::Text, parse::path);
    let key = r.optional("enroll.key", Kind::Text, parse::path);
    let plain = r.scalar("enroll.insecure_http", Kind::Switch, "false", parse::switch);
    if let Some(listen) = &listen {
        taken.listener(r, "enroll", listen);
    }
    let (cert, key, plain) = (cert?, key?, plain?);
    let tls = match (cert, key, plain.value) {
        (None, None, false) => EnrollTls::Own,
        (None, None, true) => EnrollTls::PlainHttp,
        (Some(cert), Some(key), false) => EnrollTls::Operator {
            cert: cert.value,
            key: key.value,
        },
        (Some(_), _, true) | (_, Some(_), true) => {
            let message =
                "`enroll.insecure_http` means no TLS; remove it, or `enroll.cert` and `enroll.key`";
            r.problem(plain.source, message.to_owned());
            return None;
        }
        (Some(one), None, false) | (None, Some(one), false) => {
            let message = "`enroll.cert` and `enroll.key` go together; add the other one";
            r.problem(one.source, message.to_owned());
            return None;
        }
    };
    Some(EnrollConfig {
        listen: listen?.value,
        url: url?.map(|u| u.value),
        tls,
    })
}

fn forwards(r: &mut Reader<'_>, taken: &mut Taken) -> Option<Vec<ForwardConfig>> {
    let mut all = Some(Vec::new());
    for (prefix, entry) in r.entries("forward") {
        let one = forward(r, taken, &prefix, &entry);
        all = all.zip(one).map(|(mut list, one)| {
            list.push(one);
            list
        });
    }
    all
}

fn forward(
    r: &mut Reader<'_>,
    taken: &mut Taken,
    prefix: &str,
    entry: &Source,
) -> Option<ForwardConfig> {
    let (name, listen) = place(r, taken, prefix, entry);
    let target = r.required(&format!("{prefix}target"), Kind::Text, entry, parse::target);
    let agent = r.optional(&format!("{prefix}agent"), Kind::Text, parse::agent_id);
    let public = r.scalar(
        &format!("{prefix}public"),
        Kind::Switch,
        "false",
        parse::switch,
    );
    let (name, listen, public) = (name?, listen?, public?);
    if !public.value && !on_loopback(listen.value) {
        let message = format!(
            "forward `{}` listens on {}, where others can reach its target without credentials; listen on \
             127.0.0.1 or [::1], or set `public = true` if they may",
            name.value, listen.value
        );
        r.problem(listen.source, message);
        return None;
    }
    Some(ForwardConfig {
        name: name.value,
        listen: listen.value,
        target: target?.value,
        agent: agent?.map(|a| a.value),
    })
}

fn proxies(r: &mut Reader<'_>, taken: &mut Taken, kind: &str) -> Option<Vec<ProxyConfig>> {
    let mut all = Some(Vec::new());
    for (prefix, entry) in r.entries(kind) {
        let one = proxy(r, taken, kind, &prefix, &entry);
        all = all.zip(one).map(|(mut list, one)| {
            list.push(one);
            list
        });
    }
    all
}

fn proxy(
    r: &mut Reader<'_>,
    taken: &mut Taken,
    kind: &str,
    prefix: &str,
    entry: &Source,
) -> Option<ProxyConfig> {
    let (name, listen) = place(r, taken, prefix, entry);
    let file = r.optional(&format!("{prefix}users_file"), Kind::Text, parse::path);
    let users = match file? {
        None => None,
        Some(_) if !r.reads_named_files() => Some(Users::default()),
        Some(file) => Some(users(r, file)?),
    };
    let (name, listen) = (name?, listen?);
    if users.is_none() && !on_loopback(listen.value) {
        let message = format!(
            "{kind} `{}` would be an open proxy on {}; set `users_file`, or listen on 127.0.0.1 or [::1]",
            name.value, listen.value
        );
        r.problem(listen.source, message);
        return None;
    }
    Some(ProxyConfig {
        name: name.value,
        listen: listen.value,
        users,
    })
}

fn users(r: &mut Reader<'_>, file: Sourced<PathBuf>) -> Option<Users> {
    match Users::read(&file.value) {
        Ok(users) => Some(users),
        Err(UsersError::Line(line, message)) => {
            r.problem(Source::File(file.value.into(), line), message.to_owned());
            None
        }
        Err(error) => {
            r.problem(
                file.source,
                format!("users file {}: {error}", file.value.display()),
            );
            None
        }
    }
}

/// What every ingress has: a name and an address, both its own.
fn place(
    r: &mut Reader<'_>,
    taken: &mut Taken,
    prefix: &str,
    entry: &Source,
) -> (Option<Sourced<Box<str>>>, Option<Sourced<SocketAddr>>) {
    let name = r.required(&format!("{prefix}name"), Kind::Text, entry, parse::label);
    let listen = r.required(
        &format!("{prefix}listen"),
        Kind::Text,
        entry,
        parse::address,
    );
    if let Some(name) = &name {
        taken.name(r, name);
    }
    if let (Some(name), Some(listen)) = (&name, &listen) {
        taken.listener(r, &name.value, listen);
    }
    (name, listen)
}

fn limits_section(r: &mut Reader<'_>) -> Option<LimitsConfig> {
    // What stands as a bound in the core cannot be raised here.
    let mut one = |key: &str, default: usize, most: usize| {
        let check = |text: &str| match parse::count(text)? {
            count if count.get() as usize > most => Err(format!(
                "`{text}` is above {most}, the most that is possible"
            )),
            count => Ok(count),
        };
        r.scalar(key, Kind::Number, &default.to_string(), check)
            .map(|c| c.value)
    };
    const FREE: usize = u32::MAX as usize;
    let sessions_per_agent = one(
        "limits.sessions_per_agent",
        limits::SESSIONS_PER_AGENT_MAX as usize,
        limits::SESSIONS_PER_AGENT_MAX as usize,
    );
    let agents = one("limits.agents", limits::AGENTS_MAX, limits::AGENTS_MAX);
    let handshakes = one("limits.handshakes", 1_024, FREE);
    let handshakes_per_source = one("limits.handshakes_per_source", 128, FREE);
    let ingress_handshakes = one("limits.ingress_handshakes", 1_024, FREE);
    let opening = one("limits.opening", limits::OPENS_MAX, FREE);
    Some(LimitsConfig {
        sessions_per_agent: sessions_per_agent?,
        agents: agents?,
        handshakes: handshakes?,
        handshakes_per_source: handshakes_per_source?,
        ingress_handshakes: ingress_handshakes?,
        opening: opening?,
    })
}

/// `10.0.0.0/8`, `10.0.0.5`, `*.x.y`, each with or without `:PORT`; IPv6 with a port in brackets.
fn direct_rule(text: &str) -> Result<DirectRule, String> {
    let rule = |range, port| Ok(DirectRule { range, port });
    if let Ok(net) = parse::subnet(text) {
        return rule(DirectRange::Subnet(net), None);
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((host, port)) => match port.parse() {
            Ok(port) if port > 0 => (host, Some(port)),
            Ok(_) | Err(_) => return Err("the port is not a number from 1 to 65535".to_owned()),
        },
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if let Ok(net) = parse::subnet(bare.unwrap_or(host)) {
        return rule(DirectRange::Subnet(net), port);
    }
    match parse::domain(host) {
        Ok(domain) => rule(DirectRange::Domain(domain), port),
        Err(_) => Err(
            "write a range, an address or a domain, as 10.0.0.0/8, *.x.y or h.x.y:443".to_owned(),
        ),
    }
}

pub(super) fn on_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

/// Names and TCP addresses that are given away already.
#[derive(Default)]
struct Taken {
    names: Vec<Box<str>>,
    listeners: Vec<(String, SocketAddr)>,
}

impl Taken {
    fn name(&mut self, r: &mut Reader<'_>, name: &Sourced<Box<str>>) {
        if self.names.contains(&name.value) {
            let message = format!(
                "the name `{}` is used twice; every ingress has its own",
                name.value
            );
            r.problem(name.source.clone(), message);
        }
        self.names.push(name.value.clone());
    }

    fn listener(&mut self, r: &mut Reader<'_>, name: &str, listen: &Sourced<SocketAddr>) {
        let clash = self
            .listeners
            .iter()
            .find(|(_, other)| overlap(*other, listen.value));
        if let Some((other, addr)) = clash {
            let message = format!(
                "`{name}` listens on {}, which `{other}` has taken with {addr}; choose another port",
                listen.value
            );
            r.problem(listen.source.clone(), message);
        }
        self.listeners.push((name.to_owned(), listen.value));
    }
}

/// Two TCP listeners on one port exclude each other where one covers the other's address; `[::]` covers IPv4 too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    let (ip_a, ip_b) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() == b.port()
        && a.port() != 0
        && (ip_a == ip_b || covers(ip_a, ip_b) || covers(ip_b, ip_a))
}
