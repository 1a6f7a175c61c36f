//! Conductors of four replicas carry rounds through, from ledger state alone, whoever leads.

use std::collections::BTreeMap;

use fedledger_federation::{
    Command,
    command::{FileRef, JoinRound, MoveBranch, OutputFiles, RoundKey, StartPlan},
    conductor::{Conductor, Duty, Report},
    recipe::{Recipe, check_update},
    records::{Participation, Phase, PlanStatus},
};
use fedledger_ledger::Digest;

use crate::consortium::{Consortium, OFFICE, SITES, plan, update_file};

/// Replicas with their conductors, and participants that do what `behave` says.
struct World {
    consortium: Consortium,
    conductors: BTreeMap<&'static str, Conductor>,
    leader: &'static str,
    now_ms: u64,
    /// Updates that no replica can obtain.
    lost: Vec<Digest>,
    /// Replicas that do nothing.
    down: Vec<&'static str>,
    /// A replica that claims other files than it computed.
    liar: Option<&'static str>,
    /// Versions whose files a replica asked for, because it had not computed them.
    obtained: Vec<(&'static str, u64)>,
}

impl World {
    fn new(consortium: Consortium) -> Self {
        let conductors = SITES.iter().map(|site| (*site, Conductor::new(format!("{site}/replica")))).collect();
        Self {
            consortium,
            conductors,
            leader: SITES[0],
            now_ms: 0,
            lost: Vec::new(),
            down: Vec::new(),
            liar: None,
            obtained: Vec::new(),
        }
    }

    /// Lets everybody do what they are to do until nobody has anything to do. Returns whether anything was done.
    fn settle(&mut self, behave: &mut dyn FnMut(&mut Consortium, &RoundKey)) {
        loop {
            let mut done = false;
            for site in SITES.into_iter().filter(|site| !self.down.contains(site)).collect::<Vec<_>>() {
                let conductor = self.conductors.get_mut(site).unwrap();
                let duties = conductor.step(self.consortium.state(), site == self.leader, self.now_ms);
                done |= !duties.is_empty();
                duties.into_iter().for_each(|duty| self.perform(site, duty));
            }
            let open: Vec<RoundKey> =
                self.consortium.state().plans().iter().filter_map(|(_, record)| record.open).collect();
            let before = self.consortium.log.size();
            open.iter().for_each(|key| behave(&mut self.consortium, key));
            if !done && self.consortium.log.size() == before {
                return;
            }
        }
    }

    fn perform(&mut self, site: &'static str, duty: Duty) {
        let report = match duty {
            Duty::Submit(mut command) => {
                if self.liar == Some(site) {
                    falsify(&self.consortium, &mut command);
                }
                let accepted = self.consortium.submit(&format!("{site}/replica"), &command).is_ok();
                Report::Submitted { command, accepted }
            }
            Duty::Check { key, update } => {
                if self.lost.contains(&update.file.digest) {
                    return;
                }
                let state = self.consortium.state();
                let plan = state.plans().get(&key.plan).unwrap().plan.clone();
                let file = self.consortium.blobs[&update.file.digest].as_slice();
                let verdict = check_update(&plan, SITES.len(), &update, file).unwrap().map_err(|(code, _)| code.into());
                Report::Checked { key, member: update.member, verdict }
            }
            Duty::Obtain { number, files } => {
                let complete = files.iter().all(|(file, _)| self.consortium.blobs.contains_key(&file.digest));
                self.obtained.push((site, number));
                Report::Obtained { number, complete }
            }
            Duty::Compute(recipe) => {
                let key = recipe.key;
                Report::Computed { key, outputs: self.compute(&recipe) }
            }
        };
        self.conductors.get_mut(site).unwrap().report(report, self.now_ms);
    }

    fn compute(&mut self, recipe: &Recipe) -> OutputFiles {
        let blobs = self.consortium.blobs.clone();
        let open = |file: &FileRef| Ok(blobs[&file.digest].as_slice());
        let outputs = recipe.compute(open, 1).unwrap();
        self.consortium.store(outputs.weights.clone());
        OutputFiles::of(&outputs)
    }

    fn status(&self, plan: &Digest) -> PlanStatus {
        self.consortium.state().plans().get(plan).unwrap().status
    }
}

/// Other weights than were computed, with the manifest that belongs to them.
fn falsify(consortium: &Consortium, command: &mut Command) {
    let forged = FileRef { digest: Digest::of(b"forged"), size: 6 };
    match command {
        Command::CommitVersion(commit) => {
            commit.outputs.weights = forged;
            let recipe = Recipe::of(consortium.state(), &commit.key).unwrap();
            commit.version = recipe.manifest(consortium.state(), &commit.outputs).unwrap().1;
        }
        Command::AttestVersion(attest) => attest.outputs.weights = forged,
        _ => {}
    }
}

/// Joins and contributes wherever that is still to be done.
fn diligent(consortium: &mut Consortium, key: &RoundKey) {
    for site in consortium.participants() {
        contribute_once(consortium, key, site);
    }
}

fn contribute_once(consortium: &mut Consortium, key: &RoundKey, site: &str) {
    let state = consortium.state();
    let collecting = state.rounds().get(key).is_some_and(|round| round.phase == Phase::Collecting);
    let idle = !state.participations(key).any(|(member, _)| member == site);
    if collecting && idle {
        consortium.join_and_contribute(key, site);
    }
}

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
    for _ in 0..3 {
        world.settle(&mut only_one);
        world.now_ms += 40_000;
    }
    world.settle(&mut |_, _| {});
    // Three attempts are allowed, then the plan stops and says so.
    assert_eq!(world.status(&id), PlanStatus::Stopped);
    let abandoned = world.consortium.state().rounds().iter().filter(|(key, round)| {
        key.round == 1 && matches!(&round.phase, Phase::Abandoned { reason } if reason == "below_quorum")
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
    // Its candidates are rejected on record, again and again; nothing moves.
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
    assert_eq!(*turin, Participation::Joined);
    world.now_ms = 30_000;
    world.settle(&mut |_, _| {});
    assert_eq!(world.consortium.state().certificate(&key).unwrap().missing["turin"], "not_contributed");
}
