//! Which crate may depend on which: the line of crates in ARCHITECTURE.md, checked in the manifests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use toml::Table;

/// The crates of the workspace, each with the others that it may use.
const LAYERS: [(&str, &[&str]); 7] = [
    ("ledger", &[]),
    ("federation", &["ledger"]),
    ("proto", &["ledger", "federation"]),
    ("coordinator", &["ledger", "federation", "proto"]),
    ("participant", &["ledger", "federation", "proto"]),
    ("simulations", &["ledger", "federation", "proto", "coordinator", "participant"]),
    ("cli", &["ledger", "federation", "proto", "coordinator", "participant", "simulations"]),
];

/// Everything else that the pure crates may use. None of it opens sockets or runs tasks; `rocksdb` is for the storage seam,
/// and `rayon` runs in its caller's pool.
const PURE: [(&str, &[&str]); 2] = [
    (
        "ledger",
        &[
            "base64",
            "ed25519-dalek",
            "hex",
            "protobuf",
            "raft",
            "rocksdb",
            "serde",
            "serde_bytes",
            "serde_ipld_dagcbor",
            "sha2",
            "slog",
            "thiserror",
            "tracing",
        ],
    ),
    (
        "federation",
        &[
            "cid",
            "half",
            "hex",
            "multihash",
            "rand_chacha",
            "rayon",
            "safetensors",
            "serde",
            "serde_bytes",
            "serde_ipld_dagcbor",
            "serde_json",
            "sha2",
            "thiserror",
        ],
    ),
];

/// What only one crate may use, so that its types stop there.
const CONFINED: [(&str, &str); 6] = [
    ("rocksdb", "ledger"),
    ("raft", "ledger"),
    ("protobuf", "ledger"),
    ("prost", "proto"),
    ("tonic-prost", "proto"),
    ("candle-core", "participant"),
];

const OURS: &str = "fedledger-";

/// The sections whose crates are part of what is built.
const BUILT: [&str; 2] = ["dependencies", "build-dependencies"];

#[test]
fn crates_depend_along_the_line() {
    for (name, allowed) in LAYERS {
        let manifest = manifest(name);
        // Tests follow the line as well.
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let used = names(&manifest, section);
            let ours = used.iter().filter_map(|dependency| dependency.strip_prefix(OURS));
            for other in ours.filter(|other| *other != name) {
                assert!(allowed.contains(&other), "{name} must not depend on {other}: see ARCHITECTURE.md");
            }
        }
    }
}

#[test]
fn every_crate_has_its_place_in_the_line() {
    let root = read("Cargo.toml");
    let members = root["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<&str> = members.iter().map(|member| member.as_str().unwrap()).collect();
    let placed: BTreeMap<&str, &[&str]> = LAYERS.into();
    assert_eq!(members, placed.keys().copied().collect());
    for name in members {
        assert_eq!(manifest(name)["package"]["name"].as_str(), Some(format!("{OURS}{name}").as_str()));
        assert_eq!(
            manifest(name)["lints"]["workspace"].as_bool(),
            Some(true),
            "{name} must take the workspace's lints"
        );
    }
}

#[test]
fn pure_crates_use_nothing_that_does_io_or_waits() {
    for (name, allowed) in PURE {
        let manifest = manifest(name);
        let used = BUILT.iter().flat_map(|section| names(&manifest, section));
        for dependency in used.filter(|dependency| !dependency.starts_with(OURS)) {
            assert!(allowed.contains(&dependency.as_str()), "{dependency} is new to the pure crate {name}");
        }
    }
}

#[test]
fn types_that_are_confined_stay_where_they_belong() {
    for (name, _) in LAYERS {
        let manifest = manifest(name);
        let used: BTreeSet<String> = BUILT.iter().flat_map(|section| names(&manifest, section)).collect();
        for (dependency, home) in CONFINED {
            assert_eq!(used.contains(dependency), name == home, "{dependency} belongs to {home}: {name} disagrees");
        }
    }
}

#[test]
fn the_federation_does_not_know_how_order_is_reached() {
    let mut files = Vec::new();
    rust_files(&root().join("federation/src"), &mut files);
    assert!(files.len() > 20, "only {} files were found", files.len());
    for (path, text) in files {
        for module in ["consensus::", "replica::", "storage::rocks"] {
            assert!(!text.contains(module), "{path} must not use {module}");
        }
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &str) -> Table {
    fs::read_to_string(root().join(path)).unwrap().parse().unwrap()
}

fn manifest(name: &str) -> Table {
    read(&format!("{name}/Cargo.toml"))
}

/// Names in a section, those for some platforms only included.
fn names(manifest: &Table, section: &str) -> Vec<String> {
    let platforms = manifest.get("target").and_then(|target| target.as_table());
    let platforms = platforms.into_iter().flat_map(|target| target.values().filter_map(|platform| platform.as_table()));
    let sections = std::iter::once(manifest).chain(platforms).filter_map(|table| table.get(section)?.as_table());
    sections.flat_map(|section| section.keys().cloned()).collect()
}

fn rust_files(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}
