//! What goes wrong in a demo on request: nodes that are killed and come back two rounds later.

use std::str::FromStr;

use crate::heart::SITES;

/// Rounds after which a killed node is started again.
pub(super) const RETURNS_AFTER_ROUNDS: u64 = 2;

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
}

/// A request for chaos that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChaosError {
    /// Not of the form `EVENT@ROUND`.
    #[error("{0:?} is no chaos event: write kill-leader@5, kill-replica:va@5 or kill-participant:va@5")]
    Malformed(String),
    /// There is no such hospital.
    #[error("there is no hospital {0:?}: use cleveland, hungarian, switzerland or va")]
    UnknownSite(String),
    /// With more nodes away there is no majority of replicas, or no quorum of participants.
    #[error("two replicas or two participants would be away in round {round}: killed nodes come back two rounds later")]
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
    let away = |replicas: bool, round: u64| {
        let killed = chaos.iter().filter(|chaos| matches!(chaos.event, ChaosEvent::KillParticipant(_)) != replicas);
        killed.filter(|chaos| (chaos.round..chaos.round + RETURNS_AFTER_ROUNDS).contains(&round)).count()
    };
    match chaos.iter().find(|chaos| away(true, chaos.round) > 1 || away(false, chaos.round) > 1) {
        Some(chaos) => Err(ChaosError::TooMany { round: chaos.round }),
        None => Ok(()),
    }
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
        assert!(matches!("kill-replica:rome@2".parse::<Chaos>(), Err(ChaosError::UnknownSite(_))));
        assert!(matches!("explode@2".parse::<Chaos>(), Err(ChaosError::Malformed(_))));
        assert!(matches!("kill-leader".parse::<Chaos>(), Err(ChaosError::Malformed(_))));
    }
}
