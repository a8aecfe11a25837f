//! The HTTP listener: TLS, limits and an orderly end.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use adit_io_common::tcp::tune;
use axum::{Router, http::StatusCode};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    patient::{Patient, Upgraded},
    watched::Watched,
};
use crate::{
    http::{Ends, ListenerCounters},
    live::Live,
    pki::server::ServerCert,
    regular::{self, PemError},
    share::Shares,
};

/// What the HTTP listener shows to those who connect.
pub enum ListenerTls {
    /// A certificate of the embedded authority; enrolment strings carry its pin.
    Own(ServerCert),
    /// The operator's certificate, which the system's roots vouch for.
    Operator(OperatorCert),
    /// Plain HTTP.
    Plain,
}

impl ListenerTls {
    /// Makes the TLS configuration; `None` for plain HTTP.
    ///
    /// # Errors
    /// [`ListenError::Insecure`] for plain HTTP that others could reach and that was not asked for explicitly, and
    /// [`ListenError::Tls`] when key and certificate do not fit.
    pub fn server_config(
        &self,
        bind: SocketAddr,
        insecure: bool,
    ) -> Result<Option<ServerConfig>, ListenError> {
        match self {
            Self::Own(cert) => Self::own_config(cert).map(Some),
            Self::Operator(cert) => cert.config().map(Some),
            Self::Plain if bind.ip().is_loopback() || insecure => Ok(None),
            Self::Plain => Err(ListenError::Insecure { bind }),
        }
    }

    /// Makes the TLS configuration of a certificate of the embedded authority.
    ///
    /// # Errors
    /// [`ListenError::Tls`] when key and certificate do not fit.
    pub fn own_config(cert: &ServerCert) -> Result<ServerConfig, ListenError> {
        config_of(cert.chain().to_vec(), cert.key())
    }

    /// Gives the pin for enrolment strings; `None` where agents use the system's roots, or no TLS.
    #[must_use]
    pub fn pin(&self) -> Option<[u8; 32]> {
        match self {
            Self::Own(cert) => Some(cert.spki_sha256()),
            Self::Operator(_) | Self::Plain => None,
        }
    }
}

fn config_of(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, ListenError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    // Reference agents may use a TLS 1.2 stack of their system here.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ListenError::Tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(ListenError::Tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "Own(..)",
            Self::Operator(_) => "Operator(..)",
            Self::Plain => "Plain",
        })
    }
}

/// A certificate chain and key that the operator supplies.
pub struct OperatorCert {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl OperatorCert {
    /// Reads PEM files.
    ///
    /// # Errors
    /// [`ListenError::Pem`], naming the file.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, ListenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| ListenError::Pem { path, cause }
        };
        let chain = regular::pem(cert).map_err(failed(cert))?;
        let key = regular::first_pem(key).map_err(failed(key))?;
        Ok(Self { chain, key })
    }

    /// Makes the TLS configuration.
    ///
    /// # Errors
    /// [`ListenError::Tls`] when key and certificate do not fit.
    pub fn config(&self) -> Result<ServerConfig, ListenError> {
        config_of(self.chain.clone(), self.key.clone_key())
    }
}

impl fmt::Debug for OperatorCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorCert(..)")
    }
}

/// Why the listener cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Plain HTTP would carry tokens over a network.
    #[error(
        "plain HTTP on {bind} would show tokens to the network; use TLS, bind to loopback, or allow it with the \
         insecure option"
    )]
    Insecure {
        /// The address.
        bind: SocketAddr,
    },
    /// A PEM file cannot be used.
    #[error("cannot use {}: {cause}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: PemError,
    },
    /// Key and certificate do not work together.
    #[error("the listener's certificate cannot be used: {0}")]
    Tls(rustls::Error),
}

/// Serves HTTP/1.1 until `shutdown` completes; then takes no more connections, and gives those that are open
/// five seconds to end.
///
/// # Errors
/// Those of handing the listener to the runtime. A failed `accept`, such as for want of descriptors, is waited out.
pub async fn serve(
    listener: std::net::TcpListener,
    tls: Option<Arc<Live<ServerConfig>>>,
    router: Router,
    counters: Arc<ListenerCounters>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let shares = Shares::of(counters.usage().1);
    let watched = Watched::new(Arc::clone(&counters));
    let mut full = false;
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        watched.places(&mut full);
        let accepted = async {
            let slot = Arc::clone(&counters.places).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        full = false;
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                watched.accept_failed(error);
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let open = watched.accepted();
        let Some(share) = shares.take(source.ip()) else {
            watched.share_full(source);
            continue;
        };
        let ends = Ends {
            user: source,
            local: stream.local_addr().ok(),
        };
        if let Err(error) = tune(&stream) {
            tracing::debug!(%source, %error, "socket options");
        }
        // Whoever connects sees the certificate of that moment.
        let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.get()));
        let (router, stopped) = (router.clone(), stopped.clone());
        let watched = watched.clone();
        connections.spawn(async move {
            let _place = (slot, share, open);
            let (stream, upgraded) = Patient::new(stream);
            let about = (ends, upgraded);
            let Some(tls) = acceptor else {
                return converse(stream, about, router, stopped).await;
            };
            // A failed handshake is the caller's: nothing is owed to it.
            match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, about, router, stopped).await,
                Ok(Err(error)) => watched.tls_failed(source, error),
                Err(_) => watched.tls_failed(source, "it took too long"),
            }
        });
    }
    drop(listener);
    stop.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

async fn converse<S>(
    stream: S,
    (ends, upgraded): (Ends, Upgraded),
    router: Router,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ends);
        let (answer, upgraded) = (service.call(request), upgraded.clone());
        async move {
            answer.await.inspect(|answer| {
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    upgraded.set();
                }
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    // The guard that `wait_for` yields must not live across an await.
    let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "HTTP connection failed");
    }
}

pub(crate) const CONNECTIONS_MAX: usize = 512;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Also bounds how long a connection may sit between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::routing::get;
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    use super::*;

    #[tokio::test]
    async fn who_reads_no_answer_keeps_no_place() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let long = async || "x".repeat(16 << 20);
        let router = Router::new().route("/", get(long));
        let counters = Arc::new(ListenerCounters::new(1));
        let serving = tokio::spawn(serve(listener, None, router, counters, pending()));
        let mut user = TcpStream::connect(addr).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n";
        user.write_all(request).await.unwrap();
        // Waits until the answer has begun.
        user.readable().await.unwrap();
        tokio::time::pause();
        let refused = async { while user.write_all(request).await.is_ok() {} };
        timeout(Duration::from_secs(60), refused).await.unwrap();
        serving.abort();
    }

    #[test]
    fn plain_http_needs_loopback_or_an_explicit_word() {
        let config = |bind: &str, insecure| {
            ListenerTls::Plain.server_config(bind.parse().unwrap(), insecure)
        };
        assert!(config("127.0.0.1:80", false).unwrap().is_none());
        assert!(config("[::1]:80", false).unwrap().is_none());
        assert!(config("0.0.0.0:80", true).unwrap().is_none());
        for open in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
            assert!(matches!(
                config(open, false),
                Err(ListenError::Insecure { .. })
            ));
        }
    }

    #[test]
    fn operator_certificate_that_is_absent_is_named() {
        let absent = Path::new("/nonexistent/cert.pem");
        let error = OperatorCert::read(absent, absent).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/cert.pem"));
    }
}
