//! Bringing kept evidence onto the ledger: whatever lies in the folder is recorded, also what an earlier process has left.

use std::collections::BTreeSet;

use fedledger_federation::{
    Command,
    governance::{Finding, RecordEvidence},
};

use crate::{
    duties::Workers,
    findings::{Findings, StoredEvidence},
    replica::{Handle, SubmitFailure},
};

/// What became of evidence.
enum Recorded {
    /// It is on the ledger, or never will be.
    Settled,
    /// It is to be tried again.
    Later,
    /// The node stops.
    Stopping,
}

/// Records evidence as it is kept, until the node stops. What nobody takes now is tried again when a leader is there or the
/// log has grown; another replica may be faster.
pub async fn record(workers: Workers, handle: Handle, findings: Findings) {
    let mut kept = findings.kept();
    let (mut status, mut log_size) = (handle.status(), handle.log_size());
    let mut settled = BTreeSet::new();
    loop {
        kept.mark_unchanged();
        status.mark_unchanged();
        log_size.mark_unchanged();
        let mut is_open = false;
        for stored in findings.stored_evidence().await {
            if settled.contains(&stored.name) {
                continue;
            }
            match record_one(&workers, &handle, &stored).await {
                Recorded::Settled => {
                    settled.insert(stored.name);
                }
                Recorded::Later => is_open = true,
                Recorded::Stopping => return,
            }
        }
        let changed = tokio::select! {
            changed = kept.changed() => changed,
            changed = status.changed(), if is_open => changed,
            changed = log_size.changed(), if is_open => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn record_one(workers: &Workers, handle: &Handle, stored: &StoredEvidence) -> Recorded {
    let (evidence, file) = (stored.evidence.to_bytes(), stored.name.as_str());
    let judged = evidence.clone();
    let known = handle.query(move |replica| {
        let state = replica.log().machine();
        Finding::of(state, &judged).map(|finding| finding.map(|finding| state.evidence().contains(&finding.id)))
    });
    match known.await {
        None => return Recorded::Stopping,
        Some(Ok(Some(false))) => {}
        Some(Ok(Some(true))) => return Recorded::Settled,
        Some(Ok(None)) => {
            tracing::warn!(file, "the evidence is about another log: it is not recorded");
            return Recorded::Settled;
        }
        Some(Err(error)) => {
            tracing::warn!(file, %error, "the evidence is not recorded");
            return Recorded::Settled;
        }
    }
    match workers.submit(&Command::RecordEvidence(RecordEvidence { evidence })).await {
        Ok(None) => {
            tracing::warn!(file, "evidence of two histories is on the ledger now");
            Recorded::Settled
        }
        Ok(Some(reason)) => {
            tracing::info!(file, reason, "the evidence was not recorded");
            Recorded::Settled
        }
        Err(SubmitFailure::Stopping) => Recorded::Stopping,
        Err(failure) if failure.is_transient() => {
            tracing::warn!(file, %failure, "the evidence is not on the ledger yet");
            Recorded::Later
        }
        Err(failure) => {
            tracing::error!(file, %failure, "the evidence could not be brought onto the ledger");
            Recorded::Settled
        }
    }
}
