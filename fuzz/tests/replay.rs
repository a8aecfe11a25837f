//! What fuzzing found so far: the minimised corpora, and every input that once broke a property.

use std::{fs, path::Path};

use adit_fuzz::{TARGETS, archive};

#[test]
fn corpora_hold_every_property() {
    for (name, target) in TARGETS {
        let path = root().join("corpora").join(name).with_extension("bin");
        let packed = fs::read(path).unwrap();
        let inputs = archive::unpack(&packed).unwrap();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        inputs.into_iter().for_each(target);
    }
}

#[test]
fn what_once_failed_holds() {
    for entry in fs::read_dir(root().join("regressions")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "bin") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        // `<target>-<what was wrong>.bin`
        let target = name.split('-').next().unwrap();
        let (_, run) = TARGETS.iter().find(|(known, _)| *known == target).unwrap();
        run(&fs::read(&path).unwrap());
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
