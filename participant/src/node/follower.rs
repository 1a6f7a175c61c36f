//! Following the ledger at one replica.

use std::sync::Arc;

use fedledger_proto::{
    endpoint::CallError,
    wire::{EventFrame, EventsRequest},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{context::Context, core::Input, peers::Replica, witness};

/// Something that came from the replica followed in a certain turn; what comes late from an earlier turn is ignored.
#[derive(Debug)]
pub struct Fed {
    /// The turn.
    pub turn: u64,
    /// What came.
    pub input: Input,
}

/// Sends the replica's leaves from index `from` on, until it ends or is stopped; then the reason, unless it was stopped.
pub async fn follow(
    context: Arc<Context>,
    replica: Replica,
    from: u64,
    turn: u64,
    feed: mpsc::Sender<Fed>,
    stop: CancellationToken,
) {
    let reason = tokio::select! {
        () = stop.cancelled() => return,
        reason = forward(&context, &replica, from, turn, &feed) => reason,
    };
    // Nobody is left to be told when the node stops.
    feed.send(Fed { turn, input: Input::Lost { reason } }).await.ok();
}

async fn forward(context: &Context, replica: &Replica, from: u64, turn: u64, feed: &mpsc::Sender<Fed>) -> String {
    match forward_all(context, replica, from, turn, feed).await {
        Ok(()) => "the replica ended the subscription".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn forward_all(
    context: &Context,
    replica: &Replica,
    from: u64,
    turn: u64,
    feed: &mpsc::Sender<Fed>,
) -> Result<(), CallError> {
    // Leaves that the replica has signed for are there already, whatever it answers.
    let head = context.head_of(replica).await;
    let signed = head.as_deref().and_then(|note| witness::parse_unverified(note).ok()).map_or(0, |head| head.size());
    let request = EventsRequest { from };
    let subscribing = timeout(context.replica_timeout, context.endpoint.subscribe(replica.key, &request));
    // One that is gone without a word seems to be connected for some time.
    let (accepted, mut leaves) = subscribing.await.map_err(|_| CallError::TimedOut)??;
    let following = Input::Following { replica: replica.name.clone(), next: accepted.next.max(signed) };
    let mut received = feed.send(Fed { turn, input: following }).await;
    let mut expected = from;
    while received.is_ok()
        && let Some(EventFrame { index, leaf }) = leaves.next().await?
    {
        if index != expected {
            return Err(CallError::Protocol("sent a leaf out of order"));
        }
        expected += 1;
        received = feed.send(Fed { turn, input: Input::Leaf(leaf) }).await;
    }
    Ok(())
}
