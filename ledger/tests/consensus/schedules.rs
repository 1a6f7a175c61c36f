//! Random schedules: packets are lost, delayed, reordered and repeated, replicas crash with some of their writes, stop
//! hearing each other, compact and read. The cluster checks every step; in the end it must recover.

use proptest::prelude::*;

use crate::cluster::Cluster;
use fedledger_ledger::consensus::ReplicaId;

const STEPS: usize = 5000;

/// A generator of numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

fn step(cluster: &mut Cluster, dice: &mut Dice, proposed: &mut u32) {
    let id = ReplicaId(1 + dice.below(cluster.nodes.len()) as u64);
    let running = cluster.nodes[&id].core.is_some();
    match dice.below(100) {
        0..9 if running => cluster.core(id.0).tick(),
        9..60 if !cluster.network.is_empty() => {
            let place = dice.below(cluster.network.len().min(8));
            let packet = cluster.network.remove(place);
            match dice.below(20) {
                0 => {}
                1 => {
                    cluster.network.push(packet.clone());
                    cluster.deliver(packet);
                }
                _ => cluster.deliver(packet),
            }
        }
        60..78 => drop(cluster.persist(id)),
        78..88 if running => {
            let payload = proposed.to_be_bytes().to_vec();
            if cluster.core(id.0).propose(payload).is_ok() {
                *proposed += 1;
            }
        }
        88..91 => drop(cluster.read(id)),
        91..94 => cluster.compact(id),
        94 if running && dice.below(3) == 0 => {
            let kept = dice.below(4);
            cluster.crash(id, kept);
        }
        95 | 96 if !running => cluster.start(id),
        97 if dice.below(6) == 0 => drop(cluster.cut.insert(id)),
        98 => cluster.cut.clear(),
        99 if running => {
            let peer = ReplicaId(1 + dice.below(cluster.nodes.len()) as u64);
            match dice.below(4) {
                0 => cluster.core(id.0).campaign(),
                1 => drop(cluster.core(id.0).transfer_leadership(peer)),
                2 => cluster.core(id.0).unreachable(peer),
                _ => cluster.core(id.0).snapshot_failed(peer),
            }
        }
        _ => {}
    }
    cluster.work();
}

/// What happened in a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    committed: usize,
    terms: usize,
    reads: usize,
    snapshots: usize,
}

/// Runs a schedule, heals everything, and checks that the cluster goes on with all that was committed.
fn run(seed: u64, voters: u64) -> Summary {
    let mut dice = Dice(seed);
    let mut cluster = Cluster::new(voters);
    cluster.fast_disks = false;
    cluster.catch_up_entries = 1;
    let mut proposed = 0;
    for _ in 0..STEPS {
        step(&mut cluster, &mut dice, &mut proposed);
    }
    assert!(cluster.refused.iter().all(|refused| !refused.is_suspicious()), "{:?}", cluster.refused);
    cluster.fast_disks = true;
    cluster.cut.clear();
    for id in cluster.ids() {
        if cluster.nodes[&id].core.is_none() {
            cluster.start(id);
        }
    }
    cluster.settle();
    // Snapshots that were lost on the way are sent again only after a while.
    cluster.ticks(700);
    cluster.elect();
    cluster.propose(b"healed");
    cluster.ticks(50);
    let expected: Vec<_> =
        cluster.committed.values().map(|(_, payload)| payload).filter(|p| !p.is_empty()).cloned().collect();
    assert_eq!(cluster.agreed_payloads(), expected);
    assert_eq!(expected.last().map(Vec::as_slice), Some(&b"healed"[..]));
    Summary {
        committed: expected.len(),
        terms: cluster.leaders.len(),
        reads: cluster.answered.len(),
        snapshots: cluster.snapshots_installed,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_replicas_agree_whatever_happens(seed in any::<u64>()) {
        run(seed, 3);
    }

    #[test]
    fn five_replicas_agree_whatever_happens(seed in any::<u64>()) {
        run(seed, 5);
    }
}

/// The schedules above would prove nothing if nothing happened in them.
#[test]
fn much_happens_in_these_schedules() {
    let total = (0..20).map(|seed| run(seed, 3)).fold(Summary::default(), |total, run| Summary {
        committed: total.committed + run.committed,
        terms: total.terms + run.terms,
        reads: total.reads + run.reads,
        snapshots: total.snapshots + run.snapshots,
    });
    println!("{total:?}");
    assert!(total.committed > 1000 && total.terms > 60 && total.reads > 500 && total.snapshots > 20, "{total:?}");
}

/// A run depends on its seed alone.
#[test]
fn schedules_can_be_repeated() {
    assert_eq!(run(11, 3), run(11, 3));
}
