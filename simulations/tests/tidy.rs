//! House rules that no lint knows. CONTRIBUTING.md gives the reasons.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a file, tests aside.
const LINES_MAX: usize = 500;

/// Files above [`LINES_MAX`] and their lines. The list may only shrink.
const LONG_FILES: [(&str, usize); 0] = [];

/// Names that say nothing about what a module holds, so that everything ends up in it.
const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];

/// Tests that run only on demand, and how many of them there are. The list may only shrink.
const IGNORED_TESTS: [(&str, usize); 1] = [("federation/tests/history/tampering.rs", 1)];

/// Folders that hold no code or prose of ours.
const FOREIGN: [&str; 3] = ["target", "third_party", "fuzz"];

#[test]
fn files_are_short() {
    let mut long: BTreeMap<&str, usize> = LONG_FILES.into();
    for (path, text) in files("rs") {
        let lines = code_lines(&text);
        if is_test(&path) || lines <= LINES_MAX {
            continue;
        }
        match long.remove(path.as_str()) {
            Some(listed) => assert!(lines <= listed, "{path} has grown from {listed} to {lines} lines: split it"),
            None => panic!("{path} has {lines} lines, at most {LINES_MAX} are wanted: split it by subject"),
        }
    }
    assert!(long.is_empty(), "strike from LONG_FILES, they are short now: {long:?}");
}

#[test]
fn modules_have_names_that_say_something() {
    for (path, _) in files("rs") {
        let path = Path::new(&path);
        let parts = path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs"));
        for part in parts {
            assert!(!EMPTY_NAMES.contains(&part), "{}: {part:?} says nothing, name the subject", path.display());
        }
        assert!(!path.ends_with("mod.rs"), "{}: a module's file stands beside its folder", path.display());
    }
}

#[test]
fn queues_are_bounded() {
    for (path, text) in files("rs") {
        if !is_test(&path) {
            for unbounded in ["unbounded_channel", "unbounded()"] {
                assert!(!text.contains(unbounded), "{path}: a queue without a bound takes all memory in the end");
            }
        }
    }
}

#[test]
fn tests_neither_sleep_nor_are_skipped() {
    let mut listed: BTreeMap<&str, usize> = IGNORED_TESTS.into();
    for (path, text) in files("rs") {
        if path.ends_with("tidy.rs") {
            continue;
        }
        let ignored = text.matches("#[ignore").count();
        let allowed = listed.remove(path.as_str()).unwrap_or_default();
        assert!(ignored <= allowed, "{path} has {ignored} ignored tests: a test that does not run protects nothing");
        assert!(ignored == allowed, "{path} has {ignored} ignored tests, IGNORED_TESTS says {allowed}");
        if is_test(&path) {
            assert!(!sleeps(&text), "{path}: wait for a condition, not for a time");
        }
    }
    assert!(listed.is_empty(), "strike from IGNORED_TESTS: {listed:?}");
}

#[test]
fn every_document_has_one_title() {
    let documents = files("md");
    assert!(documents.iter().any(|(path, _)| path == "README.md"));
    for (path, text) in documents {
        assert_eq!(titles(&text), 1, "{path} must have exactly one heading of the first level");
    }
}

#[test]
fn documents_link_to_what_is_there() {
    let root = root();
    for (path, text) in files("md") {
        let folder = root.join(&path).parent().unwrap().to_owned();
        for target in links(&text) {
            assert!(folder.join(target).exists(), "{path} links to {target}, which is not there");
        }
    }
}

#[test]
fn the_rules_themselves_work() {
    assert_eq!(titles("# One\n```sh\n# a comment\n```\n## Two\n# Three\n"), 2);
    let text = "see [a](b.md#c), [d](https://e.example), [f](#g) and [`h`](i/j.rs)";
    assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "i/j.rs"]);
    assert!(sleeps("thread::sleep(a);") && !sleeps("point=1*sleep(500)"));
    assert_eq!(code_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(code_lines("a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
}

/// Lines before the tests that end a file.
fn code_lines(text: &str) -> usize {
    text.find("\n#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..=end]).lines().count()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/")
}

/// Headings of the first level, code blocks aside.
fn titles(text: &str) -> usize {
    let outside = text.split("\n```").step_by(2);
    outside.flat_map(str::lines).filter(|line| line.starts_with("# ")).count()
}

/// Targets of links to files.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let files = targets.filter_map(|(target, _)| target.split('#').next());
    files.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Our files with this extension: path from the root of the repository, and text.
fn files(extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root(), extension, &mut found);
    assert!(!found.is_empty());
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            // Only folders with something of the project in them; a demo may lie beside them.
            let ours = !name.starts_with('.') && !FOREIGN.contains(&name) && !path.join("genesis.cbor").exists();
            if ours {
                collect(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            // A file that is gone by now, such as an editor's, is not ours.
            found.extend(fs::read_to_string(&path).ok().map(|text| (relative, text)));
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Whether a test sleeps itself; `1*sleep(500)` is the action of a fault point, which slows the program under test.
fn sleeps(text: &str) -> bool {
    text.match_indices("sleep(").any(|(at, _)| !text[..at].ends_with('*'))
}
