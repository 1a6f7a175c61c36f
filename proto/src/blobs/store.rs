//! The folder of whole files.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use fedledger_ledger::{Digest, PublicKey};
use tempfile::{NamedTempFile, TempPath};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

use super::{
    Marks, Partial, StoredBlob,
    damage::Verified,
    marks,
    partials::{OFFER_PATIENCE, Partials, Reservation, TAKE_OVER_TIMEOUT},
};
use crate::wire::CHUNK_BYTES;

/// Folder within the store for files that are on their way in.
pub const INCOMING_FOLDER: &str = "incoming";

/// What the name of a file's marks ends with.
const MARKS_EXTENSION: &str = "marks";

/// A folder of files named by their SHA-256; clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct BlobStore {
    pub(super) folder: Arc<PathBuf>,
    /// Counts the files that were added, so that whoever waits for one looks again.
    added: watch::Sender<u64>,
    pub(super) partials: Arc<Partials>,
    /// Held while a file gets its name or loses it.
    pub(super) naming: Arc<std::sync::Mutex<()>>,
    /// Held while a file is read as a whole, so that many who ask for it at once read it once.
    pub(super) verified: Arc<Mutex<Verified>>,
}

/// A file that this process writes itself, on its way into the store.
#[derive(Debug)]
pub struct IncomingBlob {
    path: TempPath,
}

impl BlobStore {
    /// Opens the store in `folder`, creating it where there is none. What an earlier process was writing itself is swept
    /// away; what it was receiving is kept within the bounds of [`PARTIAL_BYTES_MAX`](super::PARTIAL_BYTES_MAX) and
    /// [`PARTIAL_AGE_MAX`](super::PARTIAL_AGE_MAX).
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let incoming = folder.join(INCOMING_FOLDER);
        fs::create_dir_all(&incoming)?;
        let added = watch::Sender::new(0);
        let partials = Arc::new(Partials::open(incoming)?);
        Ok(Self {
            folder: Arc::new(folder.to_owned()),
            added,
            partials,
            naming: Arc::default(),
            verified: Arc::default(),
        })
    }

    /// Where the file of this digest is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        path_in(&self.folder, digest)
    }

    /// Whether the file is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens a file; `None` where it is not there.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn open_file(&self, digest: &Digest) -> io::Result<Option<fs::File>> {
        unless_absent(fs::File::open(self.path(digest)))
    }

    /// A file with the marks of its chunks, to be sent; `None` where it is not there, or turns out to be damaged. Blocks
    /// only others that ask for a file whose marks have to be made again.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub async fn source(&self, digest: &Digest) -> io::Result<Option<StoredBlob>> {
        let (store, digest) = (self.clone(), *digest);
        let opened = blocking(move || store.open_marked(&digest)).await?;
        let Some((file, size, marks)) = opened else { return Ok(None) };
        if let Some(marks) = marks {
            return Ok(Some(StoredBlob::new(file, size, marks)));
        }
        let _alone = self.verified.lock().await;
        let store = self.clone();
        let marks = blocking(move || store.marked_anew(&digest)).await?;
        Ok(marks.map(|marks| StoredBlob::new(file, size, marks)))
    }

    fn open_marked(&self, digest: &Digest) -> io::Result<Option<(fs::File, u64, Option<Marks>)>> {
        let Some(file) = self.open_file(digest)? else { return Ok(None) };
        let size = file.metadata()?.len();
        let marks = match size {
            0 => Some(Marks::default()),
            // The receiver verifies it, and nobody gains by this node's reading it twice.
            size if size <= CHUNK_BYTES as u64 => Some(Marks::new(vec![*digest])),
            _ => self.read_marks(digest, size),
        };
        Ok(Some((file, size, marks)))
    }

    /// The marks beside a file, if they can be its.
    pub(super) fn read_marks(&self, digest: &Digest, size: u64) -> Option<Marks> {
        Marks::parse(&fs::read(self.marks_path(digest)).ok()?, digest, size)
    }

    fn marked_anew(&self, digest: &Digest) -> io::Result<Option<Marks>> {
        let Some(file) = self.open_file(digest)? else { return Ok(None) };
        // Somebody else may have made them meanwhile.
        if let Some(marks) = self.read_marks(digest, file.metadata()?.len()) {
            return Ok(Some(marks));
        }
        let marks = self.marks_if_whole(digest, file)?;
        if let Some(marks) = &marks {
            self.write_marks(digest, marks);
        }
        Ok(marks)
    }

    /// Keeps marks beside a file. They can be made again, so a failure is only told.
    pub(super) fn write_marks(&self, digest: &Digest, marks: &Marks) {
        let write = || {
            let mut file = NamedTempFile::new_in(self.folder.join(INCOMING_FOLDER))?;
            file.write_all(&marks.to_bytes())?;
            file.persist(self.marks_path(digest)).map_err(|error| error.error)
        };
        if let Err(error) = write() {
            tracing::warn!(%digest, %error, "the marks of a file cannot be kept: they are made again when it is asked for");
        }
    }

    fn marks_path(&self, digest: &Digest) -> PathBuf {
        self.path(digest).with_extension(MARKS_EXTENSION)
    }

    /// Changes whenever a file was added.
    pub fn added(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// A file to be written by this process and then [kept](Self::keep).
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn incoming(&self) -> io::Result<(IncomingBlob, fs::File)> {
        let file = NamedTempFile::new_in(self.folder.join(INCOMING_FOLDER))?;
        let (file, path) = file.into_parts();
        Ok((IncomingBlob { path }, file))
    }

    /// Makes a written file durable under the digest, which the caller has verified. It takes the place of one that is
    /// there, which may have been damaged since.
    ///
    /// # Errors
    ///
    /// What the file system says; the file is gone then.
    pub fn keep(&self, incoming: IncomingBlob, digest: &Digest) -> io::Result<()> {
        fs::File::open(&incoming.path)?.sync_all()?;
        unless_absent(fs::remove_file(self.marks_path(digest)))?;
        self.place(digest, |path| incoming.path.persist(path).map_err(|error| error.error))?;
        self.tell();
        Ok(())
    }

    /// The beginning of a file, to go on receiving it from whichever peer has it; `None` while another transfer of it is
    /// under way. Reads what is there of it, if no transfer of this process has left it. Blocks.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn begin(&self, digest: &Digest, size: u64) -> io::Result<Option<Partial>> {
        self.begin_for(None, digest, size)
    }

    fn begin_for(&self, peer: Option<PublicKey>, digest: &Digest, size: u64) -> io::Result<Option<Partial>> {
        let Some(claim) = Partials::claim(&self.partials, digest, peer) else { return Ok(None) };
        Partial::open(claim, size).map(Some)
    }

    /// The beginning of a file that a peer offers. An earlier offer of the same peer is ended first: its connection may be
    /// gone without anybody having noticed. Nothing that was verified is lost. `None` if the file is there meanwhile, or is
    /// being received from elsewhere, or looked for.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub async fn take_over(&self, peer: PublicKey, digest: &Digest, size: u64) -> io::Result<Option<Partial>> {
        let mut ended = self.partials.ended();
        let taken = async {
            loop {
                ended.mark_unchanged();
                match self.partials.under_way(digest) {
                    _ if self.has(digest) || self.partials.is_reserved(digest) => return Ok(None),
                    None => {
                        let (store, digest) = (self.clone(), *digest);
                        if let Some(partial) = blocking(move || store.begin_for(Some(peer), &digest, size)).await? {
                            return Ok(Some(partial));
                        }
                        continue;
                    }
                    Some(beginner) if beginner == Some(peer) => self.partials.interrupt(digest),
                    Some(_) => return Ok(None),
                }
                if ended.changed().await.is_err() {
                    return Ok(None);
                }
            }
        };
        timeout(TAKE_OVER_TIMEOUT, taken).await.unwrap_or(Ok(None))
    }

    /// Waits until no transfer of a file is under way. One that a peer began, and that does not end within some seconds, is
    /// told to: this node may find a faster one. From then on no peer may begin another, as long as what this gives is kept.
    pub async fn until_idle(&self, digest: &Digest) -> Option<Reservation> {
        self.until_idle_within(digest, OFFER_PATIENCE).await
    }

    pub(super) async fn until_idle_within(&self, digest: &Digest, patience: Duration) -> Option<Reservation> {
        let mut ended = self.partials.ended();
        let mut reserved = None;
        loop {
            ended.mark_unchanged();
            let Some(beginner) = self.partials.under_way(digest) else { return reserved };
            let changed = async { while ended.changed().await.is_ok() && self.partials.under_way(digest).is_some() {} };
            if timeout(patience, changed).await.is_err() && beginner.is_some() {
                reserved.get_or_insert_with(|| Partials::reserve(&self.partials, digest));
                self.partials.interrupt(digest);
            }
        }
    }

    /// Makes a file that was received durable under its name.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] if it is not complete, and what the file system says; what was verified stays then.
    pub fn finish(&self, partial: Partial) -> io::Result<()> {
        let (digest, marks) = partial.complete(|digest, incoming| {
            self.place(digest, |path| match incoming {
                Some(incoming) => fs::rename(incoming, path),
                // The empty file has no chunk that would have made one.
                None => fs::File::create(path)?.sync_all(),
            })
        })?;
        if marks.len() > 1 {
            self.write_marks(&digest, &marks);
        }
        self.tell();
        Ok(())
    }

    /// Moves a durable file to its name.
    fn place(&self, digest: &Digest, moved: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let path = self.path(digest);
        let parent = path.parent().unwrap_or(&self.folder);
        if !parent.exists() {
            fs::create_dir_all(parent)?;
            fs::File::open(&*self.folder)?.sync_all()?;
        }
        let named = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        moved(&path)?;
        drop(named);
        fs::File::open(parent)?.sync_all()
    }

    fn tell(&self) {
        self.added.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Removes a file that turned out to be damaged, or is of no use any more.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn discard(&self, digest: &Digest) -> io::Result<()> {
        unless_absent(fs::remove_file(self.marks_path(digest)))?;
        fs::remove_file(self.path(digest))
    }

    /// Removes every file but those that are to be kept, with what was received of others, transfers under way aside.
    ///
    /// # Errors
    ///
    /// The first failure; the rest is removed next time.
    pub fn keep_only(&self, kept: impl Fn(&Digest) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&*self.folder)?.filter_map(Result::ok) {
            if entry.file_name() != INCOMING_FOLDER && entry.file_type()?.is_dir() {
                keep_only_in(&entry.path(), &kept)?;
            }
        }
        self.partials.keep_only(kept)
    }

    /// Keeps bytes that are in memory.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let (incoming, mut file) = self.incoming()?;
            file.write_all(bytes)?;
            self.keep(incoming, &digest)?;
        }
        Ok(digest)
    }
}

/// Where the file of a digest lies in a blob folder.
pub fn path_in(folder: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    let (first, rest) = name.split_at(2);
    folder.join(first).join(rest)
}

/// Removes the files of a folder whose digests are not to be kept, and whatever has no digest for a name.
fn keep_only_in(folder: &Path, kept: impl Fn(&Digest) -> bool) -> io::Result<()> {
    let first = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in fs::read_dir(folder)?.filter_map(Result::ok) {
        let path = entry.path();
        let is_named = path.extension().is_none_or(|extension| extension == MARKS_EXTENSION);
        let rest = path.file_stem().unwrap_or_default().to_string_lossy();
        let digest = format!("{first}{rest}").parse::<Digest>().ok().filter(|_| is_named);
        if !digest.is_some_and(|digest| kept(&digest)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// `None` for a file that is not there.
pub(super) fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Fills the buffer as far as the file goes.
pub(super) fn read_chunk(file: &mut fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    marks::fill(file, buffer)
}
