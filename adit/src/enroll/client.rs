//! The enrolment call, agent side.

use std::{fmt, path::PathBuf};

use adit_proto_core::id::AgentId;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PublicKeyData};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use ureq::http::Uri;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    ENROL_PATH,
    files::{AgentFiles, FilesError},
    pair::KeyPairFile,
    pending::{PENDING_FILE, Pending},
    renewal::signing_request,
    transport::{Answer, TransportError, Trust, post_json},
    wire::{EnrolAnswer, EnrolBody, Problem},
};
use crate::{
    exit::Code,
    pki::{certificate_spki_sha256, first_certificate, parse, parse_hex_32, spki_sha256},
    state::{StateDir, StateError},
};

/// What `agent up` is given.
pub struct EnrolRequest {
    /// The enrolment string: the token as the gateway made it.
    pub enrolment_string: SecretString,
    /// Stands over the URL inside the token.
    pub gateway_url_override: Option<String>,
    /// Whether the token may travel over plain HTTP.
    pub allow_http: bool,
    /// Host name for the certificate.
    pub hostname: Option<String>,
    /// Where the enrolment is kept.
    pub state_dir: PathBuf,
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest")
            .field("gateway_url_override", &self.gateway_url_override)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

/// Enrols this agent and keeps the result in the state folder; a refusal changes nothing there.
///
/// Blocks for up to 30 s. An agent that is enrolled already keeps its id and its key. After any other failure the call can
/// be made again with the same string: also where the gateway had taken it, and only the answer was lost.
///
/// # Errors
/// [`EnrolError`], whose text says what to do.
pub fn enrol(request: &EnrolRequest) -> Result<AgentFiles, EnrolError> {
    let dir = StateDir::open(&request.state_dir)?;
    let token = request.enrolment_string.expose_secret().trim();
    let claims = Claims::read(token)?;
    let base = request
        .gateway_url_override
        .as_deref()
        .unwrap_or(&claims.jet_gw_url);
    let (uri, trust) = plan(base, claims.adit_spki_sha256.as_deref(), request.allow_http)?;

    let ask = |id: AgentId, key: &KeyPair| {
        let body = EnrolBody {
            agent_id: id.0,
            csr_pem: signing_request(key, &claims.jet_agent_name)?,
            agent_hostname: request.hostname.clone(),
        };
        let body =
            serde_json::to_vec(&body).map_err(|_| EnrolError::BadAnswer("cannot be asked for"))?;
        // Where the answer is lost, the gateway takes the token again from this agent with this key only.
        let key_pem = Zeroizing::new(key.serialize_pem());
        Pending::Asked { id, key_pem }.save(&dir)?;
        let answer = post_json(&uri, trust, token, body)?;
        match answer.status {
            200 => check_answer(&answer.body, id, key),
            _ => Err(refused(&answer)),
        }
    };
    // A token is not to be spent on an enrolment that cannot be kept.
    AgentFiles::prove_room(&dir)?;
    AgentFiles::finish_enrolment(&dir)?;
    AgentFiles::replace_damaged_pair(&dir)?;
    let before = Pending::load(&dir)?;
    let outcome = match AgentFiles::former_identity(&dir)? {
        Some((id, keys)) => first_that_is_known(&keys, |key| ask(id, key)),
        None => ask(AgentId(Uuid::new_v4()), &KeyPair::generate()?),
    };
    // A proxy may say 408 or 429 of a request that was carried out.
    if let Err(EnrolError::Refused { status, .. }) = &outcome
        && matches!(status, 400 | 401 | 403 | 404 | 409 | 413 | 415 | 422)
    {
        put_back(&dir, before);
    }
    let mut files = outcome?;
    files.name = claims.jet_agent_name;
    files.gateway_url = base.to_owned();
    files.save(&dir)?;
    Ok(files)
}

/// Forgets what this call has asked for: the gateway said that it did nothing.
fn put_back(dir: &StateDir, before: Option<Pending>) {
    let done = match before {
        Some(pending) => pending.save(dir),
        None => dir.remove(PENDING_FILE).map_err(FilesError::from),
    };
    if let Err(error) = done {
        tracing::warn!(%error, "the key of a refused enrolment is left over");
    }
}

/// Shows one key after the other for as long as the gateway says that the id has another one (409). A refusal leaves the
/// token as it was.
fn first_that_is_known(
    keys: &[Zeroizing<String>],
    ask: impl Fn(&KeyPair) -> Result<AgentFiles, EnrolError>,
) -> Result<AgentFiles, EnrolError> {
    let mut keys = keys.iter().peekable();
    loop {
        let key = keys.next().ok_or(FilesError::NotEnrolled)?;
        match ask(&KeyPair::from_pem(key)?) {
            Err(EnrolError::Refused { status: 409, .. }) if keys.peek().is_some() => {}
            outcome => return outcome,
        }
    }
}

/// Why an enrolment failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The files of the enrolment.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Not an enrolment string.
    #[error("this is not an enrolment string; paste it whole, as the gateway printed it")]
    BadString,
    /// The URL cannot be used.
    #[error("the gateway's URL {0:?} is not an http or https URL; give another one with --gateway")]
    BadUrl(String),
    /// The token would travel in the clear.
    #[error(
        "the gateway's URL is plain HTTP, which shows the token to the network; use https, or allow it with \
         --allow-http"
    )]
    PlainHttp,
    /// The enrolment string pins a key, which plain HTTP has not.
    #[error("the enrolment string demands https; use the gateway's https URL")]
    PinNeedsHttps,
    /// A key or a request could not be made.
    #[error("cannot make a key or a certificate signing request: {0}")]
    Key(#[from] rcgen::Error),
    /// No answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The gateway said no.
    #[error("{} ({status}{detail})", advice(*status))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the gateway added, after a colon, or nothing.
        detail: String,
    },
    /// The answer is not what was asked for.
    #[error("the gateway's answer {0}; is this an adit or compatible gateway?")]
    BadAnswer(&'static str),
}

#[derive(Deserialize)]
struct Claims {
    jet_gw_url: String,
    jet_agent_name: String,
    adit_spki_sha256: Option<String>,
}

impl Claims {
    /// Reads what the agent needs to know. The signature is for the gateway to check (agent-tunnel 14.4).
    fn read(token: &str) -> Result<Self, EnrolError> {
        let parts: Vec<_> = token.split('.').collect();
        let [_header, claims, _signature] = parts.as_slice() else {
            return Err(EnrolError::BadString);
        };
        let claims = URL_SAFE_NO_PAD.decode(claims);
        let claims = claims.map_err(|_| EnrolError::BadString)?;
        serde_json::from_slice(&claims).map_err(|_| EnrolError::BadString)
    }
}

fn plan(base: &str, pin: Option<&str>, allow_http: bool) -> Result<(Uri, Trust), EnrolError> {
    let bad_url = || EnrolError::BadUrl(base.to_owned());
    let uri: Uri = format!("{}{ENROL_PATH}", base.trim_end_matches('/'))
        .parse()
        .map_err(|_| bad_url())?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad_url());
    }
    // A pin that cannot be read must not turn into trust in the system's roots.
    let trust = match pin {
        Some(pin) => Trust::Pin(parse_hex_32(pin).ok_or(EnrolError::BadString)?),
        None => Trust::SystemRoots,
    };
    match (uri.scheme_str(), trust) {
        (Some("https"), _) => Ok((uri, trust)),
        (Some("http"), Trust::Pin(_)) => Err(EnrolError::PinNeedsHttps),
        (Some("http"), Trust::SystemRoots) if allow_http => Ok((uri, trust)),
        (Some("http"), Trust::SystemRoots) => Err(EnrolError::PlainHttp),
        _ => Err(bad_url()),
    }
}

fn check_answer(body: &str, id: AgentId, key: &KeyPair) -> Result<AgentFiles, EnrolError> {
    let answer: EnrolAnswer =
        serde_json::from_str(body).map_err(|_| EnrolError::BadAnswer("cannot be read"))?;
    if answer.agent_id != id.0 {
        return Err(EnrolError::BadAnswer("is for another agent"));
    }
    let cert_key = first_certificate(&answer.client_cert_pem)
        .and_then(|der| certificate_spki_sha256(&der))
        .map_err(|_| EnrolError::BadAnswer("holds no certificate"))?;
    if cert_key != spki_sha256(&key.subject_public_key_info()) {
        return Err(EnrolError::BadAnswer("certifies another key"));
    }
    first_certificate(&answer.gateway_ca_cert_pem)
        .and_then(|der| parse(&der).map(|_| ()))
        .map_err(|_| EnrolError::BadAnswer("holds no CA certificate"))?;
    if !is_endpoint(&answer.quic_endpoint) {
        return Err(EnrolError::BadAnswer("names no endpoint"));
    }
    let pin = parse_hex_32(&answer.server_spki_sha256)
        .ok_or(EnrolError::BadAnswer("holds no pin of the tunnel's key"))?;
    Ok(AgentFiles {
        id,
        name: String::new(),
        quic_endpoints: vec![answer.quic_endpoint],
        server_spki_sha256: pin,
        renews_with_new_key: answer.adit.is_some_and(|extras| extras.renewal >= 1),
        gateway_url: String::new(),
        pair: KeyPairFile {
            key_pem: Zeroizing::new(key.serialize_pem()),
            cert_pem: answer.client_cert_pem,
            ca_pem: answer.gateway_ca_cert_pem,
        },
    })
}

fn is_endpoint(endpoint: &str) -> bool {
    endpoint.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

fn refused(answer: &Answer) -> EnrolError {
    // What a stranger wrote goes to a terminal: printable, and not too long.
    let detail = serde_json::from_str::<Problem>(&answer.body)
        .map(|body| {
            let text: String = body.detail.chars().filter(|c| !c.is_control()).collect();
            format!(": {}", text.chars().take(300).collect::<String>())
        })
        .unwrap_or_default();
    EnrolError::Refused {
        status: answer.status,
        detail,
    }
}

impl EnrolError {
    /// The code that a command ends with.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::BadString | Self::BadUrl(_) | Self::PlainHttp | Self::PinNeedsHttps => {
                Code::Usage
            }
            Self::Refused {
                status: 401 | 403, ..
            } => Code::NotAuthorised,
            Self::Transport(_) => Code::Unreachable,
            Self::State(_)
            | Self::Files(_)
            | Self::Key(_)
            | Self::Refused { .. }
            | Self::BadAnswer(_) => Code::Failure,
        }
    }
}

fn advice(status: u16) -> &'static str {
    match status {
        400 | 415 | 422 => {
            "the gateway does not accept what this agent sent; check the agent's name and host name"
        }
        401 => {
            "the gateway does not accept the enrolment string: it is used, expired, revoked or from another gateway; \
             create a new one"
        }
        403 => "this token is not for enrolment; create an enrolment string",
        404 => "this gateway takes no enrolments; check the URL and whether its agent tunnel is on",
        409 => {
            "this agent's id is taken: stop the running agent, or delete it at the gateway first"
        }
        300..=399 => "the gateway's URL points elsewhere; give the final one with --gateway",
        500..=599 => "the gateway has a problem of its own; see its log and try again",
        _ => "the gateway refused for a reason unknown here",
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;

    use super::*;

    #[test]
    fn plain_http_needs_a_word_and_no_pin() {
        let pin = "ab".repeat(32);
        let plan = |base, pin, allow| plan(base, pin, allow).map(|(uri, _)| uri.to_string());
        assert_eq!(
            plan("https://gw:1/", None, false).unwrap(),
            "https://gw:1/jet/tunnel/enroll"
        );
        assert_eq!(
            plan("http://gw/base", None, true).unwrap(),
            "http://gw/base/jet/tunnel/enroll"
        );
        assert!(matches!(
            plan("http://gw", None, false),
            Err(EnrolError::PlainHttp)
        ));
        assert!(matches!(
            plan("http://gw", Some(&pin), true),
            Err(EnrolError::PinNeedsHttps)
        ));
        assert!(matches!(
            plan("https://gw", Some("ab"), false),
            Err(EnrolError::BadString)
        ));
        for bad in ["gw", "ftp://gw", "https://", "", "https://a b"] {
            assert!(
                matches!(plan(bad, None, true), Err(EnrolError::BadUrl(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn endpoints_have_host_and_port() {
        for good in ["gw.example:4433", "[::1]:4433", "10.0.0.1:1"] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in ["gw", ":4433", "gw:", "gw:0", "gw:65536", "gw:x"] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn refusal_says_what_to_do_and_cleans_the_detail() {
        let body = r#"{"error":"x","detail":"no\u001b[31m"}"#.to_owned();
        let text = refused(&Answer { status: 401, body }).to_string();
        assert!(
            text.contains("create a new one") && text.contains("(401: no[31m)"),
            "{text}"
        );
        let text = refused(&Answer {
            status: 401,
            body: String::new(),
        })
        .to_string();
        assert!(text.ends_with("(401)"), "{text}");
    }

    #[test]
    fn strings_that_are_no_tokens_are_refused() {
        for bad in [
            "",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "dgw-enroll:v1:abc",
            "e30.e30.e30",
        ] {
            assert!(
                matches!(Claims::read(bad), Err(EnrolError::BadString)),
                "{bad}"
            );
        }
    }

    #[test]
    fn answers_that_lie_are_refused() {
        let key = KeyPair::generate().unwrap();
        let id = AgentId(Uuid::from_u128(1));
        let cert = CertificateParams::default()
            .self_signed(&key)
            .unwrap()
            .pem();
        let other = KeyPair::generate().unwrap();
        let foreign = CertificateParams::default()
            .self_signed(&other)
            .unwrap()
            .pem();
        let check = |field: &str, value: serde_json::Value| {
            let mut answer = serde_json::json!({
                "agent_id": id.0, "client_cert_pem": cert, "gateway_ca_cert_pem": cert,
                "quic_endpoint": "gw:4433", "server_spki_sha256": "AB".repeat(32),
            });
            answer[field] = value;
            check_answer(&answer.to_string(), id, &key)
        };
        let files = check("unknown", 1.into()).unwrap();
        assert!(!files.renews_with_new_key);
        assert_eq!(files.server_spki_sha256, [0xab; 32]);
        assert!(
            check("adit", serde_json::json!({"renewal": 1}))
                .unwrap()
                .renews_with_new_key
        );
        for (field, value) in [
            ("agent_id", Uuid::nil().to_string()),
            ("client_cert_pem", foreign),
            ("client_cert_pem", String::new()),
            ("gateway_ca_cert_pem", "noise".to_owned()),
            ("quic_endpoint", "gw".to_owned()),
            ("server_spki_sha256", "ab".to_owned()),
        ] {
            let outcome = check(field, value.into());
            assert!(matches!(outcome, Err(EnrolError::BadAnswer(_))), "{field}");
        }
    }
}
