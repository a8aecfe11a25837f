//! A disk that forgets what was not synced.
//!
//! One flat directory of files. The running system sees every change at once; a [crash](Disk::crash) leaves what is
//! durable, and of the rest what the choices say:
//!
//! * *Content.* [`Disk::sync`] makes a file's whole content durable. A crash leaves each other file with its content as
//!   of the last sync, or with its latest content, or torn: with a beginning of the latest content, alone or filled up to
//!   the full length with zeros or garbage. What was synced and only appended to since is never torn itself; what was
//!   written anew since may be, down to nothing.
//! * *Names.* Creating, renaming and removing are durable after [`Disk::sync_dir`]. Of those since then, a crash leaves
//!   any subset done, whether or not the content was synced. Each by itself is atomic: a renamed file has its old name or
//!   its new one, and a name that it replaces is never missing.
//! * Syncing a file does not make its name durable, and syncing the names does no content.
//!
//! After a crash everything left is durable, and files without a name are gone. Not imitated: a content between the last
//! sync and the latest one that comes back, holes in the middle of a content, a full disk, and failures of the medium.

use std::collections::{BTreeMap, BTreeSet};

use crate::choices::Choices;

/// The disk of one machine.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<FileId, File>,
    next_id: u64,
    /// What the running system sees.
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    /// What was done to the names since they were synced, oldest first.
    pending: Vec<NameChange>,
}

/// One file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

#[derive(Clone, Debug, Default)]
struct File {
    content: Vec<u8>,
    durable: Durable,
}

#[derive(Clone, Debug)]
enum Durable {
    /// So many bytes of the content's beginning; the rest was appended since.
    Beginning(usize),
    /// Another content, which the file had before it was written anew.
    Former(Vec<u8>),
}

#[derive(Clone, Debug)]
enum NameChange {
    /// The file has this name from then on, and no other.
    Give(String, FileId),
    Remove(String),
}

impl Disk {
    /// Gives an empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a file anew, and creates it where there is none.
    pub fn write(&mut self, name: &str, bytes: &[u8]) {
        self.open(name).write(bytes);
    }

    /// Appends to a file, and creates it where there is none.
    pub fn append(&mut self, name: &str, bytes: &[u8]) {
        self.open(name).content.extend_from_slice(bytes);
    }

    fn open(&mut self, name: &str) -> &mut File {
        let file = match self.names.get(name) {
            Some(file) => *file,
            None => {
                let file = FileId(self.next_id);
                self.next_id += 1;
                self.change(NameChange::Give(name.to_owned(), file));
                file
            }
        };
        self.files.entry(file).or_default()
    }

    /// Renames a file; one that had the name before is replaced. Tells whether there was a file to rename.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(file) = self.names.get(from).copied() else {
            return false;
        };
        self.change(NameChange::Give(to.to_owned(), file));
        true
    }

    /// Removes a file. Tells whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let known = self.names.contains_key(name);
        if known {
            self.change(NameChange::Remove(name.to_owned()));
        }
        known
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    /// Reads a file as the running system sees it.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.files.get(self.names.get(name)?)?;
        Some(file.content.clone())
    }

    /// Lists the files as the running system sees them, in the order of their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Makes the content of a file durable, though not its name. Tells whether there is such a file.
    pub fn sync(&mut self, name: &str) -> bool {
        let file = self.names.get(name).and_then(|id| self.files.get_mut(id));
        file.map(File::sync).is_some()
    }

    /// Makes all names durable, though not what the files hold.
    pub fn sync_dir(&mut self) {
        self.durable_names.clone_from(&self.names);
        self.settle();
    }

    /// Ends the running system, and leaves what the next one finds.
    pub fn crash(&mut self, choices: &mut Choices) {
        let names = Survival::draw(choices);
        for change in &self.pending {
            if names.keeps(choices) {
                change.apply(&mut self.durable_names);
            }
        }
        self.names.clone_from(&self.durable_names);
        self.settle();
        let contents = Survival::draw(choices);
        for file in self.files.values_mut() {
            if contents.keeps(choices) {
                file.sync();
            } else {
                file.crash(choices);
            }
        }
    }

    /// Ends what was pending, and drops the files without a name.
    fn settle(&mut self) {
        self.pending.clear();
        let named: BTreeSet<FileId> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
    }
}

impl File {
    fn write(&mut self, bytes: &[u8]) {
        if let Durable::Beginning(len) = self.durable {
            self.content.truncate(len);
            self.durable = Durable::Former(std::mem::take(&mut self.content));
        }
        bytes.clone_into(&mut self.content);
    }

    fn sync(&mut self) {
        self.durable = Durable::Beginning(self.content.len());
    }

    /// Loses or tears what is not durable.
    fn crash(&mut self, choices: &mut Choices) {
        let torn = choices.chance(500);
        match &mut self.durable {
            Durable::Beginning(len) if !torn => self.content.truncate(*len),
            Durable::Former(former) if !torn => self.content = std::mem::take(former),
            Durable::Beginning(len) => tear(&mut self.content, *len, choices),
            Durable::Former(_) => tear(&mut self.content, 0, choices),
        }
        self.sync();
    }
}

impl Default for Durable {
    fn default() -> Self {
        Self::Beginning(0)
    }
}

impl NameChange {
    /// Does the change. After a crash, those before it may not have been done.
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Self::Give(name, file) => {
                names.retain(|_, named| named != file);
                names.insert(name.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// How much of what was not synced survives a crash. All and nothing are likelier than chance would have them, because
/// either is what most crashes leave.
#[derive(Clone, Copy, Debug)]
enum Survival {
    Nothing,
    Everything,
    Some,
}

impl Survival {
    fn draw(choices: &mut Choices) -> Self {
        *choices.pick(&[Self::Nothing, Self::Everything, Self::Some, Self::Some])
    }

    fn keeps(self, choices: &mut Choices) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some => choices.chance(500),
        }
    }
}

/// Leaves a beginning of the content, at least so long, and perhaps fills up the rest.
fn tear(content: &mut Vec<u8>, firm: usize, choices: &mut Choices) {
    let len = content.len();
    content.truncate(firm + choices.index(len - firm + 1));
    let filler = match choices.index(3) {
        0 => return,
        1 => [0; 32],
        _ => choices.key(),
    };
    let missing = len - content.len();
    content.extend(filler.iter().cycle().take(missing));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_system_sees_every_change_at_once() {
        let mut disk = Disk::new();
        disk.write("a", b"one");
        disk.append("a", b" two");
        assert_eq!(disk.read("a").unwrap(), b"one two");
        disk.write("b", b"other");
        assert!(disk.rename("a", "b"));
        assert_eq!(disk.read("a"), None);
        assert_eq!(disk.read("b").unwrap(), b"one two");
        assert_eq!(disk.names().collect::<Vec<_>>(), ["b"]);
        assert!(disk.remove("b"));
        assert_eq!(disk.read("b"), None);
        assert!(!disk.remove("b") && !disk.rename("b", "a") && !disk.sync("b"));
    }

    #[test]
    fn what_is_synced_survives_every_crash() {
        let mut disk = Disk::new();
        disk.write("a", b"content");
        disk.append("a", b" and more");
        assert!(disk.sync("a"));
        disk.sync_dir();
        for left in crashes(&disk) {
            assert_eq!(left.unwrap(), b"content and more");
        }
        disk.append("a", b", not synced");
        for left in crashes(&disk) {
            assert!(left.unwrap().starts_with(b"content and more"));
        }
    }

    #[test]
    fn what_is_written_anew_is_the_old_the_new_or_torn() {
        let (old, new) = (b"the old content".to_vec(), b"new content".to_vec());
        let mut disk = Disk::new();
        disk.write("a", &old);
        disk.sync("a");
        disk.sync_dir();
        disk.write("a", b"between");
        disk.write("a", &new);
        let left: Vec<Vec<u8>> = crashes(&disk).map(Option::unwrap).collect();
        let (mut short, mut zeros, mut garbage) = (0, 0, 0);
        for torn in left.iter().filter(|left| **left != old && **left != new) {
            let same = torn.iter().zip(&new).take_while(|(a, b)| a == b).count();
            match &torn[same..] {
                [] => short += 1,
                rest if rest.iter().all(|byte| *byte == 0) => zeros += 1,
                _ => garbage += 1,
            }
            assert!(same == torn.len() || torn.len() == new.len());
        }
        assert!(left.contains(&old) && left.contains(&new));
        assert!(short > 50 && zeros > 50 && garbage > 50);
    }

    #[test]
    fn what_is_appended_is_lost_kept_or_torn() {
        let mut disk = Disk::new();
        disk.write("a", b"log: ");
        disk.sync("a");
        disk.sync_dir();
        disk.append("a", b"record");
        let left: Vec<Vec<u8>> = crashes(&disk).map(Option::unwrap).collect();
        for expected in ["log: ", "log: record", "log: rec", "log: rec\0\0\0"] {
            assert!(left.contains(&expected.as_bytes().to_vec()), "{expected}");
        }
    }

    #[test]
    fn names_that_were_not_synced_may_or_may_not_be_there() {
        let mut disk = Disk::new();
        disk.write("kept", b"1");
        disk.sync("kept");
        disk.sync_dir();
        disk.write("a", b"2");
        disk.sync("a");
        disk.rename("a", "b");
        disk.remove("kept");
        let mut left = BTreeSet::new();
        for seed in 0..RUNS {
            let mut disk = disk.clone();
            disk.crash(&mut Choices::from_seed(seed));
            left.insert(disk.names().collect::<Vec<_>>().join(" "));
        }
        let all = ["", "a", "a kept", "b", "b kept", "kept"];
        assert_eq!(left.iter().map(String::as_str).collect::<Vec<_>>(), all);
    }

    #[test]
    fn a_file_never_has_two_names() {
        let mut disk = Disk::new();
        disk.write("a", b"1");
        disk.sync("a");
        disk.rename("a", "b");
        disk.rename("b", "c");
        for seed in 0..RUNS {
            let mut disk = disk.clone();
            disk.crash(&mut Choices::from_seed(seed));
            assert!(disk.names().count() <= 1);
        }
    }

    #[test]
    fn after_a_crash_everything_left_is_durable() {
        for seed in 0..RUNS {
            let mut choices = Choices::from_seed(seed);
            let mut disk = Disk::new();
            disk.write("a", b"content");
            disk.write("b", b"content");
            disk.rename("b", "c");
            disk.crash(&mut choices);
            let first: Vec<_> = ["a", "b", "c"].map(|name| disk.read(name)).into();
            disk.crash(&mut choices);
            let second: Vec<_> = ["a", "b", "c"].map(|name| disk.read(name)).into();
            assert_eq!(first, second);
        }
    }

    #[test]
    fn a_file_replaced_with_care_is_the_old_or_the_new_in_full() {
        let mut disk = replaceable();
        let steps: [fn(&mut Disk); 4] = [
            |disk| disk.write("a.tmp", b"new"),
            |disk| assert!(disk.sync("a.tmp")),
            |disk| assert!(disk.rename("a.tmp", "a")),
            Disk::sync_dir,
        ];
        let (mut old, mut new) = (0, 0);
        for step in steps {
            step(&mut disk);
            for left in crashes(&disk) {
                match &left.unwrap()[..] {
                    b"old" => old += 1,
                    b"new" => new += 1,
                    torn => panic!("torn: {torn:?}"),
                }
            }
        }
        assert!(old > 2 * RUNS && new > RUNS, "{old} old, {new} new");
        assert!(crashes(&disk).all(|left| left.as_deref() == Some(b"new")));
    }

    #[test]
    fn a_file_replaced_without_its_sync_is_sometimes_torn() {
        let mut disk = replaceable();
        disk.write("a.tmp", b"new");
        disk.rename("a.tmp", "a");
        disk.sync_dir();
        let torn = crashes(&disk).filter(|left| left.as_deref() != Some(b"new"));
        let torn = torn.count() as u64;
        assert!(torn > RUNS / 4, "{torn}");
    }

    #[test]
    fn equal_choices_leave_equal_disks() {
        let mut disk = replaceable();
        disk.append("a", &[7; 100]);
        assert!(crashes(&disk).eq(crashes(&disk)));
    }

    const RUNS: u64 = 1_000;

    fn replaceable() -> Disk {
        let mut disk = Disk::new();
        disk.write("a", b"old");
        disk.sync("a");
        disk.sync_dir();
        disk
    }

    /// What many different crashes leave of the file "a".
    fn crashes(disk: &Disk) -> impl Iterator<Item = Option<Vec<u8>>> {
        (0..RUNS).map(|seed| {
            let mut disk = disk.clone();
            disk.crash(&mut Choices::from_seed(seed));
            disk.read("a")
        })
    }
}
