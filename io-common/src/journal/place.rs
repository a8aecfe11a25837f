//! Where a journal is made: nothing that is no journal is touched, and former ones are kept.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::KIND;

/// Former journals that are kept beside one, the newest as `PATH.1`.
pub const KEPT: u32 = 3;

/// Why a journal cannot be made where it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// What stands there is somebody's, or it stands where a former journal would be kept.
    #[error("{} is no journal of adit, and is left alone: name another file, or move it away", .0.display())]
    NoJournal(PathBuf),
    /// It would lie in what is no folder.
    #[error("{} is no folder", .0.display())]
    NoFolder(PathBuf),
    /// Another process writes it.
    #[error("another process writes {}: give each process a journal of its own", .0.display())]
    InUse(PathBuf),
    /// The system refuses.
    #[error("{}: {cause}", path.display())]
    Io {
        /// What it is about.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl CreateError {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        |cause| Self::Io {
            path: path.to_owned(),
            cause,
        }
    }
}

/// Looks whether a journal can be made at a path, as far as that is known before: its folder is there, and nothing is in its
/// place but a journal. Touches nothing.
///
/// # Errors
/// [`CreateError`].
pub fn check(path: &Path) -> Result<(), CreateError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let meta = fs::metadata(folder).map_err(CreateError::io(folder))?;
    if !meta.is_dir() {
        return Err(CreateError::NoFolder(folder.to_owned()));
    }
    former(path).map(drop)
}

/// Makes the file, which only its owner may read, and holds it against other processes for as long as it is open.
pub(super) fn make(path: &Path) -> Result<File, CreateError> {
    let failed = CreateError::io(path);
    let former = former(path)?;
    if let Some(former) = &former {
        lock(former, path)?;
        let (opened, there) = (former.metadata(), fs::symlink_metadata(path));
        let (opened, there) = (opened.map_err(&failed)?, there.map_err(&failed)?);
        if (opened.dev(), opened.ino()) != (there.dev(), there.ino()) {
            // Another process has moved it aside meanwhile.
            return Err(CreateError::InUse(path.to_owned()));
        }
        if opened.len() == 0 {
            fs::remove_file(path).map_err(&failed)?;
        } else {
            keep(path)?;
        }
    }
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    lock(&file, path)?;
    // Until here whoever opened the former one is refused.
    drop(former);
    Ok(file)
}

/// Opens the journal at a path; none where there is nothing. An empty file is one whose process ended before it began.
fn former(path: &Path) -> Result<Option<File>, CreateError> {
    let failed = CreateError::io(path);
    // Looked at before it is opened, since opening a pipe waits for its writer.
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(CreateError::NoJournal(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    // For writing too: some file systems lock nothing else.
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(path).map_err(&failed)?;
    let mut start = Vec::new();
    let mut head = (&file).take(KIND.len() as u64);
    head.read_to_end(&mut start).map_err(failed)?;
    if start.is_empty() || start == KIND {
        Ok(Some(file))
    } else {
        Err(CreateError::NoJournal(path.to_owned()))
    }
}

fn lock(file: &File, path: &Path) -> Result<(), CreateError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => CreateError::InUse(path.to_owned()),
        TryLockError::Error(cause) => CreateError::io(path)(cause),
    })
}

/// Moves the journal at a path aside, and those that were before; the oldest one makes room.
fn keep(path: &Path) -> Result<(), CreateError> {
    let kept = |n: u32| match n {
        0 => path.to_owned(),
        n => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        }
    };
    let mut last = 1;
    while former(&kept(last))?.is_some() && last < KEPT {
        last += 1;
    }
    for n in (0..last).rev() {
        let from = kept(n);
        fs::rename(&from, kept(n + 1)).map_err(CreateError::io(&from))?;
    }
    Ok(())
}
