//! How a command ends: its exit code, and what is said about a failure.

use std::fmt;

use crate::config::ConfigError;

/// The exit codes of every verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// Failed for a reason that no other code names.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration is bad; nothing was started.
    Config = 3,
    /// The other side says that the caller may not.
    NotAuthorised = 4,
    /// Nobody answered, or not in time.
    Unreachable = 5,
}

/// A command's failure: what to say, and the code to exit with.
pub struct CommandFailure {
    code: Code,
    error: anyhow::Error,
}

impl CommandFailure {
    /// Joins a code and an error or a message.
    pub fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
        }
    }

    /// A failure with a message of its own.
    pub fn message(code: Code, message: impl fmt::Display) -> Self {
        Self {
            code,
            error: anyhow::anyhow!("{message}"),
        }
    }

    /// The code to exit with.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An error that quotes its cause is not followed by it once more.
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}: {self}", self.code as u8)
    }
}

impl From<anyhow::Error> for CommandFailure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failure, error)
    }
}

impl From<std::io::Error> for CommandFailure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failure, error)
    }
}

impl From<ConfigError> for CommandFailure {
    fn from(error: ConfigError) -> Self {
        Self::new(Code::Config, error)
    }
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot: {0}")]
        Quoting(#[source] io::Error),
        #[error("cannot")]
        Silent(#[source] io::Error),
        #[error("{0}")]
        Bare(#[from] io::Error),
    }

    #[test]
    fn every_cause_is_said_once() {
        let cause = || io::Error::other("no room");
        for (error, said) in [
            (Outer::Quoting(cause()), "cannot: no room"),
            (Outer::Silent(cause()), "cannot: no room"),
            (Outer::Bare(cause()), "no room"),
        ] {
            assert_eq!(CommandFailure::new(Code::Failure, error).to_string(), said);
        }
    }
}
