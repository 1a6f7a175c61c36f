//! The node's directory: its lock, its blobs, its local checkpoints and the head that it has witnessed.
//!
//! Everything is written beside its place, made durable and moved there, so that a file is whole or absent whatever
//! happens. Blobs are verified whenever they are read; one that is damaged counts as absent and is fetched or trained again.
//! All functions block.

mod progress;

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fedledger_federation::{
    VersionId,
    command::{FileRef, Metrics},
    data_description::SkippedRows,
};
use fedledger_ledger::{Digest, checkpoint::Checkpoint, codec, note::NOTE_SIZE_BYTES_MAX};
use fedledger_proto::blobs::{BlobStore, Marks};
use serde::{Deserialize, Serialize};

use super::{
    core::{Kept, TrainedUpdate},
    error::ParticipantError,
    external::Places,
    peers::KnownReplicas,
    witness,
};

pub use progress::PartialUpdate;

/// Held while a process works in the directory.
const LOCK_FILE: &str = "lock";
/// The last head that was verified.
const WITNESS_FILE: &str = "witness.note";
/// The replicas as the log had them last.
const REPLICAS_FILE: &str = "replicas";
/// Weights and updates by digest.
const BLOBS_FOLDER: &str = "blobs";
/// Local checkpoints by plan and round.
const WORK_FOLDER: &str = "work";
/// Progress within a round.
const CHECKPOINT_FILE: &str = "checkpoint";
/// What a round's training led to.
const OUTCOME_FILE: &str = "outcome";
/// What files are called until they are whole.
const PARTIAL_SUFFIX: &str = "partial";
/// Largest list of replicas, in bytes.
const REPLICAS_SIZE_BYTES_MAX: u64 = 1024 * 1024;
/// Largest outcome file, in bytes.
const OUTCOME_SIZE_BYTES_MAX: u64 = 16 * 1024;
/// Where versions are evaluated by a program of the site.
const EVALUATION_FOLDER: &str = "evaluation";

/// A participant's directory, while this process holds its lock.
#[derive(Debug)]
pub struct NodeFiles {
    directory: PathBuf,
    blobs: BlobStore,
    /// Held while blobs are written or deleted.
    writing: Mutex<()>,
    /// The operating system releases the lock when this is dropped, or when the process dies.
    _lock: File,
}

/// What a round's update depends on, beside the software.
#[derive(Debug, Clone, Copy)]
pub struct OutcomeOf<'a> {
    /// The plan.
    pub plan: &'a Digest,
    /// The round.
    pub round: u64,
    /// The version that is trained on.
    pub base: &'a VersionId,
    /// Digest of the description of the data, or of a program's own data.
    pub data_manifest: &'a Digest,
}

/// What is reported of a training beside its update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingReport {
    /// Examples trained on.
    pub examples: u64,
    /// Metrics of the training, in millionths.
    pub metrics: Metrics,
    /// Records that were skipped because they cannot be read, by reason.
    #[serde(default, skip_serializing_if = "SkippedRows::is_empty")]
    pub skipped_rows: SkippedRows,
    /// Digest of the program that trained, if it was not the built-in trainer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<Digest>,
}

/// Which update of one round lies on disk, and what it was trained from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedOutcome {
    base: VersionId,
    data_manifest: Digest,
    update: FileRef,
    report: TrainingReport,
}

impl SavedOutcome {
    fn into_update(self) -> TrainedUpdate {
        let TrainingReport { examples, metrics, skipped_rows, trainer } = self.report;
        let (file, data_manifest) = (self.update, self.data_manifest);
        TrainedUpdate { file, examples, metrics, data_manifest, skipped_rows, trainer }
    }
}

impl NodeFiles {
    /// Takes the directory's lock and makes its folders.
    ///
    /// # Errors
    ///
    /// [`ParticipantError::InUse`] if another process works in it, [`ParticipantError::Io`].
    pub fn open(directory: &Path) -> Result<Self, ParticipantError> {
        let path = directory.join(LOCK_FILE);
        let lock = at(&path, File::options().create(true).truncate(false).write(true).open(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ParticipantError::InUse(directory.to_owned())),
            Err(TryLockError::Error(source)) => return Err(ParticipantError::Io { path, source }),
        }
        let work = directory.join(WORK_FOLDER);
        at(&work, fs::create_dir_all(&work))?;
        let folder = directory.join(BLOBS_FOLDER);
        let blobs = at(&folder, BlobStore::open(&folder))?;
        Ok(Self { directory: directory.to_owned(), blobs, writing: Mutex::new(()), _lock: lock })
    }

    /// The head that was witnessed last; none before the first.
    ///
    /// # Errors
    ///
    /// [`ParticipantError::Witness`] if the file is damaged: then a rewritten history could go unnoticed.
    pub fn witnessed(&self) -> Result<Option<Checkpoint>, ParticipantError> {
        let Some(text) = self.witnessed_note()? else { return Ok(None) };
        let path = self.directory.join(WITNESS_FILE);
        let checkpoint = witness::parse_unverified(&text);
        checkpoint.map(Some).map_err(|source| ParticipantError::Witness { path, source })
    }

    /// The note of the head that was witnessed last.
    ///
    /// # Errors
    ///
    /// As [`Self::witnessed`].
    pub fn witnessed_note(&self) -> Result<Option<String>, ParticipantError> {
        let path = self.directory.join(WITNESS_FILE);
        let bytes = at(&path, read_bounded(&path, NOTE_SIZE_BYTES_MAX as u64))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Stores a head durably.
    ///
    /// # Errors
    ///
    /// What the system says; the previous head is still there.
    pub fn store_witnessed(&self, note: &str) -> io::Result<()> {
        write_durably(&self.directory.join(WITNESS_FILE), note.as_bytes())
    }

    /// The replicas as the log had them last; none before the first change, or if the file is damaged: then those of the
    /// genesis file must do.
    pub fn known_replicas(&self) -> Option<KnownReplicas> {
        saved_replicas(&self.directory)
    }

    /// Remembers the replicas.
    ///
    /// # Errors
    ///
    /// What the system says; the previous list is still there.
    pub fn store_replicas(&self, known: &KnownReplicas) -> io::Result<()> {
        write_durably(&self.directory.join(REPLICAS_FILE), &codec::encode(known))
    }

    /// Weights and updates by digest.
    pub const fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Where a blob lies, or would lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs.path(digest)
    }

    /// A blob, if it is there and undamaged.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn read_blob(&self, file: &FileRef) -> io::Result<Option<Vec<u8>>> {
        let bytes = read_bounded(&self.blobs.path(&file.digest), file.size)?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == file.digest))
    }

    /// Whether a blob is there and undamaged. Reads it piece by piece.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn has_blob(&self, file: &FileRef) -> io::Result<bool> {
        let Some(blob) = self.blobs.open_file(&file.digest)? else { return Ok(false) };
        let (_, digest, _) = Marks::of(blob.take(file.size.saturating_add(1)))?;
        Ok(digest == file.digest)
    }

    /// Deletes a blob that is damaged.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn discard_blob(&self, digest: &Digest) -> io::Result<()> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        unless_absent(self.blobs.discard(digest)).map(drop)
    }

    /// Makes a blob durable.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write_blob(&self, bytes: &[u8]) -> io::Result<FileRef> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_blob_locked(bytes)
    }

    fn write_blob_locked(&self, bytes: &[u8]) -> io::Result<FileRef> {
        let file = FileRef { digest: Digest::of(bytes), size: bytes.len() as u64 };
        let path = self.blob_path(&file.digest);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        write_durably(&path, bytes)?;
        Ok(file)
    }

    /// Deletes progress that is of no use.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn discard_local_checkpoint(&self, plan: &Digest, round: u64) -> io::Result<()> {
        unless_absent(fs::remove_file(self.work_path(plan, round).join(CHECKPOINT_FILE))).map(drop)
    }

    /// The update that this training led to, if an earlier process, or an earlier attempt, finished it and it is undamaged.
    pub fn outcome(&self, of: &OutcomeOf<'_>) -> Option<TrainedUpdate> {
        let path = self.work_path(of.plan, of.round).join(OUTCOME_FILE);
        let saved: SavedOutcome = read_saved(&path, OUTCOME_SIZE_BYTES_MAX)?;
        let same = saved.base == *of.base && saved.data_manifest == *of.data_manifest;
        let whole = same && self.has_blob(&saved.update).ok()?;
        whole.then(|| saved.into_update())
    }

    /// Deletes every blob and local checkpoint that is not to be kept, and what was left half written.
    ///
    /// # Errors
    ///
    /// The first failure; the rest is deleted next time.
    pub fn keep_only(&self, kept: &Kept) -> io::Result<()> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let work: BTreeSet<PathBuf> = kept.work.iter().map(|(plan, round)| self.work_path(plan, *round)).collect();
        // An external trainer that is just being ended may still write into its folder; the others are deleted all the same.
        let mut removed = Ok(());
        for path in entries(&self.directory.join(WORK_FOLDER))?.filter(|path| !work.contains(path)) {
            removed = removed.and(if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
        }
        // An update that is trained but not yet known to the core is named by the outcome beside it.
        let outcomes = work.iter().filter_map(|folder| {
            read_saved::<SavedOutcome>(&folder.join(OUTCOME_FILE), OUTCOME_SIZE_BYTES_MAX)
                .map(|saved| saved.update.digest)
        });
        let digests = kept.updates.iter().chain(&kept.weights).copied().chain(outcomes);
        let blobs: BTreeSet<Digest> = digests.collect();
        self.blobs.keep_only(|digest| blobs.contains(digest)).and(removed)
    }

    /// Where an external trainer works on a round. The folder around it is there afterwards.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn trainer_places(&self, plan: &Digest, round: u64) -> io::Result<Places> {
        let folder = self.work_path(plan, round);
        fs::create_dir_all(&folder)?;
        Ok(Places::within(&folder))
    }

    /// Where an external trainer evaluates. The folder around it is there afterwards.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn evaluation_places(&self) -> io::Result<Places> {
        let folder = self.directory.join(EVALUATION_FOLDER);
        fs::create_dir_all(&folder)?;
        Ok(Places::within(&folder))
    }

    fn work_path(&self, plan: &Digest, round: u64) -> PathBuf {
        self.directory.join(WORK_FOLDER).join(format!("{plan}-{round}"))
    }
}

/// Names the path in a failure.
fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, ParticipantError> {
    result.map_err(|source| ParticipantError::Io { path: path.to_owned(), source })
}

fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn entries(folder: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    Ok(fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path()))
}

/// A file of at most `limit` bytes; a larger one is cut, so that its digest or decoding fails.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = unless_absent(File::open(path))? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The replicas that the node in a directory remembers.
pub(super) fn saved_replicas(directory: &Path) -> Option<KnownReplicas> {
    read_saved(&directory.join(REPLICAS_FILE), REPLICAS_SIZE_BYTES_MAX)
}

fn read_saved<T: Serialize + serde::de::DeserializeOwned>(path: &Path, limit: u64) -> Option<T> {
    let bytes = read_bounded(path, limit).ok()??;
    codec::decode(&bytes, usize::try_from(limit).unwrap_or(usize::MAX)).ok()
}

/// Writes a whole file or nothing, and returns when it would survive a loss of power.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(PARTIAL_SUFFIX);
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    // The new name is durable once the folder is.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
