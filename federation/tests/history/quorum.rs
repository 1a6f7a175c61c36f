//! Quorums: what makes a round count, and what is done while there is too little.

use fedledger_federation::{
    Command,
    command::{AbandonRound, ApprovePlan, CloseRound, DeclineRound, MoveBranch, RoundKey, StartPlan, WithdrawConsent},
    plan::Plan,
    records::{Phase, PlanStatus},
};
use fedledger_ledger::Digest;

use crate::{
    consortium::{Consortium, OFFICE, SITES, plan},
    world::{World, contribute_once, diligent, idle},
};

const REPLICA: &str = "basel/replica";

/// A plan for which three quarters of the examples must be contributed.
fn weighty() -> Plan {
    let mut plan = plan("weighty");
    plan.participation.minimum_participants = 1;
    plan.participation.minimum_example_share = Some("0.75".parse().unwrap());
    plan
}

fn approve(plan: Digest, examples: Option<u64>) -> Command {
    Command::ApprovePlan(ApprovePlan { plan, examples })
}

/// Has the four sites declare these numbers, and starts the plan.
fn started(plan: Plan, examples: [u64; 4]) -> (Consortium, Digest) {
    let mut consortium = Consortium::new(4);
    let id = plan.id();
    consortium.accept(OFFICE, Command::ProposePlan(plan));
    for (site, examples) in SITES.iter().zip(examples) {
        consortium.accept(&format!("{site}/participant"), approve(id, Some(examples)));
    }
    consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    consortium.commit_and_attest(&RoundKey { plan: id, round: 0, attempt: 0 });
    (consortium, id)
}

fn contribute(consortium: &mut Consortium, key: &RoundKey, site: &str, examples: u64) {
    let mut contribution = consortium.contribution(key, site);
    contribution.examples = examples;
    consortium.join_and_send(key, site, contribution);
}

fn close(key: RoundKey) -> Command {
    Command::CloseRound(CloseRound { key, through: u64::MAX, excluded: Default::default() })
}

fn decline(consortium: &mut Consortium, key: &RoundKey, site: &str) {
    let decline = DeclineRound { key: *key, reason: "the scanner is down".to_owned() };
    consortium.accept(&format!("{site}/participant"), Command::DeclineRound(decline));
}

#[test]
fn examples_are_declared_with_the_consent_where_the_plan_weighs_them() {
    let mut consortium = Consortium::new(2);
    let id = weighty().id();
    consortium.accept(OFFICE, Command::ProposePlan(weighty()));
    assert_eq!(consortium.refused("basel/participant", approve(id, None)), "examples_undeclared");
    for none_or_too_many in [0, 1025, u64::MAX] {
        assert_eq!(consortium.refused("basel/participant", approve(id, Some(none_or_too_many))), "wrong_examples");
    }
    consortium.accept("basel/participant", approve(id, Some(1024)));
    let record = consortium.state().plans().get(&id).unwrap();
    assert_eq!(record.consents["basel"].examples, Some(1024));
    assert_eq!(record.consents["basel"].index, consortium.log.size() - 1);
    for share in ["0", "-0.5", "1.01", "2"] {
        let mut wrong = weighty();
        wrong.participation.minimum_example_share = Some(share.parse().unwrap());
        assert_eq!(consortium.refused(OFFICE, Command::ProposePlan(wrong)), "invalid_plan", "{share}");
    }
}

#[test]
fn a_round_is_not_closed_below_the_share_of_the_examples() {
    let (mut consortium, id) = started(weighty(), [500, 200, 200, 100]);
    let key = consortium.open_round(&id);
    contribute(&mut consortium, &key, "basel", 500);
    assert_eq!(consortium.refused(REPLICA, close(key)), "example_share_too_small");
    // 500 and 150 of 950: a contribution says how many there are, whatever was declared.
    contribute(&mut consortium, &key, "lyon", 150);
    assert_eq!(consortium.refused(REPLICA, close(key)), "example_share_too_small");
    contribute(&mut consortium, &key, "turin", 100);
    consortium.accept(REPLICA, close(key));
    let share = consortium.state().certificate(&key).unwrap().quorum.example_share.unwrap();
    assert_eq!((share.contributed, share.selected), (750, 950));
}

#[test]
fn who_withdraws_in_a_round_still_weighs_what_it_declared() {
    let (mut consortium, id) = started(weighty(), [500, 200, 200, 100]);
    let key = consortium.open_round(&id);
    let withdraw = WithdrawConsent { plan: id, reason: "a patient objects".to_owned() };
    consortium.accept("basel/participant", Command::WithdrawConsent(withdraw));
    for (site, examples) in SITES.iter().zip([500, 200, 200, 100]).skip(1) {
        contribute(&mut consortium, &key, site, examples);
    }
    assert_eq!(consortium.refused(REPLICA, close(key)), "example_share_too_small");
}

#[test]
fn who_withdraws_is_out_of_the_next_round_on_record() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    let mut world = World::new(consortium);
    world.settle(&mut |consortium, key| {
        if key.round == 1 {
            diligent(consortium, key);
        }
    });
    let second = world.open(&id).unwrap();
    let withdraw = Command::WithdrawConsent(WithdrawConsent { plan: id, reason: "a patient objects".to_owned() });
    world.consortium.accept("turin/organisation", withdraw.clone());
    assert_eq!(world.consortium.refused("turin/participant", withdraw), "not_consented");
    world.settle(&mut |consortium, key| {
        let cohort = consortium.state().rounds().get(key).unwrap().cohort.clone();
        cohort.iter().for_each(|site| contribute_once(consortium, key, site));
    });
    assert_eq!(world.status(&id), PlanStatus::Finished);
    let cohort = |round| &world.round(&RoundKey { round, ..second }).cohort;
    assert_eq!((cohort(2).len(), cohort(3).as_slice()), (4, &SITES.map(str::to_owned)[..3]));
    let certificate = world.consortium.state().certificate(&RoundKey { round: 3, ..second }).unwrap();
    assert_eq!(certificate.enrolled, certificate.selected);
    let certificate = world.consortium.state().certificate(&second).unwrap();
    assert_eq!((certificate.enrolled.len(), certificate.selected.len()), (3, 4), "as it was when the round was closed");
}

#[test]
fn a_round_that_can_meet_its_quorum_waits_for_who_is_late() {
    let mut demanding = plan("demanding");
    demanding.participation.required_members = vec!["turin".to_owned()];
    let mut consortium = Consortium::new(4);
    let id = consortium.start(demanding);
    let mut world = World::new(consortium);
    world.settle(&mut |consortium, key| {
        if key.round == 1 {
            SITES[..3].iter().for_each(|site| contribute_once(consortium, key, site));
        }
    });
    let key = world.open(&id).unwrap();
    world.now_ms = 29_999;
    world.settle(&mut idle);
    assert_eq!((world.open(&id), &world.round(&key).phase), (Some(key), &Phase::Collecting), "turin may come");
    world.settle(&mut |consortium, key| contribute_once(consortium, key, "turin"));
    assert_eq!(world.consortium.state().certificate(&key).unwrap().contributed, SITES);
}

#[test]
fn a_round_whose_quorum_is_out_of_reach_is_given_up_at_once_and_says_why() {
    let mut demanding = plan("demanding");
    demanding.participation.required_members = vec!["turin".to_owned()];
    let mut consortium = Consortium::new(4);
    let id = consortium.start(demanding);
    let mut world = World::new(consortium);
    let mut turin_declines = |consortium: &mut Consortium, key: &RoundKey| {
        let collecting = consortium.state().rounds().get(key).is_some_and(|round| round.phase == Phase::Collecting);
        if collecting && !consortium.state().participations(key).any(|(member, _)| member == "turin") {
            contribute_once(consortium, key, "basel");
            decline(consortium, key, "turin");
        }
    };
    world.settle(&mut turin_declines);
    let first = RoundKey { plan: id, round: 1, attempt: 1 };
    assert!(matches!(&world.round(&first).phase, Phase::Abandoned { reason, .. } if reason == "below_quorum"));
    let certificate = world.consortium.state().certificate(&first).unwrap();
    assert_eq!((certificate.quorum.contributed, certificate.quorum.needed), (1, 2));
    assert_eq!(certificate.quorum.required_missing, ["turin"]);
    assert_eq!(certificate.declined["turin"], "the scanner is down");
}

#[test]
fn attempts_are_not_burnt_in_a_second() {
    let mut consortium = Consortium::new(4);
    let mut patient = plan("patient");
    patient.participation.attempts = 8;
    let id = consortium.start(patient);
    let mut world = World::new(consortium);
    let mut all_decline = |consortium: &mut Consortium, key: &RoundKey| {
        for site in SITES {
            let collecting = consortium.state().rounds().get(key).is_some_and(|round| round.phase == Phase::Collecting);
            if collecting && !consortium.state().participations(key).any(|(member, _)| member == site) {
                decline(consortium, key, site);
            }
        }
    };
    let mut waits = Vec::new();
    world.settle(&mut all_decline);
    while world.status(&id) == PlanStatus::Running {
        let before = world.now_ms;
        assert_eq!(world.open(&id), None, "the next attempt waits");
        world.wait();
        waits.push(world.now_ms - before);
        world.settle(&mut all_decline);
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000], "never longer than a round may take");
    // Whoever starts it again does not wait, and has as many attempts again.
    world.consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    world.settle(&mut idle);
    assert_eq!(world.open(&id).map(|key| key.attempt), Some(9));
    world.settle(&mut all_decline);
    assert_eq!(world.status(&id), PlanStatus::Running);
}

#[test]
fn a_new_leader_begins_the_wait_between_attempts_again() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    let mut world = World::new(consortium);
    world.settle(&mut |consortium, key| {
        SITES[..3].iter().for_each(|site| {
            let collecting = consortium.state().rounds().get(key).is_some_and(|round| round.phase == Phase::Collecting);
            let silent = !consortium.state().participations(key).any(|(member, _)| member == *site);
            if collecting && silent {
                decline(consortium, key, site);
            }
        });
    });
    assert_eq!(world.open(&id), None, "one of four cannot be two");
    world.now_ms = 999;
    world.leader = SITES[1];
    world.settle(&mut idle);
    world.now_ms = 1_500;
    world.settle(&mut idle);
    assert_eq!(world.open(&id), None);
    world.now_ms = 1_999;
    world.settle(&mut idle);
    assert_eq!(world.open(&id).map(|key| key.attempt), Some(2));
}

#[test]
fn with_one_attempt_a_plan_stops_at_once() {
    let mut consortium = Consortium::new(4);
    let mut strict = plan("strict");
    strict.participation.attempts = 1;
    let id = consortium.start(strict);
    let mut world = World::new(consortium);
    world.settle(&mut idle);
    world.wait();
    world.settle(&mut idle);
    assert_eq!(world.status(&id), PlanStatus::Stopped);
    let record = world.consortium.state().plans().get(&id).unwrap();
    assert_eq!(record.status_reason.as_deref(), Some("below_quorum"));
}

#[test]
fn a_round_with_its_quorum_is_not_given_up_for_want_of_one() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    let abandon = |excluded: &[(&str, &str)]| {
        let excluded = excluded.iter().map(|(member, code)| ((*member).to_owned(), (*code).to_owned())).collect();
        Command::AbandonRound(AbandonRound { key, reason: "below_quorum".to_owned(), excluded })
    };
    assert_eq!(consortium.refused(REPLICA, abandon(&[])), "quorum_met");
    assert_eq!(consortium.refused(REPLICA, abandon(&[("porto", "blob_lost")])), "nothing_to_exclude");
    assert_eq!(consortium.refused(REPLICA, abandon(&[("lyon", "Blob lost!")])), "invalid_name");
    consortium.accept(REPLICA, abandon(&[("lyon", "blob_lost")]));
    assert_eq!(consortium.state().certificate(&key).unwrap().excluded["lyon"], "blob_lost");
}

#[test]
fn an_attempt_whose_base_was_moved_away_is_not_counted() {
    let mut strict = plan("strict");
    strict.participation.attempts = 2;
    let (mut consortium, id) = Consortium::ready_for(4, strict);
    let (initial, first) = (consortium.head("main"), consortium.run_round(&id));
    let mut world = World::new(consortium);
    world.settle(&mut idle);
    let move_main = |world: &mut World, from, to| {
        let (from, reason) = (Some(from), "a look aside".to_owned());
        let back = MoveBranch { branch: "main".to_owned(), from, to, revoke: false, reason };
        world.consortium.accept(OFFICE, Command::MoveBranch(back));
        world.settle(&mut idle);
    };
    let reason = || "base_moved".to_owned();
    let key = world.open(&id).unwrap();
    let abandon = AbandonRound { key, reason: reason(), excluded: Default::default() };
    assert_eq!(world.consortium.refused(REPLICA, Command::AbandonRound(abandon)), "base_not_moved");
    for (from, to) in [(first, initial), (initial, first), (first, initial)] {
        move_main(&mut world, from, to);
    }
    let attempt = |world: &World| world.open(&id).map(|key| key.attempt);
    assert_eq!((world.status(&id), attempt(&world), world.now_ms), (PlanStatus::Running, Some(4), 0));
    // One that fails for want of a quorum is, whatever came before it and between.
    world.wait();
    world.settle(&mut idle);
    world.wait();
    world.settle(&mut idle);
    assert_eq!((world.status(&id), attempt(&world)), (PlanStatus::Running, Some(5)));
    move_main(&mut world, initial, first);
    world.wait();
    world.settle(&mut idle);
    assert_eq!((world.status(&id), attempt(&world)), (PlanStatus::Running, Some(6)));
    world.wait();
    world.settle(&mut idle);
    assert_eq!((world.status(&id), attempt(&world)), (PlanStatus::Stopped, None));
}
