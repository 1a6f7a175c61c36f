//! Proposals as people and programs look at them: what would change, and who has voted.

use std::collections::BTreeMap;

use fedledger_federation::{
    Federation,
    governance::{Action, Ballot, Change, ProposalRecord, Tally},
    member::{Member, MemberId},
    retention::Retention,
};
use fedledger_ledger::{Digest, PublicKey, machine::RejectionCode as _};
use serde::Serialize;

use crate::{output::list, retention};

/// A proposal.
#[derive(Debug, Serialize)]
pub(super) struct ProposalView<'a> {
    /// The id: what a ballot names.
    pub proposal: Digest,
    pub status: &'static str,
    pub action: &'static str,
    /// The member or node that it is about.
    pub about: &'a str,
    pub content: &'a Action,
    pub against: Option<Digest>,
    pub reason: &'a str,
    pub proposer: MemberId,
    pub proposed_index: u64,
    pub expires_index: u64,
    pub tally: Tally,
    pub votes: BTreeMap<&'a MemberId, &'a Ballot>,
    /// What would change if it were carried out now, while it can be voted on.
    pub changes: Option<ChangesView>,
}

/// What an action changes.
#[derive(Debug, Serialize)]
pub(super) struct ChangesView {
    /// Code and text of the reason why it cannot be carried out now, if so; then nothing would change.
    impossible: Option<(&'static str, String)>,
    before: Option<Member>,
    after: Option<Member>,
    new_keys: Vec<PublicKey>,
    revoked_keys: Vec<PublicKey>,
    /// Replicas and the co-signatures that make a head final, now and then.
    replicas: (usize, usize),
    finality_threshold: (u64, u64),
    /// Number of the newest epoch, now and then.
    epoch: (u64, u64),
    /// Which files are kept, now and then.
    retention: (Retention, Retention),
}

impl<'a> ProposalView<'a> {
    /// The view when the next entry has the index `size`.
    pub(super) fn of(state: &'a Federation, size: u64, proposal: Digest, record: &'a ProposalRecord) -> Self {
        let content = &record.content;
        Self {
            proposal,
            status: record.status_at(size),
            action: content.action.name(),
            about: match &content.action {
                Action::RevokeNode { node } => node,
                action => action.member().unwrap_or("policy"),
            },
            content: &content.action,
            against: content.against,
            reason: &content.reason,
            proposer: record.proposer.clone(),
            proposed_index: record.proposed_index,
            expires_index: content.expires_index,
            tally: state.tally(&proposal),
            votes: state.ballots(&proposal).collect(),
            changes: record.is_open_at(size).then(|| ChangesView::of(state, &content.action, size)),
        }
    }

    /// For and needed, and against.
    pub(super) fn votes_in_short(&self) -> String {
        let Tally { approvals, rejections, needed, .. } = self.tally;
        format!("{approvals}/{needed} for, {rejections} against")
    }

    /// Everything, for somebody who is to decide.
    pub(super) fn text(&self) -> String {
        let target = self.against.map_or_else(|| "nothing that is there".to_owned(), |target| target.to_string());
        let mut lines = vec![
            format!("proposal  {}", self.proposal),
            format!("status    {}", self.status),
            format!("action    {} ({})", self.action, self.about),
            format!("reason    {}", self.reason),
            format!("proposer  {} (entry {})", self.proposer, self.proposed_index),
            format!("against   {target}"),
            format!("expires   after entry {}", self.expires_index),
            format!("votes     {} of {} members", self.votes_in_short(), self.tally.members),
        ];
        for (member, ballot) in &self.votes {
            let vote = if ballot.approve { "for" } else { "against" };
            lines.push(format!("  {member}: {vote} (entry {})", ballot.index));
        }
        lines.extend(self.changes.iter().flat_map(ChangesView::lines));
        lines.join("\n")
    }
}

impl ChangesView {
    /// What `action` would change as the next entry, at index `size`.
    pub(super) fn of(state: &Federation, action: &Action, size: u64) -> Self {
        let now = state.epoch();
        let unchanged = Self {
            impossible: None,
            before: None,
            after: None,
            new_keys: Vec::new(),
            revoked_keys: Vec::new(),
            replicas: (now.replicas.len(), now.replicas.len()),
            finality_threshold: (now.threshold, now.threshold),
            epoch: (now.number, now.number),
            retention: (state.policy().retention, state.policy().retention),
        };
        let change = match Change::of(state, action, size) {
            Ok(change) => change,
            Err(rejection) => {
                return Self { impossible: Some((rejection.code(), rejection.to_string())), ..unchanged };
            }
        };
        let then = change.epoch.as_ref().unwrap_or(now);
        let new = change.after.iter().flat_map(Member::keys).map(|used| used.key);
        Self {
            new_keys: new.filter(|key| state.members().owner(key).is_none()).collect(),
            revoked_keys: change.revoked_keys().map(|used| used.key).collect(),
            replicas: (now.replicas.len(), then.replicas.len()),
            finality_threshold: (now.threshold, then.threshold),
            epoch: (now.number, then.number),
            retention: (state.policy().retention, change.policy.retention),
            before: change.before,
            after: change.after,
            ..unchanged
        }
    }

    /// Lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        if let Some((code, reason)) = &self.impossible {
            return vec![format!("as things are, it cannot be carried out: {code}: {reason}")];
        }
        let mut lines = vec!["if it is approved:".to_owned()];
        let nodes = |member: &Member| list(member.nodes.iter().map(|node| &node.name));
        match (&self.before, &self.after) {
            (None, Some(after)) => lines.push(format!("  {} becomes a member, with {}", after.id, nodes(after))),
            (Some(before), None) => lines.push(format!("  {} is excluded for good, with {}", before.id, nodes(before))),
            (Some(before), Some(after)) if nodes(before) != nodes(after) => {
                lines.push(format!("  the nodes of {} are {} instead of {}", after.id, nodes(after), nodes(before)));
            }
            (Some(_), Some(after)) => lines.push(format!("  {} has other keys", after.id)),
            (None, None) => {}
        }
        lines.extend(self.new_keys.iter().map(|key| format!("  new key      {key}")));
        lines.extend(self.revoked_keys.iter().map(|key| format!("  revoked key  {key}")));
        if self.retention.0 != self.retention.1 {
            let (now, then) = (retention::words(self.retention.0), retention::words(self.retention.1));
            lines.push(format!("  kept is {then}; now it is {now}"));
        }
        let (replicas, threshold) = (self.replicas, self.finality_threshold);
        if self.epoch.0 == self.epoch.1 {
            lines.push("  replicas, witnesses and the finality threshold stay as they are".to_owned());
        } else {
            lines.push(format!(
                "  epoch {}: {} of {} replicas make a head final, now {} of {}",
                self.epoch.1, threshold.1, replicas.1, threshold.0, replicas.0
            ));
        }
        lines
    }
}
