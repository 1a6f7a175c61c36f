//! When things happened, as a member sees it that follows the ledger of one replica.

use std::time::{Duration, Instant};

use fedledger_federation::{Event, Federation, command::RoundKey};
use fedledger_ledger::log::Log;
use fedledger_proto::api::{ApiClient, EntriesStream, Level};
use tokio::time::timeout;

/// How long nothing may happen.
const STALLED_AFTER: Duration = Duration::from_secs(300);

/// Why a round is given up whose branch was moved back.
const BASE_MOVED: &str = "base_moved";

/// Something that has been accepted onto the ledger.
#[derive(Debug)]
pub struct Seen {
    pub at: Instant,
    pub index: u64,
    pub event: Event,
}

/// Replays the ledger as it grows, twice: once for what is committed, once for what has become final.
pub struct Follower {
    log: Log<Federation>,
    committed: EntriesStream,
    finals: EntriesStream,
    /// What has happened since the beginning of the ledger.
    pub seen: Vec<Seen>,
    /// When the entries from 1 on became final.
    final_at: Vec<Instant>,
}

/// One round that led to a version.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub opened: Instant,
    /// All updates are there and hashed.
    pub closed: Instant,
    /// The leader has computed the version.
    pub proposed: Instant,
    /// A majority of the replicas has computed the same.
    pub attested: Instant,
    /// Enough replicas have co-signed that.
    pub finalised: Instant,
}

impl Follower {
    pub fn new(client: &ApiClient, genesis: &[u8]) -> Self {
        let (log, _) = Log::genesis(genesis).unwrap();
        let (committed, finals) = (client.entries(1, true), client.entries_at(1, true, Level::Final));
        Self { log, committed, finals, seen: Vec::new(), final_at: Vec::new() }
    }

    pub fn state(&self) -> &Federation {
        self.log.machine()
    }

    /// Looks at what there is after every entry, until it holds.
    pub async fn until<T>(&mut self, what: &str, mut holds: impl FnMut(&Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = holds(self) {
                return found;
            }
            let moved = timeout(STALLED_AFTER, self.next()).await;
            assert!(moved.is_ok(), "nothing happens while waiting for {what}");
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            entry = self.committed.next() => {
                let entry = self.log.replay(&entry.unwrap().unwrap().bytes).unwrap();
                match entry.result {
                    Some(Ok(Event::RoundAbandoned { key, reason, certificate, .. })) if reason != BASE_MOVED =>
                        panic!("round {} was given up: {reason} {certificate:?}", key.round),
                    Some(Ok(event)) => self.seen.push(Seen { at: Instant::now(), index: entry.leaf.index, event }),
                    _ => {}
                }
            }
            entry = self.finals.next() => {
                entry.unwrap().unwrap();
                self.final_at.push(Instant::now());
            }
        }
    }

    /// The last attempt to be opened.
    pub fn last_opened(&self) -> Option<(&Seen, &RoundKey)> {
        self.seen.iter().rev().find_map(|seen| match &seen.event {
            Event::RoundOpened { key, .. } => Some((seen, key)),
            _ => None,
        })
    }

    /// A round of the only plan, once its version is final. Versions have the numbers of their rounds.
    pub fn round(&self, number: u64) -> Option<Round> {
        let find = |wanted: &dyn Fn(&Event) -> bool| self.seen.iter().find(|seen| wanted(&seen.event));
        let attested =
            find(&|event| matches!(event, Event::VersionAttested { number: found, .. } if *found == number))?;
        let Event::VersionAttested { version, .. } = &attested.event else { return None };
        let finalised = *self.final_at.get(usize::try_from(attested.index).unwrap() - 1)?;
        let opened = find(&|event| matches!(event, Event::RoundOpened { key, .. } if key.round == number))?;
        let closed = find(&|event| matches!(event, Event::RoundClosed { key, .. } if key.round == number))?;
        // With one replica the proposal is the attestation.
        let proposed = find(&|event| matches!(event, Event::VersionProposed { version: found } if found == version));
        let proposed = proposed.unwrap_or(attested).at;
        Some(Round { opened: opened.at, closed: closed.at, proposed, attested: attested.at, finalised })
    }
}
