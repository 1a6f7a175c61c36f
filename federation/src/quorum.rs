//! The quorum of a round: how many contributions, whose, and for which share of the examples.
//!
//! A plan says which contributions make a round count. What there is is held against it here, in integers, by `apply` when a
//! round is closed or given up, by the conductor before it asks for either, and by views.

use serde::Serialize;

use crate::{
    Federation, Rejection,
    command::RoundKey,
    decimal::Decimal,
    member::MemberId,
    plan,
    records::{Participation, RoundRecord},
};

/// Contributions, held against what the plan wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quorum {
    /// Contributions that count.
    pub contributed: u64,
    /// Contributions below which the round does not count.
    pub needed: u64,
    /// Members without whose contribution it does not count, and whose is not there.
    pub required_missing: Vec<MemberId>,
    /// The share of the examples, for plans that want one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example_share: Option<ExampleShare>,
}

/// Examples behind contributions, of those of the whole cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExampleShare {
    /// Examples behind the contributions that count.
    pub contributed: u64,
    /// Examples of everyone selected: as contributed, else as declared with the consent.
    pub selected: u64,
    /// The share below which the round does not count.
    pub needed: Decimal,
}

impl Quorum {
    /// The quorum of a round with the contributions of the selected members that `counts` names.
    pub(crate) fn of(
        state: &Federation,
        participation: &plan::Participation,
        key: &RoundKey,
        round: &RoundRecord,
        counts: impl Fn(&MemberId) -> bool,
    ) -> Self {
        let present = |member: &MemberId| round.cohort.contains(member) && counts(member);
        let required = participation.required_members.iter();
        let example_share = participation.minimum_example_share.as_ref().map(|needed| {
            let mut share = ExampleShare { contributed: 0, selected: 0, needed: needed.clone() };
            for member in &round.cohort {
                let examples = examples_of(state, key, round, member);
                share.selected = share.selected.saturating_add(examples);
                if counts(member) {
                    share.contributed = share.contributed.saturating_add(examples);
                }
            }
            share
        });
        Self {
            contributed: round.cohort.iter().filter(|member| counts(member)).count() as u64,
            needed: participation.minimum_participants,
            required_missing: required.filter(|member| !present(member)).cloned().collect(),
            example_share,
        }
    }

    /// Refuses what the plan does not let pass for a round.
    ///
    /// # Errors
    ///
    /// The first [`Rejection`] of: too few contributions, one that the plan requires is missing, too small a share.
    pub fn check(&self) -> Result<(), Rejection> {
        if self.contributed < self.needed {
            return Err(Rejection::BelowQuorum { found: self.contributed, needed: self.needed });
        }
        if let Some(member) = self.required_missing.first() {
            return Err(Rejection::RequiredContributionMissing(member.clone()));
        }
        match &self.example_share {
            Some(share) if !share.is_enough() => Err(Rejection::ExampleShareTooSmall {
                found: share.contributed,
                of: share.selected,
                needed: share.needed.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the round counts.
    pub fn is_met(&self) -> bool {
        self.check().is_ok()
    }
}

impl ExampleShare {
    /// Whether contributed / selected is at least the share wanted, in integers: no rounding decides.
    fn is_enough(&self) -> bool {
        let (numerator, denominator) = self.needed.ratio();
        // Both sides stay below 2^127: a share has at most 22 digits after the point, a sum of examples is capped.
        let (found, all) = (self.contributed.min(EXAMPLES_MAX), self.selected.min(EXAMPLES_MAX));
        i128::from(found) * denominator >= i128::from(all) * numerator
    }
}

/// Examples of a cohort above which no difference is made; more than the largest cohort with the largest example scale has.
const EXAMPLES_MAX: u64 = 1 << 48;

/// What a member of the cohort weighs: the examples of its contribution, else those that it has declared.
fn examples_of(state: &Federation, key: &RoundKey, round: &RoundRecord, member: &MemberId) -> u64 {
    match state.participations.get(&(*key, member.clone())) {
        Some(Participation::Contributed { contribution, .. }) => contribution.examples,
        _ => round.declared_examples.get(member).copied().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(contributed: u64, selected: u64, needed: &str) -> bool {
        ExampleShare { contributed, selected, needed: needed.parse().unwrap() }.is_enough()
    }

    #[test]
    fn a_share_is_compared_without_rounding() {
        assert!(share(75, 100, "0.75") && !share(74, 100, "0.75"));
        assert!(share(1, 3, "0.3333333333333333333333") && !share(1, 3, "0.3333333333333333333334"));
        assert!(share(7, 7, "1") && !share(6, 7, "1"));
        assert!(share(u64::MAX, u64::MAX, "0.9999999999999999999999"), "huge sums overflow nothing");
    }
}
