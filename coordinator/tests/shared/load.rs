//! Load on a cluster, and how long it takes.
//!
//! Every transaction has a payload of 256 bytes, is signed, and its signature is verified by every replica. The payload
//! asks for nothing that the federation knows, so each becomes a leaf with a rejection: the whole path but for the state
//! change.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use fedledger_ledger::{Digest, replica::SealPace};
use fedledger_proto::api::Level;
use futures::{StreamExt as _, stream};

use super::cluster::Cluster;

/// Bytes of payload per transaction.
pub const PAYLOAD_BYTES: usize = 256;

/// Clients that submit at the same time.
pub const CLIENTS: usize = 100;

/// Never: nothing is sealed, so nothing is co-signed.
pub const UNSEALED: SealPace = SealPace { interval_ms: u64::MAX, entries: u64::MAX };

/// Signed transactions that no replica has seen yet.
pub fn envelopes(cluster: &mut Cluster, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|_| cluster.transaction("Benchmark", payload())).collect()
}

/// Bytes that cannot be compressed, other ones each time.
fn payload() -> Vec<u8> {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
    while payload.len() < PAYLOAD_BYTES {
        let block = Digest::of(&DRAWN.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        payload.extend_from_slice(block.as_bytes());
    }
    payload
}

/// How long it takes until all are committed, submitted by so many clients at the replica that leads.
pub async fn commit_all(cluster: &Cluster, envelopes: Vec<Vec<u8>>, clients: usize) -> Duration {
    let started = Instant::now();
    let submit = |envelope| async move {
        cluster.leading().submit(envelope).await.unwrap();
    };
    stream::iter(envelopes).for_each_concurrent(clients, submit).await;
    started.elapsed()
}

/// Times of one client that submits one transaction after the other, each when the one before is final.
#[derive(Debug, Default)]
pub struct Latencies {
    /// From submitting to committed.
    pub committed: Vec<Duration>,
    /// From submitting to final, which replicas have co-signed.
    pub finalised: Vec<Duration>,
}

/// Submits one transaction after the other and waits until each is final.
pub async fn finalise_each(cluster: &Cluster, envelopes: Vec<Vec<u8>>) -> Latencies {
    let mut latencies = Latencies::default();
    for envelope in envelopes {
        let handle = cluster.leading();
        let started = Instant::now();
        let index = handle.submit(envelope).await.unwrap().index;
        latencies.committed.push(started.elapsed());
        assert!(handle.reach(index, Level::Final).await, "entry {index} did not become final");
        latencies.finalised.push(started.elapsed());
    }
    latencies
}

/// The time that this share of them does not exceed.
pub fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share).ceil() as usize]
}

/// The value in the middle.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Two clusters, of which one seals and co-signs and the other does not, under the same load in turns.
pub struct Pair {
    sealed: Cluster,
    unsealed: Cluster,
    turns: u64,
}

impl Pair {
    pub async fn start(replicas: u64) -> Self {
        let unsealed = Cluster::start_paced(replicas, UNSEALED).await;
        let sealed = Cluster::start(replicas).await;
        for cluster in [&sealed, &unsealed] {
            cluster.leader().await;
        }
        Self { sealed, unsealed, turns: 0 }
    }

    /// One turn each with so many transactions; times with seals and without. Who begins alternates.
    pub async fn turn(&mut self, transactions: u64) -> (Duration, Duration) {
        let for_sealed = envelopes(&mut self.sealed, transactions);
        let for_unsealed = envelopes(&mut self.unsealed, transactions);
        self.turns += 1;
        if self.turns.is_multiple_of(2) {
            let sealed = commit_all(&self.sealed, for_sealed, CLIENTS).await;
            (sealed, commit_all(&self.unsealed, for_unsealed, CLIENTS).await)
        } else {
            let unsealed = commit_all(&self.unsealed, for_unsealed, CLIENTS).await;
            (commit_all(&self.sealed, for_sealed, CLIENTS).await, unsealed)
        }
    }

    /// Checks that the one has sealed and the other has not, and stops both.
    pub async fn stop(mut self) {
        let clusters = [(&self.sealed, true), (&self.unsealed, false)];
        for (cluster, is_sealed) in clusters {
            let seals = cluster.leading().query(|replica| replica.log().sealed().number).await.unwrap();
            assert_eq!(seals > 0, is_sealed, "the replicas have sealed {seals} times");
        }
        self.sealed.stop().await;
        self.unsealed.stop().await;
    }
}
