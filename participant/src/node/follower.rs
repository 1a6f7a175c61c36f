//! Following the ledger at one replica.

use std::{sync::Arc, time::Duration};

use fedledger_proto::{
    endpoint::{CallError, FrameStream},
    wire::{EventFrame, EventsRequest},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{context::Context, core::Input, peers::Replica, witness};

/// How long a replica may send nothing before it is asked whether it is there. One that was killed or cut off without a word
/// seems to be connected for seconds, in which a round may begin and end.
const QUIET: Duration = Duration::from_secs(1);

/// The replica that is followed in a turn.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The replica.
    pub replica: Replica,
    /// How long it may take to show that it is there.
    pub patience: Duration,
    /// Counts the replicas that were followed.
    pub turn: u64,
}

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
    followed: Followed,
    from: u64,
    feed: mpsc::Sender<Fed>,
    stop: CancellationToken,
) {
    let reason = tokio::select! {
        () = stop.cancelled() => return,
        reason = forward(&context, &followed, from, &feed) => reason,
    };
    let turn = followed.turn;
    // Nobody is left to be told when the node stops.
    feed.send(Fed { turn, input: Input::Lost { reason } }).await.ok();
}

async fn forward(context: &Context, followed: &Followed, from: u64, feed: &mpsc::Sender<Fed>) -> String {
    match forward_all(context, followed, from, feed).await {
        Ok(()) => "the replica ended the subscription".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn forward_all(
    context: &Context,
    followed: &Followed,
    from: u64,
    feed: &mpsc::Sender<Fed>,
) -> Result<(), CallError> {
    let Followed { replica, patience, turn } = followed;
    let turn = *turn;
    // Leaves that the replica has signed for are there already, whatever it answers.
    let head = timeout(*patience, context.head_of(replica)).await.map_err(|_| CallError::TimedOut)?;
    let signed = head.as_deref().and_then(|note| witness::parse_unverified(note).ok()).map_or(0, |head| head.size());
    let request = EventsRequest { from };
    let subscribing = timeout(*patience, context.endpoint.subscribe(replica.key, &request));
    // One that is gone without a word seems to be connected for some time.
    let (accepted, mut leaves) = subscribing.await.map_err(|_| CallError::TimedOut)??;
    let following = Input::Following { replica: replica.name.clone(), next: accepted.next.max(signed) };
    let mut received = feed.send(Fed { turn, input: following }).await;
    let mut expected = from;
    while received.is_ok()
        && let Some(EventFrame { index, leaf }) = next(context, followed, &mut leaves).await?
    {
        if index != expected {
            return Err(CallError::Protocol("sent a leaf out of order"));
        }
        expected += 1;
        received = feed.send(Fed { turn, input: Input::Leaf(leaf) }).await;
    }
    Ok(())
}

/// The next leaf, however long it takes, from a replica that is there.
async fn next(
    context: &Context,
    followed: &Followed,
    leaves: &mut FrameStream<EventFrame>,
) -> Result<Option<EventFrame>, CallError> {
    loop {
        if let Ok(next) = timeout(QUIET, leaves.next()).await {
            return next;
        }
        if !context.endpoint.is_there(followed.replica.key, followed.patience).await {
            return Err(CallError::TimedOut);
        }
    }
}
