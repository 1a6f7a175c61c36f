//! Following the demo from its ledger: what is shown is what every member can see.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fedledger_federation::{Event, Federation, VersionId, records::PlanStatus};
use fedledger_ledger::{
    Digest,
    log::{Log, read_leaf},
};
use tokio::time::timeout;

use super::{
    DemoError, DemoOptions, Progress,
    consortium::Consortium,
    summary::{Missing, RoundSummary, mean},
};
use crate::heart::SITES;

/// How long nothing may happen before the demo gives up. A round without a hospital takes its whole duration.
const STALLED_AFTER: Duration = Duration::from_secs(120);

/// How long a change of one replica's log is waited for before looking whether that replica still runs.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Replays the ledger as it grows.
pub(super) struct Follower {
    log: Log<Federation>,
    /// When the attempt that led to each version was opened.
    opened: BTreeMap<u64, Instant>,
    durations: BTreeMap<VersionId, Duration>,
    /// Index of the entry that attested each version.
    attested: BTreeMap<VersionId, u64>,
    /// Entries that were final when this was last looked at.
    final_size: u64,
}

impl Follower {
    pub(super) fn new(genesis: &[u8]) -> Result<Self, DemoError> {
        let (log, _) = Log::genesis(genesis).map_err(DemoError::Follow)?;
        Ok(Self { log, opened: BTreeMap::new(), durations: BTreeMap::new(), attested: BTreeMap::new(), final_size: 0 })
    }

    /// Waits until every hospital has consented.
    pub(super) async fn consents(&mut self, consortium: &Consortium, plan: &Digest) -> Result<(), DemoError> {
        loop {
            let record = self.log.machine().plans().get(plan);
            if record.is_some_and(|record| record.consents.len() == SITES.len()) {
                return Ok(());
            }
            self.next(consortium, "the hospitals' consents").await?;
        }
    }

    /// Reports every round, until the plan is finished and evaluated.
    pub(super) async fn rounds(
        &mut self,
        consortium: &mut Consortium,
        options: &DemoOptions,
        plan: &Digest,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Vec<RoundSummary>, DemoError> {
        let mut rounds: Vec<RoundSummary> = Vec::new();
        let mut disturbed = 0;
        loop {
            while let Some(round) = self.complete(consortium, plan, rounds.len() as u64 + 1) {
                progress(Progress::Round(round.clone()));
                rounds.push(round);
            }
            let record = self.log.machine().plans().get(plan);
            let record = record.ok_or_else(|| DemoError::Follow("the plan has vanished".to_owned()))?;
            if rounds.len() as u64 == options.rounds {
                consortium.restore().await?;
                consortium.settle(&self.log).await?;
                return Ok(rounds);
            }
            if record.status == PlanStatus::Stopped {
                return Err(DemoError::Follow("the plan was stopped: a round could not be completed".to_owned()));
            }
            let open = record.open.map(|key| key.round);
            if let Some(round) = open.filter(|round| *round > disturbed) {
                disturbed = round;
                let done = consortium.disturb(round).await?;
                done.into_iter().for_each(|what| progress(Progress::Chaos(what)));
            }
            self.next(consortium, "the next entry of the ledger").await?;
        }
    }

    /// The round's summary, once its version is final and every hospital that runs has evaluated it.
    fn complete(&self, consortium: &Consortium, plan: &Digest, round: u64) -> Option<RoundSummary> {
        let state = self.log.machine();
        let mut versions = state.attested().filter(|(_, _, record)| record.manifest.plan == *plan);
        let (_, id, record) = versions.find(|(_, _, record)| record.manifest.round == round)?;
        if self.attested.get(id).is_none_or(|index| *index >= self.final_size) {
            return None;
        }
        let accuracy: BTreeMap<String, f64> = state
            .evaluations(id)
            .filter_map(|(site, evaluation)| Some((site.clone(), *evaluation.metrics.get("accuracy")? as f64 / 1e6)))
            .collect();
        if !consortium.training().all(|site| accuracy.contains_key(site)) {
            return None;
        }
        let certificate = state.certificate(&record.key)?;
        let missing = |(member, reason): (&String, &String)| Missing { member: member.clone(), reason: reason.clone() };
        let absent = certificate.missing.iter().chain(&certificate.declined).chain(&certificate.excluded);
        let duration = self.durations.get(id).copied().unwrap_or_default();
        Some(RoundSummary {
            round,
            version: *id,
            accuracy_mean: mean(&accuracy),
            accuracy,
            contributed: certificate.contributed,
            missing: absent.map(missing).collect(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Waits for the next entry and applies it, or until more entries are final.
    async fn next(&mut self, consortium: &Consortium, what: &str) -> Result<(), DemoError> {
        let until = Instant::now() + STALLED_AFTER;
        let size = self.log.size();
        while Instant::now() < until {
            let Some(handle) = consortium.handle() else {
                return Err(DemoError::Follow("no replica runs".to_owned()));
            };
            let (mut known, mut finalized) = (handle.log_size(), handle.finalized());
            let grown = tokio::select! {
                grown = timeout(LOOK_AGAIN, known.wait_for(|known| *known > size)) => matches!(grown, Ok(Ok(_))),
                Ok(more) = finalized.wait_for(|finalized| finalized.final_size > self.final_size) => {
                    self.final_size = more.final_size;
                    return Ok(());
                }
            };
            if grown {
                let leaf =
                    read_leaf(&**handle.storage(), size).map_err(|error| DemoError::Follow(error.to_string()))?;
                return self.apply(&leaf);
            }
        }
        Err(DemoError::Stalled { what: what.to_owned(), seconds: STALLED_AFTER.as_secs() })
    }

    fn apply(&mut self, leaf: &[u8]) -> Result<(), DemoError> {
        let entry = self.log.replay(leaf).map_err(|error| DemoError::Follow(error.to_string()))?;
        match entry.result {
            Some(Ok(Event::RoundOpened { key, .. })) => {
                self.opened.insert(key.round, Instant::now());
            }
            Some(Ok(Event::VersionAttested { version, .. })) => {
                self.attested.insert(version, entry.leaf.index);
                let round = self.log.machine().versions().get(&version).map(|record| record.manifest.round);
                if let Some(opened) = round.and_then(|round| self.opened.get(&round)) {
                    self.durations.insert(version, opened.elapsed());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
