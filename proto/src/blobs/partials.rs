//! Files that are on their way in: who may write each, how far each has come, and how much of them is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fedledger_ledger::{Digest, PublicKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Progress, store::unless_absent};

/// Most files of one peer of which the beginning is kept, and most of this node's own searches. Transfers under way are not
/// counted: the endpoint bounds those. Whose beginnings an earlier process has left is not known; they are bounded by their
/// bytes and their age.
pub const PARTIALS_PER_PEER_MAX: usize = 64;

/// Most bytes that all beginnings have together. Where there are more, whoever has most of them loses some.
pub const PARTIAL_BYTES_MAX: u64 = 16 << 30;

/// How long a beginning is kept to which nothing is added.
pub const PARTIAL_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long an interrupted transfer may take to let go of its file: the time to write a chunk.
pub(super) const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long this node waits for a file that a peer is sending before it looks for the file itself.
pub(super) const OFFER_PATIENCE: Duration = Duration::from_secs(10);

/// What the name of such a file ends with.
const EXTENSION: &str = "part";

/// What the name of a beginning ends with that was put aside. It is swept away by the next start.
const EXTENSION_ASIDE: &str = "aside";

/// The folder of files that are on their way in.
#[derive(Debug)]
pub(super) struct Partials {
    folder: PathBuf,
    known: Mutex<BTreeMap<Digest, Known>>,
    /// Files that no peer may begin to send, and how many searches of this node say so.
    reserved: Mutex<BTreeMap<Digest, usize>>,
    /// Counts the transfers that ended.
    ended: watch::Sender<u64>,
}

/// What this process knows of a file on its way in. Those of earlier processes are known by their names only.
#[derive(Debug)]
enum Known {
    /// A transfer writes it.
    Claimed(Transfer),
    /// A transfer has left it.
    Left { origin: Origin, progress: Progress },
}

/// Whose transfer has left a file: a peer's, one that this node began, or one of an earlier process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Earlier,
    Own,
    Peer(PublicKey),
}

/// A beginning on the disk that no transfer writes.
struct Beginning {
    digest: Digest,
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
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
    origin: Origin,
    stop: CancellationToken,
    /// What is left behind of the file.
    pub left: Option<Progress>,
}

/// As long as this is kept, only this node may begin to receive a file: a peer that was interrupted could otherwise begin
/// again before anybody else does, time after time.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Reservation {
    partials: Arc<Partials>,
    digest: Digest,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.partials.reservations();
        if let Some(searches) = reserved.get_mut(&self.digest) {
            *searches = searches.saturating_sub(1);
            if *searches == 0 {
                reserved.remove(&self.digest);
            }
        }
    }
}

impl Partials {
    /// Sweeps away what is neither a beginning nor within the bounds.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        for entry in fs::read_dir(&folder)?.filter_map(Result::ok) {
            if digest_of(&entry.path(), EXTENSION).is_none() {
                let path = entry.path();
                if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        let partials =
            Self { folder, known: Mutex::default(), reserved: Mutex::default(), ended: watch::Sender::new(0) };
        partials.prune(&mut partials.known(), None)?;
        Ok(partials)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{digest}.{EXTENSION}"))
    }

    /// The right to write a file, for a transfer that a peer began, or this node; `None` while somebody else has it, or, for
    /// a peer, while it is reserved.
    pub fn claim(partials: &Arc<Self>, digest: &Digest, peer: Option<PublicKey>) -> Option<Claim> {
        let mut known = partials.known();
        if peer.is_some() && partials.is_reserved(digest) {
            return None;
        }
        let left = match known.remove(digest) {
            Some(claimed @ Known::Claimed(_)) => {
                known.insert(*digest, claimed);
                return None;
            }
            Some(Known::Left { progress, .. }) => Some(progress),
            None => None,
        };
        let stop = CancellationToken::new();
        known.insert(*digest, Known::Claimed(Transfer { peer, stop: stop.clone() }));
        drop(known);
        let origin = peer.map_or(Origin::Own, Origin::Peer);
        Some(Claim { partials: Arc::clone(partials), digest: *digest, origin, stop, left })
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

    /// From now on only this node may begin to receive a file, until the reservation is dropped.
    pub fn reserve(partials: &Arc<Self>, digest: &Digest) -> Reservation {
        *partials.reservations().entry(*digest).or_default() += 1;
        Reservation { partials: Arc::clone(partials), digest: *digest }
    }

    /// Whether no peer may begin to send a file.
    pub fn is_reserved(&self, digest: &Digest) -> bool {
        self.reservations().contains_key(digest)
    }

    fn reservations(&self) -> MutexGuard<'_, BTreeMap<Digest, usize>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever a transfer has ended.
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Removes the beginnings of files that are not to be kept.
    pub fn keep_only(&self, kept: impl Fn(&Digest) -> bool) -> io::Result<()> {
        let mut known = self.known();
        for (digest, path) in self.listed(EXTENSION)?.into_iter().chain(self.listed(EXTENSION_ASIDE)?) {
            if !kept(&digest) && !matches!(known.get(&digest), Some(Known::Claimed(_))) {
                known.remove(&digest);
                unless_absent(fs::remove_file(path))?;
            }
        }
        Ok(())
    }

    /// Files of which a beginning is here that no transfer writes.
    pub fn left(&self) -> io::Result<BTreeSet<Digest>> {
        let all = self.listed(EXTENSION)?.into_iter().chain(self.listed(EXTENSION_ASIDE)?).map(|(digest, _)| digest);
        let known = self.known();
        Ok(all.filter(|digest| !matches!(known.get(digest), Some(Known::Claimed(_)))).collect())
    }

    fn listed(&self, extension: &str) -> io::Result<Vec<(Digest, PathBuf)>> {
        let paths = fs::read_dir(&self.folder)?.filter_map(Result::ok).map(|entry| entry.path());
        Ok(paths.filter_map(|path| Some((digest_of(&path, extension)?, path))).collect())
    }

    /// Removes the beginnings that are too old or too many, so that one more of `newcomer` has its place. Those that have
    /// come farthest stay, and nobody's go before those of whoever has more.
    fn prune(&self, known: &mut BTreeMap<Digest, Known>, newcomer: Option<Origin>) -> io::Result<()> {
        let mut superfluous = Vec::new();
        let mut left: BTreeMap<Origin, Vec<Beginning>> = BTreeMap::new();
        let now = SystemTime::now();
        for (digest, path) in self.listed(EXTENSION)? {
            let origin = match known.get(&digest) {
                Some(Known::Claimed(_)) => continue,
                Some(Known::Left { origin, .. }) => *origin,
                None => Origin::Earlier,
            };
            let Some(metadata) = unless_absent(fs::metadata(&path))? else { continue };
            let beginning = Beginning { digest, path, bytes: metadata.len(), modified: metadata.modified()? };
            let is_old = now.duration_since(beginning.modified).unwrap_or_default() > PARTIAL_AGE_MAX;
            if is_old { superfluous.push(beginning) } else { left.entry(origin).or_default().push(beginning) }
        }
        for (origin, beginnings) in &mut left {
            // The farthest first, the newest of those that have come as far.
            beginnings.sort_by_key(|beginning| std::cmp::Reverse((beginning.bytes, beginning.modified)));
            if *origin != Origin::Earlier {
                let room = PARTIALS_PER_PEER_MAX.saturating_sub(usize::from(newcomer == Some(*origin)));
                superfluous.extend(beginnings.drain(room.min(beginnings.len())..));
            }
        }
        superfluous.extend(over_bytes(&mut left, PARTIAL_BYTES_MAX));
        for beginning in superfluous {
            known.remove(&beginning.digest);
            unless_absent(fs::remove_file(beginning.path))?;
        }
        Ok(())
    }
}

/// Takes out what is more than so many bytes: of whoever has most bytes the beginning that has come least far, again and
/// again.
fn over_bytes(left: &mut BTreeMap<Origin, Vec<Beginning>>, bytes_max: u64) -> Vec<Beginning> {
    let sum = |beginnings: &[Beginning]| beginnings.iter().fold(0u64, |sum, one| sum.saturating_add(one.bytes));
    let mut sums: BTreeMap<Origin, u64> = left.iter().map(|(origin, all)| (*origin, sum(all))).collect();
    let mut taken = Vec::new();
    while sums.values().fold(0u64, |all, one| all.saturating_add(*one)) > bytes_max {
        let Some((origin, sum)) = sums.iter_mut().max_by_key(|(_, sum)| **sum) else { break };
        let Some(least) = left.get_mut(origin).and_then(Vec::pop) else { break };
        *sum = sum.saturating_sub(least.bytes);
        taken.push(least);
    }
    taken
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

    /// Where another beginning of the file lies, if there are two.
    pub fn path_aside(&self) -> PathBuf {
        self.path().with_extension(EXTENSION_ASIDE)
    }

    /// Cancelled when another transfer of the file takes over.
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Makes room for a file that did not exist yet.
    pub fn make_room(&self) -> io::Result<()> {
        self.partials.prune(&mut self.partials.known(), Some(self.origin))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut known = self.partials.known();
        match self.left.take() {
            Some(progress) => known.insert(self.digest, Known::Left { origin: self.origin, progress }),
            None => known.remove(&self.digest),
        };
        drop(known);
        self.partials.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn digest_of(path: &Path, extension: &str) -> Option<Digest> {
    let is_partial = path.extension().is_some_and(|found| found == extension);
    path.file_stem().filter(|_| is_partial)?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginnings(sizes: &[u64]) -> Vec<Beginning> {
        let of = |bytes: &u64| Beginning {
            digest: Digest::of(b""),
            path: PathBuf::new(),
            bytes: *bytes,
            modified: SystemTime::UNIX_EPOCH,
        };
        sizes.iter().map(of).collect()
    }

    #[test]
    fn whoever_has_most_bytes_loses_what_has_come_least_far() {
        let [greedy, modest] = [1, 2].map(|number| Origin::Peer(PublicKey::from_bytes([number; 32])));
        let mut left = BTreeMap::from([
            (greedy, beginnings(&[500, 400, 300])),
            (modest, beginnings(&[90, 10])),
            (Origin::Earlier, beginnings(&[100])),
        ]);
        assert!(over_bytes(&mut left, 1400).is_empty());
        let taken: Vec<u64> = over_bytes(&mut left, 800).iter().map(|taken| taken.bytes).collect();
        assert_eq!(taken, [300, 400]);
        assert_eq!(left[&modest].len() + left[&Origin::Earlier].len(), 3);
        assert_eq!(over_bytes(&mut left, 0).len(), 4);
    }
}
