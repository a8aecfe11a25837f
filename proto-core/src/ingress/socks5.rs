//! The server side of SOCKS5 (RFC 1928) with username and password (RFC 1929); CONNECT only.

mod message;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt};

use bytes::Bytes;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::target::Target;

use message::{
    CREDENTIALS_VERSION, MESSAGE_LEN_MAX, METHOD_NONE, METHOD_NOT_ACCEPTABLE, METHOD_PASSWORD,
    Stop, VERSION,
};
pub use message::{Reply, Socks5Error};

/// One client's handshake, from its first byte to the reply.
///
/// The caller hands over what came, empties [`poll_output`](Self::poll_output) and answers what it asks. One message
/// is held at a time, at most 513 bytes.
#[derive(Debug)]
pub struct Socks5 {
    credentials_required: bool,
    state: State,
    message: Message,
    steps: VecDeque<Step>,
}

/// What the caller has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes go to the client.
    Send(Bytes),
    /// The client says who it is; [`Socks5::authenticated`] is the answer.
    Authenticate {
        /// User name, 0 to 255 bytes.
        user: String,
        /// Password, 0 to 255 bytes.
        password: Password,
    },
    /// The client asks for a session; [`Socks5::reply`] is the answer.
    Connect(Target),
    /// The handshake failed; the connection is closed once everything before is sent.
    Fail(Socks5Error),
}

/// A password as the client sent it: never shown, wiped when dropped, compared in constant time.
pub struct Password(Zeroizing<Vec<u8>>);

impl Socks5 {
    /// Waits for a client's first byte. Whoever gives no credentials where they are required is refused, and so is
    /// whoever insists on giving some where they are not.
    #[must_use]
    pub fn new(credentials_required: bool) -> Self {
        Self {
            credentials_required,
            state: State::Greeting,
            message: Message::new(),
            steps: VecDeque::new(),
        }
    }

    /// Takes bytes from the client and tells how many; the rest stays with the caller.
    ///
    /// Nothing is taken while [`Step::Authenticate`] is unanswered: the rest is to be handed over again after
    /// [`authenticated`](Self::authenticated). Nothing behind the request is ever taken: it belongs to the session.
    pub fn handle_bytes(&mut self, data: &[u8]) -> usize {
        let mut rest = data;
        loop {
            match self.advance() {
                Ok(()) => {}
                Err(Stop::Missing(len)) => {
                    let (taken, left) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                    if taken.is_empty() {
                        break;
                    }
                    self.message.0.extend_from_slice(taken);
                    rest = left;
                }
                Err(Stop::Bad(error)) => {
                    self.fail(error);
                    break;
                }
            }
        }
        data.len().saturating_sub(rest.len())
    }

    /// Gives the next thing to do, in order; none until something is handed over or answered.
    pub fn poll_output(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Answers [`Step::Authenticate`]; does nothing where that is not asked.
    pub fn authenticated(&mut self, ok: bool) {
        match (self.state == State::Verifying, ok) {
            (false, _) => {}
            (true, false) => self.fail(Socks5Error::CredentialsRefused),
            (true, true) => {
                self.state = State::Request;
                self.send(&[CREDENTIALS_VERSION, CREDENTIALS_GOOD]);
            }
        }
    }

    /// Answers [`Step::Connect`]; does nothing where that is not asked.
    ///
    /// Behind [`Reply::Succeeded`] the connection carries the session's bytes; behind any other it is closed.
    pub fn reply(&mut self, reply: Reply) {
        if self.state == State::Opening {
            self.state = State::Ended;
            self.send(&reply.encode());
        }
    }

    /// Acts on the message at hand if it is whole.
    fn advance(&mut self) -> Result<(), Stop> {
        let message = &self.message.0;
        match self.state {
            State::Greeting => {
                let methods = message::greeting(message)?;
                let (method, next) = choose(methods, self.credentials_required)?;
                self.state = next;
                self.send(&[VERSION, method]);
            }
            State::Credentials => {
                let (user, password) = message::credentials(message)?;
                self.steps.push_back(Step::Authenticate {
                    user: user.to_owned(),
                    password: Password(Zeroizing::new(password.to_vec())),
                });
                self.state = State::Verifying;
            }
            State::Request => {
                let target = message::request(message)?;
                self.steps.push_back(Step::Connect(target));
                self.state = State::Opening;
            }
            State::Verifying | State::Opening | State::Ended => return Err(Stop::Missing(0)),
        }
        self.message.wipe();
        Ok(())
    }

    fn fail(&mut self, error: Socks5Error) {
        match error {
            // Whatever the client speaks, it would not understand an answer.
            Socks5Error::LooksLikeHttp
            | Socks5Error::LooksLikeTls
            | Socks5Error::LooksLikeSocks4
            | Socks5Error::NotSocks(_) => {}
            Socks5Error::CredentialsNotOffered | Socks5Error::NoMethod => {
                self.send(&[VERSION, METHOD_NOT_ACCEPTABLE]);
            }
            Socks5Error::CredentialsVersion(_)
            | Socks5Error::UserNotText
            | Socks5Error::CredentialsRefused => {
                self.send(&[CREDENTIALS_VERSION, CREDENTIALS_BAD]);
            }
            Socks5Error::RequestVersion(_) | Socks5Error::Target(_) => {
                self.send(&Reply::GeneralFailure.encode());
            }
            Socks5Error::Command(_) => self.send(&Reply::CommandNotSupported.encode()),
            Socks5Error::AddressType(_) => self.send(&Reply::AddressTypeNotSupported.encode()),
        }
        self.state = State::Ended;
        self.message.wipe();
        self.steps.push_back(Step::Fail(error));
    }

    fn send(&mut self, bytes: &[u8]) {
        self.steps
            .push_back(Step::Send(Bytes::copy_from_slice(bytes)));
    }
}

impl Password {
    /// The bytes, for whoever verifies them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// What is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client's methods.
    Greeting,
    /// The client's user name and password.
    Credentials,
    /// The caller's verdict on them.
    Verifying,
    /// The client's target.
    Request,
    /// The caller's reply.
    Opening,
    /// Nothing: replied or failed.
    Ended,
}

/// The part of a message that came so far. It may hold a password, so it is never shown, and never grows, which would
/// leave a copy behind.
struct Message(Zeroizing<Vec<u8>>);

impl Message {
    fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(MESSAGE_LEN_MAX)))
    }

    fn wipe(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.0.len())
    }
}

/// Picks the one method that is right here.
fn choose(methods: &[u8], credentials_required: bool) -> Result<(u8, State), Socks5Error> {
    let (method, next, error) = match credentials_required {
        true => (
            METHOD_PASSWORD,
            State::Credentials,
            Socks5Error::CredentialsNotOffered,
        ),
        false => (METHOD_NONE, State::Request, Socks5Error::NoMethod),
    };
    match methods.contains(&method) {
        true => Ok((method, next)),
        false => Err(error),
    }
}

const CREDENTIALS_GOOD: u8 = 0x00;
const CREDENTIALS_BAD: u8 = 0x01;
