//! The examples in the documents are read by the code that reads what people write.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{fs, path::Path};

use fedledger_federation::plan::Plan;
use fedledger_participant::table::Schema;
use fedledger_proto::kit::{
    CliDefaults, ConsortiumDescription, ParticipantConfig, ReplicaConfig, SitePolicy, provision,
};

#[test]
fn consortiums_can_be_provisioned() {
    for document in ["docs/files.md", "docs/consortium.md"] {
        let section = if document == "docs/files.md" { "consortium.toml" } else { "Provision" };
        let description = ConsortiumDescription::from_toml(&example(document, section, 0)).unwrap();
        let mut counter = 0_u8;
        let mut keys = || {
            counter += 1;
            [counter; 32]
        };
        assert!(provision(&description, &mut keys).is_ok(), "{document}");
    }
}

#[test]
fn the_plan_can_be_carried_out() {
    let plan: Plan = toml::from_str(&example("docs/files.md", "Plans", 0)).unwrap();
    assert_eq!(plan.check(), Ok(()));
}

#[test]
fn the_policy_shows_the_defaults() {
    let policy: SitePolicy = toml::from_str(&example("docs/files.md", "policy.toml", 0)).unwrap();
    assert_eq!(policy, SitePolicy::default());
}

#[test]
fn the_schema_is_valid() {
    assert!(Schema::from_toml(&example("docs/files.md", "schema.toml", 0)).is_ok());
}

#[test]
fn the_configurations_show_the_defaults() {
    let replica: ReplicaConfig = toml::from_str(&example("docs/files.md", "node.toml", 0)).unwrap();
    assert_eq!(replica.settings, Default::default());
    let participant: ParticipantConfig = toml::from_str(&example("docs/files.md", "node.toml", 1)).unwrap();
    assert_eq!(participant.settings, Default::default());
    let defaults: CliDefaults = toml::from_str(&example("docs/files.md", "fedledger.toml", 0)).unwrap();
    assert!(defaults.ledger.is_some() && !defaults.connect.is_empty() && defaults.identity.is_some());
}

/// The code block with this number, from 0, under a heading of the second level.
fn example(document: &str, heading: &str, number: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = fs::read_to_string(path).unwrap();
    let mut sections = text.split("\n## ");
    let section = sections.find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'));
    let section = section.unwrap_or_else(|| panic!("{document} has no section {heading:?}"));
    let block = section.split("```toml\n").nth(number + 1);
    let (block, _) = block.and_then(|block| block.split_once("```")).unwrap_or_else(|| panic!("no example {number}"));
    block.to_owned()
}
