//! Files that a configuration names: only regular ones are read, since a pipe or a device may never end.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::Path,
};

use rustls_pki_types::pem;

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Looked at before it is opened, since opening a pipe waits for its writer.
    if !fs::metadata(path)?.is_file() {
        let odd = "it is no regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, odd));
    }
    File::open(path)
}

/// Reads a file whole.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads every block of one kind from a PEM file.
pub(crate) fn pem<T: pem::PemObject>(path: &Path) -> Result<Vec<T>, pem::Error> {
    T::pem_reader_iter(BufReader::new(open(path).map_err(pem::Error::Io)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_never_end_is_not_opened() {
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
        assert_eq!(read(&file).unwrap(), b"text");
    }
}
