//! `[trainers]` of a participant's `node.toml`: programs of the site that may train models.

use std::{collections::BTreeMap, path::PathBuf};

use fedledger_federation::member::is_name;
use serde::{Deserialize, Serialize};

use super::ByteSize;

/// Most arguments of a trainer, and most other files that belong to it.
const LIST_LENGTH_MAX: usize = 64;

/// Longest time that a site can allow one run, in seconds: thirty days, as long as a round can take.
const TIME_MAX_S_MAX: u64 = 30 * 24 * 3600;

/// Most processors that can be asked for.
const CPUS_MAX: u32 = 1024;

/// Most processes that a site can allow at a time.
const PROCESSES_MAX: u32 = 65_536;

/// Smallest limit of memory or of a file, in bytes: with less, not even a shell starts.
const SIZE_MIN: u64 = 16 << 20;

/// Largest limit, in bytes: more than any machine has, and still a number of the system.
const SIZE_MAX: u64 = 1 << 50;

/// A program that may train here, and what it may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerConfig {
    /// The program; a relative path starts from the node's directory. It is executed directly, so a script needs its first
    /// line (`#!/usr/bin/env python3`) and the right to be executed.
    pub program: PathBuf,
    /// Its arguments. One that is listed in `files` becomes the full path of that file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Other files that belong to the program, such as the script of an interpreter and the modules of the site. They are
    /// part of the digest that stands in contributions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// The data that it trains on, a file or a folder; the node's table if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Examples in `data` to train on, for plans that ask how many a site has; no round may report more. Only the program
    /// reads its own data, so nobody else can count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<u64>,
    /// Memory of all its processes together, and address space of each, in bytes.
    #[serde(default = "default_memory")]
    pub memory_max: ByteSize,
    /// Largest file that it may write, in bytes.
    #[serde(default = "default_file")]
    pub file_max: ByteSize,
    /// Size of everything that lies in its folder, in bytes.
    #[serde(default = "default_disk")]
    pub disk_max: ByteSize,
    /// Most processes at a time.
    #[serde(default = "default_processes")]
    pub processes_max: u32,
    /// Longest time of one run, in seconds. A plan may allow less, and a round ends when the ledger says so.
    #[serde(default = "default_time")]
    pub time_max_s: u64,
    /// Processors that it may use, where the system can bind it to some; it is also told so, in the variables that numeric
    /// libraries read.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Whether it can also evaluate models (`"task": "evaluate"`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evaluates: bool,
    /// Variables of its environment beside the few that every trainer has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

const fn default_memory() -> ByteSize {
    ByteSize(4_000_000_000)
}

const fn default_file() -> ByteSize {
    ByteSize(8_000_000_000)
}

const fn default_disk() -> ByteSize {
    ByteSize(16_000_000_000)
}

const fn default_processes() -> u32 {
    256
}

const fn default_time() -> u64 {
    24 * 3600
}

const fn default_cpus() -> u32 {
    1
}

/// The first trainer's setting out of its range, with the range.
pub(super) fn mistake(trainers: &BTreeMap<String, TrainerConfig>) -> Option<(&'static str, &'static str)> {
    trainers.iter().find_map(|(name, trainer)| {
        if is_name(name) {
            trainer.mistake()
        } else {
            Some(("trainers", "names as of plans: lowercase letters, digits and inner hyphens"))
        }
    })
}

impl TrainerConfig {
    fn mistake(&self) -> Option<(&'static str, &'static str)> {
        if self.arguments.len() > LIST_LENGTH_MAX || self.files.len() > LIST_LENGTH_MAX {
            return Some(("trainers.arguments and trainers.files", "at most 64 each"));
        }
        if self.arguments.iter().any(|argument| argument.contains('\0')) {
            return Some(("trainers.arguments", "text without zero bytes"));
        }
        // A digest is taken of the lines that `sha256sum` prints, and these names stand in them as they are.
        let plain = |path: &PathBuf| path.to_str().is_some_and(|text| !text.contains(['\0', '\n', '\r', '\\']));
        if !plain(&self.program) || !self.files.iter().all(plain) || !self.data.iter().all(plain) {
            return Some(("trainers.program, files and data", "paths without line breaks and backslashes"));
        }
        let sizes = [self.memory_max, self.file_max, self.disk_max];
        if !sizes.iter().all(|size| (SIZE_MIN..=SIZE_MAX).contains(&size.0)) {
            return Some(("trainers.memory_max, file_max and disk_max", "16 MiB to 1048576 GiB"));
        }
        if !(1..=PROCESSES_MAX).contains(&self.processes_max) {
            return Some(("trainers.processes_max", "1 to 65536"));
        }
        if self.examples.is_some_and(|examples| examples == 0 || self.data.is_none()) {
            return Some(("trainers.examples", "at least 1, and only beside data"));
        }
        if !(1..=TIME_MAX_S_MAX).contains(&self.time_max_s) {
            return Some(("trainers.time_max_s", "1 to 2592000 seconds"));
        }
        if !(1..=CPUS_MAX).contains(&self.cpus) {
            return Some(("trainers.cpus", "1 to 1024"));
        }
        let named = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        if !self.environment.iter().all(|(name, value)| named(name) && !value.contains('\0')) {
            return Some(("trainers.environment", "names of variables and texts without zero bytes"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trainer(text: &str) -> TrainerConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_program_is_enough() {
        let short = trainer("program = \"train.py\"");
        assert_eq!((short.memory_max.0, short.time_max_s, short.cpus), (4_000_000_000, 86_400, 1));
        assert_eq!((short.disk_max.0, short.processes_max, short.examples), (16_000_000_000, 256, None));
        assert_eq!((short.mistake(), short.evaluates, short.data.is_none()), (None, false, true));
        let text = toml::to_string(&short).unwrap();
        assert_eq!(trainer(&text), short, "{text}");
        assert!(toml::from_str::<TrainerConfig>("program = \"train.py\"\nshell = true").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("time_max_s = 0", "trainers.time_max_s"),
            ("time_max_s = 2592001", "trainers.time_max_s"),
            ("cpus = 0", "trainers.cpus"),
            ("memory_max = \"15 MiB\"", "trainers.memory_max, file_max and disk_max"),
            ("file_max = \"2000000 GB\"", "trainers.memory_max, file_max and disk_max"),
            ("disk_max = \"1 MiB\"", "trainers.memory_max, file_max and disk_max"),
            ("processes_max = 0", "trainers.processes_max"),
            ("examples = 10", "trainers.examples"),
            ("data = \"images\"\nexamples = 0", "trainers.examples"),
            ("environment = { \"A=B\" = \"1\" }", "trainers.environment"),
            ("files = [\"a\\nb\"]", "trainers.program, files and data"),
            ("arguments = [\"a\\u0000\"]", "trainers.arguments"),
        ] {
            let wrong = trainer(&format!("program = \"train.py\"\n{text}"));
            assert_eq!(wrong.mistake().map(|mistake| mistake.0), Some(named), "{text}");
        }
        let named = BTreeMap::from([("Py Torch".to_owned(), trainer("program = \"train.py\""))]);
        assert_eq!(mistake(&named).map(|mistake| mistake.0), Some("trainers"));
    }
}
