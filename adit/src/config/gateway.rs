//! The gateway's configuration, `gateway.toml`.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use adit_proto_core::{
    gateway::dispatch::DirectRule,
    target::{Host, Target},
};

use super::{
    ConfigError, Driver, ForwardConfig, JournalConfig, LimitsConfig, Loaded, LogConfig,
    MetricsConfig, Override, PeersConfig, ProvisionerConfig, ProxyConfig, Surroundings,
    WebSocketConfig,
    common::{grace, log, state_dir},
    file::Kind,
    ingress, limits, metrics, parse, peers, provisioner,
    reader::{Reader, Sourced},
    taken::Taken,
    websocket,
};
use crate::enroll::listener::{ListenError, OperatorCert};

/// What a gateway runs with.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where the CA, the store and the administration socket are.
    pub state_dir: PathBuf,
    /// What carries the tunnel.
    pub driver: Driver,
    /// Where what happens is taken down.
    pub journal: Option<JournalConfig>,
    /// Threads of the runtime; the driver mio has one.
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
    /// How users come in over the enrolment listener, with tokens of the provisioner.
    pub websocket: WebSocketConfig,
    /// Targets that the gateway may dial itself; empty: none.
    pub direct: Vec<DirectRule>,
    /// The gateways that this one works with; none: it is alone.
    pub peers: Option<PeersConfig>,
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

    /// Reads and checks the configuration for a gateway that is to run: what it cannot do without is a problem, too.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load_to_run(
        file: Option<(PathBuf, bool)>,
        overrides: &[Override],
        around: &Surroundings,
    ) -> Result<Loaded<Self>, ConfigError> {
        Self::read(Reader::new(file, overrides, around).for_a_start(), around)
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
        let mut taken = Taken::new();
        let state_dir = state_dir(&mut r, around);
        let driver = super::driver::driver(&mut r);
        let journal = super::journal::journal(&mut r);
        let (threads, grace) = (threads(&mut r), grace(&mut r));
        let tunnel = tunnel(&mut r);
        let enroll = enroll(&mut r, &mut taken);
        let provisioner = provisioner::provisioner(&mut r);
        let metrics = metrics::metrics(&mut r, |r, l| taken.listener(r, "metrics", l));
        let ways_in = ingress::ways_in(&mut r, &mut taken);
        let websocket = websocket::websocket(&mut r);
        let direct = r.list("direct.allow", parse::target_rule);
        let peers = peers::peers(&mut r, around);
        let limits = limits::limits(&mut r);
        let log = log(&mut r);
        let config = || {
            let ways_in = ways_in?;
            Some(Self {
                state_dir: state_dir?,
                driver: driver?,
                journal: journal?,
                threads: threads?,
                grace: grace?,
                tunnel: tunnel?,
                enroll: enroll?,
                provisioner: provisioner?,
                metrics: metrics?,
                forwards: ways_in.forwards,
                socks5: ways_in.socks5,
                http_connect: ways_in.http_connect,
                websocket: websocket?,
                direct: direct?.into_iter().map(|d| d.value).collect(),
                peers: peers?,
                limits: limits?,
                log: log?,
            })
        };
        r.finish(config())
    }
}

fn threads(r: &mut Reader<'_>) -> Option<NonZeroU32> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let default = cores.to_string();
    Some(
        r.scalar("threads", Kind::Number, &default, parse::count)?
            .value,
    )
}

fn tunnel(r: &mut Reader<'_>) -> Option<TunnelConfig> {
    let listen = r.scalar("tunnel.listen", Kind::Text, "[::]:4433", parse::address);
    let public_endpoint = r.optional("tunnel.public_endpoint", Kind::Text, parse::target);
    let place = r.place("tunnel.names");
    let names = r.list("tunnel.names", parse::server_name)?;
    let names: Vec<Host> = names.into_iter().map(|n| n.value).collect();
    if names.is_empty() && r.is_for_a_start() {
        r.problem(place, NO_NAME.to_owned());
    }
    let public_endpoint = public_endpoint?;
    if let Some(endpoint) = &public_endpoint
        && !names.is_empty()
        && !names.contains(&endpoint.value.host)
    {
        let host = &endpoint.value.host;
        let message = format!(
            "`tunnel.public_endpoint`: add {host} to `tunnel.names`, or agents cannot verify the gateway"
        );
        r.problem(endpoint.source.clone(), message);
    }
    Some(TunnelConfig {
        listen: listen?.value,
        public_endpoint: public_endpoint.map(|e| e.value),
        names,
    })
}

const NO_NAME: &str = "`tunnel.names` is missing: the gateway needs a name that agents can reach it by; set it, or write \
                       a configuration with `adit gateway init --name NAME`";

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
        (Some(cert), Some(key), false) => operator(r, cert, key)?,
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

/// The operator's certificate, which must be of use.
fn operator(
    r: &mut Reader<'_>,
    cert: Sourced<PathBuf>,
    key: Sourced<PathBuf>,
) -> Option<EnrollTls> {
    if r.reads_named_files() {
        let read = OperatorCert::read(&cert.value, &key.value);
        if let Err(error) = read.and_then(|cert| cert.config()) {
            let source = match &error {
                ListenError::Pem { path, .. } if *path == key.value => key.source,
                ListenError::Pem { .. } | ListenError::Insecure { .. } | ListenError::Tls(_) => {
                    cert.source
                }
            };
            r.problem(source, error.to_string());
            return None;
        }
    }
    Some(EnrollTls::Operator {
        cert: cert.value,
        key: key.value,
    })
}

pub(super) fn on_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}
