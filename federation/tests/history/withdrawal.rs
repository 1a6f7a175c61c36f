//! Plans that are stopped in the middle of a round, at every step of it, and started again.

use fedledger_federation::{
    Command, VersionId,
    command::{AttestVersion, CloseRound, FileRef, MoveBranch, OutputFiles, RoundKey, StartPlan, StopPlan},
    conductor::{Conductor, Duty, Report},
    plan::Plan,
    records::{Phase, PlanStatus, VersionStatus},
    verify::{Recomputation, recompute},
};
use fedledger_ledger::Digest;

use crate::{
    consortium::{Consortium, OFFICE, plan},
    retention::{decide, restored_state_keeps_the_same},
    world::{World, contribute_once, diligent, idle},
};

/// A world whose first round collects contributions, of which one is there.
fn collecting() -> (World, Digest) {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    let mut world = World::new(consortium);
    world.settle(&mut |consortium, key| contribute_once(consortium, key, "basel"));
    (world, id)
}

/// Goes on until the version stands proposed with the word of this many replicas.
fn attested_by(replicas: usize) -> (World, Digest) {
    let (mut world, id) = collecting();
    world.down = ["lyon", "porto", "turin"].into_iter().skip(replicas - 1).collect();
    world.settle(&mut diligent);
    let candidate = world.consortium.state().candidate(&world.open(&id).unwrap()).unwrap();
    let record = world.consortium.state().versions().get(&candidate).unwrap();
    assert_eq!((record.status, record.attestations.len()), (VersionStatus::Candidate, replicas));
    (world, id)
}

fn stop_and_start(world: &mut World, id: Digest) {
    let stop = StopPlan { plan: id, drain: false, reason: "the ward is moved".to_owned() };
    world.consortium.accept(OFFICE, Command::StopPlan(stop));
    world.settle(&mut idle);
    world.consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    world.down.clear();
}

/// Stops and starts the plan, lets everybody go on, and compares with a run that nobody disturbed.
fn finishes_as_undisturbed(mut world: World, id: Digest) {
    stop_and_start(&mut world, id);
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
    let (mut undisturbed, _) = collecting();
    undisturbed.settle(&mut diligent);
    let versions = |world: &World| world.consortium.state().attested().map(|(_, id, _)| *id).collect::<Vec<_>>();
    assert_eq!(versions(&world), versions(&undisturbed));
}

#[test]
fn a_plan_that_is_stopped_while_it_collects_goes_on() {
    let (world, id) = collecting();
    finishes_as_undisturbed(world, id);
}

#[test]
fn a_plan_that_is_stopped_before_a_version_is_proposed_goes_on() {
    let (mut world, id) = collecting();
    let key = world.open(&id).unwrap();
    diligent(&mut world.consortium, &key);
    world.consortium.close(&key, &[]);
    assert!(matches!(world.round(&key).phase, Phase::Closed { candidate: None, .. }));
    finishes_as_undisturbed(world, id);
}

#[test]
fn a_plan_that_is_stopped_while_its_version_is_attested_goes_on() {
    for replicas in [1, 2] {
        let (world, id) = attested_by(replicas);
        finishes_as_undisturbed(world, id);
    }
}

#[test]
fn a_plan_can_be_stopped_at_the_same_step_again_and_again() {
    let (mut world, id) = attested_by(2);
    for _ in 0..4 {
        stop_and_start(&mut world, id);
        world.down = vec!["porto", "turin"];
        world.settle(&mut diligent);
    }
    finishes_as_undisturbed(world, id);
}

#[test]
fn a_version_that_was_withdrawn_takes_no_attestations_and_is_not_called_wrong() {
    let (mut world, id) = attested_by(1);
    let version = world.consortium.state().candidate(&world.open(&id).unwrap()).unwrap();
    stop_and_start(&mut world, id);
    let record = world.consortium.state().versions().get(&version).unwrap().clone();
    assert_eq!(record.status, VersionStatus::Withdrawn);
    let attest = AttestVersion { version, outputs: record.manifest.outputs().unwrap() };
    assert_eq!(world.consortium.refused("turin/replica", Command::AttestVersion(attest)), "not_candidate");
    let recomputed = recompute(&world.consortium.source(), world.consortium.state(), &record, 1).unwrap();
    assert!(matches!(recomputed, Recomputation::Skipped(_)), "{recomputed:?}");
}

/// A history in which after every step the state is restored from its records, and must keep the same files.
struct Restored(Consortium);

impl Restored {
    fn accept(&mut self, signer: &str, command: Command) {
        self.0.accept(signer, command);
        restored_state_keeps_the_same(&self.0);
    }

    /// Opens the next round and closes it with everybody's contribution.
    fn collect(&mut self, plan: &Digest) -> RoundKey {
        let open = self.0.next_round(plan);
        let key = open.key;
        self.accept("basel/replica", Command::OpenRound(open));
        for site in ["basel", "lyon", "porto"] {
            self.0.join_and_contribute(&key, site);
            restored_state_keeps_the_same(&self.0);
        }
        self.accept(
            "lyon/replica",
            Command::CloseRound(CloseRound { key, through: u64::MAX, excluded: Default::default() }),
        );
        key
    }

    /// Has basel propose these files, and the others say what they have computed; whether it keeps them before and after.
    fn propose(&mut self, key: &RoundKey, proposed: OutputFiles, computed: OutputFiles) -> [bool; 2] {
        let commit = self.0.commit(key, proposed);
        let version = commit.version;
        self.accept("basel/replica", Command::CommitVersion(commit));
        let before = self.keeps(&proposed);
        for site in ["lyon", "porto"] {
            let attest = AttestVersion { version, outputs: computed };
            self.accept(&format!("{site}/replica"), Command::AttestVersion(attest));
        }
        [before, self.keeps(&proposed)]
    }

    fn keeps(&self, outputs: &OutputFiles) -> bool {
        self.0.state().retains(&outputs.weights.digest)
    }

    fn move_main(&mut self, to: VersionId, revoke: bool) {
        let (from, reason) = (Some(self.0.head("main")), "a look aside".to_owned());
        self.accept(OFFICE, Command::MoveBranch(MoveBranch { branch: "main".to_owned(), from, to, revoke, reason }));
    }

    /// Has everything pruned that the rules let go; how much that was.
    fn prune(&mut self) -> usize {
        let mut conductor = Conductor::new("basel/replica");
        for pruned in 0.. {
            let duties = conductor.step(self.0.state(), true, 0);
            let command = duties.into_iter().find_map(|duty| match duty {
                Duty::Submit(command @ (Command::PruneVersion(_) | Command::PruneRound(_))) => Some(command),
                _ => None,
            });
            let Some(command) = command else { return pruned };
            self.accept("basel/replica", command.clone());
            conductor.report(Report::Submitted { command, accepted: true }, 0);
        }
        unreachable!("there is an end to what there is")
    }
}

#[test]
fn a_state_restored_from_its_records_keeps_the_same_files_whatever_happened() {
    let (consortium, id) = Consortium::ready_for(3, Plan { rounds: 20, ..plan("study") });
    let mut history = Restored(consortium);
    let (stop, start) = (
        Command::StopPlan(StopPlan { plan: id, drain: false, reason: "the ward is moved".to_owned() }),
        Command::StartPlan(StartPlan { plan: id }),
    );
    // Withdrawn, and proposed again.
    let key = history.collect(&id);
    let outputs = history.0.compute(&key);
    let commit = history.0.commit(&key, outputs);
    history.accept("basel/replica", Command::CommitVersion(commit));
    assert!(history.keeps(&outputs));
    history.accept(OFFICE, stop.clone());
    assert!(!history.keeps(&outputs), "nobody needs what was withdrawn");
    history.accept(OFFICE, start.clone());
    let key = history.collect(&id);
    assert_eq!(history.propose(&key, outputs, outputs), [true, true]);
    let first = history.0.head("main");
    // Rejected twice, and then agreed on.
    let key = history.collect(&id);
    let outputs = history.0.compute(&key);
    let other = OutputFiles { weights: FileRef { digest: Digest::of(b"other"), size: 5 }, optimizer_state: None };
    for _ in 0..2 {
        assert_eq!(history.propose(&key, other, outputs), [true, false]);
    }
    assert_eq!(history.propose(&key, outputs, outputs), [true, true]);
    // Rolled back, made again, and rolled back for good.
    let second = history.0.head("main");
    history.move_main(first, false);
    let key = history.collect(&id);
    let outputs = history.0.compute(&key);
    assert_eq!(history.propose(&key, outputs, outputs), [true, true]);
    assert_ne!(history.0.head("main"), second, "another round made it");
    history.move_main(first, true);
    decide(&mut history.0, 1, 2);
    for _ in 0..3 {
        let key = history.collect(&id);
        let outputs = history.0.compute(&key);
        assert_eq!(history.propose(&key, outputs, outputs), [true, true]);
    }
    assert!(history.prune() > 4);
    // Withdrawn while older things are let go.
    let key = history.collect(&id);
    let outputs = history.0.compute(&key);
    let commit = history.0.commit(&key, outputs);
    history.accept("basel/replica", Command::CommitVersion(commit));
    history.accept(OFFICE, stop);
    history.prune();
    history.accept(OFFICE, start);
    let key = history.collect(&id);
    assert_eq!(history.propose(&key, outputs, outputs), [true, true]);
    assert!(history.prune() > 1, "the attempt that was stopped is let go as well");
}
