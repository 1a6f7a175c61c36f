//! What transactions bring about when they are accepted.

use std::collections::BTreeMap;

use fedledger_federation::{
    Command, Event, VersionId, cohort,
    command::{
        AbandonRound, AttestVersion, CommitVersion, DeclineRound, Evaluate, JoinRound, MoveBranch, OpenRound,
        OutputFiles, RevokeVersion, RoundKey, StartPlan, StopPlan, Tag, WithdrawConsent,
    },
    plan::{Plan, Rule},
    recipe::Recipe,
    records::{Participation, Phase, PlanStatus, VersionStatus},
};
use fedledger_ledger::Digest;

use crate::consortium::{Consortium, INSURER, OFFICE, metrics, plan, set, update_file};

const REPLICA: &str = "basel/replica";

fn status(consortium: &Consortium, plan: &Digest) -> PlanStatus {
    consortium.state().plans().get(plan).unwrap().status
}

fn stop(consortium: &mut Consortium, plan: Digest, drain: bool) -> Event {
    let reason = "enough".to_owned();
    consortium.accept(OFFICE, Command::StopPlan(StopPlan { plan, drain, reason }))
}

fn abandon(consortium: &mut Consortium, key: RoundKey) -> Event {
    let reason = "deadline".to_owned();
    consortium.accept(REPLICA, Command::AbandonRound(AbandonRound { key, reason, excluded: BTreeMap::new() }))
}

/// A round in which everybody has contributed and that is closed.
fn closed_round(consortium: &mut Consortium, plan: &Digest) -> RoundKey {
    let key = consortium.open_round(plan);
    for site in consortium.participants() {
        consortium.join_and_contribute(&key, site);
    }
    consortium.close(&key, &[]);
    key
}

fn phase(consortium: &Consortium, key: &RoundKey) -> Phase {
    consortium.state().rounds().get(key).unwrap().phase.clone()
}

fn move_branch(branch: &str, from: Option<VersionId>, to: VersionId, revoke: bool) -> Command {
    let reason = "worse at one site".to_owned();
    Command::MoveBranch(MoveBranch { branch: branch.to_owned(), from, to, revoke, reason })
}

#[test]
fn a_plan_is_carried_out_to_its_end() {
    let (mut consortium, id) = Consortium::ready(4);
    assert_eq!(status(&consortium, &id), PlanStatus::Running);
    let mut versions = vec![consortium.head("main")];
    for round in 1..=3 {
        let version = consortium.run_round(&id);
        let record = consortium.state().versions().get(&version).unwrap();
        assert_eq!(record.status, VersionStatus::Attested { number: round });
        assert_eq!((record.manifest.round, &record.manifest.parents), (round, &vec![*versions.last().unwrap()]));
        let members: Vec<_> = record.manifest.contributions.iter().map(|c| c.member.as_str()).collect();
        assert_eq!(members, ["basel", "lyon", "porto", "turin"]);
        assert_eq!(consortium.head("main"), version);
        versions.push(version);
    }
    assert_eq!(status(&consortium, &id), PlanStatus::Finished);
    versions.reverse();
    assert!(consortium.state().ancestry(&versions[0]).eq(versions.iter().copied()));
    assert!(consortium.state().is_ancestor(&versions[3], &versions[0]));
    assert!(!consortium.state().is_ancestor(&versions[0], &versions[3]));
    assert!(consortium.state().attested().map(|(number, _, _)| number).eq(0..4));
}

#[test]
fn the_certificate_says_what_became_of_everybody() {
    let (mut consortium, id) = Consortium::ready(4);
    let withdraw = WithdrawConsent { plan: id, reason: "new counsel".to_owned() };
    let key = consortium.open_round(&id);
    // Consent may be withdrawn at any time; the round that was opened before names it nevertheless.
    consortium.accept("turin/organisation", Command::WithdrawConsent(withdraw));
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    let decline = DeclineRound { key, reason: "maintenance".to_owned() };
    consortium.accept("porto/participant", Command::DeclineRound(decline));
    let Event::RoundClosed { certificate, .. } = consortium.close(&key, &[]) else { panic!("not closed") };
    assert_eq!(certificate.enrolled, ["basel", "lyon", "porto"]);
    assert_eq!(certificate.selected, ["basel", "lyon", "porto", "turin"]);
    assert_eq!(certificate.joined, ["basel", "lyon"]);
    assert_eq!(certificate.contributed, ["basel", "lyon"]);
    assert_eq!(certificate.declined["porto"], "maintenance");
    assert_eq!(certificate.missing["turin"], "not_joined");
    assert!(certificate.excluded.is_empty());
}

#[test]
fn the_certificate_tells_the_silent_from_the_excluded() {
    let (mut consortium, id) = Consortium::ready(4);
    let key = consortium.open_round(&id);
    for site in ["basel", "lyon", "porto"] {
        consortium.join_and_contribute(&key, site);
    }
    consortium.accept("turin/participant", Command::JoinRound(JoinRound { key }));
    let Event::RoundClosed { certificate, .. } = consortium.close(&key, &[("porto", "blob_lost")]) else {
        panic!("not closed")
    };
    assert_eq!(certificate.joined, ["basel", "lyon", "porto", "turin"]);
    assert_eq!(certificate.contributed, ["basel", "lyon"]);
    assert_eq!(certificate.excluded["porto"], "blob_lost");
    assert_eq!(certificate.missing["turin"], "not_contributed");
    let version = consortium.commit_and_attest(&key);
    let manifest = &consortium.state().versions().get(&version).unwrap().manifest;
    assert_eq!(manifest.excluded["porto"], "blob_lost");
    assert_eq!(manifest.contributions.len(), 2);
}

#[test]
fn a_cohort_is_drawn_where_the_plan_wants_one() {
    let mut small = plan("heart");
    small.participation.cohort_size = Some(2);
    let (mut consortium, id) = Consortium::ready_for(4, small);
    let key = consortium.open_round(&id);
    let cohort = consortium.state().rounds().get(&key).unwrap().cohort.clone();
    assert_eq!(cohort.len(), 2);
    abandon(&mut consortium, key);
    let again = consortium.next_round(&id);
    assert_eq!(again.key, RoundKey { attempt: 2, ..key });
    let drawn = cohort::draw(
        &["basel", "lyon", "porto", "turin"].map(str::to_owned),
        &[],
        Some(2),
        &again.key,
        &consortium.state().versions().get(&again.base).unwrap().manifest.weights().unwrap().digest,
    );
    assert_eq!(again.cohort, cohort::digest(&drawn));
}

#[test]
fn a_participant_that_has_joined_may_still_decline() {
    let (mut consortium, id) = Consortium::ready(3);
    let key = consortium.open_round(&id);
    consortium.accept("basel/participant", Command::JoinRound(JoinRound { key }));
    let decline = DeclineRound { key, reason: "out of memory".to_owned() };
    let event = consortium.accept("basel/participant", Command::DeclineRound(decline));
    assert_eq!(event, Event::RoundDeclined { key, member: "basel".to_owned() });
    let (_, participation) = consortium.state().participations(&key).next().unwrap();
    let (index, joined_index) = (consortium.log.size() - 1, Some(consortium.log.size() - 2));
    assert_eq!(*participation, Participation::Declined { index, joined_index, reason: "out of memory".to_owned() });
}

#[test]
fn a_version_is_attested_by_the_third_of_four_replicas() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = closed_round(&mut consortium, &id);
    let outputs = consortium.compute(&key);
    let commit = consortium.commit(&key, outputs);
    let version = commit.version;
    let attest = |site: &str| (format!("{site}/replica"), Command::AttestVersion(AttestVersion { version, outputs }));
    let before = consortium.head("main");
    assert_eq!(consortium.accept(REPLICA, Command::CommitVersion(commit)), Event::VersionProposed { version });
    let (signer, command) = attest("lyon");
    assert_eq!(consortium.accept(&signer, command), Event::AttestationRecorded { version, agrees: true });
    assert_eq!(consortium.head("main"), before, "two of four are no majority");
    let (signer, command) = attest("porto");
    let event = consortium.accept(&signer, command);
    let (branch, moved) = ("main".to_owned(), true);
    assert_eq!(event, Event::VersionAttested { version, number: 1, branch, moved, plan_finished: false });
    // The fourth one's word is kept.
    let (signer, command) = attest("turin");
    assert_eq!(consortium.accept(&signer, command), Event::AttestationRecorded { version, agrees: true });
    let record = consortium.state().versions().get(&version).unwrap();
    let attestors = record.attestations.keys().cloned().collect();
    assert_eq!(set(&["basel/replica", "lyon/replica", "porto/replica", "turin/replica"]), attestors);
    assert!(matches!(phase(&consortium, &key), Phase::Completed { version: completed, .. } if completed == version));
}

#[test]
fn disagreeing_replicas_reject_a_version_and_a_right_one_can_follow() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = closed_round(&mut consortium, &id);
    let weights = consortium.store(update_file(99.0));
    let wrong = OutputFiles { weights, optimizer_state: None };
    let commit = consortium.commit(&key, wrong);
    let version = commit.version;
    consortium.accept("turin/replica", Command::CommitVersion(commit));
    assert_eq!(consortium.state().candidate(&key), Some(version));
    let right = consortium.compute(&key);
    let attest = |version, outputs| Command::AttestVersion(AttestVersion { version, outputs });
    let event = consortium.accept("basel/replica", attest(version, right));
    assert_eq!(event, Event::AttestationRecorded { version, agrees: false });
    // With two against it, three of four cannot agree any more.
    let event = consortium.accept("lyon/replica", attest(version, right));
    assert_eq!(event, Event::VersionRejected { version });
    assert_eq!(consortium.state().candidate(&key), None);
    assert_eq!(consortium.state().versions().get(&version).unwrap().status, VersionStatus::Rejected);
    let good = consortium.settle(&key, right);
    assert_ne!(good, version);
    assert_eq!(consortium.head("main"), good);
    assert_eq!(consortium.state().versions().get(&good).unwrap().number(), Some(1), "no number is lost");
}

#[test]
fn a_rejected_version_can_be_proposed_anew() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = closed_round(&mut consortium, &id);
    let right = consortium.compute(&key);
    let commit = consortium.commit(&key, right);
    let version = commit.version;
    let weights = consortium.store(update_file(99.0));
    let wrong = OutputFiles { weights, optimizer_state: None };
    consortium.accept("turin/replica", Command::CommitVersion(commit));
    for site in ["basel", "lyon"] {
        let attest = AttestVersion { version, outputs: wrong };
        consortium.accept(&format!("{site}/replica"), Command::AttestVersion(attest));
    }
    assert_eq!(consortium.state().versions().get(&version).unwrap().status, VersionStatus::Rejected);
    // Two replicas were at fault; once repaired, everybody starts over.
    assert_eq!(consortium.settle(&key, right), version);
    let record = consortium.state().versions().get(&version).unwrap();
    assert_eq!((record.number(), record.attestations.len()), (Some(1), 3));
}

#[test]
fn an_abandoned_attempt_does_not_use_up_the_round() {
    let (mut consortium, id) = Consortium::ready(2);
    let first = consortium.open_round(&id);
    consortium.join_and_contribute(&first, "basel");
    let event = abandon(&mut consortium, first);
    let Event::RoundAbandoned { key, reason, plan_stopped, certificate } = event else { panic!("{event:?}") };
    assert_eq!((key, reason.as_str(), plan_stopped), (first, "deadline", false));
    assert_eq!((certificate.contributed.as_slice(), certificate.missing.len()), (&["basel".to_owned()][..], 1));
    let second = closed_round(&mut consortium, &id);
    assert_eq!(second, RoundKey { attempt: 2, ..first });
    // Also when the contributions are fixed, but cannot be aggregated.
    abandon(&mut consortium, second);
    let third = consortium.open_round(&id);
    assert_eq!(third, RoundKey { attempt: 3, ..first });
    let event = abandon(&mut consortium, third);
    assert!(matches!(event, Event::RoundAbandoned { plan_stopped: true, .. }), "the plan allows three attempts");
    assert_eq!(status(&consortium, &id), PlanStatus::Stopped);
    consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    assert_eq!(consortium.next_round(&id).key, RoundKey { attempt: 4, ..first });
}

#[test]
fn the_same_contributions_give_the_same_version_in_every_attempt() {
    let (mut undisturbed, id) = Consortium::ready(2);
    let expected = undisturbed.run_round(&id);
    let (mut disturbed, id) = Consortium::ready(2);
    let first = closed_round(&mut disturbed, &id);
    abandon(&mut disturbed, first);
    assert_eq!(disturbed.run_round(&id), expected);
}

#[test]
fn stopping_gives_up_the_round_and_draining_finishes_it() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = closed_round(&mut consortium, &id);
    let outputs = consortium.compute(&key);
    let commit = consortium.commit(&key, outputs);
    let version = commit.version;
    consortium.accept(REPLICA, Command::CommitVersion(commit));
    assert_eq!(stop(&mut consortium, id, false), Event::PlanStopped { plan: id, drain: false });
    let index = consortium.log.size() - 1;
    let reason = "plan_stopped".to_owned();
    assert_eq!(phase(&consortium, &key), Phase::Abandoned { index, reason, excluded: BTreeMap::new() });
    assert_eq!(consortium.state().versions().get(&version).unwrap().status, VersionStatus::Withdrawn);

    consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    let key = consortium.open_round(&id);
    assert_eq!(stop(&mut consortium, id, true), Event::PlanStopped { plan: id, drain: true });
    assert_eq!(status(&consortium, &id), PlanStatus::Draining);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    consortium.commit_and_attest(&key);
    assert_eq!(status(&consortium, &id), PlanStatus::Stopped);
    assert_eq!(consortium.next_round(&id).key.round, 2);

    // With nothing in progress there is nothing to finish.
    consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    assert_eq!(stop(&mut consortium, id, true), Event::PlanStopped { plan: id, drain: false });
    assert_eq!(status(&consortium, &id), PlanStatus::Stopped);
}

#[test]
fn a_drained_plan_stops_also_when_its_round_is_given_up() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = consortium.open_round(&id);
    stop(&mut consortium, id, true);
    let event = abandon(&mut consortium, key);
    assert!(matches!(event, Event::RoundAbandoned { plan_stopped: true, .. }), "{event:?}");
    assert_eq!(status(&consortium, &id), PlanStatus::Stopped);
}

#[test]
fn a_draining_plan_can_be_stopped_at_once() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = consortium.open_round(&id);
    stop(&mut consortium, id, true);
    stop(&mut consortium, id, false);
    assert_eq!(status(&consortium, &id), PlanStatus::Stopped);
    let index = consortium.log.size() - 1;
    let reason = "plan_stopped".to_owned();
    assert_eq!(phase(&consortium, &key), Phase::Abandoned { index, reason, excluded: BTreeMap::new() });
}

#[test]
fn a_rollback_moves_the_branch_and_revokes_what_lies_between() {
    let (mut consortium, id) = Consortium::ready(2);
    let initial = consortium.head("main");
    let first = consortium.run_round(&id);
    let second = consortium.run_round(&id);
    let event = consortium.accept(OFFICE, move_branch("main", Some(second), initial, true));
    let (branch, from, revoked) = ("main".to_owned(), Some(second), vec![second, first]);
    assert_eq!(event, Event::BranchMoved { branch, from, to: initial, revoked });
    assert_eq!(consortium.head("main"), initial);
    for version in [first, second] {
        let record = consortium.state().versions().get(&version).unwrap();
        assert_eq!(record.revoked.as_deref(), Some("worse at one site"));
        assert!(record.number().is_some(), "history stays");
    }
    // The plan goes on from the version that the branch went back to.
    assert_eq!(consortium.next_round(&id).base, initial);
    let third = consortium.run_round(&id);
    let manifest = &consortium.state().versions().get(&third).unwrap().manifest;
    assert_eq!((manifest.round, &manifest.parents), (3, &vec![initial]));
}

#[test]
fn a_version_whose_base_is_no_longer_the_head_stands_beside_the_branch() {
    let (mut consortium, id) = Consortium::ready(2);
    let initial = consortium.head("main");
    let first = consortium.run_round(&id);
    let key = closed_round(&mut consortium, &id);
    consortium.accept(OFFICE, move_branch("main", Some(first), initial, false));
    let beside = consortium.commit_and_attest(&key);
    assert_eq!(consortium.head("main"), initial);
    assert_eq!(consortium.state().versions().get(&beside).unwrap().number(), Some(2));
    // The round is tried again on the new head.
    let next = consortium.next_round(&id);
    assert_eq!((next.key, next.base), (RoundKey { attempt: 2, ..key }, initial));
}

#[test]
fn promotion_is_moving_a_branch() {
    let (mut consortium, id) = Consortium::ready(2);
    let first = consortium.run_round(&id);
    let event = consortium.accept(OFFICE, move_branch("production", None, first, false));
    let branch = "production".to_owned();
    assert_eq!(event, Event::BranchMoved { branch, from: None, to: first, revoked: Vec::new() });
    assert_eq!(consortium.head("production"), first);
    consortium.run_round(&id);
    assert_eq!(consortium.head("production"), first, "only `main` follows the plan");
}

#[test]
fn tags_name_versions_and_revocation_marks_them() {
    let (mut consortium, id) = Consortium::ready(2);
    let initial = consortium.head("main");
    consortium.run_round(&id);
    let tag = Tag { name: "first-try".to_owned(), version: initial };
    consortium.accept(OFFICE, Command::Tag(tag));
    assert_eq!(consortium.state().tags().get(&"first-try".to_owned()), Some(&initial));
    let revoke = RevokeVersion { version: initial, reason: "consent of a patient".to_owned() };
    let event = consortium.accept(OFFICE, Command::RevokeVersion(revoke));
    assert_eq!(event, Event::VersionRevoked { version: initial });
    assert!(consortium.state().versions().get(&initial).unwrap().revoked.is_some());
}

#[test]
fn evaluators_and_participants_report_metrics() {
    let (mut consortium, _) = Consortium::ready(2);
    let version = consortium.head("main");
    for signer in [INSURER, "basel/participant"] {
        let evaluate = Evaluate { version, examples: 3, metrics: metrics(), groups: BTreeMap::new() };
        consortium.accept(signer, Command::Evaluate(evaluate));
    }
    let members: Vec<_> = consortium.state().evaluations(&version).map(|(member, _)| member.as_str()).collect();
    assert_eq!(members, ["basel", "insurer"]);
}

#[test]
fn a_second_plan_goes_on_from_the_model_of_the_first() {
    let mut momentum = plan("momentum");
    let decimal = |text: &str| text.parse().unwrap();
    momentum.rounds = 1;
    momentum.aggregation.rule = Rule::FedAvgM { server_learning_rate: decimal("1"), momentum: decimal("0.9") };
    let (mut consortium, first) = Consortium::ready_for(2, momentum);
    let head = consortium.run_round(&first);
    assert_eq!(status(&consortium, &first), PlanStatus::Finished);
    let second = consortium.start(plan("second"));
    let version = consortium.run_round(&second);
    let manifest = &consortium.state().versions().get(&version).unwrap().manifest;
    assert_eq!((manifest.round, &manifest.parents), (1, &vec![head]));
    let key = RoundKey { plan: second, round: 1, attempt: 1 };
    let base = Recipe::of(consortium.state(), &key).unwrap().base.unwrap();
    assert_eq!(base.optimizer_state, None, "moments belong to the plan that made them");
}

#[test]
fn two_plans_run_at_the_same_time_on_two_branches() {
    let (mut consortium, first) = Consortium::ready(2);
    let second = consortium.start(Plan { branch: "lung".to_owned(), seed: 8, ..plan("lung") });
    let initial = consortium.commit_and_attest(&RoundKey { plan: second, round: 0, attempt: 0 });
    assert_eq!(consortium.head("lung"), initial);
    let (on_main, on_lung) = (consortium.open_round(&first), consortium.open_round(&second));
    for key in [on_main, on_lung] {
        for site in consortium.participants() {
            consortium.join_and_contribute(&key, site);
        }
        consortium.close(&key, &[]);
    }
    let (a, b) = (consortium.commit_and_attest(&on_main), consortium.commit_and_attest(&on_lung));
    assert_eq!((consortium.head("main"), consortium.head("lung")), (a, b));
}

#[test]
fn the_initial_version_needs_no_files_and_is_the_same_for_everybody() {
    let (consortium, id) = Consortium::ready(2);
    let head = consortium.head("main");
    let record = consortium.state().versions().get(&head).unwrap();
    let plan = plan("heart");
    let weights = Digest::of(&plan.initial_weights().unwrap());
    assert_eq!(record.manifest.weights().map(|file| file.digest), Some(weights));
    assert_eq!((record.manifest.plan, record.manifest.round, record.number()), (id, 0, Some(0)));
    assert_eq!((record.manifest.rule.clone(), record.manifest.parents.len()), (None, 0));
}

#[test]
fn a_round_may_be_opened_and_closed_by_different_replicas() {
    let (mut consortium, id) = Consortium::ready(2);
    let open: OpenRound = consortium.next_round(&id);
    let key = open.key;
    consortium.accept("turin/replica", Command::OpenRound(open));
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    let outputs = consortium.compute(&key);
    let commit: CommitVersion = consortium.commit(&key, outputs);
    consortium.accept("porto/replica", Command::CommitVersion(commit));
    assert!(consortium.state().candidate(&key).is_some());
}
