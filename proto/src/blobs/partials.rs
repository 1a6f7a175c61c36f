//! Files that are on their way in: who may write each, how far each has come, and how much of them is kept.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fedledger_ledger::{Digest, PublicKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Progress, store::unless_absent};

/// Most files of which the beginning is kept. Transfers under way are not counted: the endpoint bounds those.
pub const PARTIALS_MAX: usize = 64;

/// Most bytes that these beginnings have together.
pub const PARTIAL_BYTES_MAX: u64 = 16 << 30;

/// How long a beginning is kept to which nothing is added.
pub const PARTIAL_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long an interrupted transfer may take to let go of its file: the time to write a chunk.
pub(super) const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long this node waits for a file that a peer is sending before it looks for the file itself.
pub(super) const OFFER_PATIENCE: Duration = Duration::from_secs(10);

/// What the name of such a file ends with.
const EXTENSION: &str = "part";

/// The folder of files that are on their way in.
#[derive(Debug)]
pub(super) struct Partials {
    folder: PathBuf,
    known: Mutex<BTreeMap<Digest, Known>>,
    /// Counts the transfers that ended.
    ended: watch::Sender<u64>,
}

/// What this process knows of a file on its way in. Those of earlier processes are known by their names only.
#[derive(Debug)]
enum Known {
    /// A transfer writes it.
    Claimed(Transfer),
    /// A transfer has left it.
    Left(Progress),
}

/// A transfer under way, which ends when it is told so.
#[derive(Debug, Clone)]
struct Transfer {
    /// The peer that began it; none if this node did.
    peer: Option<PublicKey>,
    stop: CancellationToken,
}

/// The right to write a file, given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    partials: Arc<Partials>,
    digest: Digest,
    stop: CancellationToken,
    /// What is left behind of the file.
    pub left: Option<Progress>,
}

impl Partials {
    /// Sweeps away what is neither a beginning nor within the bounds.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        for entry in fs::read_dir(&folder)?.filter_map(Result::ok) {
            if digest_of(&entry.path()).is_none() {
                let path = entry.path();
                if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        let partials = Self { folder, known: Mutex::default(), ended: watch::Sender::new(0) };
        partials.prune(&mut partials.known(), 0)?;
        Ok(partials)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{digest}.{EXTENSION}"))
    }

    /// The right to write a file, for a transfer that a peer began, or this node; `None` while somebody else has it.
    pub fn claim(partials: &Arc<Self>, digest: &Digest, peer: Option<PublicKey>) -> Option<Claim> {
        let mut known = partials.known();
        let left = match known.remove(digest) {
            Some(claimed @ Known::Claimed(_)) => {
                known.insert(*digest, claimed);
                return None;
            }
            Some(Known::Left(progress)) => Some(progress),
            None => None,
        };
        let stop = CancellationToken::new();
        known.insert(*digest, Known::Claimed(Transfer { peer, stop: stop.clone() }));
        drop(known);
        Some(Claim { partials: Arc::clone(partials), digest: *digest, stop, left })
    }

    /// Whether a transfer of a file is under way, and which peer began it, if it was not this node.
    pub fn under_way(&self, digest: &Digest) -> Option<Option<PublicKey>> {
        match self.known().get(digest) {
            Some(Known::Claimed(transfer)) => Some(transfer.peer),
            _ => None,
        }
    }

    /// Tells the transfer of a file to end.
    pub fn interrupt(&self, digest: &Digest) {
        if let Some(Known::Claimed(transfer)) = self.known().get(digest) {
            transfer.stop.cancel();
        }
    }

    /// Changes whenever a transfer has ended.
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Removes the beginnings of files that are not to be kept.
    pub fn keep_only(&self, kept: impl Fn(&Digest) -> bool) -> io::Result<()> {
        let mut known = self.known();
        for (digest, path) in self.listed()? {
            if !kept(&digest) && !matches!(known.get(&digest), Some(Known::Claimed(_))) {
                known.remove(&digest);
                unless_absent(fs::remove_file(path))?;
            }
        }
        Ok(())
    }

    fn listed(&self) -> io::Result<Vec<(Digest, PathBuf)>> {
        let paths = fs::read_dir(&self.folder)?.filter_map(Result::ok).map(|entry| entry.path());
        Ok(paths.filter_map(|path| Some((digest_of(&path)?, path))).collect())
    }

    /// Removes the beginnings that are too old or too many, the oldest first, so that `room` more have their place.
    fn prune(&self, known: &mut BTreeMap<Digest, Known>, room: usize) -> io::Result<()> {
        let is_claimed = |digest: &Digest| matches!(known.get(digest), Some(Known::Claimed(_)));
        let mut left = Vec::new();
        for (digest, path) in self.listed()?.into_iter().filter(|(digest, _)| !is_claimed(digest)) {
            let Some(metadata) = unless_absent(fs::metadata(&path))? else { continue };
            left.push((metadata.modified()?, metadata.len(), digest, path));
        }
        // The newest first: what does not fit any more goes.
        left.sort_by_key(|(modified, ..)| std::cmp::Reverse(*modified));
        let now = SystemTime::now();
        let mut bytes = 0u64;
        for (number, (modified, size, digest, path)) in left.into_iter().enumerate() {
            bytes = bytes.saturating_add(size);
            let age = now.duration_since(modified).unwrap_or_default();
            let fits =
                number.saturating_add(room) < PARTIALS_MAX && bytes <= PARTIAL_BYTES_MAX && age <= PARTIAL_AGE_MAX;
            if !fits {
                known.remove(&digest);
                unless_absent(fs::remove_file(path))?;
            }
        }
        Ok(())
    }
}

impl Claim {
    /// The digest of the file.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Where the beginning of the file lies.
    pub fn path(&self) -> PathBuf {
        self.partials.path(&self.digest)
    }

    /// Cancelled when another transfer of the file takes over.
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Makes room for a file that did not exist yet.
    pub fn make_room(&self) -> io::Result<()> {
        self.partials.prune(&mut self.partials.known(), 1)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut known = self.partials.known();
        match self.left.take() {
            Some(progress) => known.insert(self.digest, Known::Left(progress)),
            None => known.remove(&self.digest),
        };
        drop(known);
        self.partials.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn digest_of(path: &Path) -> Option<Digest> {
    let is_partial = path.extension().is_some_and(|extension| extension == EXTENSION);
    path.file_stem().filter(|_| is_partial)?.to_str()?.parse().ok()
}
