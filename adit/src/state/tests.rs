use super::*;

#[test]
fn folder_is_closed_to_others_and_secrets_too() {
    let (_root, dir) = scratch();
    dir.write_secret("k", b"secret").unwrap();
    assert_eq!(mode(dir.path()), 0o700);
    assert_eq!(mode(&dir.file("k")), 0o600);
    assert_eq!(**dir.read_secret("k").unwrap().unwrap(), *b"secret");
    assert!(dir.read_secret("absent").unwrap().is_none());
}

#[test]
fn replacing_leaves_no_temporary_files() {
    let (_root, dir) = scratch();
    dir.write("f", b"one").unwrap();
    dir.write("f", b"two").unwrap();
    assert_eq!(dir.read("f").unwrap().unwrap(), b"two");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    dir.remove("f").unwrap();
    dir.remove("f").unwrap();
    assert!(dir.read("f").unwrap().is_none());
}

#[test]
fn key_that_others_may_read_is_refused() {
    let (_root, dir) = scratch();
    dir.write_secret("k", b"secret").unwrap();
    for loose in [0o640, 0o604, 0o620] {
        fs::set_permissions(dir.file("k"), fs::Permissions::from_mode(loose)).unwrap();
        let error = dir.read_secret("k").unwrap_err();
        assert!(matches!(error, StateError::LooseSecret { .. }));
        assert!(error.to_string().contains("chmod 600"));
    }
}

#[test]
fn folder_that_others_may_write_is_refused() {
    let (_root, dir) = scratch();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = StateDir::open(dir.path()).unwrap_err();
    assert!(matches!(error, StateError::LooseFolder { .. }));
}

#[test]
fn folder_that_cannot_be_made_names_path_and_cause() {
    // `/proc` refuses new entries even to root.
    let error = StateDir::open("/proc/adit-state").unwrap_err();
    assert!(matches!(error, StateError::Create { .. }), "{error}");
    assert!(error.to_string().contains("/proc/adit-state"));
    let error = StateDir::open("/dev/null").unwrap_err();
    assert!(matches!(error, StateError::NotAFolder { .. }));
}

#[test]
fn room_is_proved_without_a_trace() {
    let (_root, dir) = scratch();
    dir.write("f", b"as it was").unwrap();
    dir.prove_room(&["f", "absent"]).unwrap();
    assert_eq!(dir.read("f").unwrap().unwrap(), b"as it was");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::create_dir(dir.file("folder")).unwrap();
    let error = dir.prove_room(&["f", "folder"]).unwrap_err().to_string();
    assert!(error.contains("state/folder: is a directory"), "{error}");
    fs::remove_dir_all(dir.path()).unwrap();
    let error = dir.prove_room(&["f"]).unwrap_err().to_string();
    assert!(error.contains("state/f"), "{error}");
    assert!(error.contains("the disk has room"), "{error}");
}

#[test]
fn what_a_process_that_died_has_left_is_swept() {
    let (_root, dir) = scratch();
    let leave = |path: &Path, age_s: u64| {
        let file = File::create(path).unwrap();
        let then = std::time::SystemTime::now() - Duration::from_secs(age_s);
        file.set_modified(then).unwrap();
    };
    let (old, young) = (temporary(&dir.file("key")), temporary(&dir.file("key")));
    leave(&old, 3_700);
    leave(&young, 3_500);
    let others = ["key", ".key.tmp", ".key.x.tmp", "key.tmp"].map(|name| dir.file(name));
    for other in &others {
        leave(other, 1_000_000);
    }
    let again = StateDir::open(dir.path()).unwrap();
    assert!(!old.exists());
    assert!(young.exists() && others.iter().all(|path| path.exists()));
    again.sweep();
    assert!(young.exists());
}

#[test]
fn lock_has_one_holder() {
    let (_root, dir) = scratch();
    let held = dir.lock().unwrap();
    assert!(matches!(dir.lock(), Err(StateError::Locked { .. })));
    drop(held);
    drop(dir.lock().unwrap());
}

#[test]
fn secret_is_drawn_once() {
    let (_root, dir) = scratch();
    let first = dir
        .secret_32("s", |out| {
            out.fill(7);
            Ok(())
        })
        .unwrap();
    let second = dir.secret_32("s", |_| panic!("drawn again")).unwrap();
    assert_eq!(*first, *second);
    dir.write_secret("s", b"short").unwrap();
    assert!(dir.secret_32("s", |_| Ok(())).is_err());
}

fn scratch() -> (tempfile::TempDir, StateDir) {
    let root = tempfile::tempdir().unwrap();
    let dir = StateDir::open(root.path().join("a/state")).unwrap();
    (root, dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
