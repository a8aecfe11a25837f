//! Files that a configuration names: only regular ones are read, since a pipe or a device may never end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::OFlags;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use zeroize::Zeroizing;

/// What can stand in a PEM file, in words.
pub(crate) trait Block: PemObject {
    const NAME: &'static str;
    const BEGIN: &'static str;
}

impl Block for CertificateDer<'static> {
    const NAME: &'static str = "certificate";
    const BEGIN: &'static str = "-----BEGIN CERTIFICATE-----";
}

impl Block for PrivateKeyDer<'static> {
    const NAME: &'static str = "private key";
    const BEGIN: &'static str = "-----BEGIN PRIVATE KEY-----";
}

/// A PEM file is of no use: its author's fault. None of it tells what the file holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It holds no block of the kind that is needed.
    #[error("it holds no {name}, which begins with `{begin}`")]
    NoBlock {
        /// What is needed.
        name: &'static str,
        /// How that begins.
        begin: &'static str,
    },
    /// A block has no end.
    #[error("a block in it has no `-----END ...-----`; it was cut off")]
    CutOff,
    /// It is no PEM.
    #[error("a block in it is damaged: {0}")]
    Damaged(&'static str),
}

/// Opens a file for reading; nothing is waited for.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // A regular file takes no heed of either flag. Without them, a pipe waits for its writer, and a terminal may become this
    // process's own.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = flags.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    // What is at the path may be another file by now.
    if !file.metadata()?.is_file() {
        let odd = "it is no regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, odd));
    }
    Ok(file)
}

/// The bits that tell who may do what with an open file.
pub(crate) fn mode(file: &File) -> io::Result<u32> {
    Ok(file.metadata()?.permissions().mode())
}

/// Reads an open file whole; one of more than 16 MiB is refused.
pub(crate) fn read_open(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let len = file.metadata()?.len();
    let room = usize::try_from(len.min(LEN_MAX)).unwrap_or_default();
    // With room for all of it, no copy of a secret is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LEN_MAX {
        let long = "it is longer than 16 MiB";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, long));
    }
    Ok(bytes)
}

/// Reads a file whole; one of more than 16 MiB is refused.
pub(crate) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read_open(open(path)?)
}

/// Reads every block of one kind from a PEM file: one at least.
pub(crate) fn pem<T: Block>(path: &Path) -> Result<Vec<T>, PemError> {
    let bytes = read(path)?;
    let blocks: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&bytes).collect();
    let blocks = blocks.map_err(|error| match error {
        pem::Error::MissingSectionEnd { .. } => PemError::CutOff,
        pem::Error::Base64Decode(_) => PemError::Damaged("it is not base64"),
        pem::Error::IllegalSectionStart { .. } => {
            PemError::Damaged("its first line does not end in `-----`")
        }
        // A slice is not read, and no items are no error of its iterator.
        pem::Error::SectionTooLarge | pem::Error::Io(_) | pem::Error::NoItemsFound | _ => {
            PemError::Damaged("it is not PEM")
        }
    })?;
    match blocks.is_empty() {
        true => Err(no_block::<T>()),
        false => Ok(blocks),
    }
}

/// Reads the first block of one kind from a PEM file.
pub(crate) fn first_pem<T: Block>(path: &Path) -> Result<T, PemError> {
    let first = pem(path)?.into_iter().next();
    first.ok_or_else(no_block::<T>)
}

fn no_block<T: Block>() -> PemError {
    PemError::NoBlock {
        name: T::NAME,
        begin: T::BEGIN,
    }
}

/// More than any list of users or of CAs; what is longer was named by mistake.
const LEN_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_may_never_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for odd in [&*pipe, dir.path(), Path::new("/dev/zero")] {
            let error = read(odd).unwrap_err();
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        assert_eq!(**read(&file).unwrap(), *b"text");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(LEN_MAX).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, LEN_MAX);
        file.set_len(LEN_MAX + 1).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("longer than 16 MiB"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_pem_file_is_said_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.pem");
        let begin = CertificateDer::BEGIN;
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (text, said) in [
            ("".to_owned(), "holds no certificate, which begins with"),
            (key.to_owned(), "holds no certificate, which begins with"),
            (format!("{begin}\nAAAA\n"), "was cut off"),
            (
                format!("{begin}\n!\n-----END CERTIFICATE-----\n"),
                "not base64",
            ),
            ("-----BEGIN CERTIFICATE\n".to_owned(), "first line"),
        ] {
            fs::write(&path, text).unwrap();
            let error = pem::<CertificateDer<'static>>(&path).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        fs::write(&path, key).unwrap();
        assert_eq!(pem::<PrivateKeyDer<'static>>(&path).unwrap().len(), 1);
    }
}
