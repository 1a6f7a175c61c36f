//! The records that a program trains on, which a contribution names by their digest.
//!
//! The program reads them from the disk while the node holds what it has read before. So they are looked at before and after
//! each run, as the program itself is: the node's table must be the one in memory, and data of the program's own must have the
//! same digest in the end as in the beginning.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use fedledger_federation::data_description::DataDescription;
use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

use super::program::Program;
use crate::table::{OpenError, SiteData, Table};

/// Most files of a trainer's own data.
pub const FILES_MAX: u64 = 1 << 20;

/// Deepest folder in them.
pub const DEPTH_MAX: usize = 32;

/// Bytes that are hashed at a time.
const PIECE_SIZE_BYTES: usize = 256 * 1024;

/// Why records cannot be told by a digest. Names of files stand in it, so it is for the site's own eyes.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something that is neither a file nor a folder, or a link to a folder.
    #[error("{} is neither a file nor a folder: copy what is meant into the trainer's data", .0.display())]
    Kind(PathBuf),
    /// A name that cannot stand in a list of digests.
    #[error("{} has a line break, a backslash or other bytes than UTF-8 in its name: rename it", .0.display())]
    Name(PathBuf),
    /// Too many files, or folders too deep.
    #[error("{} has more than {FILES_MAX} files, or folders deeper than {DEPTH_MAX}: pack them", .0.display())]
    TooMany(PathBuf),
    /// The node's table cannot be read any more.
    #[error("the node's table cannot be compared: {0}")]
    Table(#[from] OpenError),
    /// The table is another one than in memory, or the data are others than when the run began.
    #[error(
        "{} has changed: leave data alone while a trainer runs, and start the node again after the table was changed",
        .0.display()
    )]
    Changed(PathBuf),
    /// Nobody wants to know any more.
    #[error("it was interrupted")]
    Interrupted,
}

/// The records of a run.
#[derive(Debug, Clone)]
pub struct Records {
    /// The node's table, and how the plan describes it; none if the program has data of its own.
    pub table: Option<(Arc<Table>, Option<DataDescription>)>,
    /// Digest of the table's manifest, or of the program's own data.
    pub manifest: Digest,
}

impl Records {
    /// Data of the program's own. Reads all of them, and blocks.
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub fn own(program: &Program, goes_on: &dyn Fn() -> bool) -> Result<Self, DataError> {
        Ok(Self { table: None, manifest: digest_of(&program.data, goes_on)? })
    }

    /// The node's table.
    pub fn of_table(table: Arc<Table>, description: Option<DataDescription>) -> Self {
        let manifest = table.manifest.digest();
        Self { table: Some((table, description)), manifest }
    }

    /// Whether the program finds these records on the disk. Reads all of them, and blocks.
    ///
    /// # Errors
    ///
    /// [`DataError::Changed`] if they are others; [`DataError`].
    pub fn check(&self, program: &Program, source: &SiteData, goes_on: &dyn Fn() -> bool) -> Result<(), DataError> {
        let (same, path) = match &self.table {
            Some((table, description)) => match source.is_unchanged(table, description.as_ref(), goes_on) {
                Err(_) if !goes_on() => return Err(DataError::Interrupted),
                same => (same?, source.path()),
            },
            None => (digest_of(&program.data, goes_on)? == self.manifest, program.data.as_path()),
        };
        if same { Ok(()) } else { Err(DataError::Changed(path.to_owned())) }
    }
}

/// The SHA-256 of a file; of a folder, that of the text which `sha256sum` prints for all files in it, with their paths from
/// there on, in the order of the bytes of these. Links to files count as these files.
fn digest_of(path: &Path, goes_on: &dyn Fn() -> bool) -> Result<Digest, DataError> {
    let read = |source| DataError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.is_file() {
        return digest_of_file(path, goes_on);
    }
    let (mut listing, mut files) = (Sha256::new(), 0u64);
    let mut open = vec![entries(path, "", &mut files)?];
    while let Some(folder) = open.last_mut() {
        let Some(name) = folder.pop() else {
            open.pop();
            continue;
        };
        if files > FILES_MAX || open.len() > DEPTH_MAX {
            return Err(DataError::TooMany(path.to_owned()));
        }
        if let Some(inner) = name.strip_suffix('/') {
            open.push(entries(&path.join(inner), &name, &mut files)?);
        } else {
            let digest = digest_of_file(&path.join(&name), goes_on)?;
            listing.update(format!("{digest}  {name}\n"));
        }
    }
    Ok(Digest::from_bytes(listing.finalize().into()))
}

/// What is in a folder, the first last; names of folders end in a slash, which puts them where their files belong. `prefix`
/// stands before each.
fn entries(folder: &Path, prefix: &str, files: &mut u64) -> Result<Vec<String>, DataError> {
    let read = |source| DataError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|_| DataError::Name(path.clone()))?;
        if name.contains(['\n', '\r', '\\']) {
            return Err(DataError::Name(path));
        }
        let is_folder = entry.file_type().map_err(read)?.is_dir();
        let is_file = || fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if !is_folder && !is_file() {
            return Err(DataError::Kind(path));
        }
        *files += 1;
        if *files > FILES_MAX {
            return Err(DataError::TooMany(folder.to_owned()));
        }
        names.push(format!("{prefix}{name}{}", if is_folder { "/" } else { "" }));
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

fn digest_of_file(path: &Path, goes_on: &dyn Fn() -> bool) -> Result<Digest, DataError> {
    let read = |source| DataError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE_SIZE_BYTES]);
    loop {
        if !goes_on() {
            return Err(DataError::Interrupted);
        }
        match file.read(&mut piece) {
            Ok(0) => return Ok(Digest::from_bytes(hasher.finalize().into())),
            Ok(count) => hasher.update(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::node::external::program::tests::program;

    const ALWAYS: &dyn Fn() -> bool = &|| true;

    fn images(folder: &Path) {
        fs::create_dir_all(folder.join("a/deep")).unwrap();
        for name in ["a/deep/1", "a/2", "a.b", "a b", "z"] {
            fs::write(folder.join(name), name).unwrap();
        }
    }

    #[test]
    fn the_digest_of_a_folder_is_what_sha256sum_prints() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("images");
        images(&folder);
        let list = "find -L . -type f | cut -c3- | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum";
        let output = Command::new("sh").args(["-c", list]).current_dir(&folder).output().unwrap();
        let expected = String::from_utf8(output.stdout).unwrap();
        assert_eq!(digest_of(&folder, ALWAYS).unwrap().to_string(), expected.split("  ").next().unwrap());
        let file = digest_of(&folder.join("z"), ALWAYS).unwrap();
        assert_eq!(file, Digest::of(b"z"), "of a file it is the file's own");
        assert!(matches!(digest_of(&folder, &|| false), Err(DataError::Interrupted)));
    }

    #[test]
    fn every_change_of_data_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("images");
        images(&folder);
        let program = program(directory.path(), "program = \"train\"\ndata = \"images\"");
        let source = SiteData::with_schema(&folder, crate::table::Schema::from_toml("").unwrap(), directory.path());
        let records = Records::own(&program, ALWAYS).unwrap();
        records.check(&program, &source, ALWAYS).unwrap();
        let is_changed = || matches!(records.check(&program, &source, ALWAYS), Err(DataError::Changed(_)));
        fs::write(folder.join("a/2"), "other").unwrap();
        assert!(is_changed());
        fs::write(folder.join("a/2"), "a/2").unwrap();
        fs::rename(folder.join("z"), folder.join("y")).unwrap();
        assert!(is_changed());
        fs::rename(folder.join("y"), folder.join("z")).unwrap();
        assert!(!is_changed());
        fs::write(folder.join("new"), "").unwrap();
        assert!(is_changed());
    }

    #[test]
    fn what_cannot_be_told_by_a_digest_is_refused() {
        use std::os::unix::fs::symlink;

        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("loop")).unwrap();
        symlink(at("loop"), at("loop/again")).unwrap();
        assert!(matches!(digest_of(&at("loop"), ALWAYS), Err(DataError::Kind(_))));
        fs::create_dir(at("names")).unwrap();
        fs::write(at("names/a\nb"), "").unwrap();
        assert!(matches!(digest_of(&at("names"), ALWAYS), Err(DataError::Name(_))));
        let deep = at("deep").join(vec!["x"; DEPTH_MAX + 1].join("/"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "").unwrap();
        assert!(matches!(digest_of(&at("deep"), ALWAYS), Err(DataError::TooMany(_))));
        assert!(matches!(digest_of(&at("gone"), ALWAYS), Err(DataError::Read { .. })));
    }

    #[test]
    fn a_table_must_be_the_one_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let (table, schema) = (directory.path().join("data.csv"), directory.path().join("schema.toml"));
        fs::write(&table, "a,sick\n1,1\n4,0\n").unwrap();
        let text = "missing = \"error\"\nnormalize = \"none\"\n[label]\ncolumn = \"sick\"\n\
                    positive_when = { equals = [\"1\"] }\n[[features]]\nkind = \"numeric\"\ncolumn = \"a\"\n";
        fs::write(&schema, text).unwrap();
        let source = SiteData::open(&table, &schema).unwrap();
        let records = Records::of_table(Arc::new(source.read(None).unwrap()), None);
        let program = program(directory.path(), "program = \"train\"");
        records.check(&program, &source, ALWAYS).unwrap();
        fs::write(&table, "a,sick\n1,1\n4,1\n").unwrap();
        assert!(matches!(records.check(&program, &source, ALWAYS), Err(DataError::Changed(_))));
        assert!(matches!(records.check(&program, &source, &|| false), Err(DataError::Interrupted)));
    }
}
