//! Which replica to ask: the own member's first, then the others in the order of the genesis file.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::Path,
    time::Duration,
};

use fedledger_federation::member::{MemberId, Members};
use fedledger_ledger::PublicKey;
use fedledger_proto::{endpoint::PeerAddress, kit::PeerConfig};
use serde::{Deserialize, Serialize};

use super::files;

/// Wait after the first failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// Longest wait between two attempts. Only connected peers are asked, so this burdens no network that is down.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A replica that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// Its node name.
    pub name: String,
    /// Its transport key.
    pub key: PublicKey,
}

/// The replicas in the order of preference.
pub fn replicas(members: &Members, own: &MemberId) -> Vec<Replica> {
    let all = members.nodes().filter(|(_, node)| node.replica_number().is_some());
    let (mut first, others): (Vec<_>, Vec<_>) = all.partition(|(member, _)| member.id == *own);
    first.extend(others);
    first.into_iter().map(|(_, node)| Replica { name: node.name.clone(), key: node.transport_key }).collect()
}

/// The replicas as the log had them last. With these a node begins: the keys in the genesis file may all have been replaced
/// since, and who replaced them can only be read from a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownReplicas {
    /// Entries in the log then.
    pub size: u64,
    /// The replicas in the order of preference.
    pub replicas: Vec<Replica>,
}

/// The transport keys of the replicas by name, as the node in `directory` knew them last; none before it has run. The node may
/// be running.
pub fn last_known(directory: &Path) -> Option<BTreeMap<String, PublicKey>> {
    let known = files::saved_replicas(directory)?;
    Some(known.replicas.into_iter().map(|replica| (replica.name, replica.key)).collect())
}

/// Where those of `replicas` are dialed of which an address is configured.
pub fn addresses(replicas: &[Replica], configured: &[PeerConfig]) -> Vec<PeerAddress> {
    let key = |name: &str| replicas.iter().find(|replica| replica.name == name).map(|replica| replica.key);
    let dialed = configured
        .iter()
        .filter_map(|peer| Some(PeerAddress { key: key(&peer.name)?, addresses: peer.addresses.clone() }));
    dialed.collect()
}

/// Those of `replicas` that are connected, beginning with the one that comes after `turn` others.
pub fn available<'a>(
    replicas: &'a [Replica],
    connected: &BTreeSet<PublicKey>,
    turn: usize,
) -> impl Iterator<Item = &'a Replica> {
    let available: Vec<&Replica> = replicas.iter().filter(|replica| connected.contains(&replica.key)).collect();
    let count = available.len();
    let start = turn.checked_rem(count).unwrap_or(0);
    available.into_iter().cycle().skip(start).take(count)
}

/// How long to wait after some failures in a row: of a time that doubles up to a bound a random part, at least its half, so
/// that participants that lost the same replica at the same instant do not all turn to the next one at the same instant.
pub fn backoff(failures: u32, randomness: u16) -> Duration {
    let half = doubled(BACKOFF_FIRST, failures).min(BACKOFF_MAX) / 2;
    half + half * u32::from(randomness) / u32::from(u16::MAX)
}

/// A random number for waiting, not for secrets: the standard library draws new keys for every hasher.
pub fn randomness() -> u16 {
    let [first, second, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    u16::from_be_bytes([first, second])
}

/// A time that doubles with every failure.
pub fn doubled(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(failures.min(16)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(number: u8) -> Replica {
        Replica { name: format!("member-{number}/replica"), key: PublicKey::from_bytes([number; 32]) }
    }

    #[test]
    fn every_connected_replica_gets_its_turn() {
        let replicas = [replica(1), replica(2), replica(3)];
        let connected = BTreeSet::from([replica(1).key, replica(3).key]);
        let names =
            |turn| available(&replicas, &connected, turn).map(|replica| replica.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(0), ["member-1/replica", "member-3/replica"]);
        assert_eq!(names(1), ["member-3/replica", "member-1/replica"]);
        assert_eq!(names(2), names(0));
        assert_eq!(available(&replicas, &BTreeSet::new(), 5).count(), 0);
    }

    #[test]
    fn waits_grow_up_to_a_bound() {
        assert_eq!(backoff(0, u16::MAX), BACKOFF_FIRST);
        assert_eq!(backoff(1, u16::MAX), 2 * BACKOFF_FIRST);
        assert_eq!(backoff(u32::MAX, u16::MAX), BACKOFF_MAX);
    }

    #[test]
    fn those_who_fail_together_do_not_try_again_together() {
        assert_eq!(backoff(u32::MAX, 0), BACKOFF_MAX / 2);
        let waits: BTreeSet<_> = (0..100).map(|_| backoff(u32::MAX, randomness())).collect();
        assert!(
            waits.len() > 50 && waits.iter().all(|wait| (BACKOFF_MAX / 2..=BACKOFF_MAX).contains(wait)),
            "{waits:?}"
        );
    }
}
