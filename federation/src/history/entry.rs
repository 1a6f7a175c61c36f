//! Entries as people and programs look at them.

use fedledger_ledger::{
    Digest, PublicKey,
    log::Entry,
    seal::{SEAL_KIND, Seal, SealProposal},
};
use serde::Serialize;

use crate::{
    Command, Event, Federation,
    member::{Capacity, MemberId},
};

/// One entry of the ledger: who asked for what, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryView {
    /// Position in the ledger.
    pub index: u64,
    /// Position in the replicated Raft log.
    pub raft_index: u64,
    /// Who signed it.
    pub author: AuthorView,
    /// The kind of transaction.
    pub kind: String,
    /// What it asks for; `None` where its payload is not what the kind says.
    pub payload: Option<Command>,
    /// `accepted`, or the rejection's code.
    pub outcome: String,
    /// Why it was rejected, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejection: Option<String>,
    /// What it brought about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// What the leader proposed, for a seal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal: Option<SealProposal>,
    /// What it fixes, for a seal that took effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal: Option<SealView>,
}

/// What a seal fixes; see [`Seal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SealView {
    /// Number of the seal, from 1.
    pub number: u64,
    /// Index of the seal before; 0 for the first.
    pub previous: u64,
    /// Root of the map over all records of the state.
    pub state_root: Digest,
    /// The epoch whose replicas make the seal's head final.
    pub epoch: u64,
    /// Digest of the epoch that is in force after it.
    pub next_epoch: Digest,
    /// The leader's time, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// Who signed an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorView {
    /// The key.
    pub key: PublicKey,
    /// Whose key it is; `None` for a stranger's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// `organisation`, `replica` or `participant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<&'static str>,
    /// The node, unless the organisation itself signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl EntryView {
    /// The view of an entry that has just been applied to `state`.
    pub fn of(state: &Federation, entry: &Entry<Federation>) -> Self {
        let transaction = &entry.transaction;
        let (rejection, event) = match &entry.result {
            Some(Ok(event)) => (None, Some(event.clone())),
            Some(Err(rejection)) => (Some(rejection.to_string()), None),
            None if entry.leaf.seal.is_some() => (None, None),
            None if transaction.kind == SEAL_KIND => (Some("this is no seal by a replica".to_owned()), None),
            None => (Some("the author has used this nonce for another transaction".to_owned()), None),
        };
        Self {
            index: entry.leaf.index,
            raft_index: entry.leaf.raft_index,
            author: AuthorView::of(state, transaction.author),
            kind: transaction.kind.clone(),
            payload: Command::decode(&transaction.kind, &transaction.payload).ok(),
            outcome: entry.leaf.outcome.code().to_owned(),
            rejection,
            event,
            proposal: (transaction.kind == SEAL_KIND)
                .then(|| SealProposal::from_bytes(&transaction.payload).ok())
                .flatten(),
            seal: entry.leaf.seal.map(SealView::of),
        }
    }
}

impl SealView {
    const fn of(seal: Seal) -> Self {
        let Seal { number, previous, state_root, epoch, next_epoch, time_ms, rules_version: _ } = seal;
        Self { number, previous, state_root, epoch, next_epoch, time_ms }
    }
}

impl AuthorView {
    fn of(state: &Federation, key: PublicKey) -> Self {
        // The entry may be about the very key that signed it, or be refused because the key is revoked.
        let current = state.members().author(&key).map(|author| (&author.member, Some(&author.capacity)));
        let former = || state.revoked_keys().get(&key).map(|revoked| (&revoked.owner, revoked.capacity.as_ref()));
        let Some((member, capacity)) = current.or_else(former) else {
            return Self { key, member: None, capacity: None, node: None };
        };
        Self {
            key,
            member: Some(member.clone()),
            capacity: capacity.map(|capacity| match capacity {
                Capacity::Organisation => "organisation",
                Capacity::Replica(_) => "replica",
                Capacity::Participant(_) => "participant",
            }),
            node: capacity.and_then(Capacity::node).map(str::to_owned),
        }
    }
}
