//! Versions: computing what a closed round leads to, proposing it, and judging what others propose.

use super::{BLOB_LOST, Computation, Conductor, Duty, RETRY_MS, View, WaitFor};
use crate::{
    Command, Federation, VersionId,
    apply::{rounds::UNATTESTED, versions::VERSION_REJECTED},
    command::{AttestVersion, CommitVersion, OutputFiles, RoundKey},
    recipe::Recipe,
    records::{Phase, PlanStatus, VersionStatus},
};

/// Shortest time that the other replicas have to compute a proposed version, in milliseconds: ten minutes. They may first have
/// to fetch every update; if they cannot, because the only replica that had one is gone, another attempt is made.
const MAJORITY_WAIT_MS_MIN: u64 = 10 * 60 * 1000;

impl Conductor {
    /// A version is to be computed by everybody and proposed by the leader.
    pub(super) fn propose_version(&mut self, view: &View<'_>, key: &RoundKey, duties: &mut Vec<Duty>) {
        self.compute(view, key, duties);
        if !view.leads {
            return;
        }
        if candidate_of(view.state, key).is_some() {
            return self.await_majority(view, key, duties);
        }
        match self.computations.get(key) {
            Some(Computation::Done(outputs)) => {
                let outputs = *outputs;
                let Ok(recipe) = Recipe::of(view.state, key) else { return };
                let Ok((_, version)) = recipe.manifest(view.state, &outputs) else { return };
                if let Some(record) = view.state.versions().get(&version) {
                    // Training is deterministic: after a rollback it may lead to the version that was revoked.
                    if record.revoked.is_some() {
                        return self.abandon(view, key, "version_revoked", duties);
                    }
                    // The others have contradicted these files; to propose them again at once would not end.
                    if record.status == VersionStatus::Rejected {
                        if key.round > 0 {
                            return self.abandon(view, key, VERSION_REJECTED, duties);
                        }
                        if !self.waited_for_initial(view, &key.plan) {
                            return;
                        }
                    }
                }
                self.submit(view, Command::CommitVersion(CommitVersion { key: *key, version, outputs }), duties);
            }
            Some(Computation::Failed { permanent: Some(code), .. }) if key.round > 0 => {
                let code = code.clone();
                self.abandon(view, key, &code, duties);
            }
            // A file that could not be had for as long as a round may take is lost.
            Some(Computation::Failed { permanent: None, since_ms, .. }) if key.round > 0 => {
                let round = view.state.rounds().get(key);
                if round.is_some_and(|round| view.now_ms >= since_ms + round.duration_ms) {
                    self.abandon(view, key, BLOB_LOST, duties);
                }
            }
            _ => {}
        }
    }

    /// Gives an attempt up whose version has been proposed for long and got no majority either way.
    fn await_majority(&mut self, view: &View<'_>, key: &RoundKey, duties: &mut Vec<Duty>) {
        let (Some(round), true) = (view.state.rounds().get(key), key.round > 0) else { return };
        let wait_ms = round.duration_ms.max(MAJORITY_WAIT_MS_MIN);
        let is_paused = view.state.plans().get(&key.plan).is_some_and(|record| record.status == PlanStatus::Paused);
        if !is_paused && self.waited(view, WaitFor::Majority(*key), wait_ms) {
            self.abandon(view, key, UNATTESTED, duties);
        }
    }

    /// Confirms or contradicts every version whose files this replica has computed and not yet spoken about.
    pub(super) fn attest(&mut self, view: &View<'_>, duties: &mut Vec<Duty>) {
        let computed: Vec<(RoundKey, OutputFiles)> = self
            .computations
            .iter()
            .filter_map(|(key, computation)| match computation {
                Computation::Done(outputs) => Some((*key, *outputs)),
                Computation::UnderWay | Computation::Failed { .. } => None,
            })
            .collect();
        for (key, outputs) in computed {
            let Some(version) = candidate_of(view.state, &key) else { continue };
            let spoken = |node: &String| *node == self.node;
            let record = view.state.versions().get(&version);
            if record.is_some_and(|record| !record.attestations.keys().any(spoken)) {
                self.submit(view, Command::AttestVersion(AttestVersion { version, outputs }), duties);
            }
        }
    }

    fn compute(&mut self, view: &View<'_>, key: &RoundKey, duties: &mut Vec<Duty>) {
        let again = match self.computations.get(key) {
            None => true,
            Some(Computation::Failed { permanent: None, at_ms, .. }) => view.now_ms >= at_ms + RETRY_MS,
            Some(_) => false,
        };
        if again && let Ok(recipe) = Recipe::of(view.state, key) {
            self.remember(*key, Computation::UnderWay);
            duties.push(Duty::Compute(Box::new(recipe)));
        }
    }
}

/// The version that stands for an attempt, unless it was rejected.
pub(crate) fn candidate_of(state: &Federation, key: &RoundKey) -> Option<VersionId> {
    if key.round > 0 {
        return match state.rounds().get(key)?.phase {
            Phase::Closed { candidate, .. } => candidate,
            Phase::Completed { version, .. } => Some(version),
            Phase::Collecting | Phase::Abandoned { .. } => None,
        };
    }
    state.plans().get(&key.plan)?.initial
}
