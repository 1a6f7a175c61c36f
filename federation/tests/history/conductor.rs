//! Conductors of four replicas carry rounds through, from ledger state alone, whoever leads.

use fedledger_federation::{
    Command,
    command::{AttestVersion, FileRef, JoinRound, MoveBranch, OutputFiles, RoundKey, StartPlan},
    conductor::{Conductor, Duty, Report},
    records::{Participation, Phase, PlanStatus, VersionStatus},
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

#[test]
fn a_plan_is_carried_through_from_the_initial_version_on() {
    let (mut world, id) = ready();
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
    // The initial version and three rounds, each attested by every replica.
    assert_eq!(world.consortium.state().attested().count(), 4);
    for (_, _, record) in world.consortium.state().attested() {
        assert_eq!(record.attestations.len(), 4);
    }
}

#[test]
fn a_new_leader_goes_on_from_ledger_state_and_gives_the_same_version() {
    let (mut undisturbed, _) = ready();
    undisturbed.settle(&mut diligent);
    let (mut world, id) = ready();
    // Nobody but the first two contributes until the leader is gone.
    world.settle(&mut |consortium, key| {
        for site in &SITES[..2] {
            contribute_once(consortium, key, site);
        }
    });
    world.down.push(world.leader);
    world.leader = SITES[2];
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
    assert_eq!(world.consortium.head("main"), undisturbed.consortium.head("main"));
}

#[test]
fn a_replica_that_was_away_obtains_what_it_missed() {
    let (mut world, _) = ready();
    world.down.push("turin");
    world.settle(&mut diligent);
    assert!(world.obtained.is_empty(), "those that computed everything have everything");
    world.down.clear();
    world.settle(&mut diligent);
    assert_eq!(world.obtained, [("turin", 0), ("turin", 1), ("turin", 2), ("turin", 3)]);
}

#[test]
fn a_round_closes_at_its_deadline_without_those_that_are_missing() {
    let (mut world, _) = ready();
    let mut without_turin = |consortium: &mut Consortium, key: &RoundKey| {
        for site in &SITES[..3] {
            contribute_once(consortium, key, site);
        }
    };
    world.settle(&mut without_turin);
    let open = world.consortium.state().plans().iter().find_map(|(_, record)| record.open).unwrap();
    let due = world.conductors[world.leader].wake_at().unwrap();
    assert_eq!(due, 30_000);
    world.now_ms = due;
    let mut nobody = |_: &mut Consortium, _: &RoundKey| {};
    world.settle(&mut nobody);
    let certificate = world.consortium.state().certificate(&open).unwrap();
    assert_eq!(certificate.contributed, &SITES[..3]);
    assert_eq!(certificate.missing["turin"], "not_joined");
    assert_eq!(world.consortium.state().attested().count(), 2);
}

#[test]
fn a_round_below_its_quorum_is_abandoned_and_attempted_again() {
    let (mut world, id) = ready();
    let mut only_one = |consortium: &mut Consortium, key: &RoundKey| contribute_once(consortium, key, SITES[0]);
    world.settle(&mut only_one);
    while world.status(&id) == PlanStatus::Running {
        world.wait();
        world.settle(&mut only_one);
    }
    // Three attempts are allowed, then the plan stops and says so.
    assert_eq!(world.status(&id), PlanStatus::Stopped);
    let abandoned = world.consortium.state().rounds().iter().filter(|(key, round)| {
        key.round == 1 && matches!(&round.phase, Phase::Abandoned { reason, .. } if reason == "below_quorum")
    });
    assert_eq!(abandoned.count(), 3);
    // The operator may go on with it.
    world.consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
}

#[test]
fn an_update_that_no_replica_has_is_excluded_at_the_deadline() {
    let (mut world, _) = ready();
    world.lost.push(Digest::of(&lost_update()));
    let mut one_is_lost = |consortium: &mut Consortium, key: &RoundKey| {
        let state = consortium.state();
        let idle = !state.participations(key).any(|(member, _)| member == "turin");
        if idle && key.round == 1 && state.rounds().get(key).unwrap().phase == Phase::Collecting {
            let file = consortium.store(lost_update());
            let contribution = consortium.contribution_of(key, "turin", file);
            consortium.join_and_send(key, "turin", contribution);
        }
        diligent(consortium, key);
    };
    world.settle(&mut one_is_lost);
    world.now_ms = 30_000;
    world.settle(&mut one_is_lost);
    let first = world.consortium.state().rounds().iter().find(|(key, _)| key.round == 1).unwrap().0;
    let certificate = world.consortium.state().certificate(first).unwrap();
    assert_eq!(certificate.excluded["turin"], "blob_lost");
}

#[test]
fn a_version_that_no_majority_can_compute_is_taken_back_and_the_round_attempted_again() {
    let (mut world, id) = ready();
    // The leader alone has the updates, proposes what they lead to, and is gone.
    world.helpless.extend(&SITES[1..]);
    world.settle(&mut diligent);
    let key = world.open(&id).unwrap();
    let candidate = world.consortium.state().candidate(&key).unwrap();
    world.down.push(SITES[0]);
    world.leader = SITES[2];
    world.settle(&mut diligent);
    world.now_ms += 10 * 60 * 1000 - 1;
    world.settle(&mut diligent);
    assert_eq!(world.consortium.state().candidate(&key), Some(candidate), "the others may still be fetching files");

    world.now_ms += 1;
    world.settle(&mut idle);
    assert!(matches!(&world.round(&key).phase, Phase::Abandoned { reason, .. } if reason == "unattested"));
    let status = world.consortium.state().versions().get(&candidate).unwrap().status;
    assert_eq!(status, VersionStatus::Withdrawn);
    world.helpless.clear();
    world.wait();
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
}

fn lost_update() -> Vec<u8> {
    update_file(99.0)
}

#[test]
fn an_update_that_is_not_finite_is_excluded_with_its_reason() {
    let (mut world, id) = ready();
    let mut one_is_poisoned = |consortium: &mut Consortium, key: &RoundKey| {
        let state = consortium.state();
        let idle = !state.participations(key).any(|(member, _)| member == "porto");
        if idle && state.rounds().get(key).unwrap().phase == Phase::Collecting {
            let file = consortium.store(update_file(f32::NAN));
            let contribution = consortium.contribution_of(key, "porto", file);
            consortium.join_and_send(key, "porto", contribution);
        }
        diligent(consortium, key);
    };
    world.settle(&mut one_is_poisoned);
    assert_eq!(world.status(&id), PlanStatus::Finished);
    let head = world.consortium.head("main");
    let manifest = &world.consortium.state().versions().get(&head).unwrap().manifest;
    assert_eq!(manifest.excluded["porto"], "not_finite");
    assert_eq!(manifest.contributions.len(), 3);
}

#[test]
fn a_lying_leader_is_outvoted_and_the_next_one_proposes_anew() {
    let (mut world, id) = ready();
    world.liar = Some(world.leader);
    world.settle(&mut diligent);
    // Its candidate is rejected on record, and nothing moves.
    assert_eq!(world.consortium.state().attested().count(), 0);
    assert!(!world.consortium.state().versions().is_empty());
    world.leader = SITES[1];
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
    for (_, _, record) in world.consortium.state().attested() {
        assert_ne!(record.manifest.weights().unwrap().digest, Digest::of(b"forged"));
    }
}

#[test]
fn an_initial_version_that_is_rejected_is_proposed_ever_more_seldom_until_the_plan_stops() {
    let (mut world, id) = ready();
    world.liar = Some(world.leader);
    let rejections = |world: &World| {
        let record = world.consortium.state().plans().get(&id).unwrap();
        (record.status, record.initial_rejections, record.initial)
    };
    world.settle(&mut diligent);
    assert_eq!(rejections(&world), (PlanStatus::Running, 1, None));
    let progress = |world: &World| world.conductors["lyon"].progress(world.consortium.state(), world.now_ms).remove(0);
    assert!(progress(&world).waiting_for.contains("1 of 3 were rejected"));
    for (at_ms, count) in [(999, 1), (1_000, 2), (2_999, 2)] {
        world.now_ms = at_ms;
        world.settle(&mut diligent);
        assert_eq!(rejections(&world), (PlanStatus::Running, count, None), "at {at_ms} ms");
    }
    assert_eq!(progress(&world).lasting_ms, Some(2_999), "another candidate is no progress");
    world.wait();
    assert_eq!(world.now_ms, 3_000);
    world.settle(&mut diligent);
    assert_eq!(rejections(&world), (PlanStatus::Stopped, 3, None));
    let record = world.consortium.state().plans().get(&id).unwrap();
    assert_eq!(record.status_reason.as_deref(), Some("version_rejected"));
    // Started again, by a leader that computes what the others do.
    world.consortium.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
    world.leader = SITES[1];
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
}

#[test]
fn there_is_one_initial_candidate_at_a_time() {
    let (mut world, id) = ready();
    let key = RoundKey { plan: id, round: 0, attempt: 0 };
    let right = world.consortium.compute(&key);
    let wrong = OutputFiles { weights: FileRef { digest: Digest::of(b"other"), size: 6 }, optimizer_state: None };
    let commands = [wrong, right].map(|outputs| world.consortium.commit(&key, outputs));
    let version = commands[0].version;
    let [first, second] = commands.map(Command::CommitVersion);
    world.consortium.accept("basel/replica", first);
    assert_eq!(world.consortium.refused("lyon/replica", second.clone()), "candidate_exists");
    for site in ["lyon", "porto"] {
        let attest = Command::AttestVersion(AttestVersion { version, outputs: right });
        world.consortium.accept(&format!("{site}/replica"), attest);
    }
    world.consortium.accept("lyon/replica", second);
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
}

#[test]
fn training_goes_on_from_the_version_that_was_restored() {
    let (mut world, id) = ready();
    // Stop collecting in round 3, roll back to round 1's version meanwhile.
    world.settle(&mut |consortium, key| {
        if key.round < 3 {
            diligent(consortium, key);
        }
    });
    let state = world.consortium.state();
    let (first, last) = (*state.numbers().get(&1).unwrap(), world.consortium.head("main"));
    world.consortium.accept(
        OFFICE,
        Command::MoveBranch(MoveBranch {
            branch: "main".into(),
            from: Some(last),
            to: first,
            revoke: true,
            reason: "worse for women".into(),
        }),
    );
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished);
    let head = world.consortium.head("main");
    let record = world.consortium.state().versions().get(&head).unwrap();
    assert_eq!((record.manifest.parents.as_slice(), record.manifest.round), ([first].as_slice(), 3));
    // Nothing has disappeared.
    assert!(world.consortium.state().versions().get(&last).unwrap().revoked.is_some());
    assert_eq!(record.key.attempt, 2);
}

#[test]
fn a_participant_that_only_joined_is_missing() {
    let (mut world, _) = ready();
    world.settle(&mut |consortium, key| {
        let joined = consortium.state().participations(key).any(|(member, _)| member == "turin");
        if !joined && consortium.state().rounds().get(key).unwrap().phase == Phase::Collecting {
            consortium.accept("turin/participant", Command::JoinRound(JoinRound { key: *key }));
        }
        for site in &SITES[..3] {
            contribute_once(consortium, key, site);
        }
    });
    let key = world.consortium.state().plans().iter().find_map(|(_, record)| record.open).unwrap();
    let turin = world.consortium.state().participations(&key).find(|(member, _)| *member == "turin").unwrap().1;
    assert!(matches!(turin, Participation::Joined { .. }));
    world.now_ms = 30_000;
    world.settle(&mut |_, _| {});
    assert_eq!(world.consortium.state().certificate(&key).unwrap().missing["turin"], "not_contributed");
}

#[test]
fn the_computations_that_are_oldest_are_forgotten_first() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    let outputs = consortium.compute(&key);
    consortium.settle(&key, outputs);
    // Turin has computed many rounds of another plan before, which comes after this one in the order of ids.
    let mut conductor = Conductor::new("turin/replica");
    let plan = Digest::from_bytes([0xff; 32]);
    for round in 1..=100 {
        conductor.report(Report::Computed { key: RoundKey { plan, round, attempt: 1 }, outputs }, 0);
    }
    conductor.report(Report::Computed { key, outputs }, 0);
    let mut attests = |now_ms: u64| {
        let duties = conductor.step(consortium.state(), false, now_ms);
        let mut commands = duties.into_iter().filter_map(|duty| match duty {
            Duty::Submit(command @ Command::AttestVersion(_)) => Some(command),
            _ => None,
        });
        let command = commands.next().expect("it is attested");
        conductor.report(Report::Submitted { command, accepted: false }, now_ms);
    };
    // No leader takes it at first.
    attests(0);
    attests(1_000);
    attests(2_000);
}

#[test]
fn what_is_contributed_among_many_joins_is_looked_at_at_once() {
    for leads in [true, false] {
        let (mut consortium, id) = Consortium::ready(4);
        let key = consortium.open_round(&id);
        let mut conductor = Conductor::new("turin/replica");
        let mut checked = Vec::new();
        let mut step = |consortium: &Consortium, now_ms: u64| {
            let mut duties = conductor.step(consortium.state(), leads, now_ms);
            duties.retain(|duty| !matches!(duty, Duty::Obtain { .. }));
            for duty in &duties {
                if let Duty::Check { key, update } = duty {
                    checked.push(update.member.clone());
                    conductor.report(Report::CheckFailed { key: *key, member: update.member.clone() }, now_ms);
                }
            }
            duties.len()
        };
        assert_eq!(step(&consortium, 0), 0);
        for site in SITES {
            consortium.accept(&format!("{site}/participant"), Command::JoinRound(JoinRound { key }));
            assert_eq!(step(&consortium, 1), 0, "nothing comes of it that {site} has joined");
        }
        for site in ["porto", "basel"] {
            let contribution = consortium.contribution(&key, site);
            consortium.accept(&format!("{site}/participant"), Command::Contribute(contribution));
            assert_eq!((step(&consortium, 1), step(&consortium, 2)), (1, 0));
        }
        // What failed is tried again in its time, although nothing has happened on the ledger.
        assert_eq!((step(&consortium, 500), step(&consortium, 501)), (0, 2));
        assert_eq!(checked, ["porto", "basel", "basel", "porto"]);
    }
}
