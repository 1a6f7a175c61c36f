//! Blobs at rest: files named by their SHA-256 in a local folder, whole ones and those that are on their way in.
//!
//! A file appears under its name only when it is complete, verified and durable, so whatever is found under a name can be
//! used. Of a file that is on its way, the chunks that were verified survive interruptions and restarts, and the transfer
//! goes on from there with whichever peer has the file.
//!
//! ```text
//! <first two digits>/<other digits>          a file
//! <first two digits>/<other digits>.marks    the marks of its chunks, made on the way in, made again where it is missing
//! incoming/<digits>.part                     verified chunks of a file, and perhaps the beginning of one more
//! incoming/<digits>.aside                    another beginning of it, while a peer says that the first one is wrong
//! incoming/.tmp...                           a file that this process writes itself
//! ```

mod damage;
mod fetch;
mod marks;
mod memory;
mod partial;
mod partials;
mod progress;
mod store;
mod stored;
mod sweep;

#[cfg(test)]
mod tests;

use std::io;

pub use fetch::{Fetch, FetchError};
pub use marks::Marks;
pub use memory::{MemoryBlob, MemorySink};
pub use partial::Partial;
pub use partials::{PARTIAL_AGE_MAX, PARTIAL_BYTES_MAX, PARTIALS_PER_PEER_MAX, Reservation};
pub use progress::Progress;
pub use store::{BlobStore, INCOMING_FOLDER, IncomingBlob, path_in};
pub use stored::StoredBlob;

/// A whole blob that can be sent. Its functions may block.
pub trait BlobSource: Send + 'static {
    /// Its size, in bytes.
    fn size(&self) -> u64;

    /// The marks of its chunks, as they were when it was taken in.
    fn marks(&self) -> &Marks;

    /// Fills the buffer with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if there are fewer, and whatever else goes wrong with reading.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Where the chunks of a blob go once they are verified. Its functions may block.
pub trait BlobSink: Send + 'static {
    /// How far the blob has come. A transfer goes on from there, and counts here what it has written.
    fn progress(&mut self) -> &mut Progress;

    /// Writes the chunk that comes next.
    ///
    /// # Errors
    ///
    /// What goes wrong with writing; the transfer ends then.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;

    /// Forgets everything that was written. The progress is reset by the caller.
    ///
    /// # Errors
    ///
    /// What goes wrong with that; the transfer ends then.
    fn clear(&mut self) -> io::Result<()>;
}
