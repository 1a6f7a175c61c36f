//! What is kept, in words.

use fedledger_federation::{Federation, retention::Retention};
use serde::Serialize;

/// Which files are kept by the members' rules, and of how many versions.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct RetentionView {
    /// The rules.
    #[serde(flatten)]
    rules: Retention,
    /// Versions.
    attested: usize,
    /// Versions that keep their weights and optimiser state.
    with_files: usize,
    /// Versions that keep the updates that they were made of.
    with_updates: usize,
}

impl RetentionView {
    /// The view of a state.
    pub fn of(state: &Federation) -> Self {
        Self {
            rules: state.policy().retention,
            attested: state.numbers().len(),
            with_files: state.versions_with_files(),
            with_updates: state.versions_with_updates(),
        }
    }

    /// A line for people, unless everything is kept.
    pub fn line(&self) -> Option<String> {
        let Self { rules, attested, with_files, with_updates } = self;
        let kept = format!("of {attested} versions {with_files} have their files and {with_updates} their updates");
        (!rules.keeps_all()).then(|| format!("kept is {}; {kept}", words(*rules)))
    }
}

/// The rules in words.
pub(crate) fn words(retention: Retention) -> String {
    let newest =
        |count: Option<u64>| count.map_or_else(|| "all versions".to_owned(), |count| format!("the newest {count}"));
    let Retention { updates, versions } = retention;
    format!("the weights of {} and the updates of {}", newest(versions), newest(updates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_said_in_words() {
        let retention = Retention { updates: Some(2), versions: None };
        assert_eq!(words(retention), "the weights of all versions and the updates of the newest 2");
    }
}
