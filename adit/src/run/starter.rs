//! The configuration file to begin with that `gateway init` and `agent up` write.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::state::write_new;

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
        // A part of it would be taken for an operator's.
        let is_new = write_new(&path, text.as_bytes()).map_err(|error| {
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

#[cfg(test)]
mod tests {
    use std::{fs, mem::MaybeUninit, sync::Barrier, thread};

    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

    use super::*;

    #[test]
    fn a_starter_is_there_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent.toml");
        let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        add_watch(
            &watch,
            root.path(),
            WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO,
        )
        .unwrap();
        let write = || Starter::write(Some(path.clone()), "state_dir = STATE\n", root.path(), &[]);
        assert!(write().unwrap().is_new);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("state_dir = {:?}\n", root.path()));
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(watch, &mut buffer);
        let mut seen = Vec::new();
        while let Ok(event) = events.next() {
            if event.file_name() == Some(c"agent.toml") {
                seen.push(event.events());
            }
        }
        assert_eq!(seen, [ReadFlags::MOVED_TO]);
        // One that is there is an operator's.
        fs::write(&path, "mine").unwrap();
        assert!(!write().unwrap().is_new);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_starters_that_are_written_at_once_one_is_there() {
        const WRITERS: usize = 8;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent.toml");
        let all_are_here = Barrier::new(WRITERS);
        let write = |text: String| {
            all_are_here.wait();
            let written = Starter::write(Some(path.clone()), &text, root.path(), &[]);
            written.unwrap().is_new.then_some(text)
        };
        let made: Vec<String> = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|n| scope.spawn(move || write(n.to_string())))
                .collect();
            let texts = writers.into_iter().map(|writer| writer.join().unwrap());
            texts.flatten().collect()
        });
        assert_eq!(made, [fs::read_to_string(&path).unwrap()]);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
