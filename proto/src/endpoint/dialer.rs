//! When to dial which peer: forever, with a back-off that doubles up to a cap, of which each wait is a random part, so that
//! those who lost the same replica at the same instant do not all come back at the same instant.
//!
//! Where both sides dial each other, the one with the larger key starts a little later, so that usually one connection
//! results and not two.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fedledger_ledger::PublicKey;

use super::{NodeAddress, PeerAddress};

/// Wait after the first failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// Longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How much later the side with the larger key dials.
const YIELD: Duration = Duration::from_millis(500);

/// Which peers to dial, and when.
pub(super) struct Dialer {
    local: PublicKey,
    /// Whether peers may dial us, so that it is worth waiting for them.
    listens: bool,
    jitter: Jitter,
    targets: BTreeMap<PublicKey, Target>,
}

struct Target {
    addresses: Vec<NodeAddress>,
    failures: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    Dialing,
    Connected,
}

impl Dialer {
    /// Nobody to dial yet. `seed` must differ between nodes and starts.
    pub fn new(local: PublicKey, listens: bool, seed: u64) -> Self {
        Self { local, listens, jitter: Jitter(seed), targets: BTreeMap::new() }
    }

    /// Replaces the peers to dial. Those that stay keep their connection or back-off.
    pub fn set_targets(&mut self, peers: Vec<PeerAddress>, connected: impl Fn(&PublicKey) -> bool, now: Instant) {
        let mut previous = std::mem::take(&mut self.targets);
        for PeerAddress { key, addresses } in peers {
            if key == self.local {
                continue;
            }
            let target = match previous.remove(&key) {
                Some(target) => Target { addresses, ..target },
                None if connected(&key) => Target { addresses, failures: 0, state: State::Connected },
                None => Target { addresses, failures: 0, state: State::Waiting(now + self.initial_delay(&key)) },
            };
            self.targets.insert(key, target);
        }
    }

    /// When the next attempt is due; none if there is nobody to dial.
    pub fn next_attempt(&self) -> Option<Instant> {
        let waiting = |target: &Target| match target.state {
            State::Waiting(at) => Some(at),
            State::Dialing | State::Connected => None,
        };
        self.targets.values().filter_map(waiting).min()
    }

    /// The peers whose attempt is due now; each counts as being dialed from here on.
    pub fn take_due(&mut self, now: Instant) -> Vec<(PublicKey, Vec<NodeAddress>)> {
        let mut due = Vec::new();
        for (key, target) in &mut self.targets {
            if matches!(target.state, State::Waiting(at) if at <= now) {
                target.state = State::Dialing;
                due.push((*key, target.addresses.clone()));
            }
        }
        due
    }

    /// The peer proved to be connected, whoever dialed.
    pub fn connected(&mut self, key: &PublicKey) {
        if let Some(target) = self.targets.get_mut(key) {
            target.state = State::Connected;
            target.failures = 0;
        }
    }

    /// The last connection was lost, whoever had dialed.
    pub fn lost(&mut self, key: &PublicKey, now: Instant) {
        self.wait_instead_of(State::Connected, key, now);
    }

    /// An attempt failed.
    pub fn failed(&mut self, key: &PublicKey, now: Instant) {
        self.wait_instead_of(State::Dialing, key, now);
    }

    /// In any other state there is nothing to wait for, or somebody waits already: connections that come and go from
    /// the other side do not put our own attempts off.
    fn wait_instead_of(&mut self, state: State, key: &PublicKey, now: Instant) {
        let jitter = self.jitter.next();
        if let Some(target) = self.targets.get_mut(key)
            && target.state == state
        {
            target.state = State::Waiting(now + backoff(target.failures, jitter));
            target.failures = target.failures.saturating_add(1);
        }
    }

    /// Dials at the next opportunity, because something changed.
    pub fn retry(&mut self, key: &PublicKey, now: Instant) {
        if let Some(target) = self.targets.get_mut(key)
            && matches!(target.state, State::Waiting(_))
        {
            target.state = State::Waiting(now);
        }
    }

    fn initial_delay(&self, peer: &PublicKey) -> Duration {
        if self.listens && self.local > *peer { YIELD } else { Duration::ZERO }
    }
}

/// Between a half and the whole of `BACKOFF_FIRST * 2^failures`, which is at most `BACKOFF_MAX`.
fn backoff(failures: u32, jitter: u16) -> Duration {
    let doubled = 2u32.checked_pow(failures).and_then(|factor| BACKOFF_FIRST.checked_mul(factor));
    let half = doubled.unwrap_or(BACKOFF_MAX).min(BACKOFF_MAX) / 2;
    half + half * u32::from(jitter) / u32::from(u16::MAX)
}

/// Random numbers for waiting, not for secrets (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
struct Jitter(u64);

impl Jitter {
    fn next(&mut self) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [first, second, ..] = (mixed ^ (mixed >> 31)).to_be_bytes();
        u16::from_be_bytes([first, second])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    fn dialer(local: u8, listens: bool, peers: &[u8], now: Instant) -> Dialer {
        let mut dialer = Dialer::new(key(local), listens, 7);
        let peers = peers.iter().map(|&byte| PeerAddress { key: key(byte), addresses: Vec::new() });
        dialer.set_targets(peers.collect(), |_| false, now);
        dialer
    }

    fn due(dialer: &mut Dialer, now: Instant) -> Vec<PublicKey> {
        dialer.take_due(now).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn the_larger_key_waits_for_the_smaller_one_unless_nobody_can_dial_it() {
        let now = Instant::now();
        assert_eq!(due(&mut dialer(5, true, &[3, 5, 7], now), now), [key(7)]);
        assert_eq!(due(&mut dialer(5, true, &[3, 5, 7], now), now + YIELD), [key(3), key(7)]);
        assert_eq!(due(&mut dialer(5, false, &[3, 5, 7], now), now), [key(3), key(7)]);
    }

    #[test]
    fn the_back_off_doubles_to_its_cap_and_starts_again_after_a_connection() {
        let mut now = Instant::now();
        let mut dialer = dialer(1, false, &[2], now);
        let mut waits = Vec::new();
        for _ in 0..40 {
            assert_eq!(due(&mut dialer, now), [key(2)]);
            assert_eq!(dialer.next_attempt(), None);
            dialer.failed(&key(2), now);
            let next = dialer.next_attempt().unwrap();
            waits.push(next - now);
            now = next;
        }
        assert!(waits[0] >= BACKOFF_FIRST / 2 && waits[0] <= BACKOFF_FIRST);
        assert!(waits[10..].iter().all(|wait| (BACKOFF_MAX / 2..=BACKOFF_MAX).contains(wait)), "{waits:?}");
        let distinct: std::collections::BTreeSet<_> = waits[10..].iter().collect();
        assert!(distinct.len() > 20, "waits are not spread: {waits:?}");
        dialer.connected(&key(2));
        assert_eq!(dialer.next_attempt(), None);
        dialer.failed(&key(2), now);
        assert_eq!(dialer.next_attempt(), None);
        dialer.lost(&key(2), now);
        let wait = dialer.next_attempt().unwrap();
        assert!(wait - now <= BACKOFF_FIRST);
        dialer.lost(&key(2), now + BACKOFF_MAX);
        assert_eq!(dialer.next_attempt(), Some(wait), "who waits already is not put off");
    }

    #[test]
    fn two_nodes_that_lose_the_same_peer_come_back_at_different_times() {
        let now = Instant::now();
        let waits = [1, 2].map(|seed| {
            let mut dialer = Dialer::new(key(1), false, seed);
            dialer.set_targets(vec![PeerAddress { key: key(2), addresses: Vec::new() }], |_| true, now);
            dialer.lost(&key(2), now);
            dialer.next_attempt().unwrap()
        });
        assert_ne!(waits[0], waits[1]);
    }

    #[test]
    fn changing_the_targets_keeps_what_is_known_of_those_that_stay() {
        let now = Instant::now();
        let mut dialer = dialer(1, false, &[2, 3], now);
        dialer.connected(&key(2));
        let peers = [2, 4, 5].map(|byte| PeerAddress { key: key(byte), addresses: Vec::new() });
        dialer.set_targets(peers.to_vec(), |peer| *peer == key(5), now);
        assert_eq!(due(&mut dialer, now), [key(4)]);
    }

    #[test]
    fn a_retry_does_not_wait_for_the_back_off() {
        let now = Instant::now();
        let mut dialer = dialer(1, false, &[2], now);
        assert_eq!(due(&mut dialer, now), [key(2)]);
        dialer.failed(&key(2), now);
        assert_eq!(due(&mut dialer, now), []);
        dialer.retry(&key(2), now);
        assert_eq!(due(&mut dialer, now), [key(2)]);
    }
}
