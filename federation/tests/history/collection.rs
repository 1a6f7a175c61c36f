//! What counts in a round: contributions that were made in time and looked at, whatever else reaches the ledger.

use fedledger_federation::{
    Command, Event,
    command::{CloseRound, RoundKey},
    conductor::{Conductor, Duty, Report},
    plan::Plan,
    records::{Participation, Phase},
};
use fedledger_ledger::Digest;

use crate::{
    consortium::{Consortium, SITES, plan, update_file},
    world::{World, contribute_once, idle},
};

/// Ledger index of a member's contribution.
fn index_of(consortium: &Consortium, key: &RoundKey, site: &str) -> u64 {
    let mut all = consortium.state().participations(key);
    match all.find(|(member, _)| *member == site) {
        Some((_, Participation::Contributed { index, .. })) => *index,
        other => panic!("{other:?}"),
    }
}

fn close(key: RoundKey, through: u64) -> Command {
    Command::CloseRound(CloseRound { key, through, excluded: Default::default() })
}

#[test]
fn a_contribution_that_nobody_has_looked_at_does_not_count() {
    let (mut consortium, id) = Consortium::ready(4);
    let key = consortium.open_round(&id);
    for site in ["basel", "lyon"] {
        consortium.join_and_contribute(&key, site);
    }
    let through = index_of(&consortium, &key, "lyon");
    // What cannot be aggregated comes while the leader's word is on its way.
    let file = consortium.store(update_file(f32::NAN));
    let contribution = consortium.contribution_of(&key, "porto", file);
    consortium.join_and_send(&key, "porto", contribution);
    let event = consortium.accept("basel/replica", close(key, through));
    let Event::RoundClosed { certificate, .. } = event else { panic!("{event:?}") };
    assert_eq!(certificate.contributed, &SITES[..2]);
    assert_eq!((certificate.excluded["porto"].as_str(), certificate.quorum.contributed), ("late", 2));
    let version = consortium.commit_and_attest(&key);
    let manifest = &consortium.state().versions().get(&version).unwrap().manifest;
    assert_eq!((manifest.contributions.len(), manifest.excluded["porto"].as_str()), (2, "late"));
}

#[test]
fn the_quorum_is_that_of_what_was_looked_at() {
    let (mut consortium, id) = Consortium::ready(4);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    let through = index_of(&consortium, &key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    assert_eq!(consortium.refused("basel/replica", close(key, through)), "below_quorum");
    let through = index_of(&consortium, &key, "lyon");
    consortium.accept("basel/replica", close(key, through));
}

/// A world whose first round has the contributions of all but Turin, of which Porto's is on a way without an end.
fn one_is_slow() -> (World, RoundKey) {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    let mut world = World::new(consortium);
    world.settle(&mut idle);
    let key = world.open(&id).unwrap();
    for site in ["basel", "lyon", "porto"] {
        contribute_once(&mut world.consortium, &key, site);
    }
    world.slow.push(update_of(&world, &key, "porto"));
    world.settle(&mut idle);
    (world, key)
}

fn update_of(world: &World, key: &RoundKey, site: &str) -> Digest {
    let mut all = world.consortium.state().participations(key);
    match all.find(|(member, _)| *member == site) {
        Some((_, Participation::Contributed { contribution, .. })) => contribution.update,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transfer_under_way_at_the_deadline_is_waited_for_but_not_for_ever() {
    let (mut world, key) = one_is_slow();
    world.wait();
    assert_eq!(world.now_ms, 30_000);
    world.settle(&mut idle);
    assert_eq!(world.round(&key).phase, Phase::Collecting, "Porto was in time");
    world.wait();
    assert_eq!(world.now_ms, 60_000);
    world.settle(&mut idle);
    let certificate = world.consortium.state().certificate(&key).unwrap();
    assert_eq!(certificate.excluded["porto"], "unchecked");
    assert_eq!(certificate.contributed, &SITES[..2]);
}

#[test]
fn what_nobody_has_once_time_is_over_is_lost_but_what_could_not_be_found_before_may_be_on_its_way() {
    let (mut world, key) = one_is_slow();
    let not_found = |world: &mut World| {
        let report = Report::NotFound { key, member: "porto".to_owned() };
        world.conductors.get_mut(world.leader).unwrap().report(report, world.now_ms);
        world.settle(&mut idle);
    };
    world.now_ms = 29_999;
    not_found(&mut world);
    world.now_ms = 30_000;
    world.settle(&mut idle);
    assert_eq!(world.round(&key).phase, Phase::Collecting);
    not_found(&mut world);
    let certificate = world.consortium.state().certificate(&key).unwrap();
    assert_eq!(certificate.excluded["porto"], "blob_lost");
    assert_eq!(certificate.contributed, &SITES[..2]);
}

#[test]
fn an_update_that_is_found_late_counts() {
    let (mut world, key) = one_is_slow();
    world.now_ms = 30_000;
    world.settle(&mut idle);
    let leader = world.conductors.get_mut(world.leader).unwrap();
    leader.report(Report::Checked { key, member: "porto".to_owned(), verdict: Ok(()) }, 30_100);
    // As of an earlier search, whose report has been overtaken.
    leader.report(Report::NotFound { key, member: "porto".to_owned() }, 30_100);
    world.settle(&mut idle);
    assert_eq!(world.consortium.state().certificate(&key).unwrap().contributed, &SITES[..3]);
}

#[test]
fn what_comes_after_the_deadline_is_late_while_checks_are_waited_for() {
    let (mut world, key) = one_is_slow();
    world.now_ms = 30_000;
    world.settle(&mut idle);
    contribute_once(&mut world.consortium, &key, "turin");
    world.settle(&mut idle);
    assert_eq!(world.round(&key).phase, Phase::Collecting);
    world.now_ms = 60_000;
    world.settle(&mut idle);
    let certificate = world.consortium.state().certificate(&key).unwrap();
    assert_eq!(certificate.excluded["turin"], "late");
    assert_eq!(certificate.contributed, &SITES[..2]);
}

#[test]
fn a_check_that_failed_is_tried_again_before_the_deadline() {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    let mut world = World::new(consortium);
    world.settle(&mut idle);
    let key = world.open(&id).unwrap();
    SITES.iter().for_each(|site| contribute_once(&mut world.consortium, &key, site));
    world.lost.push(update_of(&world, &key, "porto"));
    world.settle(&mut idle);
    assert_eq!(world.round(&key).phase, Phase::Collecting);
    world.lost.clear();
    world.settle(&mut idle);
    assert_eq!(world.round(&key).phase, Phase::Collecting, "it is not asked for again at once");
    world.wait();
    assert_eq!(world.now_ms, 500);
    world.settle(&mut idle);
    assert_eq!(world.consortium.state().certificate(&key).unwrap().contributed, SITES);
}

#[test]
fn files_that_nobody_has_are_looked_for_ever_more_seldom_and_hold_up_nothing() {
    const ROUNDS: u64 = 70;
    let (mut consortium, id) = Consortium::ready_for(2, Plan { rounds: ROUNDS, ..plan("long") });
    for _ in 0..ROUNDS {
        consortium.run_round(&id);
    }
    let mut conductor = Conductor::new("turin/replica");
    // Nobody has the files of any version but the newest.
    let mut asked_at = |now_ms: u64, lost: bool| {
        let mut asked = Vec::new();
        while let [Duty::Obtain { number, .. }] = conductor.step(consortium.state(), false, now_ms)[..] {
            conductor.report(Report::Obtained { number, complete: !lost || number == ROUNDS }, now_ms);
            asked.push(number);
        }
        (asked, conductor.wake_at())
    };
    let (all, lost): (Vec<u64>, Vec<u64>) = ((0..=ROUNDS).collect(), (0..ROUNDS).collect());
    assert_eq!(asked_at(0, true), (all, Some(10_000)), "none keeps it from the newest");
    assert_eq!(asked_at(9_999, true), (vec![], Some(10_000)));
    assert_eq!(asked_at(10_000, true), (lost.clone(), Some(30_000)));
    let mut wake_ms = 30_000;
    for wait_ms in [40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 3_600_000, 3_600_000] {
        let (asked, next_ms) = asked_at(wake_ms, true);
        assert_eq!((asked.len(), next_ms), (lost.len(), Some(wake_ms + wait_ms)));
        wake_ms += wait_ms;
    }
    assert_eq!(asked_at(wake_ms, false), (lost, None), "what is found is not looked for again");
}
