//! Where plans stand, what they wait for, and when they count as stuck.

use fedledger_federation::{
    Command,
    command::{CommitVersion, PausePlan, WithdrawConsent},
    plan::Plan,
    progress::{Observed, PlanProgress, Step, progress},
};
use fedledger_ledger::Digest;

use crate::{
    consortium::{Consortium, OFFICE, SITES, plan, update_file},
    world::{World, contribute_once, diligent, idle},
};

fn ready() -> (World, Digest) {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    (World::new(consortium), id)
}

/// What a replica says of the one plan.
fn seen_by(world: &World, site: &'static str) -> PlanProgress {
    let mut plans = world.conductors[site].progress(world.consortium.state(), world.now_ms);
    assert_eq!(plans.len(), 1);
    plans.remove(0)
}

fn seen(world: &World) -> PlanProgress {
    seen_by(world, world.leader)
}

#[test]
fn contributions_that_are_missing_are_named_with_the_time_left() {
    let (mut world, id) = ready();
    world.settle(&mut |consortium, key| contribute_once(consortium, key, "lyon"));
    world.now_ms = 12_000;
    world.settle(&mut idle);
    let waits = seen(&world);
    assert_eq!((waits.plan, waits.step, waits.round, waits.attempt), (id, Step::Collecting, 1, 1));
    assert_eq!(waits.names, ["basel", "porto", "turin"]);
    assert_eq!(waits.waiting_for, "contributions: 1 of 4 are there, 2 are needed");
    assert_eq!((waits.lasting_ms, waits.left_ms, waits.stuck), (Some(12_000), Some(18_000), false));
    // Other replicas know since when, but not until when.
    let waits = seen_by(&world, "porto");
    assert_eq!((waits.lasting_ms, waits.left_ms), (Some(12_000), None));
}

#[test]
fn a_round_that_nobody_closes_is_stuck() {
    let (mut world, _) = ready();
    world.settle(&mut idle);
    world.leader = "nobody";
    world.now_ms = 60_000;
    world.settle(&mut idle);
    assert!(!seen_by(&world, "lyon").stuck, "a new leader may have begun its time again");
    world.now_ms = 60_001;
    let waits = seen_by(&world, "lyon");
    assert!(waits.stuck && waits.cause.unwrap().contains("no leader"));
}

#[test]
fn updates_that_are_not_here_are_named() {
    let (mut world, _) = ready();
    let lost = update_file(99.0);
    world.lost.push(Digest::of(&lost));
    world.settle(&mut |consortium, key| {
        if !consortium.state().participations(key).any(|(member, _)| member == "turin") {
            let file = consortium.store(lost.clone());
            let contribution = consortium.contribution_of(key, "turin", file);
            consortium.join_and_send(key, "turin", contribution);
        }
        diligent(consortium, key);
    });
    let waits = seen(&world);
    assert_eq!((waits.step, waits.names.as_slice()), (Step::Collecting, &["turin".to_owned()][..]));
    assert_eq!(waits.waiting_for, "updates that are not here yet");
}

#[test]
fn replicas_that_have_not_attested_are_named() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    let before = &progress(consortium.state(), &Observed::default())[0];
    assert_eq!((before.step, before.lasting_ms, before.stuck), (Step::Computing, None, false));
    let outputs = consortium.compute(&key);
    let commit: CommitVersion = consortium.commit(&key, outputs);
    consortium.accept("basel/replica", Command::CommitVersion(commit));
    let mut world = World::new(consortium);
    world.down = vec!["porto", "turin"];
    world.settle(&mut idle);
    let waits = seen(&world);
    assert_eq!(
        (waits.step, waits.names.as_slice()),
        (Step::Attesting, &["porto/replica", "turin/replica"].map(str::to_owned)[..])
    );
    assert_eq!(waits.waiting_for, "attestations: 2 of the 3 needed");
    world.now_ms = 30_001;
    let waits = seen(&world);
    assert!(waits.stuck && waits.cause.unwrap().contains("too few replicas"));
    world.down.clear();
    world.settle(&mut idle);
    assert_eq!(seen(&world).step, Step::Collecting);
}

#[test]
fn a_plan_that_cannot_open_a_round_is_stuck_without_a_clock() {
    let (mut consortium, id) = Consortium::ready(2);
    consortium.run_round(&id);
    let withdraw = WithdrawConsent { plan: id, reason: "audit".to_owned() };
    consortium.accept("lyon/organisation", Command::WithdrawConsent(withdraw));
    let waits = &progress(consortium.state(), &Observed::default())[0];
    assert_eq!((waits.step, waits.round, waits.stuck), (Step::Enrolling, 2, true));
    assert_eq!(waits.waiting_for, "consents: 1 of the 2 that a round needs");
    assert!(waits.cause.as_ref().unwrap().contains("approve the plan"));

    let mut demanding = plan("demanding");
    demanding.participation.required_members = vec!["porto".to_owned()];
    let (mut consortium, id) = Consortium::ready_for(3, demanding);
    let withdraw = WithdrawConsent { plan: id, reason: "audit".to_owned() };
    consortium.accept("porto/organisation", Command::WithdrawConsent(withdraw));
    let waits = &progress(consortium.state(), &Observed::default())[0];
    assert_eq!((waits.names.as_slice(), waits.stuck), (&["porto".to_owned()][..], true));
}

#[test]
fn a_paused_plan_waits_for_its_operator_and_is_never_stuck() {
    let (mut world, id) = ready();
    world.settle(&mut idle);
    let pause = PausePlan { plan: id, reason: "the ward is moved".to_owned() };
    world.consortium.accept(OFFICE, Command::PausePlan(pause));
    world.settle(&mut idle);
    world.now_ms = 1_000_000_000;
    let waits = seen(&world);
    assert_eq!((waits.step, waits.stuck, waits.left_ms), (Step::Paused, false, None));
    assert!(waits.waiting_for.ends_with("the ward is moved"));
}

#[test]
fn the_time_between_attempts_is_shown() {
    let (mut world, _) = ready();
    world.settle(&mut idle);
    world.wait();
    world.settle(&mut idle);
    world.now_ms += 400;
    let waits = seen(&world);
    assert_eq!((waits.step, waits.attempt), (Step::BetweenAttempts, 2));
    assert_eq!((waits.lasting_ms, waits.left_ms), (Some(400), Some(600)));
}

#[test]
fn every_plan_that_is_carried_out_has_its_line() {
    let mut consortium = Consortium::new(4);
    let first = consortium.start(plan("study"));
    let second = consortium.start(Plan { branch: "lung".to_owned(), seed: 8, ..plan("lung") });
    let mut world = World::new(consortium);
    assert_eq!(progress(world.consortium.state(), &Observed::default())[0].step, Step::InitialVersion);
    world.settle(&mut |consortium, key| {
        if key.plan == second {
            SITES.iter().for_each(|site| contribute_once(consortium, key, site));
        }
    });
    let lines = world.conductors[world.leader].progress(world.consortium.state(), 0);
    assert_eq!(lines.iter().map(|line| line.plan).collect::<Vec<_>>(), [first], "the other one is finished");
}
