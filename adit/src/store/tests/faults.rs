//! Disks that fail, fill up or hang, and what is told of them.

use super::*;

#[test]
fn a_disk_without_room_is_not_sound_though_what_is_there_can_be_opened_and_read() {
    let scratch = Scratch::new();
    let store = scratch.open();
    enrol(&store, JTI, 1, 1).unwrap();
    // Nothing can be made under this name.
    let in_the_way = scratch.dir.file("store.room");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(store.is_sound(), "nobody has looked");
    fault(&scratch, &store);
    for _ in 0..2 {
        assert_eq!(store.agents().wait().unwrap().len(), 1);
        assert!(!store.is_sound());
    }
    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(store.agents().wait().unwrap().len(), 1);
    assert!(store.is_sound());
}

fn fault(scratch: &Scratch, store: &Store) {
    let path = scratch.dir.file(FILE);
    let fault = StoreError::of_file(path, redb::Error::PreviousIo);
    let failed = store.call::<()>(move |_| Err(fault)).wait().unwrap_err();
    assert!(failed.to_string().contains("room"), "{failed}");
    assert!(!store.is_sound());
}

#[test]
fn a_disk_that_hangs_is_not_sound_and_hides_nothing_that_is_known() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let kind = TokenKind::Association;
    store.use_up(kind, NOW, JTI, NOW).wait().unwrap();
    let free = blocked(&store);
    let vitals = &store.shared.vitals;
    let later = Instant::now() + vitals::HANGS_AFTER;
    assert!(store.is_sound());
    assert!(!vitals.is_sound(later));
    assert_eq!(store.used(kind), (1, USED_MAX));
    free.send(()).unwrap();
    assert!(store.agents().wait().unwrap().is_empty());
    assert!(vitals.is_sound(later));
    drop(store);
    assert_eq!(scratch.open().used(kind), (1, USED_MAX), "as on disk");
}
