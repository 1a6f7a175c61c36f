//! Retention: what the members' rules keep, what they let go, and that everybody can tell what was let go from what is lost.

use std::{collections::BTreeSet, sync::Arc};

use fedledger_federation::{
    Command, Event, Federation, VersionId,
    command::{AbandonRound, MoveBranch, RoundKey, Tag},
    conductor::{Conductor, Duty, Report},
    governance::{Action, Propose, Vote},
    history::{ExportOptions, export, named_files},
    plan::Plan,
    records::VersionRecord,
    retention::{PinVersion, PruneRound, PruneVersion, Pruned, Retention},
    verify::{Options, Report as Verification, verify},
};
use fedledger_ledger::{
    Digest, codec,
    log::Log,
    machine::{StateMachine as _, WriteSet},
};

use crate::{
    consortium::{Consortium, OFFICE, SITES, key, open_bundle, plan, update_file},
    world::{World, diligent},
};

const REPLICA: &str = "basel/replica";

/// The members decide what is kept.
#[track_caller]
pub fn decide(consortium: &mut Consortium, updates: impl Into<Option<u64>>, versions: impl Into<Option<u64>>) {
    let action = Action::ChangeRetention(Retention { updates: updates.into(), versions: versions.into() });
    let against = action.target(consortium.state());
    let expires_index = consortium.log.size() + 100;
    let propose = Propose { action, against, expires_index, reason: "disks are finite".to_owned() };
    let Event::Proposed { proposal, .. } = consortium.accept("basel/organisation", Command::Propose(propose)) else {
        panic!("one vote of six decided")
    };
    let votes = ["lyon", "porto", "turin"].map(|member| {
        consortium.accept(&format!("{member}/organisation"), Command::Vote(Vote { proposal, approve: true }))
    });
    assert!(matches!(votes.last(), Some(Event::Executed { .. })), "{votes:?}");
}

fn plan_of(name: &str) -> Plan {
    Plan { rounds: 6, ..plan(name) }
}

fn long_plan() -> Plan {
    plan_of("heart")
}

/// The initial version and five more, on one branch.
fn six_versions() -> (Consortium, Digest) {
    let (mut consortium, plan) = Consortium::ready_for(3, long_plan());
    for _ in 0..5 {
        consortium.run_round(&plan);
    }
    (consortium, plan)
}

fn version(state: &Federation, number: u64) -> VersionId {
    *state.numbers().get(&number).unwrap()
}

fn record(state: &Federation, number: u64) -> &VersionRecord {
    state.versions().get(&version(state, number)).unwrap()
}

fn prune(state: &Federation, number: u64, updates: bool, files: bool) -> Command {
    Command::PruneVersion(PruneVersion { version: version(state, number), updates, files })
}

fn pin(version: VersionId, pinned: bool) -> Command {
    Command::PinVersion(PinVersion { version, pinned, reason: "asked for by the regulator".to_owned() })
}

fn tag(name: &str, version: VersionId) -> Command {
    Command::Tag(Tag { name: name.to_owned(), version })
}

/// What the rejection of a pruning says.
#[track_caller]
fn why_kept(consortium: &mut Consortium, number: u64, updates: bool, files: bool) -> String {
    let command = prune(consortium.state(), number, updates, files);
    let rejection = consortium.submit(REPLICA, &command).expect_err("it was pruned");
    assert!(rejection.to_string().starts_with("these files are to be kept: "), "{rejection}");
    rejection.to_string()
}

/// Numbers of the versions whose weights, and of those whose updates, the rules let go.
fn free(consortium: &Consortium) -> (Vec<u64>, Vec<u64>) {
    let state = consortium.state();
    let author = key(REPLICA).public();
    let is_free = |number: &u64, updates, files| {
        let command = prune(state, *number, updates, files);
        let (index, mut writes) = (consortium.log.size(), WriteSet::default());
        state.clone().apply(index, &author, command.kind(), &command.payload(), &mut writes).is_ok()
    };
    let numbers = || state.numbers().iter().map(|(number, _)| *number);
    let files = numbers().filter(|number| is_free(number, false, true)).collect();
    let updates = numbers().filter(|number| is_free(number, true, false)).collect();
    (files, updates)
}

/// Has everything pruned that the rules let go, by a conductor that leads; what was pruned, in order.
pub fn prune_all(consortium: &mut Consortium) -> Vec<Command> {
    let mut conductor = Conductor::new(REPLICA);
    let mut done = Vec::new();
    loop {
        let duties = conductor.step(consortium.state(), true, 0);
        let mut pruning = duties.into_iter().filter_map(|duty| match duty {
            Duty::Submit(command @ (Command::PruneVersion(_) | Command::PruneRound(_))) => Some(command),
            _ => None,
        });
        let Some(command) = pruning.next() else { return done };
        assert_eq!(pruning.next(), None, "one thing at a time");
        consortium.accept(REPLICA, command.clone());
        conductor.report(Report::Submitted { command: command.clone(), accepted: true }, 0);
        done.push(command);
    }
}

/// Deletes what nothing keeps, as every replica does.
fn discard(consortium: &mut Consortium) {
    let released: Vec<Digest> = consortium.state().discarded_since(0).flat_map(|(_, files)| files).collect();
    let blobs = Arc::make_mut(&mut consortium.blobs);
    for file in released {
        blobs.remove(&file);
    }
}

fn verified(consortium: &Consortium) -> Verification {
    let report = verify(&consortium.source(), &Options::default()).unwrap();
    assert_eq!(report, verify(&open_bundle(&consortium.bundle()), &Options::default()).unwrap());
    report
}

#[test]
fn everything_is_kept_until_the_members_decide() {
    let (mut consortium, _) = six_versions();
    assert_eq!(prune_all(&mut consortium), []);
    assert!(why_kept(&mut consortium, 0, false, true).contains("no limit is fixed"));
    let before = codec::encode(consortium.state().policy());
    assert!(!before.windows(9).any(|bytes| bytes == b"retention"), "the record of a policy without rules has changed");
    decide(&mut consortium, 1, 2);
    decide(&mut consortium, None, None);
    assert_eq!(codec::encode(consortium.state().policy()), before, "what is kept for ever is not written");
    assert_eq!(prune_all(&mut consortium), []);
}

#[test]
fn rules_that_leave_too_little_are_refused() {
    let mut consortium = Consortium::new(2);
    let mut refused = |updates, versions| {
        let action = Action::ChangeRetention(Retention { updates, versions });
        let against = action.target(consortium.state());
        let propose = Propose { action, against, expires_index: 100, reason: String::new() };
        consortium.refused("basel/organisation", Command::Propose(propose))
    };
    for (updates, versions) in
        [(Some(0), None), (Some(0), Some(5)), (None, Some(1)), (None, Some(0)), (Some(3), Some(3))]
    {
        assert_eq!(refused(updates, versions), "retention_too_short", "{updates:?} {versions:?}");
    }
    assert_eq!(refused(None, None), "nothing_to_change");
    decide(&mut consortium, 3, 4);
    let retention = consortium.state().policy().retention;
    assert_eq!(retention, Retention { updates: Some(3), versions: Some(4) });
}

#[test]
fn the_newest_versions_keep_what_the_rules_say() {
    let (mut consortium, _) = six_versions();
    decide(&mut consortium, 2, 4);
    assert_eq!(free(&consortium), (vec![0, 1], vec![1, 2, 3]), "the initial version has no updates");
    assert!(why_kept(&mut consortium, 2, false, true).contains("the newest 4"));
    assert!(why_kept(&mut consortium, 4, true, false).contains("the newest 2"));
    // What is asked for together is granted together or not at all.
    assert!(why_kept(&mut consortium, 2, true, true).contains("the newest 4"));

    let command = prune(consortium.state(), 1, true, true);
    for signer in [OFFICE, "basel/participant"] {
        assert_eq!(consortium.refused(signer, command.clone()), "not_permitted");
    }
    let event = consortium.accept(REPLICA, command.clone());
    let id = version(consortium.state(), 1);
    assert_eq!(event, Event::VersionPruned { version: id, updates: true, files: true });
    let index = consortium.log.size() - 1;
    assert_eq!(record(consortium.state(), 1).pruned, Pruned { updates: Some(index), files: Some(index) });
    assert_eq!(consortium.refused(REPLICA, command), "nothing_to_prune");
    let nothing = prune(consortium.state(), 0, false, false);
    assert_eq!(consortium.refused(REPLICA, nothing), "nothing_to_prune");
    let unknown = PruneVersion { version: VersionId::of_manifest(Digest::default()), updates: true, files: true };
    assert_eq!(consortium.refused(REPLICA, Command::PruneVersion(unknown)), "unknown_version");
}

#[test]
fn the_conductor_prunes_the_oldest_first_and_nothing_twice() {
    let (mut consortium, _) = six_versions();
    decide(&mut consortium, 2, None);
    let of = |number, updates, files| prune(consortium.state(), number, updates, files);
    let expected = [of(1, true, false), of(2, true, false), of(3, true, false)];
    assert_eq!(prune_all(&mut consortium), expected);
    decide(&mut consortium, 2, 4);
    let of = |number, updates, files| prune(consortium.state(), number, updates, files);
    let expected = [of(0, false, true), of(1, false, true)];
    assert_eq!(prune_all(&mut consortium), expected);
    assert_eq!((consortium.state().versions_with_files(), consortium.state().versions_with_updates()), (4, 2));
    // One that does not lead only watches.
    decide(&mut consortium, 1, 2);
    assert_eq!(Conductor::new(REPLICA).step(consortium.state(), false, 0).iter().filter(is_submission).count(), 0);
}

fn is_submission(duty: &&Duty) -> bool {
    matches!(duty, Duty::Submit(_))
}

#[test]
fn what_people_have_named_is_kept_at_any_age() {
    let (mut consortium, _) = six_versions();
    let [second, third] = [1, 2].map(|number| version(consortium.state(), number));
    consortium.accept(OFFICE, tag("published", second));
    assert_eq!(consortium.accept(OFFICE, pin(third, true)), Event::VersionPinned { version: third, pinned: true });
    assert_eq!(consortium.refused(OFFICE, pin(third, true)), "nothing_to_change");
    assert_eq!(consortium.refused("basel/organisation", pin(second, true)), "not_permitted");
    assert_eq!(consortium.refused(OFFICE, pin(second, false)), "nothing_to_change");
    decide(&mut consortium, 1, 2);
    // The first version is what the tagged one was made from, and the fourth is named by nobody.
    assert_eq!(free(&consortium), (vec![3], vec![3, 4]));
    assert!(why_kept(&mut consortium, 0, false, true).contains("was made from it"));
    assert!(why_kept(&mut consortium, 1, true, false).contains("is tagged"));
    assert!(why_kept(&mut consortium, 2, false, true).contains("is pinned"));

    consortium.accept(OFFICE, pin(third, false));
    assert_eq!(free(&consortium), (vec![2, 3], vec![2, 3, 4]));
    prune_all(&mut consortium);
    assert_eq!(free(&consortium), (vec![], vec![]));
    // The tagged version can still be computed again.
    discard(&mut consortium);
    let report = verified(&consortium);
    assert_eq!((report.problems, report.versions_recomputed), (vec![], 3), "{:?}", report.versions_skipped);
    assert_eq!(consortium.refused(OFFICE, pin(third, true)), "files_pruned");
    assert_eq!(consortium.refused(OFFICE, tag("too-late", third)), "files_pruned");
}

#[test]
fn heads_and_bases_of_rounds_are_kept_and_branches_do_not_go_back_to_what_was_pruned() {
    let (mut consortium, plan) = six_versions();
    let branch = |state: &Federation, name: &str, from: Option<u64>, to: u64| {
        let (from, to) = (from.map(|from| version(state, from)), version(state, to));
        Command::MoveBranch(MoveBranch { branch: name.into(), from, to, revoke: false, reason: "approved".into() })
    };
    let production = branch(consortium.state(), "production", None, 2);
    consortium.accept(OFFICE, production);
    decide(&mut consortium, 1, 2);
    // Of each branch the newest are kept: v2 and v1 of production, v5 and v4 of main.
    assert_eq!(free(&consortium), (vec![0, 3], vec![1, 3, 4]));
    prune_all(&mut consortium);
    let back = branch(consortium.state(), "main", Some(5), 3);
    let rejection = consortium.submit(OFFICE, &back).unwrap_err();
    let index = record(consortium.state(), 3).pruned.files.unwrap();
    assert!(rejection.to_string().contains(&format!("pruned by entry {index}")), "{rejection}");
    assert_eq!(consortium.refused(OFFICE, back), "files_pruned");

    // A round goes on training on v5 while main is moved away from it and younger versions come in.
    let key = consortium.open_round(&plan);
    let away = branch(consortium.state(), "main", Some(5), 4);
    consortium.accept(OFFICE, away);
    let other = Plan { branch: "other".into(), ..plan_of("lung") };
    let other = consortium.start(other);
    consortium.commit_and_attest(&RoundKey { plan: other, round: 0, attempt: 0 });
    for _ in 0..3 {
        consortium.run_round(&other);
    }
    assert!(why_kept(&mut consortium, 5, false, true).contains("a round in progress"));
    let abandon = AbandonRound { key, reason: "base_moved".into(), excluded: Default::default() };
    consortium.accept(REPLICA, Command::AbandonRound(abandon));
    assert!(free(&consortium).0.contains(&5));
}

#[test]
fn a_file_that_something_else_keeps_is_not_deleted() {
    let (mut consortium, plan) = Consortium::ready_for(3, long_plan());
    let shared = consortium.store(update_file(3.25));
    for round in 0..5 {
        let key = consortium.open_round(&plan);
        for site in ["basel", "lyon"] {
            consortium.join_and_contribute(&key, site);
        }
        // The same bytes in the first and in the last round.
        let file = if round % 4 == 0 { shared } else { consortium.store(update_file(10.0 + round as f32)) };
        let contribution = consortium.contribution_of(&key, "porto", file);
        consortium.join_and_send(&key, "porto", contribution);
        consortium.close(&key, &[]);
        consortium.commit_and_attest(&key);
    }
    decide(&mut consortium, 1, 2);
    let files = consortium.blobs.len();
    prune_all(&mut consortium);
    assert!(consortium.state().retains(&shared.digest));
    discard(&mut consortium);
    // Four rounds' updates but for the shared one, and the weights of v0 to v3.
    assert_eq!(consortium.blobs.len(), files - (4 * 3 - 1) - 4);
    assert!(consortium.blobs.contains_key(&shared.digest));
    let named = named_files(consortium.state());
    let kept: BTreeSet<&Digest> = named.keys().filter(|file| consortium.state().retains(file)).collect();
    assert_eq!(kept, consortium.blobs.keys().collect());
}

#[test]
fn what_was_let_go_is_told_from_what_is_lost() {
    let (mut consortium, _) = six_versions();
    decide(&mut consortium, 1, 3);
    prune_all(&mut consortium);
    discard(&mut consortium);
    let report = verified(&consortium);
    assert!(report.ok && report.problems.is_empty(), "{:?}", report.problems);
    // v0 needs no files, v5 has its updates and its base.
    assert_eq!((report.versions_recomputed, report.versions_skipped.len()), (2, 4));
    for skipped in &report.versions_skipped {
        let record = consortium.state().versions().get(&skipped.version).unwrap();
        let attested = "verifiable by attestation only (3 of 4 replicas: basel/replica, lyon/replica, porto/replica)";
        assert!(skipped.reason.ends_with(attested), "{skipped:?}");
        let index = record.pruned.updates.unwrap();
        let base = consortium.state().versions().get(&record.manifest.parents[0]).unwrap();
        let indexes = [Some(index), base.pruned.files].into_iter().flatten();
        let named = |index| skipped.reason.contains(&format!(" pruned by policy at entry {index}: "));
        assert!(indexes.into_iter().any(named), "{skipped:?}");
    }
    let exported = export(&consortium.source(), std::io::sink(), ExportOptions { files_until: None, blobs: true });
    let exported = exported.unwrap();
    assert_eq!((exported.missing, exported.pruned), (vec![], 4 * 3 + 3));

    // The weights of v4 are to be kept; without them, v5 cannot be computed again.
    let lost = record(consortium.state(), 4).manifest.weights().unwrap().digest;
    Arc::make_mut(&mut consortium.blobs).remove(&lost);
    let report = verified(&consortium);
    let newest = version(consortium.state(), 5);
    let skipped = report.versions_skipped.iter().find(|skipped| skipped.version == newest).unwrap();
    assert_eq!(skipped.reason, format!("file {lost} is not there"));
    let exported = export(&consortium.source(), std::io::sink(), ExportOptions { files_until: None, blobs: true });
    assert_eq!(exported.unwrap().missing, [lost]);
}

#[test]
fn a_bundle_from_before_still_proves_what_was_pruned_since() {
    let (mut consortium, _) = six_versions();
    let blobs = Arc::clone(&consortium.blobs);
    decide(&mut consortium, 1, 2);
    prune_all(&mut consortium);
    discard(&mut consortium);
    assert!(consortium.blobs.len() < blobs.len());
    consortium.blobs = blobs;
    let report = verified(&consortium);
    assert_eq!((report.problems, report.versions_recomputed, report.versions_skipped), (vec![], 6, vec![]));
}

#[test]
fn attempts_that_led_nowhere_and_updates_that_were_left_out_go_as_well() {
    let (mut consortium, plan) = Consortium::ready_for(3, long_plan());
    let abandoned = consortium.open_round(&plan);
    let left = consortium.store(update_file(77.0));
    let contribution = consortium.contribution_of(&abandoned, "basel", left);
    consortium.join_and_send(&abandoned, "basel", contribution);
    let abandon = AbandonRound { key: abandoned, reason: "deadline".into(), excluded: Default::default() };
    consortium.accept(REPLICA, Command::AbandonRound(abandon));
    let key = consortium.open_round(&plan);
    for site in ["basel", "lyon"] {
        consortium.join_and_contribute(&key, site);
    }
    let poisoned = consortium.store(update_file(f32::NAN));
    let contribution = consortium.contribution_of(&key, "porto", poisoned);
    consortium.join_and_send(&key, "porto", contribution);
    consortium.close(&key, &[("porto", "not_finite")]);
    consortium.commit_and_attest(&key);
    decide(&mut consortium, 2, 3);
    let prune = Command::PruneRound(PruneRound { key: abandoned });
    assert_eq!(consortium.refused(REPLICA, prune.clone()), "still_kept", "v0 is one of the newest two");
    let completed = Command::PruneRound(PruneRound { key });
    assert_eq!(consortium.refused(REPLICA, completed), "nothing_to_prune");
    consortium.run_round(&plan);
    consortium.run_round(&plan);
    assert!(prune_all(&mut consortium).contains(&prune));
    assert_eq!(consortium.refused(REPLICA, prune), "nothing_to_prune");
    discard(&mut consortium);
    for file in [left, poisoned] {
        assert!(!consortium.blobs.contains_key(&file.digest));
    }
    let round = consortium.state().rounds().get(&abandoned).unwrap();
    assert!(round.pruned_index.is_some());
    assert_eq!(verified(&consortium).problems, []);
}

#[test]
fn a_version_that_is_made_again_has_its_files_again() {
    let (mut consortium, plan) = Consortium::ready_for(3, long_plan());
    let initial = consortium.head("main");
    let other = consortium.start(Plan { branch: "other".into(), ..plan_of("lung") });
    consortium.commit_and_attest(&RoundKey { plan: other, round: 0, attempt: 0 });
    let move_main = |from, to| {
        let (from, reason) = (Some(from), "a look aside".to_owned());
        Command::MoveBranch(MoveBranch { branch: "main".into(), from, to, revoke: false, reason })
    };
    // The branch is moved away before the round's version is there, so the round is attempted again.
    let key = collected(&mut consortium, &plan);
    let aside = consortium.head("other");
    consortium.accept(OFFICE, move_main(initial, aside));
    let beside = consortium.commit_and_attest(&key);
    for _ in 0..3 {
        consortium.run_round(&other);
    }
    consortium.accept(OFFICE, move_main(aside, initial));
    decide(&mut consortium, 1, 2);
    prune_all(&mut consortium);
    discard(&mut consortium);
    let record = |consortium: &Consortium| consortium.state().versions().get(&beside).unwrap().clone();
    let pruned = record(&consortium).pruned;
    assert!(pruned.files.is_some() && pruned.updates.is_some());
    restored_state_keeps_the_same(&consortium);

    let key = collected(&mut consortium, &plan);
    assert_eq!((key.round, key.attempt), (1, 2));
    let outputs = consortium.compute(&key);
    let commit = consortium.commit(&key, outputs);
    assert_eq!(commit.version, beside, "training is deterministic");
    consortium.accept(REPLICA, Command::CommitVersion(commit));
    assert_eq!(consortium.head("main"), beside);
    assert!(record(&consortium).pruned.is_nothing());
    discard(&mut consortium);
    assert!(consortium.blobs.contains_key(&outputs.weights.digest));
    assert_eq!(verified(&consortium).problems, []);
    restored_state_keeps_the_same(&consortium);
}

/// Opens the next round and closes it with everybody's contribution.
fn collected(consortium: &mut Consortium, plan: &Digest) -> RoundKey {
    let key = consortium.open_round(plan);
    for site in ["basel", "lyon", "porto"] {
        consortium.join_and_contribute(&key, site);
    }
    consortium.close(&key, &[]);
    key
}

pub fn restored_state_keeps_the_same(consortium: &Consortium) {
    let restored = Log::<Federation>::load(&consortium.storage).unwrap().unwrap();
    let (state, restored) = (consortium.state(), restored.machine());
    assert_eq!(restored.digest(), state.digest());
    assert_eq!(restored.versions_with_files(), state.versions_with_files());
    assert_eq!(restored.versions_with_updates(), state.versions_with_updates());
    for file in named_files(state).keys() {
        assert_eq!(restored.retains(file), state.retains(file), "{file}");
    }
    let released = |state: &Federation| state.discarded_since(0).flat_map(|(_, files)| files).collect::<BTreeSet<_>>();
    assert_eq!(released(restored), released(state));
}

#[test]
fn every_replica_deletes_what_was_pruned_and_does_so_again_after_a_restart() {
    let mut consortium = Consortium::new(4);
    decide(&mut consortium, 1, 2);
    let plan = consortium.start(long_plan());
    let mut world = World::new(consortium);
    world.down.push("turin");
    world.settle(&mut diligent);
    let state = world.consortium.state();
    assert!(world.open(&plan).is_none());
    assert_eq!((state.versions_with_files(), state.versions_with_updates()), (2, 1));
    // The weights of the last two versions, and the updates of the last.
    assert_eq!(world.consortium.blobs.len(), 2 + 4);
    let by =
        |site: &str| world.discarded.iter().filter(|(found, _)| *found == site).map(|(_, files)| *files).sum::<usize>();
    for site in &SITES[..3] {
        assert_eq!(by(site), 5 * 4 + 5, "{site}");
    }
    world.down.clear();
    world.settle(&mut diligent);
    assert_eq!(world.obtained, [("turin", 5), ("turin", 6)], "nobody looks for what is not kept");

    let state = world.consortium.state();
    let mut restarted = Conductor::new("lyon/replica");
    let discards = |duties: Vec<Duty>| -> Vec<(u64, Vec<Digest>)> {
        let discards = duties.into_iter().filter_map(|duty| match duty {
            Duty::Discard { last_index, files } => Some((last_index, files)),
            _ => None,
        });
        discards.collect()
    };
    let [(last_index, files)] = discards(restarted.step(state, false, 0)).try_into().unwrap();
    assert_eq!(files.len(), 5 * 4 + 5);
    assert!(files.iter().all(|file| !state.retains(file)));
    assert_eq!(discards(restarted.step(state, false, 0)), [], "once is enough");
    restarted.report(Report::Discarded { last_index, complete: false }, 1_000);
    let retry_ms = restarted.wake_at().unwrap();
    assert!(retry_ms > 1_000);
    assert_eq!(discards(restarted.step(state, false, retry_ms - 1)), []);
    assert_eq!(discards(restarted.step(state, false, retry_ms)), [(last_index, files)]);
    restarted.report(Report::Discarded { last_index, complete: true }, retry_ms);
    assert_eq!(discards(restarted.step(state, false, retry_ms)), []);
    assert_eq!(verified(&world.consortium).problems, []);
}
