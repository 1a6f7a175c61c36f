//! Plans that are stopped in the middle of a round, at every step of it, and started again.

use fedledger_federation::{
    Command,
    command::{AttestVersion, StartPlan, StopPlan},
    records::{Phase, PlanStatus, VersionStatus},
    verify::{Recomputation, recompute},
};
use fedledger_ledger::Digest;

use crate::{
    consortium::{Consortium, OFFICE, plan},
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
