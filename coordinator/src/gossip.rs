//! Sending heads to the other replicas: every replica sends its co-signatures itself, to everybody, so that no leader can
//! hold them back.
//!
//! A head is pushed as soon as it is signed. Nobody answers that, and it may get lost; so the newest head is also offered by a
//! call now and then, whose answer makes up for what was missed on either side.

use std::{collections::BTreeSet, time::Duration};

use fedledger_ledger::{PublicKey, consensus::ReplicaId};
use fedledger_proto::{
    endpoint::{Endpoint, FrameSender, PeerFrame},
    wire::{CheckpointRequest, CheckpointResponse},
};
use tokio::{
    sync::{mpsc, watch},
    time::{interval, timeout},
};

use crate::{checkpoints::Checkpoints, peers::Peers, tasks::Tasks};

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a peer is offered the newest head with the co-signatures that came in since, unless it has taken it.
const REPEAT: Duration = Duration::from_secs(1);

/// Sends every new head in `notes` to every replica but `own`, under the transport keys that they have then.
pub fn start(
    tasks: &Tasks,
    peers: &Peers,
    own: ReplicaId,
    endpoint: &Endpoint,
    notes: &watch::Receiver<Option<String>>,
    checkpoints: &Checkpoints,
) {
    for id in peers.all().into_keys().filter(|id| *id != own) {
        let (peers, endpoint, checkpoints) = (peers.clone(), endpoint.clone(), checkpoints.clone());
        let teller = Teller { id, peers, endpoint, checkpoints, told: None, pushed: None };
        tasks.spawn(teller.run(notes.clone()));
    }
}

/// Tells one peer.
struct Teller {
    id: ReplicaId,
    peers: Peers,
    endpoint: Endpoint,
    checkpoints: Checkpoints,
    /// The note that the peer has taken last.
    told: Option<String>,
    /// Heads are pushed through this.
    pushed: Option<FrameSender>,
}

impl Teller {
    async fn run(mut self, mut notes: watch::Receiver<Option<String>>) {
        let mut connected = self.endpoint.connected();
        let mut repeat = interval(REPEAT);
        repeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut keys = self.peers.changes();
        loop {
            let peer = keys.borrow_and_update().get(&self.id).copied();
            let reached = tokio::select! {
                changed = keys.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                reached = reach(&mut connected, peer) => reached,
            };
            let Some((peer, was_away)) = reached else { return };
            if was_away {
                // It may have been started anew and know nothing of what it was told.
                self.told = None;
            }
            tokio::select! {
                changed = connected.changed() => if changed.is_err() { return },
                changed = notes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let newest = notes.borrow_and_update().clone();
                    newest.into_iter().for_each(|note| self.push(peer, note));
                }
                _ = repeat.tick() => {
                    if let Some(note) = self.checkpoints.unvouched().await {
                        self.tell(peer, note).await;
                    }
                    if let Some(epoch) = self.checkpoints.unvouched_epoch().await {
                        self.ask(peer, epoch).await;
                    }
                    let newest = self.checkpoints.newest().await;
                    if let Some(note) = newest.filter(|note| self.told.as_ref() != Some(note)) {
                        self.tell(peer, note).await;
                    }
                }
            }
        }
    }

    fn push(&mut self, peer: PublicKey, note: String) {
        let pushed = match self.pushed.take().filter(|sender| sender.peer() == peer) {
            Some(sender) => sender,
            None => self.endpoint.head_sender(peer),
        };
        if let Err(error) = pushed.try_send(note.into_bytes()) {
            tracing::debug!(%peer, %error, "a head was not pushed to a replica");
        }
        self.pushed = Some(pushed);
    }

    /// Asks for the note by which an epoch was vouched for: this replica may have been away then.
    async fn ask(&self, peer: PublicKey, epoch: u64) {
        let request = CheckpointRequest::Vouched { epoch };
        let answer = timeout(PATIENCE, self.endpoint.call(peer, &request, PATIENCE)).await;
        let Ok(Ok(CheckpointResponse::Latest { note: Some(note), .. })) = answer else { return };
        if let Err(error) = self.checkpoints.vouch(note).await {
            tracing::warn!(%peer, epoch, %error, "a replica's note does not vouch for an epoch");
        }
    }

    async fn tell(&mut self, peer: PublicKey, note: String) {
        let request = CheckpointRequest::Offer { note: note.clone() };
        match timeout(PATIENCE, self.endpoint.call(peer, &request, PATIENCE)).await {
            Ok(Ok(CheckpointResponse::Taken { note: theirs, consistency })) => {
                if let Some(theirs) = theirs
                    && let Err(reason) = self.checkpoints.answered(&note, theirs, consistency.as_deref()).await
                {
                    tracing::error!(%peer, reason, "a replica's head does not extend the one that it has taken");
                }
                self.told = Some(note);
            }
            Ok(Ok(CheckpointResponse::Latest { .. })) => {
                tracing::warn!(%peer, "a replica answers something that was not asked");
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a replica does not take a head"),
            Err(_) => tracing::debug!(%peer, "a replica takes too long to take a head"),
        }
    }
}

/// Takes the heads that other replicas push. Participants offer theirs by calls, which are counted for each.
pub async fn listen(mut heads: mpsc::Receiver<PeerFrame>, peers: Peers, checkpoints: Checkpoints) {
    while let Some(PeerFrame { peer, bytes }) = heads.recv().await {
        if peers.id(&peer).is_none() {
            tracing::debug!(%peer, "a node that is no replica pushes heads");
            continue;
        }
        let Ok(note) = String::from_utf8(bytes) else {
            tracing::debug!(%peer, "a head that was pushed is no text");
            continue;
        };
        if let Err(error) = checkpoints.offer(note).await {
            tracing::debug!(%peer, %error, "a head that was pushed is not taken");
        }
    }
}

/// Waits until the peer is connected, for ever if there is none, and tells whether it was not; none when the endpoint has
/// stopped.
async fn reach(
    connected: &mut watch::Receiver<BTreeSet<PublicKey>>,
    peer: Option<PublicKey>,
) -> Option<(PublicKey, bool)> {
    let Some(peer) = peer else { return std::future::pending().await };
    let is_connected = connected.borrow().contains(&peer);
    connected.wait_for(|peers| peers.contains(&peer)).await.ok()?;
    Some((peer, !is_connected))
}
