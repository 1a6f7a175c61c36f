//! Replicas on loopback: real sockets, synced disks, every signature verified by every replica.

use std::{fs, path::Path};

use crate::{
    cluster::Cluster,
    figure::Figure,
    load::{self, CLIENTS, PAYLOAD_BYTES, Pair, median, quantile},
};

/// Replicas of the rows whose targets stand beside etcd's figures, which were taken with three.
const REPLICAS: u64 = 3;

/// Replicas of the rows about co-signing: the fewest with which one may be dishonest.
const COSIGNING_REPLICAS: u64 = 4;

/// Transactions before anything is measured.
const WARM_UP: u64 = 500;

/// Transactions per measurement of a throughput.
const TRANSACTIONS: u64 = 2_000;

/// Measurements of the throughput, of which the median counts.
const MEASUREMENTS: usize = 7;

/// Turns with and without co-signing, of which the median of the ratios counts.
const TURNS: usize = 31;

/// Transactions of one client.
const LATENCIES: u64 = 300;

/// Transactions whose space on the disk is measured: enough that what RocksDB holds back counts little.
const ON_DISK: u64 = 60_000;

async fn started(replicas: u64) -> Cluster {
    let mut cluster = Cluster::start(replicas).await;
    cluster.leader().await;
    let envelopes = load::envelopes(&mut cluster, WARM_UP);
    load::commit_all(&cluster, envelopes, CLIENTS).await;
    cluster
}

/// Committed transactions per second. etcd: 11.4 k/s.
pub async fn commit() -> Vec<Figure> {
    let mut cluster = started(REPLICAS).await;
    let mut rates = Vec::new();
    for _ in 0..MEASUREMENTS {
        let envelopes = load::envelopes(&mut cluster, TRANSACTIONS);
        rates.push(TRANSACTIONS as f64 / load::commit_all(&cluster, envelopes, CLIENTS).await.as_secs_f64());
    }
    cluster.stop().await;
    let what = format!("committed transactions, {REPLICAS} replicas, {CLIENTS} clients");
    vec![Figure::higher("commit", what, median(&mut rates), "/s").target(5_700.0, 11_400.0)]
}

/// Commit latency of one client. etcd: 0.73 ms.
pub async fn latency() -> Vec<Figure> {
    let mut cluster = started(REPLICAS).await;
    let mut times = Vec::new();
    for envelope in load::envelopes(&mut cluster, LATENCIES) {
        times.push(load::commit_all(&cluster, vec![envelope], 1).await);
    }
    cluster.stop().await;
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    let what = |share| format!("one client, {REPLICAS} replicas, submit to committed, {share}");
    vec![
        Figure::lower("latency", what("p50"), p50.as_secs_f64() * 1e3, "ms").target(2.19, 1.1),
        Figure::lower("latency", what("p99"), p99.as_secs_f64() * 1e3, "ms"),
    ]
}

/// From submitting to final.
pub async fn finality() -> Vec<Figure> {
    let mut cluster = started(COSIGNING_REPLICAS).await;
    let envelopes = load::envelopes(&mut cluster, LATENCIES);
    let mut times = load::finalise_each(&cluster, envelopes).await.finalised;
    cluster.stop().await;
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    let what = |share| format!("one client, {COSIGNING_REPLICAS} replicas, submit to final, {share}");
    vec![
        Figure::lower("finality", what("p50"), p50.as_secs_f64() * 1e3, "ms"),
        Figure::lower("finality", what("p99"), p99.as_secs_f64() * 1e3, "ms").target(250.0, 100.0),
    ]
}

/// Throughput that seals and co-signatures take, by turns with replicas that do neither.
pub async fn co_signing() -> Vec<Figure> {
    let mut pair = Pair::start(COSIGNING_REPLICAS).await;
    pair.turn(WARM_UP).await;
    let mut ratios = Vec::new();
    for _ in 0..TURNS {
        let (with, without) = pair.turn(TRANSACTIONS).await;
        ratios.push(without.as_secs_f64() / with.as_secs_f64());
    }
    pair.stop().await;
    let cost = (1.0 - median(&mut ratios)) * 100.0;
    let (least, most) = ((1.0 - ratios[TURNS - 1]) * 100.0, (1.0 - ratios[0]) * 100.0);
    let what = format!("cost of co-signing, {CLIENTS} clients ({TURNS} turns: {least:.1} to {most:.1})");
    vec![Figure::lower("cosigning", what, cost, "%").target(5.0, 3.0)]
}

/// What a stopped replica keeps for a transaction beyond its payload. One alone keeps what each of many does.
pub async fn disk() -> Vec<Figure> {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    let ledger = cluster.replica_directory(1).join("ledger");
    let envelopes = load::envelopes(&mut cluster, ON_DISK);
    load::commit_all(&cluster, envelopes, CLIENTS).await;
    cluster.stop().await;
    let per_transaction = size_of(&ledger) as f64 / ON_DISK as f64 - PAYLOAD_BYTES as f64;
    let what = format!("on disk per transaction beyond its {PAYLOAD_BYTES} bytes, after {ON_DISK}");
    vec![Figure::lower("disk", what, per_transaction, "bytes").target(700.0, 450.0)]
}

/// Bytes of the files in a folder.
fn size_of(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}
