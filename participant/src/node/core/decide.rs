//! Comparing the ledger with what this site wants to be there.

use fedledger_federation::{
    Command, VersionId,
    command::{ApprovePlan, Contribute, DeclineRound, Evaluate, FileRef, JoinRound, Metrics, RoundKey},
    early_stopping,
    limits::TEXT_LENGTH_MAX,
    plan::Plan,
    records::{Participation, Phase, PlanStatus, RoundRecord, VersionRecord},
};
use fedledger_ledger::Digest;

use super::{
    Core, DataRef, DataSummary, EVALUATIONS_WAITING_MAX, EvaluationTask, Finding, Kept, Output, Site, TrainedUpdate,
    TrainingMethod, TrainingTask, UPDATES_KEPT_ROUNDS, Work,
};
use crate::{
    evaluation::{report, report_of_program},
    node::{
        event::NodeEvent,
        external::{ExternalSettings, Results},
        intent::Intent,
        policy::{self, Objection},
    },
};

impl Core {
    /// Asks for everything that is missing. Does nothing until the log is known to be up to date.
    pub(super) fn decide(&mut self) {
        if !self.is_current() {
            return;
        }
        if !self.acted {
            self.acted = true;
            self.report(NodeEvent::CaughtUp { size: self.size() });
            self.enqueue_heads();
        }
        self.withdraw_settled();
        self.decide_data();
        self.stop_finished_work();
        self.decide_consents();
        self.decide_rounds();
        self.decide_evaluations();
        self.decide_kept();
    }

    /// Whether an intent still makes a difference on the ledger.
    fn is_open(&self, intent: &Intent) -> bool {
        let state = self.federation();
        let member = &self.site.member;
        if self.rejected.contains(intent) {
            return false;
        }
        match intent {
            Intent::Approve(plan) => {
                !self.withdrawn.contains(plan)
                    && state
                        .plans()
                        .get(plan)
                        .is_some_and(|record| !record.status.is_over() && !record.consents.contains_key(member))
            }
            Intent::Join(key) => self.invited(key).is_some() && self.participation(key).is_none(),
            Intent::Decline(key) => {
                let undecided = matches!(self.participation(key), None | Some(Participation::Joined { .. }));
                self.invited(key).is_some() && undecided
            }
            Intent::Contribute(key) => {
                self.invited(key).is_some() && matches!(self.participation(key), Some(Participation::Joined { .. }))
            }
            Intent::Evaluate(version) => self.is_evaluable(version),
        }
    }

    /// The round, if it collects contributions and has selected this site.
    fn invited(&self, key: &RoundKey) -> Option<&RoundRecord> {
        let round = self.federation().rounds().get(key)?;
        (round.phase == Phase::Collecting && round.cohort.contains(&self.site.member)).then_some(round)
    }

    fn participation(&self, key: &RoundKey) -> Option<&Participation> {
        self.federation().participation(key, &self.site.member)
    }

    /// Who proposed a plan; every plan in the state has been proposed in the log.
    pub(super) fn operator(&self, plan: &Digest) -> &str {
        self.operators.get(plan).map_or("", String::as_str)
    }

    /// Why this site declined, if it did.
    pub(super) fn declined_reason(&self, key: &RoundKey) -> Option<String> {
        match self.participation(key)? {
            Participation::Declined { reason, .. } => Some(reason.clone()),
            Participation::Joined { .. } | Participation::Contributed { .. } | Participation::Revoked { .. } => None,
        }
    }

    /// Stops submitting what has become moot, and forgets claims of replicas that turned out false.
    fn withdraw_settled(&mut self) {
        let size = self.size();
        let settled: Vec<Intent> = self.submitting.keys().filter(|intent| !self.is_open(intent)).copied().collect();
        for intent in settled {
            self.submitting.remove(&intent);
            self.outputs.push(Output::Withdraw(intent));
        }
        // The leaf at the claimed index is replayed and was another one: the transaction is not there.
        self.submitting.retain(|_, claimed| claimed.is_none_or(|index| index >= size));
        let rejected = std::mem::take(&mut self.rejected);
        self.rejected = rejected.into_iter().filter(|intent| self.is_relevant(intent)).collect();
    }

    /// Whether a refusal must be remembered, that is, whether the state alone would let the intent come up again.
    fn is_relevant(&self, intent: &Intent) -> bool {
        match intent {
            Intent::Approve(_) | Intent::Evaluate(_) => true,
            Intent::Join(key) | Intent::Decline(key) | Intent::Contribute(key) => self.invited(key).is_some(),
        }
    }

    fn submit(&mut self, intent: Intent, command: Command) {
        if self.is_open(&intent) && !self.submitting.contains_key(&intent) {
            self.submitting.insert(intent, None);
            self.outputs.push(Output::Submit(intent, Box::new(command)));
        }
    }

    fn decide_consents(&mut self) {
        let plans = self.federation().plans();
        let undecided: Vec<(ApprovePlan, Option<Objection>)> = plans
            .iter()
            .filter(|(id, _)| self.is_open(&Intent::Approve(**id)))
            .filter_map(|(id, record)| {
                let (plan, operator) = (&record.plan, self.operator(id));
                // What is forbidden or needs a person is said at once; for everything else the records must be known.
                let forbidden = policy::objection_of_policy(&self.site, plan, operator);
                let (objection, data) = match self.data_of(plan) {
                    data if forbidden.is_some() => (forbidden, data),
                    Some(data) => {
                        let known = policy::consented(self.federation(), &self.site.member);
                        (policy::objection_to_consent(&self.site, data, plan, operator, known), Some(data))
                    }
                    None => {
                        let known = policy::consented(self.federation(), &self.site.member);
                        (Some(policy::objection_before_reading(&self.site, plan, operator, known)?), None)
                    }
                };
                // How many there are is said only where the plan asks for it.
                let asked = plan.participation.minimum_example_share.is_some();
                let examples = data.and_then(Result::ok).map(|data| data.train_examples).filter(|_| asked);
                Some((ApprovePlan { plan: *id, examples }, objection))
            })
            .collect();
        for (consent, objection) in undecided {
            let plan = consent.plan;
            match objection {
                None => self.submit(Intent::Approve(plan), Command::ApprovePlan(consent)),
                Some(objection) if self.withheld.insert(plan) => {
                    let reason = objection.to_string();
                    self.report(NodeEvent::ConsentWithheld { plan, reason });
                }
                Some(_) => {}
            }
        }
    }

    fn decide_rounds(&mut self) {
        let open: Vec<RoundKey> = self.federation().plans().iter().filter_map(|(_, record)| record.open).collect();
        for key in open.into_iter().filter(|key| self.invited(key).is_some()).collect::<Vec<_>>() {
            match self.participation(&key) {
                None => match self.training_task(&key) {
                    Some(Ok(_)) => self.submit(Intent::Join(key), Command::JoinRound(JoinRound { key })),
                    Some(Err(objection)) => self.decline(key, &objection.to_string()),
                    None => {}
                },
                Some(Participation::Joined { .. }) => self.decide_work(key),
                Some(
                    Participation::Declined { .. } | Participation::Contributed { .. } | Participation::Revoked { .. },
                ) => {}
            }
        }
    }

    fn decide_work(&mut self, key: RoundKey) {
        match self.work.get(&key) {
            None => match self.training_task(&key) {
                Some(Ok(task)) => {
                    self.work.insert(key, Work::Training);
                    self.outputs.push(Output::Train(Box::new(task)));
                }
                Some(Err(objection)) => self.decline(key, &objection.to_string()),
                None => {}
            },
            Some(Work::Training | Work::Uploading(_)) => {}
            Some(Work::Uploaded(update)) => {
                if let Some(contribution) = self.contribution(key, update) {
                    self.submit(Intent::Contribute(key), Command::Contribute(contribution));
                }
            }
            Some(Work::Failed(reason)) => {
                let reason = reason.clone();
                self.decline(key, &reason);
            }
        }
    }

    fn decline(&mut self, key: RoundKey, reason: &str) {
        let mut reason = reason.to_owned();
        reason.truncate(reason.floor_char_boundary(TEXT_LENGTH_MAX));
        self.submit(Intent::Decline(key), Command::DeclineRound(DeclineRound { key, reason }));
    }

    /// What to train in a round, or why this site does not; nothing while the site's records are being read.
    fn training_task(&self, key: &RoundKey) -> Option<Result<TrainingTask, Objection>> {
        let Some(record) = self.federation().plans().get(&key.plan) else { return Some(Err(Objection::UnknownPlan)) };
        if !record.consents.contains_key(&self.site.member) {
            return Some(Err(Objection::NoConsent));
        }
        let known = self.data_of(&record.plan)?;
        let objection =
            policy::objection_to_round(&self.site, known, &record.plan, key.round, self.operator(&key.plan));
        Some(match (objection, known) {
            (Some(objection), _) => Err(objection),
            (None, Ok(data)) => self.training_with(key, &record.plan, data),
            (None, Err(reason)) => Err(Objection::Data(reason.to_owned())),
        })
    }

    /// What to train in a round that this site takes part in.
    fn training_with(&self, key: &RoundKey, plan: &Plan, data: &DataSummary) -> Result<TrainingTask, Objection> {
        let state = self.federation();
        let base = state.rounds().get(key).ok_or(Objection::UnknownBase)?.base;
        let version = state.versions().get(&base).ok_or(Objection::UnknownBase)?;
        if version.revoked.is_some() {
            return Err(Objection::RevokedBase(base));
        }
        let weights = version.manifest.weights().ok_or(Objection::UnknownBase)?;
        let method = TrainingMethod::from_plan(plan, key.round, &self.site.member)?.on(self.site.device);
        let update_dtype = plan.aggregation.update_dtype;
        Ok(TrainingTask { key: *key, base, weights, method, update_dtype, data: DataRef::of(plan, data) })
    }

    fn contribution(&self, key: RoundKey, update: &TrainedUpdate) -> Option<Contribute> {
        Some(contribution(&self.site, key, self.invited(&key)?.base, update))
    }

    /// Stops the work on attempts that collect no more, that this site has contributed to or declined, or that it must not
    /// go on with because the base was revoked or consent was taken back.
    fn stop_finished_work(&mut self) {
        let finished: Vec<RoundKey> = self
            .work
            .keys()
            .filter(|key| {
                self.invited(key).is_none()
                    || !matches!(self.participation(key), Some(Participation::Joined { .. }))
                    || matches!(self.training_task(key), Some(Err(_)))
            })
            .copied()
            .collect();
        for key in finished {
            self.work.remove(&key);
            self.outputs.push(Output::Stop(key));
        }
    }

    /// Whether this site should report metrics of a version: attested, usable, of a plan that it consents to, and with no
    /// report of this site yet. Without test examples it only reports where it is waited for.
    fn is_evaluable(&self, version: &VersionId) -> bool {
        let state = self.federation();
        let wanted = |record: &VersionRecord| {
            let plan = state.plans().get(&record.manifest.plan);
            record.number().is_some()
                && record.revoked.is_none()
                && record.pruned.files.is_none()
                && plan.is_some_and(|plan| plan.consents.contains_key(&self.site.member))
        };
        state.versions().get(version).is_some_and(wanted)
            && state.evaluation(version, &self.site.member).is_none()
            && (self.may_test(version) || self.is_awaited(version))
    }

    /// Whether there is something to test a version on and somebody who can, as far as is known.
    fn may_test(&self, version: &VersionId) -> bool {
        match self.data_of_version(version) {
            Some(_) => self.evaluation_task(version).is_some(),
            None => true,
        }
    }

    /// Whether a plan does not go on before this site has reported something of a version.
    fn is_awaited(&self, version: &VersionId) -> bool {
        early_stopping::awaits(self.federation(), version, &self.site.member)
    }

    /// The versions that branches point at now; what was attested while this node was away is of no interest.
    fn enqueue_heads(&mut self) {
        let heads: Vec<VersionId> = self.federation().branches().iter().map(|(_, head)| *head).collect();
        for head in heads {
            self.enqueue_evaluation(head);
        }
    }

    pub(super) fn enqueue_evaluation(&mut self, version: VersionId) {
        let known = self.evaluations.contains(&version)
            || self.evaluating == Some(version)
            || self.evaluated.contains_key(&version);
        if !known && self.is_evaluable(&version) {
            self.evaluations.push_back(version);
            if self.evaluations.len() > EVALUATIONS_WAITING_MAX {
                self.evaluations.pop_front();
            }
        }
    }

    fn decide_evaluations(&mut self) {
        let evaluated = std::mem::take(&mut self.evaluated);
        self.evaluated =
            evaluated.into_iter().filter(|(version, _)| self.is_open(&Intent::Evaluate(*version))).collect();
        // Nobody has its weights any more.
        if let Some(version) = self.evaluating
            && self.federation().versions().get(&version).is_some_and(|record| record.pruned.files.is_some())
        {
            self.evaluating = None;
            self.outputs.push(Output::StopEvaluating);
        }
        while self.evaluating.is_none()
            && let Some(version) = self.next_evaluation()
        {
            if let Some(task) = self.evaluation_task(&version).filter(|_| self.is_open(&Intent::Evaluate(version))) {
                self.evaluating = Some(version);
                self.outputs.push(Output::Evaluate(Box::new(task)));
            } else if self.is_awaited(&version) {
                self.evaluated.insert(version, None);
            }
        }
        self.report_evaluations();
    }

    /// The version that has waited longest of those for which the site's records are known.
    fn next_evaluation(&mut self) -> Option<VersionId> {
        let ready = self.evaluations.iter().position(|version| self.data_of_version(version).is_some())?;
        self.evaluations.remove(ready)
    }

    /// Reports what was found, and where others wait for this site that nothing was.
    fn report_evaluations(&mut self) {
        let suppress_below = self.site.policy.suppress_below;
        let reports: Vec<Evaluate> = self
            .evaluated
            .iter()
            .filter(|(version, evaluation)| evaluation.is_some() || self.is_awaited(version))
            .map(|(version, finding)| reported(*version, finding.as_ref(), suppress_below))
            .collect();
        for report in reports {
            self.submit(Intent::Evaluate(report.version), Command::Evaluate(report));
        }
    }

    /// How a version could be evaluated here; not at all if the model is for other records, or a stranger to everybody here.
    fn evaluation_task(&self, version: &VersionId) -> Option<EvaluationTask> {
        let state = self.federation();
        let record = state.versions().get(version)?;
        let plan = &state.plans().get(&record.manifest.plan)?.plan;
        let data = self.data_of(plan)?.ok()?;
        let evaluates = |settings: &ExternalSettings| {
            self.site.trainers.get(&settings.training.trainer).is_some_and(|trainer| trainer.evaluates)
        };
        let external = ExternalSettings::from_plan(plan, &self.site.member).filter(evaluates);
        if external.is_none() && !policy::is_testable(data, plan) {
            return None;
        }
        let (architecture, weights) = (plan.architecture.clone(), record.manifest.weights()?);
        Some(EvaluationTask { version: *version, architecture, weights, data: DataRef::of(plan, data), external })
    }

    fn decide_kept(&mut self) {
        let kept = self.kept();
        if kept != self.kept {
            self.kept = kept.clone();
            self.outputs.push(Output::Keep(kept));
        }
    }

    /// Own updates of recent rounds, weights that are trained on or evaluated, and local checkpoints of the next round of
    /// every plan that is carried out.
    fn kept(&self) -> Kept {
        let state = self.federation();
        let member = &self.site.member;
        let weights_of = |version: &VersionId| Some(state.versions().get(version)?.manifest.weights()?.digest);
        let mut kept = Kept::default();
        for (id, record) in state.plans().iter() {
            let goes_on = record.status.is_active() || record.status == PlanStatus::Stopped;
            if record.consents.contains_key(member) && goes_on {
                kept.work.insert((*id, record.next_round));
                kept.weights.extend(state.head(&record.plan.branch).and_then(|(head, _)| weights_of(head)));
            }
            kept.weights.extend(record.open.and_then(|key| weights_of(&state.rounds().get(&key)?.base)));
            let first = record.next_round.saturating_sub(UPDATES_KEPT_ROUNDS);
            let recent = state.rounds().range(
                RoundKey { plan: *id, round: first, attempt: 0 },
                RoundKey { plan: *id, round: u64::MAX, attempt: u64::MAX },
            );
            let updates = recent.filter_map(|(key, _)| match self.participation(key)? {
                Participation::Contributed { contribution, .. } => {
                    Some(contribution.update).filter(|update| state.retains(update))
                }
                Participation::Joined { .. } | Participation::Declined { .. } | Participation::Revoked { .. } => None,
            });
            kept.updates.extend(updates);
        }
        for work in self.work.values() {
            if let Work::Uploading(update) | Work::Uploaded(update) = work {
                kept.updates.insert(update.file.digest);
            }
        }
        kept.weights.extend(self.evaluations.iter().chain(&self.evaluating).filter_map(weights_of));
        kept
    }
}

/// What this site says of a version; without a finding, that there is nothing to report.
fn reported(version: VersionId, finding: Option<&Finding>, suppress_below: u64) -> Evaluate {
    match finding {
        None => report(version, None, suppress_below),
        Some(Finding::BuiltIn(evaluation)) => report(version, Some(evaluation), suppress_below),
        Some(Finding::External(Results { examples, metrics, .. })) => {
            report_of_program(version, *examples, metrics, suppress_below)
        }
    }
}

/// What a site says of an update.
pub(crate) fn contribution(site: &Site, key: RoundKey, base: VersionId, update: &TrainedUpdate) -> Contribute {
    let FileRef { digest, size } = update.file;
    // Losses of few examples tell of each of them.
    let is_told = update.examples >= site.policy.suppress_below;
    Contribute {
        key,
        base,
        update: digest,
        size,
        examples: update.examples,
        metrics: if is_told { update.metrics.clone() } else { Metrics::new() },
        data_manifest: update.data_manifest,
        environment: site.environment,
        software: site.software.clone(),
        skipped_rows: update.skipped_rows.clone(),
        trainer: update.trainer,
    }
}
