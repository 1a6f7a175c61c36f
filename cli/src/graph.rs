//! Versions as a graph of characters, as `git log --graph` draws commits.

use fedledger_federation::VersionId;

/// Draws one line of lanes per version. Versions must come newest first.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// For each lane the version that it leads down to.
    lanes: Vec<VersionId>,
}

impl Graph {
    /// The lanes beside a version; what follows are the lanes of its first parent.
    pub fn line(&mut self, version: &VersionId, parents: &[VersionId]) -> String {
        let own = self.lanes.iter().position(|lane| lane == version).unwrap_or_else(|| {
            self.lanes.push(*version);
            self.lanes.len() - 1
        });
        let line: Vec<&str> = (0..self.lanes.len()).map(|lane| if lane == own { "*" } else { "|" }).collect();
        // Several lanes may lead to the same version; they end in it.
        let mut position = 0;
        self.lanes.retain(|lane| {
            position += 1;
            lane != version || position - 1 == own
        });
        if let Some(lane) = self.lanes.iter_mut().find(|lane| *lane == version) {
            match parents.first() {
                Some(parent) => *lane = *parent,
                None => self.lanes.retain(|lane| lane != version),
            }
        }
        line.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::Digest;

    use super::*;

    #[test]
    fn a_second_line_of_versions_has_a_lane_of_its_own() {
        let id = |name: &str| VersionId::of_manifest(Digest::of(name.as_bytes()));
        let mut graph = Graph::default();
        // v3' and v3 both follow v1: the branch was moved back.
        assert_eq!(graph.line(&id("v3'"), &[id("v1")]), "*");
        assert_eq!(graph.line(&id("v3"), &[id("v2")]), "| *");
        assert_eq!(graph.line(&id("v2"), &[id("v1")]), "| *");
        assert_eq!(graph.line(&id("v1"), &[id("v0")]), "* |");
        assert_eq!(graph.line(&id("v0"), &[]), "*");
        assert!(graph.lanes.is_empty());
    }
}
