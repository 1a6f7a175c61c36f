//! Plans that are paused, resumed and cancelled, and plans that run beside each other.

use fedledger_federation::{
    Command, Event,
    command::{
        AbandonRound, ApprovePlan, CancelPlan, CloseRound, PausePlan, ResumePlan, RoundKey, StartPlan, StopPlan,
    },
    plan::Plan,
    records::{Phase, PlanStatus},
};
use fedledger_ledger::Digest;

use crate::{
    consortium::{Consortium, OFFICE, SITES, plan, update_file},
    world::{World, contribute_once, diligent, idle},
};

const REPLICA: &str = "basel/replica";

fn reason() -> String {
    "the ward is moved".to_owned()
}

fn pause(plan: Digest) -> Command {
    Command::PausePlan(PausePlan { plan, reason: reason() })
}

fn resume(plan: Digest) -> Command {
    Command::ResumePlan(ResumePlan { plan, reason: reason() })
}

fn cancel(plan: Digest) -> Command {
    Command::CancelPlan(CancelPlan { plan, reason: reason() })
}

fn stop(plan: Digest, drain: bool) -> Command {
    Command::StopPlan(StopPlan { plan, drain, reason: reason() })
}

#[test]
fn a_paused_plan_takes_contributions_and_its_time_does_not_run() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    let mut world = World::new(consortium);
    world.settle(&mut |consortium, key| contribute_once(consortium, key, "basel"));
    let key = world.open(&id).unwrap();
    assert_eq!(world.consortium.accept(OFFICE, pause(id)), Event::PlanPaused { plan: id });
    world.now_ms = 20_000;
    world.settle(&mut |consortium, key| contribute_once(consortium, key, "lyon"));
    world.now_ms = 1_000_000;
    world.settle(&mut idle);
    assert_eq!((world.open(&id), &world.round(&key).phase), (Some(key), &Phase::Collecting));
    world.settle(&mut |consortium, key| contribute_once(consortium, key, "porto"));
    world.consortium.accept(OFFICE, resume(id));
    world.settle(&mut idle);
    assert_eq!(world.round(&key).phase, Phase::Collecting, "the round has its whole time again");
    world.wait();
    assert_eq!(world.now_ms, 1_030_000);
    world.settle(&mut idle);
    assert_eq!(world.consortium.state().certificate(&key).unwrap().contributed, &SITES[..3]);
}

#[test]
fn a_paused_plan_is_not_gone_on_with_even_when_all_have_contributed() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    let mut world = World::new(consortium);
    world.settle(&mut idle);
    let key = world.open(&id).unwrap();
    world.consortium.accept(OFFICE, pause(id));
    world.settle(&mut diligent);
    assert_eq!(world.round(&key).phase, Phase::Collecting);
    let close = CloseRound { key, through: u64::MAX, excluded: Default::default() };
    assert_eq!(world.consortium.refused(REPLICA, Command::CloseRound(close)), "plan_status");
    let abandon = AbandonRound { key, reason: "deadline".to_owned(), excluded: Default::default() };
    assert_eq!(world.consortium.refused(REPLICA, Command::AbandonRound(abandon)), "plan_status");
    world.consortium.accept(OFFICE, resume(id));
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
}

#[test]
fn what_is_closed_is_finished_in_a_pause_and_nothing_is_opened() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    consortium.accept(OFFICE, pause(id));
    let mut world = World::new(consortium);
    world.settle(&mut diligent);
    assert_eq!((world.consortium.state().attested().count(), world.open(&id)), (2, None));
    let next = world.consortium.next_round(&id);
    assert_eq!(world.consortium.refused(REPLICA, Command::OpenRound(next)), "plan_status");
    world.consortium.accept(OFFICE, resume(id));
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
}

#[test]
fn a_pause_holds_the_branch_and_is_for_running_plans() {
    let (mut consortium, id) = Consortium::ready(2);
    assert_eq!(consortium.refused(OFFICE, resume(id)), "plan_status");
    consortium.accept(OFFICE, pause(id));
    assert_eq!(consortium.refused(OFFICE, pause(id)), "plan_status");
    assert_eq!(consortium.refused(OFFICE, Command::StartPlan(StartPlan { plan: id })), "plan_status");
    assert_eq!(consortium.refused(OFFICE, stop(id, true)), "plan_status", "nothing is finished while it is paused");
    let record = consortium.state().plans().get(&id).unwrap();
    assert_eq!(record.status_reason.as_deref(), Some("the ward is moved"));
    assert_eq!(record.status_index, consortium.log.size() - 4);
    let other = plan("other");
    let other_id = other.id();
    consortium.accept(OFFICE, Command::ProposePlan(other));
    for site in ["basel", "lyon"] {
        let approve = Command::ApprovePlan(ApprovePlan { plan: other_id, examples: None });
        consortium.accept(&format!("{site}/participant"), approve);
    }
    assert_eq!(consortium.refused(OFFICE, Command::StartPlan(StartPlan { plan: other_id })), "branch_in_use");
    consortium.accept(OFFICE, stop(id, false));
    assert_eq!(consortium.refused(OFFICE, resume(id)), "plan_status");
    consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: other_id }));
}

#[test]
fn a_plan_is_cancelled_before_it_is_ever_started() {
    let mut consortium = Consortium::new(2);
    let id = plan("study").id();
    consortium.accept(OFFICE, Command::ProposePlan(plan("study")));
    let approve = Command::ApprovePlan(ApprovePlan { plan: id, examples: None });
    consortium.accept("basel/participant", approve.clone());
    assert_eq!(consortium.accept(OFFICE, cancel(id)), Event::PlanCancelled { plan: id });
    assert_eq!(consortium.refused("lyon/participant", approve), "plan_status");
    assert_eq!(consortium.refused(OFFICE, Command::StartPlan(StartPlan { plan: id })), "plan_status");
    assert_eq!(consortium.refused(OFFICE, cancel(id)), "plan_status");
    let started = consortium.start(plan("another"));
    assert_eq!(consortium.refused(OFFICE, cancel(started)), "plan_status");
}

/// Two plans on branches of their own, of which the second waits for nobody.
fn beside(stuck: Plan) -> (World, Digest, Digest) {
    let mut consortium = Consortium::new(4);
    let first = consortium.start(stuck);
    let second = consortium.start(Plan { branch: "lung".to_owned(), seed: 8, ..plan("lung") });
    (World::new(consortium), first, second)
}

#[test]
fn a_plan_without_its_quorum_does_not_hold_up_another() {
    let mut demanding = plan("demanding");
    demanding.participation.minimum_participants = 4;
    let (mut world, stuck, free) = beside(demanding);
    world.settle(&mut |consortium, key| {
        if key.plan == free {
            diligent(consortium, key);
        } else {
            contribute_once(consortium, key, "basel");
        }
    });
    assert_eq!(world.now_ms, 0, "no deadline had to pass");
    assert_eq!((world.status(&free), world.status(&stuck)), (PlanStatus::Finished, PlanStatus::Running));
    assert_eq!(world.open(&stuck).map(|key| key.attempt), Some(1));
}

#[test]
fn a_plan_whose_updates_nobody_has_does_not_hold_up_another() {
    let (mut world, stuck, free) = beside(plan("lost"));
    let lost = update_file(99.0);
    world.lost.push(Digest::of(&lost));
    world.settle(&mut |consortium, key| {
        let silent = !consortium.state().participations(key).any(|(member, _)| member == "turin");
        let collecting = consortium.state().rounds().get(key).is_some_and(|round| round.phase == Phase::Collecting);
        if key.plan == stuck && silent && collecting {
            let file = consortium.store(lost.clone());
            let contribution = consortium.contribution_of(key, "turin", file);
            consortium.join_and_send(key, "turin", contribution);
        }
        diligent(consortium, key);
    });
    assert_eq!((world.status(&free), world.status(&stuck)), (PlanStatus::Finished, PlanStatus::Running));
    assert_eq!(world.now_ms, 0);
}

#[test]
fn a_paused_plan_does_not_hold_up_another() {
    let (mut world, paused, free) = beside(plan("paused"));
    world.consortium.accept(OFFICE, pause(paused));
    world.settle(&mut diligent);
    assert_eq!((world.status(&free), world.status(&paused)), (PlanStatus::Finished, PlanStatus::Paused));
}

#[test]
fn files_that_nobody_has_do_not_keep_a_replica_from_those_of_other_versions() {
    let (mut world, _, free) = beside(plan("study"));
    world.down.push("turin");
    world.settle(&mut diligent);
    // One file of the plan that was proposed first is gone everywhere.
    let state = world.consortium.state();
    let (_, _, of_first) = state.attested().find(|(_, _, record)| record.manifest.plan != free).unwrap();
    let gone = of_first.manifest.weights().unwrap().digest;
    std::sync::Arc::make_mut(&mut world.consortium.blobs).remove(&gone);
    world.down.clear();
    world.settle(&mut idle);
    let asked: std::collections::BTreeSet<u64> = world.obtained.iter().map(|(_, number)| *number).collect();
    assert_eq!(asked.len(), world.consortium.state().attested().count(), "every version was asked for");
    let before = world.obtained.len();
    world.now_ms = 10_000;
    world.settle(&mut idle);
    assert_eq!(world.obtained.len(), before + 1, "and what was missing once more");
}

#[test]
fn keys_name_rounds_of_their_own_plan() {
    let (mut world, first, second) = beside(plan("study"));
    world.settle(&mut diligent);
    for id in [first, second] {
        let rounds = world.consortium.state().rounds().iter().filter(|(key, _)| key.plan == id);
        let keys: Vec<RoundKey> = rounds.map(|(key, _)| *key).collect();
        assert_eq!(keys, [1, 2, 3].map(|round| RoundKey { plan: id, round, attempt: 1 }));
    }
}
