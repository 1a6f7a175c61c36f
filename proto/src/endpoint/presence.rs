//! Whether a peer is there. The connection of one that was killed, suspended or cut off without a word seems to be open for
//! some time, and a transfer may be silent for long while the peer reads or writes a file.

use std::{future::Future, time::Duration};

use fedledger_ledger::PublicKey;
use tokio::time::sleep;

use super::{CallError, Endpoint};
use crate::wire::CheckpointRequest;

/// How often a peer is asked while a transfer with it goes on.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

impl Endpoint {
    /// Whether a peer answers anything within `patience`. A refusal is an answer as well, and so is a lost connection: it
    /// tells at once what silence does not.
    pub async fn is_there(&self, peer: PublicKey, patience: Duration) -> bool {
        let answered = self.call(peer, &CheckpointRequest::Latest { known: None }, patience).await;
        !matches!(answered, Err(CallError::TimedOut))
    }

    /// Runs a transfer with a peer to its end, or until the peer is asked and does not answer within `patience`; then there
    /// is nothing.
    pub async fn while_there<T>(
        &self,
        peer: PublicKey,
        patience: Duration,
        transfer: impl Future<Output = T> + Send,
    ) -> Option<T> {
        let gone = async {
            loop {
                sleep(WATCH_INTERVAL).await;
                if !self.is_there(peer, patience).await {
                    return;
                }
            }
        };
        tokio::select! {
            result = transfer => Some(result),
            () = gone => None,
        }
    }
}
