//! Writing kits and other files to disk.
//!
//! A marker is the first file written and the last one removed, so that an interrupted run is noticed by the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    AUTHORITY_FOLDER, DEFAULTS_FILE, GENESIS_FILE,
    files::GenesisFile,
    provision::{KitFile, Provisioned},
};

/// Stands in the output directory while its files are being written.
const MARKER_FILE: &str = "provisioning.incomplete";

/// Kits that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A directory that holds something already.
    #[error(
        "{} is not empty: give a new directory, or replace the consortium in it, ledgers and all, with --force",
        directory.display()
    )]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory that an earlier run did not finish.
    #[error("an earlier provisioning of {} was interrupted: begin again with --force", directory.display())]
    Interrupted {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory with other people's files.
    #[error(
        "{} is not empty and holds no provisioned consortium, so it is not replaced even with --force: \
         give another directory",
        directory.display()
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory in which only some of its files were written.
    #[error("an earlier command was interrupted while it wrote {}: remove it and begin again", directory.display())]
    Incomplete {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory that must be new.
    #[error("{} is not empty: give a new directory", directory.display())]
    NotNew {
        /// The directory.
        directory: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the kits below `out`, which is made if need be: folders with mode 0700, secrets with mode 0600. With `force`,
/// a consortium that was provisioned there is replaced; other things in the directory stay.
///
/// # Errors
///
/// [`WriteError`], which names the path.
pub fn write_kits(provisioned: &Provisioned, out: &Path, force: bool) -> Result<(), WriteError> {
    make_folder(out)?;
    clear(provisioned, out, force)?;
    write_all(&provisioned.files, out)
}

/// Writes files into a directory that must be new or empty.
///
/// # Errors
///
/// [`WriteError`], which names the path.
pub fn write_new(files: &BTreeMap<PathBuf, KitFile>, out: &Path) -> Result<(), WriteError> {
    make_folder(out)?;
    check_complete(out)?;
    let at = |source| WriteError::Io { path: out.to_owned(), source };
    if fs::read_dir(out).map_err(at)?.next().is_some() {
        return Err(WriteError::NotNew { directory: out.to_owned() });
    }
    write_all(files, out)
}

/// Refuses a directory that was not written to its end.
pub(super) fn check_complete(directory: &Path) -> Result<(), WriteError> {
    let directory = directory.to_owned();
    if exists(&directory.join(MARKER_FILE))? { Err(WriteError::Incomplete { directory }) } else { Ok(()) }
}

/// Puts a file in the place of another one at once: whoever looks finds the old one or the new one.
pub(super) fn replace_file(path: &Path, file: &KitFile) -> Result<(), WriteError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".unfinished");
    let unfinished = PathBuf::from(name);
    make_folder(folder_of(path))?;
    remove(&unfinished)?;
    write_file(&unfinished, file)?;
    rename(&unfinished, path)
}

/// Gives a file its name at once, in the place of whatever has it.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), WriteError> {
    fs::rename(from, to).map_err(|source| WriteError::Io { path: to.to_owned(), source })?;
    sync_folder(folder_of(to))
}

/// The folder of a file, which a relative path may not name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_all(files: &BTreeMap<PathBuf, KitFile>, out: &Path) -> Result<(), WriteError> {
    let marker = out.join(MARKER_FILE);
    if !exists(&marker)? {
        write_file(&marker, &KitFile { bytes: Vec::new(), secret: false })?;
    }
    for (path, file) in files {
        let path = out.join(path);
        make_folder(path.parent().unwrap_or(out))?;
        write_file(&path, file)?;
    }
    remove(&marker)?;
    sync_folder(out)
}

/// Makes room for a consortium.
fn clear(provisioned: &Provisioned, out: &Path, force: bool) -> Result<(), WriteError> {
    let at = |source| WriteError::Io { path: out.to_owned(), source };
    if fs::read_dir(out).map_err(at)?.next().is_none() {
        return Ok(());
    }
    let (interrupted, complete) = (exists(&out.join(MARKER_FILE))?, exists(&out.join(GENESIS_FILE))?);
    let directory = out.to_owned();
    match (force, interrupted, complete) {
        (true, false, false) => return Err(WriteError::Foreign { directory }),
        (false, true, _) => return Err(WriteError::Interrupted { directory }),
        (false, false, _) => return Err(WriteError::NotEmpty { directory }),
        (true, ..) => {}
    }
    // From here on the directory counts as incomplete, however far this gets.
    if !interrupted {
        write_file(&out.join(MARKER_FILE), &KitFile { bytes: Vec::new(), secret: false })?;
    }
    let mut ours: BTreeSet<PathBuf> = [DEFAULTS_FILE, AUTHORITY_FOLDER].map(PathBuf::from).into();
    let first = |path: &PathBuf| path.components().next().map(|name| PathBuf::from(name.as_os_str()));
    ours.extend(provisioned.files.keys().filter_map(first));
    if let Ok(old) = GenesisFile::of_kit(out) {
        ours.extend(old.genesis.members.into_iter().map(|member| PathBuf::from(member.id)));
    }
    // The genesis file names what else is to be removed, so it goes last.
    ours.remove(Path::new(GENESIS_FILE));
    ours.iter().try_for_each(|name| remove(&out.join(name)))?;
    remove(&out.join(GENESIS_FILE))
}

fn exists(path: &Path) -> Result<bool, WriteError> {
    path.try_exists().map_err(|source| WriteError::Io { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), WriteError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| WriteError::Io { path: path.to_owned(), source }),
    }
}

fn make_folder(folder: &Path) -> Result<(), WriteError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(folder).map_err(|source| WriteError::Io { path: folder.to_owned(), source })
}

fn write_file(path: &Path, file: &KitFile) -> Result<(), WriteError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(if file.secret { 0o600 } else { 0o644 });
    }
    let write = || {
        let mut opened = options.open(path)?;
        opened.write_all(&file.bytes)?;
        opened.sync_all()
    };
    write().map_err(|source| WriteError::Io { path: path.to_owned(), source })
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<(), WriteError> {
    let sync = || File::open(folder)?.sync_all();
    if cfg!(unix) { sync().map_err(|source| WriteError::Io { path: folder.to_owned(), source }) } else { Ok(()) }
}
