//! What is refused, under which code; that nothing changes then is checked by [`Consortium::refused`].

use std::collections::BTreeMap;

use fedledger_federation::{
    Command, VersionId,
    architecture::Architecture,
    cohort,
    command::{
        AbandonRound, ApprovePlan, AttestVersion, CancelPlan, CloseRound, CommitVersion, Contribute, DeclineRound,
        Evaluate, FileRef, JoinRound, Metrics, MoveBranch, OpenRound, OutputFiles, PausePlan, ResumePlan,
        RevokeVersion, RoundKey, StartPlan, StopEarly, StopPlan, Tag, WithdrawConsent,
    },
    governance::{Action, Propose, RecordEvidence, Vote},
    limits::{METRICS_MAX, TEXT_LENGTH_MAX},
    plan::{Plan, Rule},
};
use fedledger_ledger::Digest;

use crate::consortium::{Consortium, INSURER, OFFICE, SITES, metrics, plan, update_file};

const BASEL: &str = "basel/participant";
const LYON: &str = "lyon/participant";
const REPLICA: &str = "basel/replica";

/// Turin runs a replica and takes no part.
const SIGNERS: [&str; 6] = [OFFICE, INSURER, "basel/organisation", BASEL, REPLICA, "turin/organisation"];

fn no_version() -> VersionId {
    VersionId::of_manifest(Digest::of(b"no manifest"))
}

fn no_files() -> OutputFiles {
    OutputFiles { weights: FileRef { digest: Digest::of(b"no file"), size: 1 }, optimizer_state: None }
}

fn no_round() -> RoundKey {
    RoundKey { plan: Digest::of(b"no plan"), round: 1, attempt: 1 }
}

fn reason() -> String {
    "because".to_owned()
}

fn too_long() -> String {
    "x".repeat(TEXT_LENGTH_MAX + 1)
}

fn approve(plan: Digest) -> Command {
    Command::ApprovePlan(ApprovePlan { plan, examples: None })
}

fn withdraw(plan: Digest) -> Command {
    Command::WithdrawConsent(WithdrawConsent { plan, reason: reason() })
}

fn start(plan: Digest) -> Command {
    Command::StartPlan(StartPlan { plan })
}

fn stop(plan: Digest, drain: bool) -> Command {
    Command::StopPlan(StopPlan { plan, drain, reason: reason() })
}

fn join(key: RoundKey) -> Command {
    Command::JoinRound(JoinRound { key })
}

fn decline(key: RoundKey) -> Command {
    Command::DeclineRound(DeclineRound { key, reason: reason() })
}

fn close(key: RoundKey, excluded: &[(&str, &str)]) -> Command {
    let excluded = excluded.iter().map(|(member, code)| ((*member).to_owned(), (*code).to_owned())).collect();
    Command::CloseRound(CloseRound { key, through: u64::MAX, excluded })
}

fn abandon(key: RoundKey) -> Command {
    Command::AbandonRound(AbandonRound { key, reason: "deadline".to_owned(), excluded: BTreeMap::new() })
}

fn attest(version: VersionId, outputs: OutputFiles) -> Command {
    Command::AttestVersion(AttestVersion { version, outputs })
}

fn evaluate(version: VersionId) -> Command {
    Command::Evaluate(Evaluate { version, examples: 1, metrics: metrics(), groups: BTreeMap::new() })
}

fn move_branch(branch: &str, from: Option<VersionId>, to: VersionId, revoke: bool) -> Command {
    Command::MoveBranch(MoveBranch { branch: branch.to_owned(), from, to, revoke, reason: reason() })
}

fn tag(name: &str, version: VersionId) -> Command {
    Command::Tag(Tag { name: name.to_owned(), version })
}

fn revoke(version: VersionId) -> Command {
    Command::RevokeVersion(RevokeVersion { version, reason: reason() })
}

fn dummy_contribution() -> Contribute {
    Contribute {
        key: no_round(),
        base: no_version(),
        update: Digest::of(b"update"),
        size: 1,
        examples: 1,
        metrics: Metrics::new(),
        data_manifest: Digest::of(b"data"),
        environment: Digest::of(b"environment"),
        software: String::new(),
        skipped_rows: BTreeMap::new(),
        trainer: None,
    }
}

/// A command of every kind that nobody could get accepted, and who is permitted to ask for it.
fn commands() -> Vec<(Command, &'static [&'static str])> {
    let (plan_id, version) = (Digest::of(b"no plan"), no_version());
    let open = OpenRound { key: no_round(), base: version, cohort: cohort::digest(&[]), duration_ms: 1 };
    let commit = CommitVersion { key: no_round(), version, outputs: no_files() };
    let hospital: &[&str] = &["basel/organisation", BASEL];
    let organisation: &[&str] = &[OFFICE, INSURER, "basel/organisation", "turin/organisation"];
    let action = Action::RevokeMember { member: "atlantis".to_owned() };
    let strange = Propose { action, against: None, expires_index: 900, reason: reason() };
    vec![
        (Command::ProposePlan(Plan { rounds: 0, ..plan("heart") }), &[OFFICE]),
        (approve(plan_id), hospital),
        (withdraw(plan_id), hospital),
        (start(plan_id), &[OFFICE]),
        (stop(plan_id, false), &[OFFICE]),
        (Command::PausePlan(PausePlan { plan: plan_id, reason: reason() }), &[OFFICE]),
        (Command::ResumePlan(ResumePlan { plan: plan_id, reason: reason() }), &[OFFICE]),
        (Command::CancelPlan(CancelPlan { plan: plan_id, reason: reason() }), &[OFFICE]),
        (Command::StopEarly(StopEarly { plan: plan_id, version }), &[REPLICA]),
        (Command::OpenRound(open), &[REPLICA]),
        (join(no_round()), &[BASEL]),
        (decline(no_round()), &[BASEL]),
        (Command::Contribute(dummy_contribution()), &[BASEL]),
        (close(no_round(), &[]), &[REPLICA]),
        (abandon(no_round()), &[REPLICA]),
        (Command::CommitVersion(commit), &[REPLICA]),
        (attest(version, no_files()), &[REPLICA]),
        (evaluate(version), &[BASEL, INSURER]),
        (move_branch("main", None, version, false), &[OFFICE]),
        (tag("best", version), &[OFFICE]),
        (revoke(version), &[OFFICE]),
        (Command::Propose(strange), organisation),
        (Command::Vote(Vote { proposal: plan_id, approve: true }), organisation),
        (Command::RecordEvidence(RecordEvidence { evidence: Vec::new() }), &SIGNERS),
    ]
}

#[test]
fn every_kind_is_for_the_keys_that_its_role_has() {
    let mut consortium = Consortium::new(2);
    for (command, permitted) in commands() {
        for signer in SIGNERS {
            let code = consortium.refused(signer, command.clone());
            assert_eq!(code != "not_permitted", permitted.contains(&signer), "{signer}: {command:?}: {code}");
        }
        for stranger in ["mallory", "basel/replica/log", "basel/replica/transport", "basel/api"] {
            assert_eq!(consortium.refused(stranger, command.clone()), "unknown_author", "{stranger}");
        }
    }
}

#[test]
fn plans_must_be_sound_and_new() {
    let mut consortium = Consortium::new(2);
    let mut propose = |plan: Plan| consortium.refused(OFFICE, Command::ProposePlan(plan));
    assert_eq!(propose(Plan { rounds: 0, ..plan("heart") }), "invalid_plan");
    assert_eq!(propose(plan("No Name")), "invalid_plan");
    let mut strange = plan("heart");
    strange.participation.required_members = vec!["atlantis".to_owned()];
    assert_eq!(propose(strange), "no_such_participant");
    let mut replica_only = plan("heart");
    replica_only.requirements.data_manifests.insert("turin".to_owned(), Digest::of(b"data"));
    assert_eq!(propose(replica_only), "no_such_participant");
    consortium.accept(OFFICE, Command::ProposePlan(plan("heart")));
    assert_eq!(consortium.refused(OFFICE, Command::ProposePlan(plan("heart"))), "plan_exists");
}

#[test]
fn consent_is_given_and_withdrawn_once() {
    let mut consortium = Consortium::new(2);
    let id = plan("heart").id();
    assert_eq!(consortium.refused(BASEL, approve(id)), "unknown_plan");
    consortium.accept(OFFICE, Command::ProposePlan(plan("heart")));
    assert_eq!(consortium.refused(BASEL, withdraw(id)), "not_consented");
    consortium.accept(BASEL, approve(id));
    assert_eq!(consortium.refused("basel/organisation", approve(id)), "already_consented");
    let long = Command::WithdrawConsent(WithdrawConsent { plan: id, reason: too_long() });
    assert_eq!(consortium.refused(BASEL, long), "text_too_long");
    consortium.accept("basel/organisation", withdraw(id));
    assert_eq!(consortium.refused(BASEL, withdraw(id)), "not_consented");
}

#[test]
fn a_plan_starts_with_enough_consents_on_a_free_branch() {
    let mut consortium = Consortium::new(3);
    let mut wanting = plan("heart");
    wanting.participation.required_members = vec!["porto".to_owned()];
    let id = wanting.id();
    consortium.accept(OFFICE, Command::ProposePlan(wanting));
    assert_eq!(consortium.refused(OFFICE, start(id)), "too_few_consents");
    consortium.accept(BASEL, approve(id));
    consortium.accept(LYON, approve(id));
    assert_eq!(consortium.refused(OFFICE, start(id)), "required_consent_missing");
    consortium.accept("porto/participant", approve(id));
    assert_eq!(consortium.refused(OFFICE, stop(id, false)), "plan_status");
    consortium.accept(OFFICE, start(id));
    assert_eq!(consortium.refused(OFFICE, start(id)), "plan_status");

    let other = plan("lung");
    let other_id = other.id();
    consortium.accept(OFFICE, Command::ProposePlan(other));
    consortium.accept(BASEL, approve(other_id));
    consortium.accept(LYON, approve(other_id));
    assert_eq!(consortium.refused(OFFICE, start(other_id)), "branch_in_use");
}

#[test]
fn a_plan_of_another_architecture_needs_a_branch_of_its_own() {
    let (mut consortium, first) = Consortium::ready(2);
    consortium.accept(OFFICE, stop(first, false));
    let architecture = Architecture::logistic_regression(3);
    let wider = Plan { architecture, ..plan("wider") };
    let id = wider.id();
    consortium.accept(OFFICE, Command::ProposePlan(wider));
    consortium.accept(BASEL, approve(id));
    consortium.accept(LYON, approve(id));
    assert_eq!(consortium.refused(OFFICE, start(id)), "architecture_differs");
}

#[test]
fn a_round_is_opened_as_plan_and_branch_say() {
    let mut consortium = Consortium::new(3);
    let id = consortium.start(Plan { branch: "heart".to_owned(), ..plan("heart") });
    let key = RoundKey { plan: id, round: 1, attempt: 1 };
    let early = OpenRound { key, base: no_version(), cohort: cohort::digest(&[]), duration_ms: 30_000 };
    assert_eq!(consortium.refused(REPLICA, Command::OpenRound(early)), "no_base");
    consortium.commit_and_attest(&RoundKey { plan: id, round: 0, attempt: 0 });

    let right = consortium.next_round(&id);
    let mut refused = |change: &dyn Fn(&mut OpenRound)| {
        let mut open = right.clone();
        change(&mut open);
        consortium.refused(REPLICA, Command::OpenRound(open))
    };
    assert_eq!(refused(&|open| open.key.plan = Digest::of(b"no plan")), "unknown_plan");
    assert_eq!(refused(&|open| open.key.round = 2), "wrong_round");
    assert_eq!(refused(&|open| open.key.round = 0), "wrong_round");
    assert_eq!(refused(&|open| open.key.attempt = 2), "wrong_round");
    assert_eq!(refused(&|open| open.base = no_version()), "wrong_base");
    assert_eq!(refused(&|open| open.duration_ms = 1), "wrong_duration");
    let selected = ["basel", "lyon", "porto"].map(str::to_owned);
    assert_eq!(right.cohort, cohort::digest(&selected));
    assert_eq!(refused(&|open| open.cohort = cohort::digest(&selected[..2])), "wrong_cohort");
    assert_eq!(refused(&|open| open.cohort = cohort::digest(&SITES.map(str::to_owned))), "wrong_cohort");

    consortium.accept(REPLICA, Command::OpenRound(right.clone()));
    assert_eq!(consortium.refused(REPLICA, Command::OpenRound(right)), "round_open");
    consortium.accept(OFFICE, stop(id, false));
    let next = consortium.next_round(&id);
    assert_eq!(consortium.refused(REPLICA, Command::OpenRound(next)), "plan_status");
}

#[test]
fn a_round_is_not_opened_for_fewer_than_the_quorum() {
    let mut wanting = plan("heart");
    wanting.participation.required_members = vec!["porto".to_owned()];
    let (mut consortium, id) = Consortium::ready_for(3, wanting);
    consortium.accept("porto/participant", withdraw(id));
    let without = consortium.next_round(&id);
    assert_eq!(consortium.refused(REPLICA, Command::OpenRound(without)), "required_contribution_missing");
    consortium.accept(LYON, withdraw(id));
    let alone = consortium.next_round(&id);
    assert_eq!(consortium.refused(REPLICA, Command::OpenRound(alone)), "below_quorum");
}

#[test]
fn joining_and_declining_are_for_the_selected_and_while_the_round_collects() {
    let (mut consortium, id) = Consortium::ready(3);
    let key = RoundKey { plan: id, round: 1, attempt: 1 };
    assert_eq!(consortium.refused(BASEL, join(key)), "unknown_round");
    consortium.accept("porto/participant", withdraw(id));
    consortium.open_round(&id);
    assert_eq!(consortium.refused("porto/participant", join(key)), "not_selected");
    assert_eq!(consortium.refused("porto/participant", decline(key)), "not_selected");
    consortium.accept(BASEL, join(key));
    assert_eq!(consortium.refused(BASEL, join(key)), "already_joined");
    let long = Command::DeclineRound(DeclineRound { key, reason: too_long() });
    assert_eq!(consortium.refused(BASEL, long), "text_too_long");
    consortium.accept(BASEL, decline(key));
    assert_eq!(consortium.refused(BASEL, decline(key)), "declined");
    assert_eq!(consortium.refused(BASEL, join(key)), "declined");
    let contribution = consortium.contribution(&key, "basel");
    assert_eq!(consortium.refused(BASEL, Command::Contribute(contribution)), "declined");
    consortium.join_and_contribute(&key, "lyon");
    assert_eq!(consortium.refused(LYON, decline(key)), "already_contributed");
    assert_eq!(consortium.refused(LYON, join(key)), "already_joined");
    consortium.accept(REPLICA, abandon(key));
    assert_eq!(consortium.refused(BASEL, join(key)), "round_closed");
    assert_eq!(consortium.refused(BASEL, decline(key)), "round_closed");
}

#[test]
fn a_contribution_binds_member_round_attempt_and_base() {
    let mut strict = plan("heart");
    strict.requirements.data_manifests.insert("basel".to_owned(), Digest::of(b"basel"));
    strict.requirements.environment = Some(Digest::of(b"environment"));
    let (mut consortium, id) = Consortium::ready_for(3, strict);
    consortium.accept("porto/participant", withdraw(id));
    let key = consortium.open_round(&id);
    let right = consortium.contribution(&key, "basel");
    assert_eq!(consortium.refused(BASEL, Command::Contribute(right.clone())), "not_joined");
    consortium.accept(BASEL, join(key));

    let mut refused = |change: &dyn Fn(&mut Contribute)| {
        let mut contribution = right.clone();
        change(&mut contribution);
        consortium.refused(BASEL, Command::Contribute(contribution))
    };
    assert_eq!(refused(&|c| c.key.round = 2), "unknown_round");
    assert_eq!(refused(&|c| c.key.attempt = 2), "unknown_round");
    assert_eq!(refused(&|c| c.base = no_version()), "wrong_base");
    assert_eq!(refused(&|c| c.size += 1), "wrong_size");
    assert_eq!(refused(&|c| c.size = u64::MAX), "wrong_size");
    assert_eq!(refused(&|c| c.examples = 0), "wrong_examples");
    assert_eq!(refused(&|c| c.examples = 1025), "wrong_examples");
    assert_eq!(refused(&|c| c.data_manifest = Digest::of(b"other rows")), "wrong_data_manifest");
    assert_eq!(refused(&|c| c.environment = Digest::of(b"other machine")), "wrong_environment");
    assert_eq!(refused(&|c| c.trainer = Some(Digest::of(b"a program"))), "wrong_trainer");
    assert_eq!(refused(&|c| c.software = too_long()), "text_too_long");
    assert_eq!(refused(&|c| c.metrics.extend([("A b".to_owned(), 0)])), "invalid_metrics");
    let many = || (0..=METRICS_MAX).map(|i| (format!("metric-{i}"), 0)).collect::<Metrics>();
    assert_eq!(refused(&|c| c.metrics = many()), "invalid_metrics");
    let porto = Command::Contribute(right.clone());
    assert_eq!(consortium.refused("porto/participant", porto), "not_selected");

    consortium.accept(BASEL, Command::Contribute(right.clone()));
    assert_eq!(consortium.refused(BASEL, Command::Contribute(right.clone())), "already_contributed");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    assert_eq!(consortium.refused(BASEL, Command::Contribute(right)), "round_closed", "it is late");
}

#[test]
fn a_round_is_closed_with_its_quorum_and_once() {
    let mut wanting = plan("heart");
    wanting.participation.required_members = vec!["basel".to_owned()];
    let (mut consortium, id) = Consortium::ready_for(3, wanting);
    assert_eq!(consortium.refused(REPLICA, close(no_round(), &[])), "unknown_round");
    let key = consortium.open_round(&id);
    assert_eq!(consortium.refused(REPLICA, close(key, &[])), "below_quorum");
    consortium.join_and_contribute(&key, "lyon");
    consortium.join_and_contribute(&key, "porto");
    assert_eq!(consortium.refused(REPLICA, close(key, &[])), "required_contribution_missing");
    consortium.join_and_contribute(&key, "basel");
    assert_eq!(consortium.refused(REPLICA, close(key, &[("turin", "blob_lost")])), "nothing_to_exclude");
    assert_eq!(consortium.refused(REPLICA, close(key, &[("lyon", "Blob lost!")])), "invalid_name");
    assert_eq!(consortium.refused(REPLICA, close(key, &[("basel", "blob_lost")])), "required_contribution_missing");
    let too_many = [("lyon", "blob_lost"), ("porto", "blob_lost")];
    assert_eq!(consortium.refused(REPLICA, close(key, &too_many)), "below_quorum");
    consortium.close(&key, &[("porto", "blob_lost")]);
    assert_eq!(consortium.refused(REPLICA, close(key, &[])), "round_closed");
}

#[test]
fn a_round_is_abandoned_while_nothing_has_come_of_it() {
    let (mut consortium, id) = Consortium::ready(2);
    assert_eq!(consortium.refused(REPLICA, abandon(no_round())), "unknown_round");
    let key = consortium.open_round(&id);
    let bad = Command::AbandonRound(AbandonRound { key, reason: "No quorum!".to_owned(), excluded: BTreeMap::new() });
    assert_eq!(consortium.refused(REPLICA, bad), "invalid_name");
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    let outputs = consortium.compute(&key);
    let commit = consortium.commit(&key, outputs);
    let version = commit.version;
    consortium.accept(REPLICA, Command::CommitVersion(commit));
    assert_eq!(consortium.refused(REPLICA, abandon(key)), "candidate_exists");
    consortium.accept("lyon/replica", attest(version, outputs));
    consortium.accept("porto/replica", attest(version, outputs));
    assert_eq!(consortium.refused(REPLICA, abandon(key)), "round_closed");
    let second = consortium.open_round(&id);
    consortium.accept(REPLICA, abandon(second));
    assert_eq!(consortium.refused(REPLICA, abandon(second)), "round_closed");
}

#[test]
fn a_version_is_proposed_where_one_is_wanted_and_as_computed() {
    let (mut consortium, id) = Consortium::ready(2);
    let commit = |key, version, outputs| Command::CommitVersion(CommitVersion { key, version, outputs });
    let initial = RoundKey { plan: id, round: 0, attempt: 0 };
    assert_eq!(consortium.refused(REPLICA, commit(initial, no_version(), no_files())), "branch_exists");
    let odd = RoundKey { attempt: 1, ..initial };
    assert_eq!(consortium.refused(REPLICA, commit(odd, no_version(), no_files())), "unknown_round");
    assert_eq!(consortium.refused(REPLICA, commit(no_round(), no_version(), no_files())), "unknown_plan");
    let next = RoundKey { round: 1, attempt: 1, ..initial };
    assert_eq!(consortium.refused(REPLICA, commit(next, no_version(), no_files())), "unknown_round");
    let key = consortium.open_round(&id);
    assert_eq!(consortium.refused(REPLICA, commit(key, no_version(), no_files())), "round_collecting");
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    assert_eq!(consortium.refused(REPLICA, commit(key, no_version(), no_files())), "wrong_version");
    let state = Some(no_files().weights);
    let with_state = OutputFiles { optimizer_state: state, ..no_files() };
    assert_eq!(consortium.refused(REPLICA, commit(key, no_version(), with_state)), "wrong_outputs");
    let outputs = consortium.compute(&key);
    let right = consortium.commit(&key, outputs);
    consortium.accept(REPLICA, Command::CommitVersion(right.clone()));
    assert_eq!(consortium.refused("lyon/replica", Command::CommitVersion(right.clone())), "candidate_exists");
    consortium.accept(OFFICE, stop(id, false));
    assert_eq!(consortium.refused(REPLICA, Command::CommitVersion(right)), "round_closed");

    let stopped = Plan { branch: "other".to_owned(), ..plan("lung") };
    let stopped_id = stopped.id();
    consortium.accept(OFFICE, Command::ProposePlan(stopped));
    let initial = RoundKey { plan: stopped_id, round: 0, attempt: 0 };
    assert_eq!(consortium.refused(REPLICA, commit(initial, no_version(), no_files())), "plan_status");
}

#[test]
fn a_rule_with_state_needs_the_state_among_its_outputs() {
    let mut momentum = plan("heart");
    let decimal = |text: &str| text.parse().unwrap();
    momentum.aggregation.rule = Rule::FedAvgM { server_learning_rate: decimal("1"), momentum: decimal("0.9") };
    let (mut consortium, id) = Consortium::ready_for(2, momentum);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    let without = Command::CommitVersion(CommitVersion { key, version: no_version(), outputs: no_files() });
    assert_eq!(consortium.refused(REPLICA, without), "wrong_outputs");
    let version = consortium.commit_and_attest(&key);
    let record = consortium.state().versions().get(&version).unwrap();
    assert!(record.manifest.optimizer_state().is_some());
}

#[test]
fn a_replica_attests_a_candidate_once() {
    let (mut consortium, id) = Consortium::ready(2);
    assert_eq!(consortium.refused(REPLICA, attest(no_version(), no_files())), "unknown_version");
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    let outputs = consortium.compute(&key);
    let commit = consortium.commit(&key, outputs);
    let version = commit.version;
    consortium.accept(REPLICA, Command::CommitVersion(commit));
    assert_eq!(consortium.refused(REPLICA, attest(version, outputs)), "already_attested");
    assert_eq!(consortium.refused(BASEL, evaluate(version)), "not_attested");
    assert_eq!(consortium.refused(OFFICE, tag("best", version)), "not_attested");
    assert_eq!(consortium.refused(OFFICE, move_branch("best", None, version, false)), "not_attested");
    assert_eq!(consortium.refused(OFFICE, revoke(version)), "not_attested");
    consortium.accept("lyon/replica", attest(version, no_files()));
    consortium.accept("porto/replica", attest(version, no_files()));
    assert_eq!(consortium.refused("turin/replica", attest(version, outputs)), "not_candidate", "it was rejected");
}

#[test]
fn a_member_evaluates_an_attested_version_once() {
    let (mut consortium, _) = Consortium::ready(2);
    assert_eq!(consortium.refused(BASEL, evaluate(no_version())), "unknown_version");
    let version = consortium.head("main");
    consortium.accept(BASEL, evaluate(version));
    assert_eq!(consortium.refused(BASEL, evaluate(version)), "already_evaluated");
    let named = Metrics::from([(String::new(), 1)]);
    let bad = Evaluate { version, examples: 1, metrics: named, groups: BTreeMap::new() };
    assert_eq!(consortium.refused(LYON, Command::Evaluate(bad)), "invalid_metrics");
}

#[test]
fn branches_move_between_usable_versions_by_someone_who_knows_the_head() {
    let (mut consortium, id) = Consortium::ready(2);
    let initial = consortium.head("main");
    let first = consortium.run_round(&id);
    let second = consortium.run_round(&id);
    let mut refused = |command| consortium.refused(OFFICE, command);
    assert_eq!(refused(move_branch("main", Some(first), initial, false)), "head_moved");
    assert_eq!(refused(move_branch("main", None, initial, false)), "head_moved");
    assert_eq!(refused(move_branch("production", Some(first), first, false)), "head_moved");
    assert_eq!(refused(move_branch("main", Some(second), no_version(), false)), "unknown_version");
    assert_eq!(refused(move_branch("main", Some(second), second, false)), "nothing_to_move");
    assert_eq!(refused(move_branch("Main!", None, first, false)), "invalid_name");
    let long = MoveBranch { branch: "main".into(), from: None, to: first, revoke: false, reason: too_long() };
    assert_eq!(refused(Command::MoveBranch(long)), "text_too_long");
    consortium.accept(OFFICE, move_branch("production", None, initial, false));
    // Nothing lies between when a branch moves forward.
    let forward = move_branch("production", Some(initial), first, true);
    assert_eq!(consortium.refused(OFFICE, forward), "not_ancestor");
    consortium.accept(OFFICE, move_branch("production", Some(initial), first, false));
    // What is revoked must be no branch's head.
    assert_eq!(consortium.refused(OFFICE, move_branch("main", Some(second), initial, true)), "is_head");
    consortium.accept(OFFICE, move_branch("main", Some(second), first, true));
    assert_eq!(consortium.refused(OFFICE, move_branch("main", Some(first), second, false)), "revoked");
}

#[test]
fn tags_are_for_good_and_heads_are_not_revoked() {
    let (mut consortium, id) = Consortium::ready(2);
    let initial = consortium.head("main");
    let first = consortium.run_round(&id);
    assert_eq!(consortium.refused(OFFICE, tag("Best!", first)), "invalid_name");
    assert_eq!(consortium.refused(OFFICE, tag("best", no_version())), "not_attested");
    consortium.accept(OFFICE, tag("best", first));
    assert_eq!(consortium.refused(OFFICE, tag("best", initial)), "tag_exists");
    assert_eq!(consortium.refused(OFFICE, revoke(no_version())), "unknown_version");
    assert_eq!(consortium.refused(OFFICE, revoke(first)), "is_head");
    let long = Command::RevokeVersion(RevokeVersion { version: initial, reason: too_long() });
    assert_eq!(consortium.refused(OFFICE, long), "text_too_long");
    consortium.accept(OFFICE, revoke(initial));
    assert_eq!(consortium.refused(OFFICE, revoke(initial)), "revoked");
}

#[test]
fn an_update_of_the_right_size_is_accepted_whatever_is_in_it() {
    // The ledger cannot look into files; what is unusable is excluded when the round is closed.
    let (mut consortium, id) = Consortium::ready(2);
    let key = consortium.open_round(&id);
    let file = consortium.store(update_file(f32::INFINITY));
    let contribution = consortium.contribution_of(&key, "basel", file);
    consortium.join_and_send(&key, "basel", contribution);
    consortium.join_and_contribute(&key, "lyon");
    let excluded = BTreeMap::from([("basel".to_owned(), "not_finite".to_owned())]);
    let close = Command::CloseRound(CloseRound { key, through: u64::MAX, excluded });
    assert_eq!(consortium.refused(REPLICA, close), "below_quorum");
}
