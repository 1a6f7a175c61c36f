//! The programs that a site's `node.toml` names, and their digests.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fedledger_ledger::Digest;
use fedledger_proto::kit::{ParticipantKit, TrainerConfig};
use sha2::{Digest as _, Sha256};

use crate::memory::Megabytes;

/// Bytes that are hashed at a time.
const PIECE_SIZE_BYTES: usize = 64 * 1024;

/// How long a program that was asked to end may take to save its state.
const GRACE: Duration = Duration::from_secs(10);

/// A program that may train here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name in plans.
    pub name: String,
    /// The program and the files that belong to it, as `node.toml` names them and where they lie; the program is the first.
    files: Vec<(String, PathBuf)>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The data that it trains on.
    pub data: PathBuf,
    /// Whether these are data of its own, and not the node's table.
    pub has_own_data: bool,
    /// Examples in its own data to train on, if the site says so.
    pub examples: Option<u64>,
    /// The description of the node's table.
    pub schema: PathBuf,
    /// What it may use.
    pub limits: Limits,
    /// Whether it can evaluate models.
    pub evaluates: bool,
    /// Variables of its environment beside those that every trainer has.
    pub environment: BTreeMap<String, String>,
}

/// What one run of a program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all processes together, and address space of each, in bytes.
    pub memory: u64,
    /// Largest file, in bytes.
    pub file: u64,
    /// Size of everything in its folder, in bytes.
    pub disk: u64,
    /// Processes at a time.
    pub processes: u32,
    /// Time.
    pub time: Duration,
    /// Processors that it may use, and threads that it is told to.
    pub threads: u32,
    /// Time to end by itself once it was asked to.
    pub grace: Duration,
}

/// What a program has used too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Memory of all its processes together, in bytes.
    #[error("its processes had {} in all, memory_max in node.toml allows {}", Megabytes(*.found), Megabytes(*.allowed))]
    Memory {
        /// What it had.
        found: u64,
        /// Most that is allowed.
        allowed: u64,
    },
    /// Processes at a time.
    #[error("it had {found} processes, processes_max in node.toml allows {allowed}")]
    Processes {
        /// How many there were.
        found: u64,
        /// Most that are allowed.
        allowed: u64,
    },
    /// Size of everything in its folder, in bytes.
    #[error("its folder held {}, disk_max in node.toml allows {}", Megabytes(*.found), Megabytes(*.allowed))]
    Disk {
        /// What lay there.
        found: u64,
        /// Most that is allowed.
        allowed: u64,
    },
    /// Files and folders in its folder.
    #[error("its folder held more than {allowed} files")]
    Files {
        /// Most that are allowed.
        allowed: u64,
    },
}

impl Excess {
    /// What it was, as it stands on the ledger.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Processes { .. } => "processes",
            Self::Disk { .. } => "disk",
            Self::Files { .. } => "files",
        }
    }
}

/// A file of a program that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{} of trainer {trainer:?} cannot be read: {source}", file.display())]
pub struct ProgramError {
    /// The trainer.
    pub trainer: String,
    /// The file.
    pub file: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// The programs that `node.toml` names.
pub fn programs(kit: &ParticipantKit) -> BTreeMap<String, Arc<Program>> {
    let resolved = |(name, config): (&String, &TrainerConfig)| {
        let table = (kit.table_path(), kit.schema_path());
        (name.clone(), Program::resolve(name, config, &kit.directory, table))
    };
    kit.config.trainers.iter().map(resolved).map(|(name, program)| (name, Arc::new(program))).collect()
}

impl Program {
    /// Paths are resolved against the node's directory, and made absolute: the program runs in a folder of its own.
    fn resolve(name: &str, config: &TrainerConfig, directory: &Path, (table, schema): (PathBuf, PathBuf)) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let located = |path: &PathBuf| absolute(directory.join(path));
        let files: Vec<(String, PathBuf)> = std::iter::once(&config.program)
            .chain(&config.files)
            .map(|path| (path.to_string_lossy().into_owned(), located(path)))
            .collect();
        let argument = |argument: &String| {
            let listed = files.iter().skip(1).find(|(name, _)| name == argument);
            listed.map_or_else(|| argument.clone(), |(_, path)| path.to_string_lossy().into_owned())
        };
        Self {
            name: name.to_owned(),
            arguments: config.arguments.iter().map(argument).collect(),
            data: config.data.as_ref().map_or_else(|| absolute(table), located),
            has_own_data: config.data.is_some(),
            examples: config.examples,
            schema: absolute(schema),
            limits: Limits {
                memory: config.memory_max.0,
                file: config.file_max.0,
                disk: config.disk_max.0,
                processes: config.processes_max,
                time: Duration::from_secs(config.time_max_s),
                threads: config.cpus,
                grace: GRACE,
            },
            evaluates: config.evaluates,
            environment: config.environment.clone(),
            files,
        }
    }

    /// Where the program lies.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |(_, path)| path)
    }

    /// What contributions name: the SHA-256 of the program; where other files belong to it, that of the text which
    /// `sha256sum PROGRAM FILE...` prints for them, with the names that `node.toml` gives them.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] names the file.
    pub fn digest(&self) -> Result<Digest, ProgramError> {
        let mut digests = Vec::new();
        for (name, path) in &self.files {
            let failed = |source| ProgramError { trainer: self.name.clone(), file: path.clone(), source };
            digests.push((name, digest_of_file(path).map_err(failed)?));
        }
        match digests.as_slice() {
            [(_, digest)] => Ok(*digest),
            all => {
                let lines: String = all.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
                Ok(Digest::of(lines.as_bytes()))
            }
        }
    }
}

fn digest_of_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE_SIZE_BYTES]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Digest::from_bytes(hasher.finalize().into())),
            Ok(count) => hasher.update(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::fs;

    use super::*;

    /// The program that a section of `node.toml` names in a directory.
    pub fn program(directory: &Path, section: &str) -> Program {
        let table = (directory.join("data.csv"), directory.join("schema.toml"));
        Program::resolve("test", &toml::from_str(section).unwrap(), directory, table)
    }

    #[test]
    fn the_digest_is_what_sha256sum_prints() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("train.py"), "print(1)\n").unwrap();
        let alone = program(directory.path(), "program = \"train.py\"");
        let by_shell = "cc42155088fca5730758db72b2a5bca33112a941dfaa2d43098ec422ce4ea213";
        assert_eq!(alone.digest().unwrap().to_string(), by_shell);

        fs::write(path("model.py"), "WIDTH = 8\n").unwrap();
        let section = "program = \"train.py\"\nfiles = [\"model.py\"]";
        let together = program(directory.path(), section);
        // sha256sum train.py model.py | sha256sum
        let by_shell = "7d6088bb0e5e1dab4c0c68f395e7c55a68e0314ff49409809181946cfbcd1b6a";
        assert_eq!(together.digest().unwrap().to_string(), by_shell);
        fs::write(path("model.py"), "WIDTH = 9\n").unwrap();
        assert_ne!(together.digest().unwrap().to_string(), by_shell);
        fs::remove_file(path("model.py")).unwrap();
        let error = together.digest().unwrap_err().to_string();
        assert!(error.contains("model.py") && error.contains("\"test\""), "{error}");
    }

    #[test]
    fn files_are_found_from_wherever_the_program_runs() {
        let directory = Path::new("/srv/heart");
        let section = "program = \"/usr/bin/python3\"\narguments = [\"-u\", \"train.py\"]\nfiles = [\"train.py\"]";
        let interpreted = program(directory, section);
        assert_eq!(interpreted.path(), Path::new("/usr/bin/python3"));
        assert_eq!(interpreted.arguments, ["-u", "/srv/heart/train.py"]);
        assert_eq!(interpreted.data, Path::new("/srv/heart/data.csv"));
        let own_data = program(directory, "program = \"train\"\ndata = \"images\"");
        assert_eq!(
            (own_data.path(), own_data.data.as_path()),
            (Path::new("/srv/heart/train"), Path::new("/srv/heart/images"))
        );
        assert!(program(Path::new("here"), "program = \"train\"").path().is_absolute());
    }
}
