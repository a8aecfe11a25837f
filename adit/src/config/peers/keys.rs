//! Keys that all gateways of a cluster share: from a file, the environment or a credential of systemd.

use std::path::{Path, PathBuf};

use crate::{
    config::{
        Source, Surroundings,
        reader::{Reader, Sourced},
    },
    peers::key::{ClusterKey, ClusterKeyError},
};

/// One secret of a cluster, which has a current key and may have a previous one.
pub(super) struct Secret<K> {
    /// What it is, for texts.
    pub(super) name: &'static str,
    /// Which option names the file of the current key.
    pub(super) setting: &'static str,
    pub(super) current: Origin,
    pub(super) previous: Origin,
    pub(super) join: fn(ClusterKey, Option<ClusterKey>) -> Result<K, ClusterKeyError>,
}

/// Where a key comes from beside the file that is configured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) variable: &'static str,
    pub(super) credential: &'static str,
}

impl<K> Secret<K> {
    /// Reads both keys, each from the first of: the file that is configured, the environment, a credential of systemd. The
    /// outer option is none after a problem, the inner one where files are not to be read.
    #[allow(
        clippy::option_option,
        reason = "a problem and an absence are two things"
    )]
    pub(super) fn read(
        &self,
        r: &mut Reader<'_>,
        around: &Surroundings,
        place: &Source,
        [current, previous]: [Option<Sourced<PathBuf>>; 2],
    ) -> Option<Option<K>> {
        if !r.reads_named_files() {
            return Some(None);
        }
        let current = key(r, around, current, self.current);
        let previous = key(r, around, previous, self.previous);
        let (current, previous) = (current?, previous?);
        let Some((current, _)) = current else {
            let message = format!(
                "{} is missing: set `{}`, {} or the credential {}; `adit peers genkey` draws one",
                self.name, self.setting, self.current.variable, self.current.credential
            );
            r.problem(place.clone(), message);
            return None;
        };
        // Two keys that are good alone may not go together: the previous one is what an operator has just added.
        let (previous, source) = match previous {
            Some((key, source)) => (Some(key), source),
            None => (None, place.clone()),
        };
        match (self.join)(current, previous) {
            Ok(keys) => Some(Some(keys)),
            Err(error) => {
                r.problem(source, format!("{}: {error}", self.name));
                None
            }
        }
    }
}

#[allow(
    clippy::option_option,
    reason = "a problem and an absence are two things"
)]
fn key(
    r: &mut Reader<'_>,
    around: &Surroundings,
    file: Option<Sourced<PathBuf>>,
    origin: Origin,
) -> Option<Option<(ClusterKey, Source)>> {
    let credential = || {
        let folder = Path::new(around.var("CREDENTIALS_DIRECTORY")?);
        Some(folder.join(origin.credential)).filter(|path| path.exists())
    };
    let (source, read) = match (file, around.var(origin.variable)) {
        (Some(file), Some(_)) => {
            let message = format!(
                "a file and {} both give the key; remove one",
                origin.variable
            );
            r.problem(file.source, message);
            return None;
        }
        (Some(file), None) => (file.source, ClusterKey::read(&file.value)),
        (None, Some(text)) => {
            let source = Source::Environment(origin.variable.to_owned());
            (source, ClusterKey::exact(text.as_bytes()))
        }
        (None, None) => match credential() {
            Some(path) => {
                let source = Source::Credential(origin.credential);
                (source, ClusterKey::read_credential(&path))
            }
            None => return Some(None),
        },
    };
    match read {
        Ok(key) => Some(Some((key, source))),
        Err(error) => {
            r.problem(source, error.to_string());
            None
        }
    }
}
