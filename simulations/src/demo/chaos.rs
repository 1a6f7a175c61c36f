//! What goes wrong in a demo on request: nodes that are killed or cut off and come back two rounds later, and slow ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    time::Duration,
};

use crate::heart::SITES;

/// Rounds after which a killed node is started again, and one that was cut off connects again.
pub(super) const RETURNS_AFTER_ROUNDS: u64 = 2;

/// How much longer than otherwise a slow hospital trains.
pub const SLOWED_BY: Duration = Duration::from_secs(3);

/// Something that goes wrong, written `EVENT@ROUND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chaos {
    /// What.
    pub event: ChaosEvent,
    /// In which round, as soon as it is open.
    pub round: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChaosEvent {
    /// `kill-leader`: the replica that leads is killed.
    KillLeader,
    /// `kill-replica:SITE`: the replica of a hospital is killed.
    KillReplica(String),
    /// `kill-participant:SITE`: the participant of a hospital is killed.
    KillParticipant(String),
    /// `partition:SITE`: the participant of a hospital loses every connection.
    Partition(String),
    /// `slow:SITE`: a hospital trains [`SLOWED_BY`] longer in this round, and the round waits for it.
    Slow(String),
}

impl ChaosEvent {
    /// Whether a participant is away because of it.
    const fn takes_participant_away(&self) -> bool {
        matches!(self, Self::KillParticipant(_) | Self::Partition(_))
    }

    /// Whether a replica is away because of it.
    const fn takes_replica_away(&self) -> bool {
        matches!(self, Self::KillLeader | Self::KillReplica(_))
    }
}

/// A request for chaos that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChaosError {
    /// Not of the form `EVENT@ROUND`.
    #[error(
        "{0:?} is no chaos event: write kill-leader@5, kill-replica:va@5, kill-participant:va@5, partition:va@5 or slow:va@5"
    )]
    Malformed(String),
    /// There is no such hospital.
    #[error("there is no hospital {0:?}: use cleveland, hungarian, switzerland or va")]
    UnknownSite(String),
    /// With more nodes away there is no majority of replicas, or no quorum of participants.
    #[error(
        "two replicas or two participants would be away in round {round}: they come back two rounds after they were killed or cut off"
    )]
    TooMany {
        /// Round in which both are away.
        round: u64,
    },
    /// The demo ends before that.
    #[error("there is no round {round}: the demo has {rounds}")]
    Round {
        /// Round asked for.
        round: u64,
        /// Rounds of the demo.
        rounds: u64,
    },
}

impl FromStr for Chaos {
    type Err = ChaosError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ChaosError::Malformed(text.to_owned());
        let (event, round) = text.split_once('@').ok_or_else(malformed)?;
        let round = round.parse().map_err(|_| malformed())?;
        let event = match event.split_once(':') {
            None if event == "kill-leader" => ChaosEvent::KillLeader,
            Some(("kill-replica", site)) => ChaosEvent::KillReplica(known(site)?),
            Some(("kill-participant", site)) => ChaosEvent::KillParticipant(known(site)?),
            Some(("partition", site)) => ChaosEvent::Partition(known(site)?),
            Some(("slow", site)) => ChaosEvent::Slow(known(site)?),
            _ => return Err(malformed()),
        };
        Ok(Self { event, round })
    }
}

fn known(site: &str) -> Result<String, ChaosError> {
    if SITES.contains(&site) { Ok(site.to_owned()) } else { Err(ChaosError::UnknownSite(site.to_owned())) }
}

/// Refuses events in rounds that there are not, and so many at the same time that the consortium could not go on.
pub(super) fn check(chaos: &[Chaos], rounds: u64) -> Result<(), ChaosError> {
    if let Some(chaos) = chaos.iter().find(|chaos| !(1..=rounds).contains(&chaos.round)) {
        return Err(ChaosError::Round { round: chaos.round, rounds });
    }
    let too_many = |goes_away: fn(&ChaosEvent) -> bool, round: u64| {
        let away = chaos.iter().filter(|chaos| goes_away(&chaos.event));
        away.filter(|chaos| (chaos.round..chaos.round + RETURNS_AFTER_ROUNDS).contains(&round)).count() > 1
    };
    let mut rounds = chaos.iter().map(|chaos| chaos.round);
    let round = rounds.find(|round| {
        too_many(ChaosEvent::takes_replica_away, *round) || too_many(ChaosEvent::takes_participant_away, *round)
    });
    match round {
        Some(round) => Err(ChaosError::TooMany { round }),
        None => Ok(()),
    }
}

/// The rounds in which a hospital is slow, and by how much.
pub(super) fn delays(chaos: &[Chaos], site: &str) -> BTreeMap<u64, Duration> {
    let slow = chaos.iter().filter(|chaos| matches!(&chaos.event, ChaosEvent::Slow(slow) if slow == site));
    let rounds: BTreeSet<u64> = slow.map(|chaos| chaos.round).collect();
    rounds.into_iter().map(|round| (round, SLOWED_BY)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_documented() {
        assert_eq!("kill-leader@5".parse(), Ok(Chaos { event: ChaosEvent::KillLeader, round: 5 }));
        let killed = ChaosEvent::KillParticipant("va".to_owned());
        assert_eq!("kill-participant:va@2".parse(), Ok(Chaos { event: killed, round: 2 }));
        let chaos = |events: &[&str]| events.iter().map(|event| event.parse().unwrap()).collect::<Vec<Chaos>>();
        assert_eq!(check(&chaos(&["kill-leader@1", "kill-replica:va@3", "kill-participant:va@3"]), 5), Ok(()));
        let both = check(&chaos(&["kill-leader@1", "kill-replica:va@2"]), 5);
        assert_eq!(both, Err(ChaosError::TooMany { round: 2 }));
        let all = ["kill-leader@1", "partition:va@1", "slow:va@1", "slow:cleveland@2", "kill-participant:va@3"];
        assert_eq!(check(&chaos(&all), 3), Ok(()), "who is slow is not away");
        let both = check(&chaos(&["partition:va@1", "kill-participant:cleveland@2"]), 5);
        assert_eq!(both, Err(ChaosError::TooMany { round: 2 }));
        let slow = delays(&chaos(&["slow:va@2", "slow:va@2", "slow:va@4", "slow:cleveland@3"]), "va");
        assert_eq!(slow, [(2, SLOWED_BY), (4, SLOWED_BY)].into());
        for malformed in ["slow@2", "partition@2", "slow:va", "slow:va@two", "partition:va@-1", "kill-leader:va@2", ""]
        {
            assert_eq!(malformed.parse::<Chaos>(), Err(ChaosError::Malformed(malformed.to_owned())));
        }
        assert_eq!("partition:rome@2".parse::<Chaos>(), Err(ChaosError::UnknownSite("rome".to_owned())));
        assert!(matches!("kill-replica:rome@2".parse::<Chaos>(), Err(ChaosError::UnknownSite(_))));
        assert!(matches!("explode@2".parse::<Chaos>(), Err(ChaosError::Malformed(_))));
        assert!(matches!("kill-leader".parse::<Chaos>(), Err(ChaosError::Malformed(_))));
    }
}
