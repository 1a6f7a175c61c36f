//! Running fuzz targets without a fuzzer, for the tests of every crate that has some.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Changed bits, and shortened forms, of every seed.
const CHANGES: usize = 64;

/// A target's name and its function.
type Target = (&'static str, fn(&[u8]));

/// Calls every target of the crate at `root` with each of its seeds, and with many changes of it.
pub fn seeds(root: &str, targets: &[Target]) {
    for (name, run) in targets {
        let seeds = files(&Path::new(root).join("fuzz/seeds").join(name));
        assert!(!seeds.is_empty(), "the target {name} has no seeds");
        for path in seeds {
            // Shown if what follows fails.
            println!("{}", path.display());
            let seed = fs::read(&path).unwrap();
            run(&seed);
            for step in 0..CHANGES {
                let place = seed.len() * step / CHANGES;
                run(&seed[..place]);
                let mut changed = seed.clone();
                if let Some(byte) = changed.get_mut(place) {
                    *byte ^= 1 << (step % 8);
                }
                run(&changed);
            }
        }
    }
}

/// Checks that the fuzzer can call every target of the crate at `root`, and nothing that is none.
pub fn entry_points(root: &str, targets: &[Target]) {
    let folder = Path::new(root).join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let listed: BTreeSet<_> = targets.iter().map(|(name, _)| (*name).to_owned()).collect();
    let entry_points = files(&folder.join("fuzz_targets"));
    let named = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    assert_eq!(listed, entry_points.iter().map(named).collect());
    for path in entry_points {
        let name = named(&path);
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is missing in fuzz/Cargo.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("fuzz::{name}::run(data)")), "{} calls something else", path.display());
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
