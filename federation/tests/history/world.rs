//! Replicas with their conductors over one ledger, in time that the tests set.

use std::{collections::BTreeMap, sync::Arc};

use fedledger_federation::{
    command::{FileRef, OutputFiles, RoundKey},
    conductor::{Conductor, Duty, Report},
    recipe::{Recipe, Update, check_update},
    records::{Phase, PlanStatus, RoundRecord},
};
use fedledger_ledger::Digest;

use crate::consortium::{Consortium, SITES};

/// Replicas with their conductors, and participants that do what `behave` says.
pub struct World {
    pub consortium: Consortium,
    pub conductors: BTreeMap<&'static str, Conductor>,
    pub leader: &'static str,
    pub now_ms: u64,
    /// Updates that no replica can obtain.
    pub lost: Vec<Digest>,
    /// Updates whose transfer does not come to an end.
    pub slow: Vec<Digest>,
    /// Replicas that do nothing.
    pub down: Vec<&'static str>,
    /// Replicas that lack a file to compute versions from.
    pub helpless: Vec<&'static str>,
    /// A replica that claims other files than it computed.
    pub liar: Option<&'static str>,
    /// Versions whose files a replica asked for, because it had not computed them.
    pub obtained: Vec<(&'static str, u64)>,
    /// How many files each replica deleted at a time, because they were pruned.
    pub discarded: Vec<(&'static str, usize)>,
}

impl World {
    pub fn new(consortium: Consortium) -> Self {
        let conductors = SITES.iter().map(|site| (*site, Conductor::new(format!("{site}/replica")))).collect();
        Self {
            consortium,
            conductors,
            leader: SITES[0],
            now_ms: 0,
            lost: Vec::new(),
            slow: Vec::new(),
            down: Vec::new(),
            helpless: Vec::new(),
            liar: None,
            obtained: Vec::new(),
            discarded: Vec::new(),
        }
    }

    /// Lets everybody do what they are to do until nobody has anything to do. Returns whether anything was done.
    pub fn settle(&mut self, behave: &mut dyn FnMut(&mut Consortium, &RoundKey)) {
        loop {
            let mut done = false;
            for site in SITES.into_iter().filter(|site| !self.down.contains(site)).collect::<Vec<_>>() {
                let conductor = self.conductors.get_mut(site).unwrap();
                let duties = conductor.step(self.consortium.state(), site == self.leader, self.now_ms);
                done |= !duties.is_empty();
                duties.into_iter().for_each(|duty| self.perform(site, duty));
            }
            let open: Vec<RoundKey> =
                self.consortium.state().plans().iter().filter_map(|(_, record)| record.open).collect();
            let before = self.consortium.log.size();
            open.iter().for_each(|key| behave(&mut self.consortium, key));
            if !done && self.consortium.log.size() == before {
                return;
            }
        }
    }

    /// Lets time pass until the leader's conductor wants to be asked again.
    pub fn wait(&mut self) {
        self.now_ms = self.conductors[self.leader].wake_at().expect("nothing is waited for");
    }

    /// The attempt that a plan has open.
    pub fn open(&self, plan: &Digest) -> Option<RoundKey> {
        self.consortium.state().plans().get(plan).unwrap().open
    }

    pub fn round(&self, key: &RoundKey) -> &RoundRecord {
        self.consortium.state().rounds().get(key).unwrap()
    }

    fn perform(&mut self, site: &'static str, duty: Duty) {
        let report = match duty {
            Duty::Submit(command) => {
                let accepted = self.consortium.submit(&format!("{site}/replica"), &command).is_ok();
                Report::Submitted { command, accepted }
            }
            Duty::Check { key, update } => {
                if self.slow.contains(&update.file.digest) {
                    return;
                }
                self.check(key, update)
            }
            Duty::Obtain { number, files } => {
                let complete = files.iter().all(|(file, _)| self.consortium.blobs.contains_key(&file.digest));
                self.obtained.push((site, number));
                Report::Obtained { number, complete }
            }
            Duty::Discard { last_index, files } => {
                let blobs = Arc::make_mut(&mut self.consortium.blobs);
                for file in &files {
                    blobs.remove(file);
                }
                self.discarded.push((site, files.len()));
                Report::Discarded { last_index, complete: true }
            }
            Duty::Compute(recipe) if recipe.key.round > 0 && self.helpless.contains(&site) => {
                Report::ComputeFailed { key: recipe.key, permanent: None }
            }
            Duty::Compute(recipe) => {
                let mut outputs = self.compute(&recipe);
                if self.liar == Some(site) {
                    outputs.weights = FileRef { digest: Digest::of(b"forged"), size: 6 };
                }
                Report::Computed { key: recipe.key, outputs }
            }
        };
        self.conductors.get_mut(site).unwrap().report(report, self.now_ms);
    }

    fn check(&self, key: RoundKey, update: Update) -> Report {
        if self.lost.contains(&update.file.digest) {
            return Report::CheckFailed { key, member: update.member };
        }
        let plan = self.consortium.state().plans().get(&key.plan).unwrap().plan.clone();
        let file = self.consortium.blobs[&update.file.digest].as_slice();
        let verdict = check_update(&plan, SITES.len(), &update, file).unwrap().map_err(|(code, _)| code.into());
        Report::Checked { key, member: update.member, verdict }
    }

    fn compute(&mut self, recipe: &Recipe) -> OutputFiles {
        let blobs = self.consortium.blobs.clone();
        let open = |file: &FileRef| Ok(blobs[&file.digest].as_slice());
        let outputs = recipe.compute(open, 1).unwrap();
        self.consortium.store(outputs.weights.clone());
        OutputFiles::of(&outputs)
    }

    pub fn status(&self, plan: &Digest) -> PlanStatus {
        self.consortium.state().plans().get(plan).unwrap().status
    }
}

/// Joins and contributes wherever that is still to be done.
pub fn diligent(consortium: &mut Consortium, key: &RoundKey) {
    for site in consortium.participants() {
        contribute_once(consortium, key, site);
    }
}

pub fn contribute_once(consortium: &mut Consortium, key: &RoundKey, site: &str) {
    let state = consortium.state();
    let collecting = state.rounds().get(key).is_some_and(|round| round.phase == Phase::Collecting);
    let idle = !state.participations(key).any(|(member, _)| member == site);
    if collecting && idle {
        consortium.join_and_contribute(key, site);
    }
}

/// Does nothing.
pub fn idle(_: &mut Consortium, _: &RoundKey) {}
