use std::{fs, path::PathBuf};

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("journal")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn written(folder: &Folder, bytes_max: u64, chunks: &[(u64, &[u8])]) -> (Vec<bool>, Vec<u8>) {
    let journal = JournalFile::create(&folder.file(), bytes_max).unwrap();
    let sink = journal.sink();
    let take = |(stream, records): &(u64, &[u8])| sink.take(*stream, records);
    let taken = chunks.iter().map(take).collect();
    journal.finish();
    assert!(!sink.take(9, b"late"), "after its end");
    (taken, fs::read(folder.file()).unwrap())
}

#[test]
fn what_is_written_is_read() {
    let folder = Folder::new("written");
    let (taken, bytes) = written(&folder, 1 << 20, &[(0, b"ab"), (1, b"c"), (0, b"d")]);
    assert_eq!(taken, [true; 3]);
    let recorded = read(&mut &bytes[..]).unwrap();
    assert_eq!(recorded.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(recorded.streams[&0], b"abd");
    assert_eq!(recorded.streams[&1], b"c");
    assert!(recorded.is_whole);
}

#[test]
fn it_grows_no_larger_than_it_may_and_what_fitted_is_good() {
    let folder = Folder::new("bounded");
    let (taken, bytes) = written(&folder, 200, &[(0, &[1; 60]), (0, &[2; 60]), (1, &[3; 9])]);
    assert_eq!(taken, [true, false, false]);
    assert!(bytes.len() <= 200);
    let recorded = read(&mut &bytes[..]).unwrap();
    assert_eq!(recorded.streams[&0], [1; 60]);
    assert!(!recorded.is_whole);
}

#[test]
fn whatever_is_changed_is_noticed() {
    let folder = Folder::new("changed");
    let (_, bytes) = written(&folder, 1 << 20, &[(0, b"ab"), (1, b"c"), (0, b"d")]);
    let whole = read(&mut &bytes[..]).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[at] ^= 1 << bit;
            let noticed = match read(&mut &other[..]) {
                Ok(recorded) => !recorded.is_whole,
                Err(_) => true,
            };
            assert!(noticed, "bit {bit} of byte {at}");
        }
    }
    for len in 0..bytes.len() {
        let cut = read(&mut &bytes[..len]);
        assert!(cut.is_err() || cut.is_ok_and(|cut| !cut.is_whole && cut != whole));
    }
    let more = [&bytes[..], b"x"].concat();
    assert!(matches!(
        read(&mut &more[..]),
        Err(ReadError::Changed { .. })
    ));
}

#[test]
fn chunks_that_changed_places_are_noticed() {
    let folder = Folder::new("moved");
    let (_, bytes) = written(&folder, 1 << 20, &[(0, b"ab"), (1, b"cd")]);
    let head = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let one = OVERHEAD + 2;
    let moved = [
        &bytes[..head],
        &bytes[head + one..head + 2 * one],
        &bytes[head..head + one],
        &bytes[head + 2 * one..],
    ]
    .concat();
    let error = read(&mut &moved[..]).unwrap_err();
    assert!(matches!(error, ReadError::Changed { at } if at == head as u64));
}

#[test]
fn a_former_journal_is_kept_once() {
    let folder = Folder::new("former");
    for records in [b"1", b"2", b"3"] {
        let (_, _) = written(&folder, 1 << 20, &[(0, records)]);
    }
    let read = |name: &str| read(&mut &fs::read(folder.0.join(name)).unwrap()[..]).unwrap();
    assert_eq!(read("journal").streams[&0], b"3");
    assert_eq!(read("journal.1").streams[&0], b"2");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);
}
