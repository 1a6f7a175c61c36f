//! Sending heads to the other replicas: every replica sends its co-signatures itself, to everybody, so that no leader can
//! hold them back.

use std::time::Duration;

use fedledger_ledger::PublicKey;
use fedledger_proto::{
    endpoint::Endpoint,
    wire::{CheckpointRequest, CheckpointResponse},
};
use tokio::{
    sync::watch,
    time::{interval, timeout},
};

use crate::{checkpoints::Checkpoints, replica::Peers, tasks::Tasks};

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a peer is told the newest head again, with the co-signatures that came in since: what was lost on the way is
/// made up for.
const REPEAT: Duration = Duration::from_secs(1);

/// Sends every new head in `notes` to every other replica.
pub fn start(
    tasks: &Tasks,
    peers: &Peers,
    own: PublicKey,
    endpoint: &Endpoint,
    notes: &watch::Receiver<Option<String>>,
    checkpoints: &Checkpoints,
) {
    for (_, peer) in peers.iter().filter(|(_, key)| *key != own) {
        let teller = Teller { peer, endpoint: endpoint.clone(), checkpoints: checkpoints.clone(), told: None };
        tasks.spawn(teller.run(notes.clone()));
    }
}

/// Tells one peer.
struct Teller {
    peer: PublicKey,
    endpoint: Endpoint,
    checkpoints: Checkpoints,
    /// The note that the peer has taken last.
    told: Option<String>,
}

impl Teller {
    async fn run(mut self, mut notes: watch::Receiver<Option<String>>) {
        let mut connected = self.endpoint.connected();
        let mut repeat = interval(REPEAT);
        repeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let peer = self.peer;
            if connected.wait_for(|peers| peers.contains(&peer)).await.is_err() {
                return;
            }
            let newest = tokio::select! {
                changed = notes.changed() => match changed {
                    Ok(()) => notes.borrow_and_update().clone(),
                    Err(_) => return,
                },
                _ = repeat.tick() => {
                    if let Some(note) = self.checkpoints.unvouched().await {
                        self.tell(note).await;
                    }
                    self.checkpoints.newest().await
                }
            };
            if let Some(note) = newest.filter(|note| self.told.as_ref() != Some(note)) {
                self.tell(note).await;
            }
        }
    }

    async fn tell(&mut self, note: String) {
        let request = CheckpointRequest::Offer { note: note.clone() };
        match timeout(PATIENCE, self.endpoint.call(self.peer, &request, PATIENCE)).await {
            Ok(Ok(CheckpointResponse::Taken { note: theirs, consistency })) => {
                if let Some(theirs) = theirs
                    && let Err(reason) = self.checkpoints.answered(&note, theirs, consistency.as_deref()).await
                {
                    tracing::error!(peer = %self.peer, reason, "a replica's head does not extend the one that it has taken");
                }
                self.told = Some(note);
            }
            Ok(Ok(CheckpointResponse::Latest { .. })) => {
                tracing::warn!(peer = %self.peer, "a replica answers something that was not asked");
            }
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "a replica does not take a head"),
            Err(_) => tracing::debug!(peer = %self.peer, "a replica takes too long to take a head"),
        }
    }
}
