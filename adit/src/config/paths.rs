//! Where files are: fixed places for root, the XDG directories for everybody else.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

/// Environment variable of an agent's enrolment string; with `_FILE` behind it, of a file that holds it.
pub const ENROLLMENT_STRING: &str = "ADIT_ENROLLMENT_STRING";

/// Which of the two configurations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// `gateway.toml`.
    #[cfg(feature = "gateway")]
    #[default]
    Gateway,
    /// `agent.toml`.
    #[cfg_attr(not(feature = "gateway"), default)]
    Agent,
}

/// What a process finds around itself: its environment and whether it is root.
#[derive(Clone, Default)]
pub struct Surroundings {
    vars: BTreeMap<String, String>,
    root: bool,
}

impl Surroundings {
    /// Those of this process. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(k, v): (std::ffi::OsString, std::ffi::OsString)| {
            Some((k.into_string().ok()?, v.into_string().ok()?))
        };
        Self {
            vars: std::env::vars_os().filter_map(text).collect(),
            root: rustix::process::geteuid().is_root(),
        }
    }

    /// Given ones, for embedding and tests.
    pub fn new<K: Into<String>, V: Into<String>>(
        vars: impl IntoIterator<Item = (K, V)>,
        root: bool,
    ) -> Self {
        Self {
            vars: vars
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
            root,
        }
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    /// A secret from the variable `name`, or from the file that `name` with `_FILE` behind it names.
    ///
    /// # Errors
    /// Both are set, or the file cannot be read.
    pub fn secret(&self, name: &str) -> Result<Option<SecretString>, String> {
        let file = format!("{name}_FILE");
        match (self.var(name), self.var(&file)) {
            (Some(_), Some(_)) => Err(format!("both {name} and {file} are set; unset one")),
            (Some(text), None) => Ok(Some(text.trim().into())),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(text.trim().into())),
                Err(error) => Err(format!("{file}: cannot read {path}: {error}")),
            },
            (None, None) => Ok(None),
        }
    }

    pub(super) fn state_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some(STATE_DIR.into());
        }
        self.xdg("XDG_STATE_HOME", ".local/state")
    }

    fn config_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some("/etc/adit".into());
        }
        self.xdg("XDG_CONFIG_HOME", ".config")
    }

    /// Relative XDG directories are void (XDG Base Directory Specification, "Environment variables").
    fn xdg(&self, var: &str, below_home: &str) -> Option<PathBuf> {
        let set = self.var(var).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = set.or_else(|| Some(Path::new(self.var("HOME")?).join(below_home)))?;
        Some(base.join("adit"))
    }
}

impl std::fmt::Debug for Surroundings {
    // The environment may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// The configuration file of a role, and whether it must exist: one that was asked for must, the default need not.
/// None where there is no home directory to look in.
#[must_use]
pub fn config_file(
    role: Role,
    asked: Option<&Path>,
    around: &Surroundings,
) -> Option<(PathBuf, bool)> {
    let asked = asked.or_else(|| around.var("ADIT_CONFIG").map(Path::new));
    if let Some(path) = asked {
        return Some((path.to_owned(), true));
    }
    let name = match role {
        #[cfg(feature = "gateway")]
        Role::Gateway => "gateway.toml",
        Role::Agent => "agent.toml",
    };
    Some((around.config_dir()?.join(name), false))
}

/// The socket of the gateway whose state is in `state_dir`.
#[cfg(feature = "gateway")]
#[must_use]
pub fn admin_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// The socket of the agent whose state is in `state_dir`.
#[must_use]
pub fn agent_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.sock")
}

const STATE_DIR: &str = "/var/lib/adit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_users_have_their_own_places() {
        let root = Surroundings::new([("HOME", "/root")], true);
        let user = Surroundings::new([("HOME", "/home/u")], false);
        let xdg = Surroundings::new(
            [
                ("HOME", "/home/u"),
                ("XDG_CONFIG_HOME", "/c"),
                ("XDG_STATE_HOME", "rel"),
            ],
            false,
        );
        for (around, file, state) in [
            (root, "/etc/adit/gateway.toml", "/var/lib/adit"),
            (
                user,
                "/home/u/.config/adit/gateway.toml",
                "/home/u/.local/state/adit",
            ),
            (xdg, "/c/adit/gateway.toml", "/home/u/.local/state/adit"),
        ] {
            let found = config_file(Role::Gateway, None, &around);
            assert_eq!(found, Some((file.into(), false)));
            assert_eq!(around.state_dir(), Some(state.into()));
        }
        assert_eq!(
            config_file(Role::Agent, None, &Surroundings::default()),
            None
        );
    }

    #[test]
    fn a_secret_comes_from_a_variable_or_a_file_but_not_both() {
        use secrecy::ExposeSecret;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "from-file\n").unwrap();
        let path = path.to_str().unwrap();
        let get = |vars: Vec<(&str, &str)>| Surroundings::new(vars, false).secret("S");
        let shown = |s: Option<SecretString>| s.map(|s| s.expose_secret().to_owned());
        assert_eq!(shown(get(vec![("S", "x")]).unwrap()).unwrap(), "x");
        assert_eq!(
            shown(get(vec![("S_FILE", path)]).unwrap()).unwrap(),
            "from-file"
        );
        assert_eq!(shown(get(vec![]).unwrap()), None);
        assert!(get(vec![("S", "x"), ("S_FILE", path)]).is_err());
        assert!(get(vec![("S_FILE", "/nonexistent")]).is_err());
    }
}
