//! Plans that end before all of their rounds are done, and only by what is on record.

use std::collections::BTreeMap;

use fedledger_federation::{
    Command, Event, VersionId,
    command::{AbandonRound, Evaluate, Metrics, MoveBranch, StartPlan, StopEarly},
    early_stopping::{Cause, EarlyStopping, Goal, Trend, awaited, awaits},
    plan::Plan,
    records::PlanStatus,
};
use fedledger_ledger::Digest;

use crate::{
    consortium::{Consortium, INSURER, OFFICE, SITES, plan},
    retention::restored_state_keeps_the_same,
    world::{World, diligent, idle},
};

const REPLICA: &str = "basel/replica";

fn stopping(target: Option<&str>, patience: Option<u64>) -> Plan {
    let metric = "accuracy".to_owned();
    let target = target.map(|target| target.parse().unwrap());
    let condition = EarlyStopping { metric, goal: Goal::Max, target, patience, minimum_improvement: None };
    Plan { rounds: 10, early_stopping: Some(condition), ..plan("early") }
}

fn evaluate(consortium: &mut Consortium, signer: &str, version: VersionId, examples: u64, accuracy: i64) {
    let metrics = Metrics::from([("accuracy".to_owned(), accuracy)]);
    consortium.accept(signer, Command::Evaluate(Evaluate { version, examples, metrics, groups: BTreeMap::new() }));
}

fn stop_early(plan: Digest, version: VersionId) -> Command {
    Command::StopEarly(StopEarly { plan, version })
}

/// Lets the world go on, with everybody reporting the accuracy of each round's version as soon as there is one.
fn run(world: &mut World, id: &Digest, accuracies: &'static [i64]) {
    loop {
        world.settle(&mut diligent);
        let state = world.consortium.state();
        let (head, record) = state.head("main").unwrap();
        let (head, round) = (*head, record.manifest.round);
        let reported = state.evaluations(&head).count() > 0;
        if round == 0 || reported || world.status(id) != PlanStatus::Running {
            return;
        }
        for site in SITES {
            let accuracy = accuracies[usize::try_from(round).unwrap() - 1];
            evaluate(&mut world.consortium, &format!("{site}/participant"), head, 50, accuracy);
        }
    }
}

#[test]
fn a_plan_ends_when_its_rounds_bring_no_improvement() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(stopping(None, Some(2)));
    let mut world = World::new(consortium);
    run(&mut world, &id, &[600_000, 700_000, 700_000, 650_000, 900_000]);
    let record = world.consortium.state().plans().get(&id).unwrap();
    assert_eq!((record.status, record.next_round), (PlanStatus::Finished, 5));
    let stop = record.early_stop.unwrap();
    assert_eq!((stop.cause, stop.value, stop.best_value), (Cause::NoImprovement, 650_000, 700_000));
    assert_eq!(stop.version, world.consortium.head("main"));
    assert_eq!(world.now_ms, 0, "nothing was waited for but the reports");
}

#[test]
fn the_same_run_ends_at_the_same_version() {
    let heads = [(); 2].map(|()| {
        let mut consortium = Consortium::new(4);
        let id = consortium.start(stopping(Some("0.8"), None));
        let mut world = World::new(consortium);
        run(&mut world, &id, &[600_000, 800_000, 900_000]);
        assert_eq!(world.status(&id), PlanStatus::Finished);
        world.consortium.head("main")
    });
    assert_eq!(heads[0], heads[1]);
}

#[test]
fn the_next_round_waits_for_reports_but_not_for_ever() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(stopping(Some("0.9"), None));
    let mut world = World::new(consortium);
    world.settle(&mut diligent);
    let head = world.consortium.head("main");
    assert_eq!((world.open(&id), world.consortium.state().plans().get(&id).unwrap().next_round), (None, 2));
    for site in &SITES[..3] {
        evaluate(&mut world.consortium, &format!("{site}/participant"), head, 50, 500_000);
    }
    world.settle(&mut idle);
    assert_eq!(world.open(&id), None, "turin has not reported");
    world.wait();
    assert_eq!(world.now_ms, 30_000);
    world.settle(&mut idle);
    assert_eq!(world.open(&id).map(|key| key.round), Some(2));
}

#[test]
fn reports_that_came_in_time_are_enough_to_end_a_plan() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(stopping(Some("0.9"), None));
    let mut world = World::new(consortium);
    world.settle(&mut diligent);
    let head = world.consortium.head("main");
    evaluate(&mut world.consortium, "basel/participant", head, 50, 900_000);
    world.wait();
    world.settle(&mut idle);
    assert_eq!(world.status(&id), PlanStatus::Finished);
}

#[test]
fn nobody_can_end_a_plan_whose_condition_does_not_hold() {
    let (mut consortium, id) = Consortium::ready_for(2, stopping(Some("0.75"), None));
    let initial = consortium.head("main");
    assert_eq!(consortium.refused(REPLICA, stop_early(Digest::of(b"no plan"), initial)), "unknown_plan");
    assert_eq!(consortium.refused(REPLICA, stop_early(id, initial)), "condition_not_met");
    let first = consortium.run_round(&id);
    assert_eq!(consortium.refused(REPLICA, stop_early(id, first)), "condition_not_met");
    evaluate(&mut consortium, "basel/participant", first, 100, 800_000);
    // Whose update is not in it has no say, and the mean is weighted: (800 * 100 + 700 * 101) / 201 < 750.
    evaluate(&mut consortium, INSURER, first, 1_000_000, 1_000_000);
    evaluate(&mut consortium, "lyon/participant", first, 101, 700_000);
    assert_eq!(consortium.refused(REPLICA, stop_early(id, first)), "condition_not_met");
    let second = consortium.run_round(&id);
    evaluate(&mut consortium, "basel/participant", second, 100, 800_000);
    evaluate(&mut consortium, "lyon/participant", second, 100, 700_000);
    assert_eq!(consortium.refused(REPLICA, stop_early(id, first)), "condition_not_met");
    let key = consortium.open_round(&id);
    assert_eq!(consortium.refused(REPLICA, stop_early(id, second)), "round_open");
    let reason = "deadline".to_owned();
    let abandon = AbandonRound { key, reason, excluded: Default::default() };
    consortium.accept(REPLICA, Command::AbandonRound(abandon));
    let event = consortium.accept(REPLICA, stop_early(id, second));
    let Event::PlanStoppedEarly { stop, .. } = event else { panic!("{event:?}") };
    assert_eq!((stop.cause, stop.value), (Cause::TargetReached, 750_000));
    assert_eq!(consortium.refused(REPLICA, stop_early(id, second)), "plan_status");

    let (mut plain, other) = Consortium::ready(2);
    let head = plain.head("main");
    assert_eq!(plain.refused(REPLICA, stop_early(other, head)), "no_early_stopping");
}

#[test]
fn what_was_rolled_back_is_no_part_of_the_comparison() {
    let (mut consortium, id) = Consortium::ready_for(2, stopping(None, Some(1)));
    let first = consortium.run_round(&id);
    for site in ["basel", "lyon"] {
        evaluate(&mut consortium, &format!("{site}/participant"), first, 50, 500_000);
    }
    let second = consortium.run_round(&id);
    for site in ["basel", "lyon"] {
        evaluate(&mut consortium, &format!("{site}/participant"), second, 50, 900_000);
    }
    let reason = "leaked labels".to_owned();
    let back = MoveBranch { branch: "main".to_owned(), from: Some(second), to: first, revoke: true, reason };
    consortium.accept(OFFICE, Command::MoveBranch(back));
    let third = consortium.run_round(&id);
    for site in ["basel", "lyon"] {
        evaluate(&mut consortium, &format!("{site}/participant"), third, 50, 600_000);
    }
    assert_eq!(consortium.refused(REPLICA, stop_early(id, third)), "condition_not_met", "0.6 improves on 0.5");
}

#[test]
fn conditions_that_mean_nothing_are_no_plan() {
    let mut consortium = Consortium::new(2);
    assert_eq!(consortium.refused(OFFICE, Command::ProposePlan(stopping(None, None))), "invalid_plan");
    assert_eq!(consortium.refused(OFFICE, Command::ProposePlan(stopping(Some("0.1234567"), None))), "invalid_plan");
}

#[test]
fn no_report_weighs_more_than_an_update() {
    let (mut consortium, id) = Consortium::ready_for(2, stopping(Some("0.75"), None));
    let first = consortium.run_round(&id);
    // The plan's example scale is 1024: (1000 * 1024 + 600 * 1024) / 2048 = 800, not 1000.
    evaluate(&mut consortium, "basel/participant", first, u64::MAX, 1_000_000);
    evaluate(&mut consortium, "lyon/participant", first, 1024, 600_000);
    let Event::PlanStoppedEarly { stop, .. } = consortium.accept(REPLICA, stop_early(id, first)) else { panic!() };
    assert_eq!(stop.value, 800_000);
}

#[test]
fn a_plan_that_was_finished_early_goes_on_when_it_is_started_again() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(stopping(Some("0.9"), Some(2)));
    let mut world = World::new(consortium);
    run(&mut world, &id, &[700_000, 950_000]);
    let record = world.consortium.state().plans().get(&id).unwrap();
    assert_eq!((record.status, record.next_round, record.early_stop.is_some()), (PlanStatus::Finished, 3, true));
    world.consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    let record = world.consortium.state().plans().get(&id).unwrap();
    assert_eq!((record.status, record.early_stop), (PlanStatus::Running, None));
    let head = world.consortium.head("main");
    assert_eq!(world.consortium.refused(REPLICA, stop_early(id, head)), "condition_not_met", "it was judged before");
    // The best of before, 0.95, is not what is compared with.
    run(&mut world, &id, &[0, 0, 500_000, 600_000, 550_000, 590_000, 0]);
    let record = world.consortium.state().plans().get(&id).unwrap();
    let stop = record.early_stop.unwrap();
    assert_eq!((record.status, record.next_round), (PlanStatus::Finished, 7));
    assert_eq!((stop.cause, stop.value, stop.best_value), (Cause::NoImprovement, 590_000, 600_000));
    assert_eq!(
        world.consortium.refused(OFFICE, Command::StartPlan(StartPlan { plan: Digest::of(b"no") })),
        "unknown_plan"
    );
}

#[test]
fn who_has_nothing_to_report_is_not_waited_for_and_has_no_say() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(stopping(Some("0.9"), None));
    let mut world = World::new(consortium);
    world.settle(&mut diligent);
    let head = world.consortium.head("main");
    for site in &SITES[..2] {
        evaluate(&mut world.consortium, &format!("{site}/participant"), head, 50, 500_000);
    }
    assert_eq!(awaited(world.consortium.state(), &id), ["porto", "turin"]);
    for site in &SITES[2..] {
        assert!(awaits(world.consortium.state(), &head, &(*site).to_owned()));
        let nothing = Evaluate { version: head, examples: 0, metrics: Metrics::new(), groups: BTreeMap::new() };
        world.consortium.accept(&format!("{site}/participant"), Command::Evaluate(nothing));
        assert!(!awaits(world.consortium.state(), &head, &(*site).to_owned()));
    }
    world.settle(&mut idle);
    assert_eq!((world.open(&id).map(|key| key.round), world.now_ms), (Some(2), 0), "nothing is left to wait for");
}

#[test]
fn what_versions_are_held_against_is_kept_with_each_of_them() {
    let (mut consortium, id) = Consortium::ready_for(2, stopping(None, Some(3)));
    let mut versions = Vec::new();
    // Nobody evaluates the third one, which is passed over.
    for accuracy in [Some(500_000), Some(700_000), None, Some(600_000), Some(650_000)] {
        let version = consortium.run_round(&id);
        for site in ["basel", "lyon"] {
            if let Some(accuracy) = accuracy {
                evaluate(&mut consortium, &format!("{site}/participant"), version, 50, accuracy);
            }
        }
        versions.push(version);
    }
    let trend = |consortium: &Consortium, nth: usize| consortium.state().versions().get(&versions[nth]).unwrap().trend;
    let expected = [(0, 500_000, 0), (1, 700_000, 0), (1, 700_000, 0), (1, 700_000, 1)];
    for (nth, (best, best_value, since_best)) in expected.into_iter().enumerate() {
        assert_eq!(
            trend(&consortium, nth),
            Some(Trend { best: versions[best], best_value, since_best }),
            "version {nth}"
        );
    }
    assert_eq!(trend(&consortium, 4), None, "no round has trained on it");
    // What is reported of an older version now comes too late, and attempts at one round are no rounds.
    evaluate(&mut consortium, INSURER, versions[2], 50, 1_000_000);
    for _ in 0..2 {
        let key = consortium.open_round(&id);
        assert_eq!(trend(&consortium, 4).unwrap().since_best, 2);
        let abandon = AbandonRound { key, reason: "deadline".to_owned(), excluded: Default::default() };
        consortium.accept(REPLICA, Command::AbandonRound(abandon));
    }
    let sixth = consortium.run_round(&id);
    for site in ["basel", "lyon"] {
        evaluate(&mut consortium, &format!("{site}/participant"), sixth, 50, 700_000);
    }
    restored_state_keeps_the_same(&consortium);
    let Event::PlanStoppedEarly { stop, .. } = consortium.accept(REPLICA, stop_early(id, sixth)) else { panic!() };
    assert_eq!((stop.cause, stop.best, stop.best_value), (Cause::NoImprovement, versions[1], 700_000));
}
