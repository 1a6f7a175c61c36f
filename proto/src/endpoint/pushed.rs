//! Frames that nobody answers, Raft messages and heads: one long-lived stream per protocol, direction and peer.
//!
//! Raft expects messages to get lost, but not to arrive twice (its read index relies on it). So a frame is written at
//! most once: whatever was in flight when a stream broke is dropped. What must arrive is sent again by whoever sends it.

use std::{sync::Arc, time::Duration};

use fedledger_ledger::PublicKey;
use libp2p::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    driver::Renewals,
    inbound::{PeerFrame, Served},
    open::Opener,
};
use crate::wire::{FrameError, Protocol, frame};

/// Frames that wait to be sent to one peer.
const QUEUE_FRAMES_MAX: usize = 1024;

/// Bytes that wait to be sent to one peer.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Wait before opening another stream after one could not be opened or broke at once.
const REOPEN_DELAY: Duration = Duration::from_millis(100);

/// A frame that was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameSendError {
    /// The peer takes frames more slowly than they come.
    #[error("too many frames wait for the peer")]
    Full,
    /// The peer is not connected.
    #[error("the peer is not connected")]
    Disconnected,
    /// The frame is larger than any peer would accept.
    #[error("a frame of {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Size of the frame, in bytes.
        size: usize,
        /// Largest size allowed, in bytes.
        limit: usize,
    },
}

/// Sends frames to one peer, in order, each at most once.
#[derive(Clone)]
pub struct FrameSender {
    peer: PublicKey,
    protocol: Protocol,
    opener: Opener,
    queue: mpsc::Sender<Queued>,
    room_bytes: Arc<Semaphore>,
}

struct Queued {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl std::fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameSender").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl FrameSender {
    /// Starts the task that writes the frames; it ends with the last clone of the sender, or with the endpoint.
    pub(super) fn start(opener: Opener, protocol: Protocol, peer: PublicKey, stop: CancellationToken) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_FRAMES_MAX);
        let task_opener = opener.clone();
        tokio::spawn(async move { stop.run_until_cancelled(pump(task_opener, protocol, peer, queued)).await });
        Self { peer, protocol, opener, queue, room_bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)) }
    }

    /// The peer that the frames go to.
    pub const fn peer(&self) -> PublicKey {
        self.peer
    }

    /// Queues a frame. Never waits.
    ///
    /// # Errors
    ///
    /// [`FrameSendError`]; the frame is dropped.
    pub fn try_send(&self, frame: Vec<u8>) -> Result<(), FrameSendError> {
        let limit = self.protocol.request_size_bytes_max();
        let size = frame.len();
        if size > limit {
            return Err(FrameSendError::TooLarge { size, limit });
        }
        if !self.opener.is_connected(&self.peer) {
            return Err(FrameSendError::Disconnected);
        }
        // The limit fits into 32 bits, see its definition.
        let size = u32::try_from(size).map_err(|_| FrameSendError::Full)?;
        let room = Arc::clone(&self.room_bytes).try_acquire_many_owned(size).map_err(|_| FrameSendError::Full)?;
        self.queue.try_send(Queued { bytes: frame, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => FrameSendError::Full,
            mpsc::error::TrySendError::Closed(_) => FrameSendError::Disconnected,
        })
    }
}

/// Writes queued frames for as long as somebody can queue them.
async fn pump(opener: Opener, protocol: Protocol, peer: PublicKey, mut queued: mpsc::Receiver<Queued>) {
    let (mut connected, mut renewed) = (opener.connected.clone(), opener.renewed.clone());
    loop {
        if connected.wait_for(|peers| peers.contains(&peer)).await.is_err() {
            return;
        }
        // Only with something to send, so that a peer that never hears from us has no stream to keep.
        let Some(first) = queued.recv().await else { return };
        let renewals = of_peer(&renewed.borrow_and_update(), &peer);
        let writing = async {
            let (mut stream, _permit) = opener.open(peer, protocol).await.map_err(|error| error.to_string())?;
            write(&mut stream, protocol, first, &mut queued).await.map_err(|error| error.to_string())
        };
        let error = tokio::select! {
            written = writing => match written {
                Ok(()) => return,
                Err(error) => error,
            },
            // What was being written gets lost, as it may.
            Ok(_) = renewed.wait_for(|now| of_peer(now, &peer) != renewals) => {
                debug!(%peer, %protocol, "a stream of frames moves to the peer's new connection");
                continue;
            }
        };
        debug!(%peer, %protocol, %error, "a stream of frames broke");
        sleep(REOPEN_DELAY).await;
    }
}

/// How often the peer has connected anew.
fn of_peer(renewals: &Renewals, peer: &PublicKey) -> u64 {
    renewals.get(peer).copied().unwrap_or_default()
}

/// Writes frames until the stream breaks, or until there will be no more.
async fn write(
    stream: &mut Stream,
    protocol: Protocol,
    first: Queued,
    queued: &mut mpsc::Receiver<Queued>,
) -> Result<(), FrameError> {
    let limit = protocol.request_size_bytes_max();
    let mut next = Some(first);
    while let Some(Queued { bytes, _room }) = next {
        frame::feed_frame(stream, &bytes, limit).await?;
        next = match queued.try_recv() {
            Ok(more) => Some(more),
            Err(_) => {
                frame::flush(stream).await?;
                queued.recv().await
            }
        };
    }
    super::inbound::close(stream).await
}

/// Reads frames for as long as the stream lasts. The shell's pace is the peer's pace.
pub(super) async fn receive(
    inbox: mpsc::Sender<PeerFrame>,
    peer: PublicKey,
    mut served: Served,
) -> Result<(), FrameError> {
    let limit = served.protocol.request_size_bytes_max();
    while let Some(bytes) = frame::read_frame(&mut served.stream, limit).await? {
        if inbox.send(PeerFrame { peer, bytes }).await.is_err() {
            break;
        }
    }
    Ok(())
}
