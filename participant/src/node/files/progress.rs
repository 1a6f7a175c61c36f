//! What a round's training writes: local checkpoints on the way, and the update. Neither is ever whole in memory.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use fedledger_federation::command::FileRef;
use fedledger_ledger::{Digest, codec};

use super::{
    CHECKPOINT_FILE, NodeFiles, OUTCOME_FILE, OutcomeOf, PARTIAL_SUFFIX, SavedOutcome, TrainedUpdate, TrainingReport,
    unless_absent, write_durably,
};

/// An update that is being written, beside its round's other files.
const UPDATE_FILE: &str = "update";

/// Bytes that are written at a time.
const BUFFER_SIZE_BYTES: usize = 256 * 1024;

/// An update on its way to the disk. It is nobody's until [`NodeFiles::save_outcome`] names it, and what is left of one is
/// overwritten by the next.
#[derive(Debug)]
pub struct PartialUpdate {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Write for PartialUpdate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NodeFiles {
    /// How far an earlier process came with a round.
    pub fn local_checkpoint(&self, plan: &Digest, round: u64) -> Option<File> {
        File::open(self.work_path(plan, round).join(CHECKPOINT_FILE)).ok()
    }

    /// Saves progress, which `write` writes.
    ///
    /// # Errors
    ///
    /// What the system says; the previous progress is still there.
    pub fn save_local_checkpoint(
        &self,
        plan: &Digest,
        round: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let folder = self.work_path(plan, round);
        fs::create_dir_all(&folder)?;
        let path = folder.join(CHECKPOINT_FILE);
        let partial = path.with_extension(PARTIAL_SUFFIX);
        let mut file = BufWriter::with_capacity(BUFFER_SIZE_BYTES, File::create(&partial)?);
        write(&mut file)?;
        finish(file)?;
        rename_durably(&partial, &path)
    }

    /// Begins to write a round's update.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn begin_update(&self, plan: &Digest, round: u64) -> io::Result<PartialUpdate> {
        let folder = self.work_path(plan, round);
        fs::create_dir_all(&folder)?;
        let path = folder.join(UPDATE_FILE).with_extension(PARTIAL_SUFFIX);
        let file = BufWriter::with_capacity(BUFFER_SIZE_BYTES, File::create(&path)?);
        Ok(PartialUpdate { path, file })
    }

    /// Makes a round's update durable under its digest, and that it is the one of this round; its local checkpoint is of no
    /// use any more.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn save_outcome(
        &self,
        saved: &OutcomeOf<'_>,
        written: PartialUpdate,
        update: FileRef,
        report: TrainingReport,
    ) -> io::Result<TrainedUpdate> {
        let PartialUpdate { path, file } = written;
        // Takes long for a large one, and others wait for the lock.
        finish(file)?;
        // The blob is nobody's until the outcome names it.
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = self.blob_path(&update.digest);
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder)?;
        }
        rename_durably(&path, &blob)?;
        let folder = self.work_path(saved.plan, saved.round);
        fs::create_dir_all(&folder)?;
        let outcome = SavedOutcome { base: *saved.base, data_manifest: *saved.data_manifest, update, report };
        write_durably(&folder.join(OUTCOME_FILE), &codec::encode(&outcome))?;
        unless_absent(fs::remove_file(folder.join(CHECKPOINT_FILE)))?;
        Ok(outcome.into_update())
    }
}

fn finish(file: BufWriter<File>) -> io::Result<()> {
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Gives a whole file its name, and returns when it would survive a loss of power.
fn rename_durably(partial: &Path, path: &Path) -> io::Result<()> {
    fs::rename(partial, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
