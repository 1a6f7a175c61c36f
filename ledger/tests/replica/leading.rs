//! Leaders whose clocks are wrong, or that may not seal.

use fedledger_ledger::{
    checkpoint::Checkpoint,
    codec,
    finality::Finding,
    note::SignedNote,
    replica::{SEAL_INTERVAL_MS, SEAL_TIME_TOLERANCE_MS},
};

use crate::{
    cluster::{BEGIN_MS, Cluster},
    machine::{CHANGE_EPOCH, epoch_of, name},
};

#[test]
fn a_leader_with_a_wrong_clock_gets_no_co_signatures_and_hands_over() {
    for skew_ms in [SEAL_TIME_TOLERANCE_MS as i64 + 1, -(SEAL_TIME_TOLERANCE_MS as i64) - 1] {
        let mut cluster = Cluster::new(4);
        cluster.node(1).skew_ms = skew_ms;
        cluster.advance(1);
        let index = cluster.say(b"yes");
        cluster.advance(SEAL_INTERVAL_MS);
        assert!(cluster.nodes[&1].replica.log().sealed().number > 0, "it did seal");
        for id in 2..=4 {
            assert_eq!(cluster.nodes[&id].replica.cosigned().size, 0, "replica {id}, {skew_ms} ms");
        }
        assert!(cluster.pass_until(20_000, |cluster| cluster.is_final(index)), "{skew_ms} ms");
        assert_ne!(cluster.leader(), Some(1));
    }
}

#[test]
fn a_clock_within_the_tolerance_does_no_harm() {
    for skew_ms in [SEAL_TIME_TOLERANCE_MS as i64, -(SEAL_TIME_TOLERANCE_MS as i64)] {
        let mut cluster = Cluster::new(4);
        cluster.node(1).skew_ms = skew_ms;
        cluster.advance(1);
        let index = cluster.say(b"yes");
        cluster.advance(SEAL_INTERVAL_MS);
        assert!(cluster.is_unanimous(index), "{skew_ms} ms");
    }
}

/// What it has signed as a leader lies in the future; but nobody else has, and so that does not bind it for ever.
#[test]
fn a_leader_whose_clock_was_far_ahead_is_of_use_again_once_it_is_right() {
    let mut cluster = Cluster::new(4);
    cluster.node(1).skew_ms = 365 * 24 * 3_600_000;
    cluster.advance(1);
    let index = cluster.say(b"yes");
    assert!(cluster.pass_until(20_000, |cluster| cluster.is_final(index)));
    assert!(cluster.nodes[&1].replica.cosigned().size > 0, "it has signed its own seal");
    cluster.node(1).skew_ms = 0;
    let away = (2..=4).find(|id| Some(*id) != cluster.leader()).unwrap();
    cluster.turn_off(away);
    let index = cluster.say(b"needs its co-signature");
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_final(index)));
}

/// A seal's time is what its leader says. Nobody co-signs a false one, and what nobody has co-signed binds nobody: the next
/// seal may be earlier, and the head over both has the time at which it was co-signed.
#[test]
fn a_seal_far_in_the_future_does_not_stop_those_after_it() {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    for restart in [false, true] {
        let mut cluster = Cluster::new(4);
        let before = cluster.say(b"before");
        cluster.advance(SEAL_INTERVAL_MS);
        assert!(cluster.is_unanimous(before));
        let sealed_falsely = cluster.say(b"sealed falsely");
        cluster.seal_falsely(YEAR_MS);
        for id in 1..=4 {
            let replica = &cluster.nodes[&id].replica;
            assert!(replica.log().sealed().time_ms >= BEGIN_MS + YEAR_MS, "replica {id} has applied it");
            assert_eq!(replica.log().sealed().index, sealed_falsely + 1);
            assert!(replica.cosigned().size <= sealed_falsely, "replica {id} has co-signed it");
        }
        assert!(!cluster.is_final(sealed_falsely));
        cluster.turn_off(1);
        if restart {
            // The false seal is the last thing that they know.
            (2..=4).for_each(|id| cluster.restart(id));
        }
        assert!(cluster.pass_until(20_000, |cluster| cluster.is_final(sealed_falsely)), "restart: {restart}");
        let after = cluster.say(b"after");
        assert!(cluster.pass_until(1_000, |cluster| cluster.is_final(after)));
        assert!(cluster.nodes[&2].replica.log().sealed().time_ms <= cluster.now_ms, "an honest time again");
        for id in 2..=4 {
            let times = cluster.nodes[&id].findings.iter().filter_map(|finding| match finding {
                Finding::Final { time_s, .. } => Some(*time_s),
                _ => None,
            });
            assert!(times.into_iter().all(|time_s| (BEGIN_MS / 1000..=cluster.now_ms / 1000).contains(&time_s)));
        }
        // The one that lied is of use as soon as it is honest.
        cluster.turn_on(1);
        cluster.turn_off(4);
        let last = cluster.say(b"last");
        assert!(cluster.pass_until(20_000, |cluster| cluster.is_final(last)));
    }
}

/// As long as there is always something new to seal, no seal is ever repeated: waiting is what counts, not repetition.
#[test]
fn a_busy_leader_with_a_wrong_clock_hands_over_as_well() {
    let mut cluster = Cluster::new(4);
    cluster.node(1).skew_ms = -10_000;
    cluster.advance(1);
    let first = cluster.say(b"yes");
    for _ in 0..200 {
        cluster.pass(50);
        if cluster.leader().is_some() {
            cluster.say(b"yes");
        }
    }
    assert_ne!(cluster.leader(), Some(1));
    assert!(cluster.is_final(first));
}

#[test]
fn leadership_goes_round_until_it_finds_a_right_clock() {
    let mut cluster = Cluster::new(7);
    // Three wrong clocks leave four replicas that agree, of which five would be needed...
    for id in [1, 2, 7] {
        cluster.node(id).skew_ms = 30_000 * id as i64;
    }
    cluster.advance(1);
    let index = cluster.say(b"yes");
    cluster.pass(30_000);
    assert!(!cluster.is_final(index));
    // ... and with two of them five do.
    cluster.node(7).skew_ms = 0;
    assert!(cluster.pass_until(120_000, |cluster| cluster.is_final(index)));
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_the_sealing() {
    let mut cluster = Cluster::new(3);
    let before = cluster.say(b"before");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_unanimous(before));
    // All clocks: the seals' times may not go back for those who co-sign, but sealing itself goes on.
    for id in 1..=3 {
        cluster.node(id).skew_ms = -1_000;
    }
    cluster.advance(0);
    let after = cluster.say(b"after");
    let number = cluster.nodes[&1].replica.log().sealed().number;
    cluster.advance(SEAL_INTERVAL_MS);
    assert_eq!(cluster.nodes[&1].replica.log().sealed().number, number + 1);
    assert!(!cluster.is_final(after), "earlier than what is co-signed");
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_final(after)));
}

#[test]
fn the_time_of_a_final_head_is_that_of_most() {
    let mut cluster = Cluster::new(4);
    cluster.node(3).skew_ms = -1_900;
    cluster.node(4).skew_ms = 1_900;
    cluster.advance(1);
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_unanimous(index));
    let time_s = cluster.nodes[&1].findings.iter().find_map(|finding| match finding {
        Finding::Final { time_s, .. } => Some(*time_s),
        _ => None,
    });
    assert_eq!(time_s, Some(cluster.now_ms / 1000));
}

/// A leader that the members have dismissed could fill the log with seals that do not take effect.
#[test]
fn a_dismissed_leader_stops_sealing_and_hands_over() {
    let mut cluster = Cluster::new(4);
    let mut next = epoch_of(4);
    next.replicas.remove(&name(1));
    cluster.submit_kind(CHANGE_EPOCH, &codec::encode(&next));
    // The seal that puts the new epoch into force belongs to the old one.
    cluster.advance(SEAL_INTERVAL_MS);
    assert_eq!(cluster.nodes[&1].replica.log().sealed().epoch.number, 1);
    let size = cluster.size(1);
    let index = cluster.say(b"after");
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_final(index)));
    assert_ne!(cluster.leader(), Some(1));
    assert!(cluster.size(1) <= size + 4, "the dismissed leader went on: {} entries", cluster.size(1));
    let note = SignedNote::parse(&cluster.nodes[&2].replica.finality().final_note().unwrap()).unwrap();
    assert!(Checkpoint::parse(note.text()).unwrap().size() > index);
    assert!(!note.signatures().iter().any(|line| line.name().ends_with(&name(1))), "it counts no more");
}
