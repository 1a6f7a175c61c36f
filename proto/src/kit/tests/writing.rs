//! What is on disk afterwards.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn every_file_is_written_and_secrets_are_closed_to_others() {
    let folder = written();
    let out = folder.path().join("new").join("consortium");
    let provisioned = provisioned(&described()).unwrap();
    write_kits(&provisioned, &out, false).unwrap();
    for (path, file) in &provisioned.files {
        let path = out.join(path);
        assert_eq!(fs::read(&path).unwrap(), file.bytes);
        if file.secret {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        assert_eq!(mode(path.parent().unwrap()), 0o700, "{}", path.display());
    }
    assert!(!out.join("provisioning.incomplete").exists());
}

#[test]
fn a_directory_in_use_is_refused_and_untouched() {
    let folder = written();
    let before = fs::read(folder.path().join("genesis.cbor")).unwrap();
    let other = provision(&described(), &mut || [200; 32]);
    assert!(other.is_err(), "constant randomness gives the same key twice");
    let mut source = 100;
    let other = provision(&described(), &mut || {
        source += 1;
        [source; 32]
    })
    .unwrap();
    let refused = write_kits(&other, folder.path(), false);
    assert!(matches!(refused, Err(WriteError::NotEmpty { .. })), "{refused:?}");
    assert_eq!(fs::read(folder.path().join("genesis.cbor")).unwrap(), before);
}

#[test]
fn force_replaces_a_consortium_and_nothing_else() {
    let folder = written();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir(at("cleveland/replica/ledger")).unwrap();
    fs::write(at("cleveland/replica/ledger/CURRENT"), "old").unwrap();
    fs::write(at("notes.txt"), "mine").unwrap();
    let mut fewer = described();
    fewer.members.retain(|member| member.id != "budapest");
    let provisioned = provisioned(&fewer).unwrap();
    write_kits(&provisioned, folder.path(), true).unwrap();
    assert!(!at("cleveland/replica/ledger").exists() && !at("budapest").exists());
    assert_eq!(fs::read_to_string(at("notes.txt")).unwrap(), "mine");
    assert_eq!(fs::read(at("genesis.cbor")).unwrap(), provisioned.genesis.to_bytes());
}

#[test]
fn a_directory_of_somebody_else_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("cleveland")).unwrap();
    let refused = write_kits(&provisioned(&described()).unwrap(), folder.path(), true);
    assert!(matches!(refused, Err(WriteError::Foreign { .. })), "{refused:?}");
    assert!(folder.path().join("cleveland").exists());
}

#[test]
fn an_interrupted_run_is_noticed_and_can_be_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let complete = provisioned(&described()).unwrap();
    let mut failing = complete.clone();
    // The last path cannot be made, because it would lie below a file.
    let bad = KitFile { bytes: Vec::new(), secret: false };
    failing.files.insert(PathBuf::from("regulator/identity/organisation.key/x"), bad);
    let failed = write_kits(&failing, folder.path(), false);
    assert!(matches!(failed, Err(WriteError::Io { .. })), "{failed:?}");
    let refused = write_kits(&complete, folder.path(), false);
    assert!(matches!(refused, Err(WriteError::Interrupted { .. })), "{refused:?}");
    write_kits(&complete, folder.path(), true).unwrap();
    Identity::load(&folder.path().join("regulator/identity")).unwrap();
    assert!(!folder.path().join("provisioning.incomplete").exists());
}

#[test]
fn no_debug_output_shows_a_secret() {
    let provisioned = provisioned(&described()).unwrap();
    let shown = format!("{provisioned:?}");
    for file in provisioned.files.values().filter(|file| file.secret) {
        let secret = String::from_utf8(file.bytes.clone()).unwrap();
        assert!(!shown.contains(secret.trim()) && !shown.contains(&format!("{:?}", file.bytes)));
    }
}
