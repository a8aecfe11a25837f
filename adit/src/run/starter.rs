//! The configuration file to begin with that `gateway init` and `agent up` write.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A configuration file that was written, or was there.
pub(super) struct Starter {
    /// Where it is; none where there is no home directory to have one in.
    pub(super) path: Option<PathBuf>,
    /// It was not there before.
    pub(super) is_new: bool,
}

impl Starter {
    /// Writes a file from its text, in which `STATE` stands for the state directory and `NAMES` for names; one that exists
    /// is left as it is.
    ///
    /// # Errors
    /// The file or its directory cannot be written.
    pub(super) fn write(
        path: Option<PathBuf>,
        text: &str,
        state_dir: &Path,
        names: &[String],
    ) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::none());
        };
        // Later verbs may run elsewhere.
        let state_dir = std::path::absolute(state_dir)?;
        let state_dir = toml::Value::from(state_dir.to_string_lossy().as_ref());
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let text = text
            .replace("STATE", &state_dir.to_string())
            .replace("NAMES", &names.join(", "));
        let is_new = create(&path, &text).map_err(|error| {
            let text = format!("cannot write {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self {
            path: Some(path),
            is_new,
        })
    }

    /// None was written.
    pub(super) fn none() -> Self {
        Self {
            path: None,
            is_new: false,
        }
    }
}

/// Tells whether the file was made; false where there was one.
fn create(path: &Path, text: &str) -> io::Result<bool> {
    if path.try_exists()? {
        return Ok(false);
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = match std::fs::File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    // A part of it would be taken for an operator's.
    if let Err(error) = file.write_all(text.as_bytes()) {
        std::fs::remove_file(path)?;
        return Err(error);
    }
    Ok(true)
}
