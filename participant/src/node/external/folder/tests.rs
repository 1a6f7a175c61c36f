use std::os::unix::fs::symlink;

use super::*;

fn places() -> (tempfile::TempDir, Places) {
    let directory = tempfile::tempdir().unwrap();
    let places = Places::within(directory.path());
    (directory, places)
}

fn run(text: &[u8]) -> Digest {
    Digest::of(text)
}

#[test]
fn an_interrupted_run_finds_its_state_and_no_old_results() {
    let (_directory, places) = places();
    assert!(!places.prepare(&run(b"one")).unwrap());
    let at = |name: &str| places.folder.join(name);
    for name in ["state/epoch-3", TRAINED_FILE, RESULTS_FILE, BASE_FILE] {
        fs::write(at(name), "left behind").unwrap();
    }
    assert!(places.prepare(&run(b"one")).unwrap(), "the same run is gone on with");
    assert!(at("state/epoch-3").exists() && !at(TRAINED_FILE).exists() && !at(RESULTS_FILE).exists());
    assert!(!places.prepare(&run(b"two")).unwrap(), "another run begins anew");
    assert!(!at("state/epoch-3").exists() && at(STATE_FOLDER).is_dir());
    assert!(places.prepare(&run(b"two")).unwrap());
    places.discard().unwrap();
    assert!(!places.prepare(&run(b"two")).unwrap());
    places.discard().unwrap();
    places.discard().unwrap();
}

#[test]
fn links_are_not_followed() {
    let (directory, places) = places();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let secret = outside.join("patients.csv");
    fs::write(&secret, "name,age").unwrap();
    places.prepare(&run(b"one")).unwrap();
    let at = |name: &str| places.folder.join(name);
    fs::remove_dir(at(STATE_FOLDER)).unwrap();
    symlink(&outside, at(STATE_FOLDER)).unwrap();
    for name in [TRAINED_FILE, RESULTS_FILE, BASE_FILE, CONFIGURATION_FILE] {
        symlink(&secret, at(name)).unwrap();
    }
    assert!(places.open(TRAINED_FILE).is_err() && places.read(RESULTS_FILE, 100).is_err());
    assert!(places.give_configuration("{}").is_err(), "a link was written through");

    assert!(places.prepare(&run(b"one")).unwrap());
    assert!(fs::symlink_metadata(at(STATE_FOLDER)).unwrap().is_dir());
    let base = b"weights";
    let blob = directory.path().join("blob");
    fs::write(&blob, base).unwrap();
    places.give_base(&blob, FileRef { digest: Digest::of(base), size: base.len() as u64 }).unwrap();
    places.give_configuration("{}").unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "name,age");

    // A link in the place of the folder itself.
    fs::remove_dir_all(&places.folder).unwrap();
    symlink(&outside, &places.folder).unwrap();
    assert!(!places.prepare(&run(b"one")).unwrap());
    places.discard().unwrap();
    assert!(secret.exists());
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let (_directory, places) = places();
    places.prepare(&run(b"one")).unwrap();
    let pipe = places.folder.join(RESULTS_FILE);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(places.read(RESULTS_FILE, 100).is_err());
    fs::create_dir(places.folder.join(TRAINED_FILE)).unwrap();
    assert!(places.open(TRAINED_FILE).is_err());
    assert!(places.prepare(&run(b"one")).unwrap(), "both are cleared away");
    assert_eq!(places.open(RESULTS_FILE).unwrap_err().kind(), io::ErrorKind::NotFound);

    fs::write(places.folder.join(RESULTS_FILE), vec![b'x'; 1000]).unwrap();
    assert_eq!(places.read(RESULTS_FILE, 100).unwrap().len(), 101);
}

#[test]
fn damaged_weights_are_not_given() {
    let (directory, places) = places();
    let blob = directory.path().join("blob");
    let base = FileRef { digest: Digest::of(b"weights"), size: 7 };
    for damage in [&b"weightz"[..], b"weight", b"weights and more"] {
        fs::write(&blob, damage).unwrap();
        places.prepare(&run(b"one")).unwrap();
        assert!(matches!(places.give_base(&blob, base), Err(PrepareError::Base(FileError::Damaged { .. }))));
    }
    fs::remove_file(&blob).unwrap();
    places.prepare(&run(b"one")).unwrap();
    assert!(matches!(places.give_base(&blob, base), Err(PrepareError::Base(FileError::Io { .. }))));
}
