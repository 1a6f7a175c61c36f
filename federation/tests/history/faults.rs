//! A participant that something happens to at every step of a round, seen from the replicas: all that a conductor knows of a
//! participant that was killed, cut off, suspended or slow is what is not on the ledger yet.

use fedledger_federation::{
    Command,
    command::{JoinRound, RoundKey},
    records::{Participation, Phase, PlanStatus},
};
use fedledger_ledger::Digest;

use crate::{
    consortium::{Consortium, SITES, plan},
    world::{World, contribute_once, diligent, idle},
};

const TURIN: &str = "turin";

/// How long a round of the plan lasts, in milliseconds.
const DURATION_MS: u64 = 30_000;

/// What turin has done in the first round when something happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Nothing,
    Joined,
    Contributed,
}

/// When turin is back, and what is left of its first round then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// It goes on where it was: at once, in the last moment, or too late.
    At(u64),
    /// It has lost everything, its key and its data excepted, and comes when the round is over.
    Afterwards,
}

fn join(consortium: &mut Consortium, round: &RoundKey) {
    consortium.accept("turin/participant", Command::JoinRound(JoinRound { key: *round }));
}

/// Does in the first round what turin still has to do there, if the round takes it; what it is told if not.
fn go_on(consortium: &mut Consortium, round: &RoundKey) -> Vec<&'static str> {
    let state = consortium.state();
    let collecting = state.rounds().get(round).unwrap().phase == Phase::Collecting;
    let own = state.participations(round).find(|(member, _)| *member == TURIN).map(|(_, own)| own.clone());
    match own {
        Some(Participation::Contributed { .. }) => Vec::new(),
        None if !collecting => {
            vec![consortium.refused("turin/participant", Command::JoinRound(JoinRound { key: *round }))]
        }
        own => {
            if own.is_none() {
                join(consortium, round);
            }
            let contribution = Command::Contribute(consortium.contribution(round, TURIN));
            if collecting {
                consortium.accept("turin/participant", contribution);
                Vec::new()
            } else {
                vec![consortium.refused("turin/participant", contribution)]
            }
        }
    }
}

/// Three sites contribute to the first round, and turin does so much of it.
fn begin(done: Done, leader_dies: bool) -> (World, Digest, RoundKey) {
    let mut consortium = Consortium::new(4);
    let id = consortium.start(plan("study"));
    let mut world = World::new(consortium);
    world.settle(&mut idle);
    let round = world.open(&id).unwrap();
    world.settle(&mut |consortium, round| SITES[..3].iter().for_each(|site| contribute_once(consortium, round, site)));
    match done {
        Done::Nothing => {}
        Done::Joined => join(&mut world.consortium, &round),
        Done::Contributed => contribute_once(&mut world.consortium, &round, TURIN),
    }
    if leader_dies {
        world.down.push(world.leader);
        world.leader = SITES[1];
    }
    (world, id, round)
}

fn case(done: Done, back: Back, leader_dies: bool) {
    let case = format!("{done:?}, back {back:?}, leader dies: {leader_dies}");
    let (mut world, id, first) = begin(done, leader_dies);
    world.settle(&mut idle);
    let mut refused = Vec::new();
    let in_time = done == Done::Contributed || matches!(back, Back::At(at_ms) if at_ms < DURATION_MS);
    // Nothing is left to do for who has contributed, and the next round has begun.
    if let Back::At(at_ms) = back
        && done != Done::Contributed
    {
        world.now_ms = at_ms;
        world.settle(&mut idle);
        refused = go_on(&mut world.consortium, &first);
        world.settle(&mut idle);
    }
    if !in_time {
        assert!(back != Back::Afterwards || world.round(&first).phase == Phase::Collecting, "{case}: it is waited for");
        world.now_ms = DURATION_MS;
        world.settle(&mut idle);
    }

    let certificate = world.consortium.state().certificate(&first).unwrap();
    assert_eq!(certificate.selected, SITES, "{case}");
    if in_time {
        assert_eq!(certificate.contributed, SITES, "{case}");
        assert!(world.now_ms < DURATION_MS, "{case}: the round ends with the last one");
    } else {
        assert_eq!(certificate.contributed, SITES[..3], "{case}");
        let reason = if done == Done::Nothing { "not_joined" } else { "not_contributed" };
        assert_eq!(certificate.missing[TURIN], reason, "{case}");
        let told: &[&str] = if back == Back::Afterwards { &[] } else { &["round_closed"] };
        assert_eq!(refused, told, "{case}");
    }
    // The next rounds have everybody again.
    let second = world.open(&id).unwrap();
    assert_eq!(second.round, 2, "{case}");
    world.settle(&mut diligent);
    assert_eq!(world.status(&id), PlanStatus::Finished, "{case}");
    let certificate = world.consortium.state().certificate(&second).unwrap();
    assert_eq!(certificate.contributed, SITES, "{case}: the next round");
}

#[test]
fn a_round_waits_until_its_deadline_and_no_longer_whatever_a_participant_has_done() {
    for leader_dies in [false, true] {
        for done in [Done::Nothing, Done::Joined, Done::Contributed] {
            for back in [Back::At(1), Back::At(DURATION_MS - 1), Back::At(DURATION_MS), Back::Afterwards] {
                case(done, back, leader_dies);
            }
        }
    }
}
