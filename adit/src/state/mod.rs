//! The folder in which a gateway or an agent keeps what must survive a restart.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use uuid::Uuid;
use zeroize::Zeroizing;

/// A state folder that exists, is ours to write, and is closed to others.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens the folder, creating it and its parents with mode 0700, and proves that it can be written.
    ///
    /// # Errors
    /// [`StateError::Create`], [`StateError::NotAFolder`], [`StateError::LooseFolder`] when others may write there, and
    /// [`StateError::Write`] when we may not.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let path = path.into();
        let failed = |cause| StateError::Create {
            path: path.clone(),
            cause,
        };
        if fs::exists(&path).map_err(failed)? {
            let meta = fs::metadata(&path).map_err(failed)?;
            if !meta.is_dir() {
                return Err(StateError::NotAFolder { path });
            }
            if meta.mode() & 0o022 != 0 {
                return Err(StateError::LooseFolder { path });
            }
        } else {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(failed)?;
        }
        let dir = Self { path };
        dir.prove_writable()?;
        dir.sweep();
        Ok(dir)
    }

    /// Opens a folder for reading only: nothing is created.
    ///
    /// # Errors
    /// [`StateError::NotAFolder`] when there is none.
    pub fn open_existing(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let path = path.into();
        if path.is_dir() {
            Ok(Self { path })
        } else {
            Err(StateError::NotAFolder { path })
        }
    }

    /// Gives the folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the path of a file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes the folder for this process until the lock is dropped.
    ///
    /// # Errors
    /// [`StateError::Locked`] when another process holds it.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.file(LOCK_FILE);
        let failed = |cause| StateError::Write {
            path: path.clone(),
            cause,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked {
                path: self.path.clone(),
            }),
            Err(TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }

    /// Reads a file; `None` when there is none.
    ///
    /// # Errors
    /// [`StateError::Read`], also for a file above 1 MiB.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.file(name);
        Ok(read_bounded(&path, None)?.map(|mut bytes| std::mem::take(&mut *bytes)))
    }

    /// Reads a text file; `None` when there is none.
    ///
    /// # Errors
    /// [`StateError::Read`], also when the file is not UTF-8.
    pub fn read_text(&self, name: &str) -> Result<Option<String>, StateError> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| StateError::Read {
                path: self.file(name),
                cause: io::ErrorKind::InvalidData.into(),
            })
    }

    /// Reads a secret; `None` when there is none.
    ///
    /// # Errors
    /// [`StateError::LooseSecret`] when its group or others may read or write it, or as [`StateDir::read`].
    pub fn read_secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        read_bounded(&self.file(name), Some(0o077))
    }

    /// Reads a secret that is text; `None` when there is none.
    ///
    /// # Errors
    /// As [`StateDir::read_secret`], and [`StateError::Read`] when the file is not UTF-8.
    pub fn read_secret_text(&self, name: &str) -> Result<Option<Zeroizing<String>>, StateError> {
        let Some(bytes) = self.read_secret(name)? else {
            return Ok(None);
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
            Err(_) => Err(StateError::Read {
                path: self.file(name),
                cause: io::ErrorKind::InvalidData.into(),
            }),
        }
    }

    /// Replaces a file so that a crash leaves either the former content or this one, on disk when this returns.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.replace(name, bytes, 0o644)
    }

    /// As [`StateDir::write`], readable by the owner only from the first byte on.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn write_secret(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.replace(name, bytes, 0o600)
    }

    /// Gives a file another name, in place of a file that has it. A crash leaves either, on disk when this returns.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn rename(&self, from: &str, to: &str) -> Result<(), StateError> {
        let path = self.file(to);
        fs::rename(self.file(from), &path).map_err(|cause| StateError::Write { path, cause })?;
        self.sync()
    }

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Ok(()) => self.sync(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(StateError::Write { path, cause }),
        }
    }

    /// Reads a secret of 32 bytes, drawing and keeping one at first use.
    ///
    /// # Errors
    /// As [`StateDir::read_secret`] and [`StateDir::write_secret`]; [`StateError::Torn`] when the length is another.
    pub fn secret_32(
        &self,
        name: &str,
        draw: impl FnOnce(&mut [u8]) -> Result<(), StateError>,
    ) -> Result<Zeroizing<[u8; 32]>, StateError> {
        if let Some(bytes) = self.read_secret(name)? {
            return match <[u8; 32]>::try_from(bytes.as_slice()) {
                Ok(secret) => Ok(Zeroizing::new(secret)),
                Err(_) => Err(StateError::Torn {
                    path: self.file(name),
                }),
            };
        }
        let mut secret = Zeroizing::new([0; 32]);
        draw(secret.as_mut_slice())?;
        self.write_secret(name, secret.as_slice())?;
        Ok(secret)
    }

    /// Proves that files of these names, [`ROOM`] long each, could be written and synced now, so that what cannot be kept is
    /// not begun. Nothing is changed.
    ///
    /// # Errors
    /// [`StateError::Write`] naming the first that could not.
    pub fn prove_room(&self, names: &[&str]) -> Result<(), StateError> {
        for name in names {
            let (path, temporary) = (self.file(name), temporary(&self.file(name)));
            // A rename over a folder would fail.
            let proved = if path.is_dir() {
                Err(io::ErrorKind::IsADirectory.into())
            } else {
                write_synced(&temporary, &vec![0; ROOM], 0o600)
            };
            let removed = match fs::remove_file(&temporary) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
                Ok(()) | Err(_) => Ok(()),
            };
            let failed = |cause| StateError::Write { path, cause };
            proved.and(removed).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes what processes that died in the midst of a write have left: it may hold keys. What is younger than an hour
    /// may be another process's, and what cannot be removed does no harm.
    pub fn sweep(&self) {
        let is_left_over = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(is_temporary);
            let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
            ours && age().is_some_and(|age| age > LEFT_OVER)
        };
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in entries.filter(is_left_over) {
            drop(fs::remove_file(entry.path()));
        }
    }

    fn prove_writable(&self) -> Result<(), StateError> {
        let path = temporary(&self.file("probe"));
        let failed = |cause| StateError::Write {
            path: self.path.clone(),
            cause,
        };
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        fs::remove_file(&path).map_err(failed)
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), StateError> {
        let path = self.file(name);
        put(&path, bytes, mode, |from, to| fs::rename(from, to))
            .map_err(|cause| StateError::Write { path, cause })?;
        self.sync()
    }

    pub(crate) fn sync(&self) -> Result<(), StateError> {
        sync(&self.path).map_err(|cause| StateError::Write {
            path: self.path.clone(),
            cause,
        })
    }
}

/// Writes a file that is not there yet, with the folders that it is in, so that a crash leaves all of it or nothing, on disk
/// when this returns. Tells whether it was made; one that is there stays as it is.
///
/// # Errors
/// What the system said.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    write_new_as(path, bytes, 0o644)
}

/// As [`write_new`], readable by the owner only from the first byte on.
///
/// # Errors
/// What the system said.
#[cfg(feature = "gateway")]
pub(crate) fn write_new_secret(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    write_new_as(path, bytes, 0o600)
}

fn write_new_as(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => return Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let path = std::path::absolute(path)?;
    let dir = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
    fs::create_dir_all(dir)?;
    match put(&path, bytes, mode, rename_new) {
        Ok(()) => {}
        // Somebody else's, made in the same instant.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(e) => return Err(e),
    }
    sync(dir)?;
    Ok(true)
}

/// Writes a file beside its place, and puts it there whole.
fn put(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary(path);
    let written = write_synced(&temporary, bytes, mode).and_then(|()| rename(&temporary, path));
    if written.is_err() {
        // The write has failed already; a left-over temporary file does no harm.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Gives a file another name, which no file may have yet.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot do it, such as NFS.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        renamed => Ok(renamed?),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Beside a file, as [`is_temporary`] knows them.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", Uuid::new_v4().simple()))
}

/// Holds a state folder for one process; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The folder could not be made or looked at.
    #[error(
        "cannot create the state folder {}: {cause}; choose another one or create it for this user",
        path.display()
    )]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is no folder at the path.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// What was to be the folder.
        path: PathBuf,
    },
    /// Others may write in the folder, so they may replace keys.
    #[error("others may write in the state folder {0}; close it with: chmod 700 {0}", path.display())]
    LooseFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Others may read a key.
    #[error("the secret {0} is open to its group or to others; close it with: chmod 600 {0}", path.display())]
    LooseSecret {
        /// The file.
        path: PathBuf,
    },
    /// Another process uses the folder.
    #[error("the state folder {} is in use by another adit process", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A secret that can be drawn again is not whole.
    #[error("{} is damaged; remove it, and a new one is made", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
    },
    /// A file or the folder could not be written.
    #[error(
        "cannot write {}: {cause}; see that the disk has room and that this user may write there",
        path.display()
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

fn read_bounded(
    path: &Path,
    forbidden: Option<u32>,
) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    let failed = |cause| StateError::Read {
        path: path.to_owned(),
        cause,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let meta = file.metadata().map_err(failed)?;
    if forbidden.is_some_and(|bits| meta.permissions().mode() & bits != 0) {
        return Err(StateError::LooseSecret {
            path: path.to_owned(),
        });
    }
    if meta.len() > FILE_LEN_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_LEN_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Some(bytes))
}

/// As [`temporary`] names files: `.NAME.UUID.tmp`.
fn is_temporary(name: &str) -> bool {
    let inner = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"));
    let id = inner.and_then(|inner| inner.rsplit_once('.'));
    id.is_some_and(|(_, id)| Uuid::try_parse(id).is_ok())
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

const LOCK_FILE: &str = "lock";
/// Age at which a temporary file belongs to nobody any more.
const LEFT_OVER: Duration = Duration::from_secs(3_600);
/// Longer than a key pair with its chain and whatever else an agent keeps, in bytes.
pub const ROOM: usize = 64 << 10;
/// Far above any key, certificate chain or record that is kept as a file of its own.
const FILE_LEN_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests;
