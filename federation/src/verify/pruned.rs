//! Versions that cannot be computed again because the members let the files go: what is left to believe them by.

use fedledger_ledger::Digest;

use crate::{Federation, records::VersionRecord};

/// Why a file of a version's recipe is not there, if it was pruned, and who has attested the version instead.
pub(super) fn reason(state: &Federation, record: &VersionRecord, missing: &Digest) -> Option<String> {
    if state.retains(missing) {
        return None;
    }
    let round = state.rounds().get(&record.key)?;
    let base = state.versions().get(&round.base)?;
    let is_update = record.manifest.contributions.iter().any(|update| update.update.digest() == missing);
    let (what, index) = match (round.pruned_index, base.pruned.files) {
        (Some(index), _) if is_update => ("its updates were", index),
        (_, Some(index)) if !is_update => ("the files of the version that it was made from were", index),
        _ => return None,
    };
    let attested = attested_by(state, record);
    Some(format!("{what} pruned by policy at entry {index}: verifiable by attestation only ({attested})"))
}

/// How many of the replicas that there were then have computed the same files, and which.
fn attested_by(state: &Federation, record: &VersionRecord) -> String {
    let claimed = record.manifest.outputs();
    let agreeing = record.attestations.iter().filter(|(_, outputs)| claimed.as_ref() == Some(*outputs));
    let names: Vec<&str> = agreeing.map(|(node, _)| node.as_str()).collect();
    let then = state.epochs().iter().rev().find(|(_, epoch)| epoch.index <= record.created_index);
    let replicas = then.map_or(0, |(_, epoch)| epoch.replicas.len()).max(names.len());
    format!("{} of {replicas} replicas: {}", names.len(), names.join(", "))
}
