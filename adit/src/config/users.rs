//! Who may use an ingress: names and hashed passwords from a file.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use adit_proto_core::{gateway::dispatch::DirectRule, target::Target};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::regular;

/// The users of one ingress. Holds hashes only, and shows neither names nor hashes.
#[derive(Clone, Default)]
pub struct Users(Vec<User>);

#[derive(Clone)]
struct User {
    account: Account,
    salt: Box<str>,
    hash: [u8; 32],
}

/// One who has shown the right password, and what that allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: Arc<str>,
    /// None: everything.
    targets: Option<Arc<[DirectRule]>>,
}

impl Account {
    /// The name in the users file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether the user may open a session to a target. Names are not resolved for this: they match the domains
    /// that are allowed, addresses the subnets.
    #[must_use]
    pub fn may_open(&self, target: &Target) -> bool {
        let Some(rules) = &self.targets else {
            return true;
        };
        rules.iter().any(|rule| rule.allows(target))
    }
}

/// Why a users file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Others than owner and group may read or write the file.
    #[error("others may read it; run `chmod o-rwx {}`", .0.display())]
    Exposed(PathBuf),
    /// No user is in the file.
    #[error("names no user; write lines of NAME:PASSWORD or NAME:$sha256$SALT$HEX")]
    Empty,
    /// A line, from 1, is bad.
    #[error("line {0}: {1}")]
    Line(usize, &'static str),
}

impl Users {
    /// Reads a file of lines `NAME:PASSWORD` or `NAME:$sha256$SALT$HEX`, where HEX is the SHA-256 of SALT and password
    /// joined. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`UsersError`].
    pub fn read(path: &Path) -> Result<Self, UsersError> {
        let file = regular::open(path)?;
        if regular::mode(&file)? & 0o007 != 0 {
            return Err(UsersError::Exposed(path.to_owned()));
        }
        let bytes = regular::read_open(file)?;
        let text = str::from_utf8(&bytes);
        Self::parse(text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?)
    }

    /// Reads the content of such a file.
    ///
    /// # Errors
    /// [`UsersError::Line`] or [`UsersError::Empty`].
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut users: Vec<User> = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let user = parse_line(line).map_err(|e| UsersError::Line(i + 1, e))?;
            if users.iter().any(|u| u.account.name == user.account.name) {
                return Err(UsersError::Line(i + 1, "this user is named twice"));
            }
            users.push(user);
        }
        if users.is_empty() {
            return Err(UsersError::Empty);
        }
        Ok(Self(users))
    }

    /// Finds the user whose name and password these are. Every user is compared with, so that the time taken does not
    /// depend on which name exists.
    #[must_use]
    pub fn check(&self, name: &[u8], password: &[u8]) -> Option<&Account> {
        let mut found = None;
        for user in &self.0 {
            let same_name =
                Sha256::digest(user.account.name.as_bytes()).ct_eq(&Sha256::digest(name));
            let same: Choice = same_name & hash(&user.salt, password).ct_eq(&user.hash);
            if same.into() {
                found = Some(&user.account);
            }
        }
        found
    }

    /// Allows one user these targets and no others; tells whether there is such a user.
    pub(super) fn restrict(&mut self, name: &str, targets: &Arc<[DirectRule]>) -> bool {
        let user = self.0.iter_mut().find(|user| &*user.account.name == name);
        let Some(user) = user else {
            return false;
        };
        user.account.targets = Some(Arc::clone(targets));
        true
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

fn parse_line(line: &str) -> Result<User, &'static str> {
    let (name, password) = line.split_once(':').ok_or("no `:`; write NAME:PASSWORD")?;
    if name.is_empty() || name.len() > LEN_MAX {
        return Err("the name is empty or longer than 255 bytes");
    }
    let (salt, hash) = match password.strip_prefix('$') {
        Some(rest) => parse_hash(rest)?,
        None if password.is_empty() || password.len() > LEN_MAX => {
            return Err("the password is empty or longer than 255 bytes");
        }
        None => ("", hash("", password.as_bytes())),
    };
    Ok(User {
        account: Account {
            name: name.into(),
            targets: None,
        },
        salt: salt.into(),
        hash,
    })
}

fn parse_hash(text: &str) -> Result<(&str, [u8; 32]), &'static str> {
    const ADVICE: &str = "a password that begins with `$` must be $sha256$SALT$HEX with 64 digits";
    let (salt, hex) = text
        .strip_prefix("sha256$")
        .and_then(|rest| rest.split_once('$'))
        .ok_or(ADVICE)?;
    let mut hash = [0; 32];
    if salt.is_empty() || hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ADVICE);
    }
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| ADVICE)?;
    }
    Ok((salt, hash))
}

fn hash(salt: &str, password: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(password)
        .finalize()
        .into()
}

/// SOCKS5 carries names and passwords of 1 to 255 bytes (RFC 1929 section 2).
const LEN_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    // printf %s%s pepper secret | sha256sum
    const HASHED: &str =
        "bob:$sha256$pepper$744a9101f7182a6ae0d978121ff74e33cac8d2832579c0637c1c37e9bbb6c065";

    #[test]
    fn plain_and_hashed_passwords_are_checked() {
        let text = format!("# people\n\nalice:wonder:land\n{HASHED}\n");
        let users = Users::parse(&text).unwrap();
        for (name, password, good) in [
            ("alice", "wonder:land", true),
            ("bob", "secret", true),
            ("bob", "peppersecret", false),
            ("alice", "secret", false),
            ("carol", "secret", false),
            ("", "", false),
        ] {
            let found = users.check(name.as_bytes(), password.as_bytes());
            assert_eq!(found.map(Account::name), good.then_some(name), "{name}");
        }
        assert_eq!(format!("{users:?}"), "Users(2)");
    }

    #[test]
    fn a_restricted_user_opens_what_the_rules_name() {
        let mut users = Users::parse("alice:a\nbob:b\n").unwrap();
        let rule = |text: &str| crate::config::parse::target_rule(text).unwrap();
        let rules = [
            "10.0.0.0/8:5432",
            "*.corp.local",
            "[2001:db8::/32]:22",
            "gw.x:1",
        ]
        .map(rule);
        assert!(users.restrict("alice", &Arc::from(rules)));
        assert!(!users.restrict("carol", &Arc::from([])));
        for (target, allowed) in [
            ("10.1.2.3:5432", true),
            ("10.1.2.3:5433", false),
            ("11.1.2.3:5432", false),
            ("db.corp.local:1", true),
            ("DB.corp.local.:1", true),
            ("corp.local:1", false),
            ("xcorp.local:1", false),
            ("[2001:db8::1]:22", true),
            ("[::ffff:10.1.2.3]:5432", true),
            ("gw.x:1", true),
            ("a.gw.x:1", false),
        ] {
            let target = target.parse().unwrap();
            let alice = users.check(b"alice", b"a").unwrap();
            assert_eq!(alice.may_open(&target), allowed, "{target}");
            assert!(users.check(b"bob", b"b").unwrap().may_open(&target));
        }
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, shown) in [
            ("", "names no user"),
            ("# x\nalice", "line 2: no `:`"),
            (":x", "line 1: the name"),
            ("a:", "line 1: the password"),
            ("a:1\na:2", "line 2: this user is named twice"),
            ("a:$2y$x", "line 1: a password that begins"),
            ("a:$sha256$s$00", "line 1: a password that begins"),
        ] {
            let error = Users::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(shown), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, "a:b\n").unwrap();
        let set = |mode| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            Users::read(&path)
        };
        assert!(matches!(set(0o644), Err(UsersError::Exposed(_))));
        assert!(set(0o640).is_ok());
    }
}
