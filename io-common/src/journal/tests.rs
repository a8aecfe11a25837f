use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

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
    let head = Head::new("gateway", "mio", 1_700_000_000_123);
    let mut journal = JournalFile::new(&folder.file(), &head, bytes_max);
    journal.start().unwrap();
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
    assert_eq!(
        recorded.head,
        Head::new("gateway", "mio", 1_700_000_000_123)
    );
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

/// What the journal of a name holds on its stream 0.
fn held(folder: &Folder, name: &str) -> Vec<u8> {
    let recorded = read(&mut &fs::read(folder.0.join(name)).unwrap()[..]).unwrap();
    assert!(recorded.is_whole, "dropping it has ended it");
    recorded.streams[&0].clone()
}

#[test]
fn former_journals_are_kept_by_number() {
    let folder = Folder::new("former");
    for records in [b"1", b"2", b"3", b"4", b"5"] {
        written(&folder, 1 << 20, &[(0, records)]);
    }
    assert_eq!(held(&folder, "journal"), b"5");
    assert_eq!(held(&folder, "journal.1"), b"4");
    assert_eq!(held(&folder, "journal.3"), b"2");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1 + KEPT as usize);
    // A gap is filled, and what lies behind it stays where it is.
    fs::remove_file(folder.0.join("journal.2")).unwrap();
    written(&folder, 1 << 20, &[(0, b"6")]);
    assert_eq!(held(&folder, "journal.2"), b"4");
    assert_eq!(held(&folder, "journal.3"), b"2");
}

#[test]
fn a_process_that_does_not_start_leaves_the_former_journal_where_it_is() {
    let folder = Folder::new("lazy");
    written(&folder, 1 << 20, &[(0, b"the incident")]);
    let head = Head::new("agent", "mio", 0);
    let journal = JournalFile::new(&folder.file(), &head, 1 << 20);
    assert!(journal.sink().take(0, b"in vain"));
    drop(journal);
    assert_eq!(held(&folder, "journal"), b"the incident");
    let mut journal = JournalFile::new(&folder.file(), &head, 1 << 20);
    assert!(journal.sink().take(0, b"before its file"));
    journal.start().unwrap();
    drop(journal);
    assert_eq!(held(&folder, "journal"), b"before its file");
    assert_eq!(held(&folder, "journal.1"), b"the incident");
}

#[test]
fn what_is_no_journal_is_left_alone() {
    let folder = Folder::new("foreign");
    let path = folder.file();
    let refused = |at: &Path| {
        let (checked, made) = (check(&path), JournalFile::create(&path, 1 << 20));
        let is_told = |error| matches!(error, CreateError::NoJournal(told) if told == at);
        (checked.is_err_and(is_told), made.is_err_and(is_told))
    };
    // A folder, as of a state with its keys.
    fs::create_dir(&path).unwrap();
    assert_eq!(refused(&path), (true, true));
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "[tunnel]\n").unwrap();
    assert_eq!(refused(&path), (true, true));
    fs::remove_file(&path).unwrap();
    // A link, even to a journal: what is moved aside would be the link.
    written(&folder, 1 << 20, &[(0, b"1")]);
    let elsewhere = folder.0.join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert_eq!(refused(&path), (true, true));
    fs::remove_file(&path).unwrap();
    // Where a former one would be kept; nothing has moved then.
    written(&folder, 1 << 20, &[(0, b"1")]);
    let kept = folder.0.join("journal.1");
    fs::write(&kept, "mine").unwrap();
    assert_eq!(refused(&kept), (false, true));
    assert_eq!(fs::read(&kept).unwrap(), b"mine");
    assert_eq!(held(&folder, "journal"), b"1");
    // An empty file is nobody's.
    fs::write(&path, "").unwrap();
    written(&folder, 1 << 20, &[(0, b"2")]);
    assert_eq!(held(&folder, "journal"), b"2");
}

#[test]
fn a_folder_that_is_none_is_told_before() {
    let folder = Folder::new("nowhere");
    fs::write(folder.0.join("file"), "").unwrap();
    let told = |name: &str| check(&folder.0.join(name)).unwrap_err();
    assert!(matches!(told("none/journal"), CreateError::Io { .. }));
    assert!(matches!(told("file/journal"), CreateError::NoFolder(_)));
    assert!(check(&folder.file()).is_ok());
    assert!(check(Path::new("a-journal-here")).is_ok());
}

#[test]
fn one_process_at_a_time_writes_a_file() {
    let folder = Folder::new("held");
    let first = JournalFile::create(&folder.file(), 200).unwrap();
    let refused = |what: &str| {
        let made = JournalFile::create(&folder.file(), 1 << 20);
        assert!(matches!(made, Err(CreateError::InUse(_))), "{what}");
    };
    refused("at work");
    assert!(!first.sink().take(0, &[0; 200]));
    refused("full");
    // Whoever reads a configuration again is no second process.
    assert!(check(&folder.file()).is_ok());
    first.finish();
    JournalFile::create(&folder.file(), 1 << 20).unwrap();
}

/// A disk that takes what is written to it when it is told to.
struct Hanging(Receiver<()>, Sender<usize>);

impl Write for Hanging {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whoever has left lets it go on.
        let _left = self.0.recv();
        let _unheard = self.1.send(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hanging() -> (JournalFile, Sender<()>, Receiver<usize>) {
    let mut journal = JournalFile::new(Path::new("none"), &Head::default(), 1 << 30);
    let ((go_on, told), (wrote, lengths)) = (channel(), channel());
    journal.write_to(Hanging(told, wrote)).unwrap();
    (journal, go_on, lengths)
}

#[test]
fn a_disk_that_hangs_does_not_keep_a_process_from_its_end() {
    let (journal, go_on, _lengths) = hanging();
    assert!(journal.sink().take(0, b"never written"));
    let began = Instant::now();
    journal.finish();
    assert!(began.elapsed() < Duration::from_secs(30));
    drop(go_on);
}

#[test]
fn what_waits_for_the_disk_is_bounded_by_bytes() {
    let (journal, go_on, lengths) = hanging();
    let sink = journal.sink();
    let record = [7; 1 << 10];
    // A stall of a second leaves far less.
    let mut taken = 0;
    while sink.take(0, &record) {
        taken += 1;
    }
    assert!(taken * record.len() > WAITING_MAX / 2, "{taken}");
    assert!(taken * record.len() < WAITING_MAX, "{taken}");
    assert!(!sink.take(1, b"x"), "nothing more, ever");
    drop(go_on);
    journal.finish();
    let written: usize = lengths.iter().sum();
    assert!(written >= taken * (record.len() + OVERHEAD));
}

#[test]
fn too_much_at_once_ends_it() {
    let folder = Folder::new("at-once");
    let (most, more) = (vec![1; CHUNK_MAX], vec![2; CHUNK_MAX + 1]);
    let (taken, bytes) = written(&folder, 1 << 30, &[(0, &most), (0, &[]), (0, &more)]);
    assert_eq!(taken, [true, true, false]);
    let recorded = read(&mut &bytes[..]).unwrap();
    assert_eq!(recorded.streams[&0], most);
    assert!(!recorded.is_whole);
}

#[test]
fn a_disk_that_fails_is_told_from_what_is_no_journal() {
    let folder = File::open(std::env::temp_dir());
    let told = read(&mut folder.unwrap()).unwrap_err();
    assert!(matches!(told, ReadError::Io(_)), "{told}");
    for none in [
        "",
        "adit jour",
        "adit journal 2 0.1.0 a b 1\n",
        "adit journal 1 0.1.0 a b\n",
    ] {
        let told = read(&mut none.as_bytes()).unwrap_err();
        assert!(matches!(told, ReadError::NoJournal), "{none:?}: {told}");
    }
}
