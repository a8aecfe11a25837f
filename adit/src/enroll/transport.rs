//! One HTTPS exchange with a gateway that is trusted by its pin, or by the system's roots.

use std::{fmt, io::Read, io::Write, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, StreamOwned,
    client::danger::ServerCertVerifier, crypto::aws_lc_rs,
};
use rustls_pki_types::ServerName;
use ureq::{
    http::Uri,
    unversioned::transport::{
        Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers,
        NextTimeout, TcpConnector, Transport, TransportAdapter,
    },
};

use super::nearest::NearestFirst;
use crate::pki::pinned::{Pin, PinVerifier};

/// Whom to trust on first use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trust {
    /// The server with this key, and no other, whatever its certificate says.
    Pin([u8; 32]),
    /// Whom the system's roots vouch for.
    SystemRoots,
}

/// An answer of the gateway.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Sends a JSON body with a bearer token. No redirect is followed: the token is for this gateway only.
pub(super) fn post_json(
    uri: &Uri,
    trust: Trust,
    token: &str,
    body: Vec<u8>,
) -> Result<Answer, TransportError> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(TIMEOUT))
        .build();
    let chain = ().chain(ConnectProxyConnector::default());
    let chain = chain.chain(TcpConnector::default()).chain(TlsConnector {
        config: Arc::new(client_config(trust).map_err(|e| TransportError::Tls(e.to_string()))?),
    });
    let agent = ureq::Agent::with_parts(config, chain, NearestFirst::default());
    let mut response = agent
        .post(uri)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .send(body)
        .map_err(from_ureq)?;
    let body = response
        .body_mut()
        .with_config()
        .limit(ANSWER_LEN_MAX)
        .read_to_string()
        .map_err(from_ureq)?;
    Ok(Answer {
        status: response.status().as_u16(),
        body,
    })
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The server has another key than the enrolment string says.
    #[error(
        "the server's key is not the one in the enrolment string; check the address, or whether someone intercepts \
         the connection, and create a new enrolment string if the gateway was set up again"
    )]
    PinMismatch,
    /// TLS failed otherwise.
    #[error("cannot trust the server: {0}; its certificate must be good for the system's roots")]
    Tls(String),
    /// Nobody answered in time.
    #[error("the gateway did not answer in time; check address and firewall")]
    TimedOut,
    /// The connection failed.
    #[error("cannot reach the gateway: {0}; check address and firewall")]
    Unreachable(String),
}

fn client_config(trust: Trust) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Pin(spki_sha256) => Arc::new(PinVerifier::new(Pin::Key(spki_sha256), provider)),
        Trust::SystemRoots => Arc::new(rustls_platform_verifier::Verifier::new(provider)?),
    };
    Ok(builder
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Puts TLS with our own configuration on a connection; the client's own connector takes no verifier.
#[derive(Debug)]
struct TlsConnector {
    config: Arc<ClientConfig>,
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else {
            return Ok(None);
        };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let name = ServerName::try_from(host.trim_matches(['[', ']']))
            .map_err(|_| ureq::Error::Tls("the host is no name that TLS can check"))?
            .to_owned();
        let connection = ClientConnection::new(Arc::clone(&self.config), name)?;
        let mut stream = StreamOwned::new(
            connection,
            TransportAdapter::new(transport.boxed(), details.current_time.clone()),
        );
        stream.sock.set_timeout(details.timeout);
        stream.conn.complete_io(&mut stream.sock)?;
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(TlsTransport { buffers, stream })))
    }
}

struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

fn from_ureq(error: ureq::Error) -> TransportError {
    if matches!(error, ureq::Error::Timeout(_)) {
        return TransportError::TimedOut;
    }
    let tls = if let ureq::Error::Rustls(tls) = &error {
        Some(tls)
    } else if let ureq::Error::Io(io) = &error {
        io.get_ref().and_then(|inner| inner.downcast_ref())
    } else {
        None
    };
    match tls {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        )) => TransportError::PinMismatch,
        Some(other) => TransportError::Tls(other.to_string()),
        None => TransportError::Unreachable(error.to_string()),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Two certificates and a few short fields.
const ANSWER_LEN_MAX: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rcgen::{CertificateParams, KeyPair, PublicKeyData};
    use rustls::{
        ServerConfig, ServerConnection,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };
    use rustls_pki_types::PrivateKeyDer;

    use super::*;
    use crate::pki::spki_sha256;

    #[test]
    fn pinned_key_is_trusted_whatever_the_certificate_says() {
        let key = KeyPair::generate().unwrap();
        shake_hands(&key, &key).unwrap();
    }

    #[test]
    fn certificate_without_its_key_is_not_trusted() {
        let (pinned, held) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let error = shake_hands(&pinned, &held).unwrap_err();
        let tls = error.get_ref().and_then(|e| e.downcast_ref());
        assert_eq!(
            tls,
            Some(&rustls::Error::InvalidCertificate(
                CertificateError::BadSignature
            ))
        );
    }

    #[test]
    fn nobody_there_is_unreachable() {
        let addr = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let uri = format!("https://{addr}/").parse().unwrap();
        let outcome = post_json(&uri, Trust::Pin([0; 32]), "t", Vec::new());
        assert!(matches!(
            outcome.err(),
            Some(TransportError::Unreachable(_))
        ));
    }

    /// Shows the certificate of one key and signs with another, to a client that pins the first.
    fn shake_hands(shown: &KeyPair, held: &KeyPair) -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut client_side = TcpStream::connect(listener.local_addr()?)?;
        let (mut server_side, _) = listener.accept()?;
        let server = server_config(shown, held);
        let server = std::thread::spawn(move || {
            let mut server = ServerConnection::new(Arc::new(server)).unwrap();
            // The client's verdict is what counts.
            drop(server.complete_io(&mut server_side));
        });
        let pin = Trust::Pin(spki_sha256(&shown.subject_public_key_info()));
        let config = Arc::new(client_config(pin).unwrap());
        let name = ServerName::try_from("any.example").unwrap();
        let mut client = ClientConnection::new(config, name).unwrap();
        let outcome = client.complete_io(&mut client_side).map(|_| ());
        drop(client_side);
        server.join().unwrap();
        outcome
    }

    fn server_config(shown: &KeyPair, held: &KeyPair) -> ServerConfig {
        let provider = aws_lc_rs::default_provider();
        let cert = CertificateParams::default().self_signed(shown).unwrap();
        let key = PrivateKeyDer::try_from(held.serialize_der()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let certified = CertifiedKey::new(vec![cert.der().clone()], key);
        ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(Arc::new(certified))))
    }

    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);

    impl ResolvesServerCert for Always {
        fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
}
