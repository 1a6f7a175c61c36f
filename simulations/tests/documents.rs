//! The examples in the documents are read by the code that reads what people write.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{fs, path::Path};

use fedledger_federation::{
    architecture::Architecture,
    data_description::{DataDescription, SkipReason},
    plan::Plan,
};
use fedledger_participant::table::Schema;
use fedledger_proto::kit::{
    CliDefaults, ConsortiumDescription, MemberDescription, ParticipantConfig, ReplicaConfig, SitePolicy, provision,
};
use serde::Deserialize;

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
fn the_site_describes_a_member() {
    let site: MemberDescription = toml::from_str(&example("docs/files.md", "site.toml", 0)).unwrap();
    assert!(site.replica.is_some() && site.participant.is_some());
}

#[test]
fn the_plan_can_be_carried_out() {
    let plan: Plan = toml::from_str(&example("docs/files.md", "Plans", 0)).unwrap();
    assert_eq!(plan.check(), Ok(()));
}

#[test]
fn networks_for_images_are_those_that_nobody_has_to_describe() {
    #[derive(Deserialize)]
    struct Example {
        architecture: Architecture,
    }

    for (index, kind) in [(1, "convolutional"), (2, "residual")] {
        let described: Example = toml::from_str(&example("docs/files.md", "Plans", index)).unwrap();
        assert_eq!(described.architecture.validate(), Ok(()));
        let (classes, channels, height, width) = (10, 1, 28, 28);
        let usual = serde_json::json!({ "kind": kind, "classes": classes, "channels": channels, "height": height, "width": width });
        assert_eq!(
            described.architecture,
            serde_json::from_value(usual).unwrap(),
            "what the example says is the default"
        );
    }
}

#[test]
fn the_training_can_be_left_to_a_program() {
    let mut plan: toml::Table = toml::from_str(&example("docs/files.md", "Plans", 0)).unwrap();
    let external: toml::Table = toml::from_str(&example("docs/files.md", "Plans", 3)).unwrap();
    plan.remove("training");
    plan.extend(external);
    let plan: Plan = plan.try_into().unwrap();
    assert_eq!(plan.check(), Ok(()));
    assert_eq!(plan.architecture.parameter_count(), 1 + 64 + 64);
    let trainers = example("docs/trainers.md", "What it may use", 0);
    let participant = example("docs/files.md", "node.toml", 1) + &trainers;
    let participant: ParticipantConfig = toml::from_str(&participant).unwrap();
    assert_eq!(participant.trainers.keys().collect::<Vec<_>>(), ["imaging", "perceptron"]);
}

#[test]
fn the_policy_shows_the_defaults() {
    let policy: SitePolicy = toml::from_str(&example("docs/files.md", "policy.toml", 0)).unwrap();
    assert_eq!(policy, SitePolicy::default());
}

/// The part of a plan about its data.
#[derive(serde::Deserialize)]
struct DataPart {
    data: DataDescription,
}

#[test]
fn the_data_of_plans_can_be_described_so() {
    let part = |index| -> DataPart { toml::from_str(&example("docs/files.md", "Data in plans", index)).unwrap() };
    let (table, images) = (part(0).data, part(1).data);
    assert_eq!((table.check(), images.check()), (Ok(()), Ok(())));
    assert_eq!((table.features(), table.classes()), (4, 2));
    assert_eq!((images.features(), images.classes()), (784, 2));
}

#[test]
fn every_reason_for_skipping_a_row_is_explained() {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/files.md")).unwrap();
    for reason in SkipReason::ALL {
        assert!(document.contains(&format!("| `{}` |", reason.name())), "{}", reason.name());
    }
}

#[test]
fn the_schema_is_valid() {
    let table = Schema::from_toml(&example("docs/files.md", "schema.toml", 0)).unwrap();
    assert!(table.description().is_some());
    let images = Schema::from_toml(&example("docs/files.md", "schema.toml", 1)).unwrap();
    assert!(images.images.is_some() && images.description().is_none());
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

#[test]
fn the_tests_behind_the_trust_statement_exist_and_the_claims_stand_in_the_readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let trust = fs::read_to_string(root.join("docs/trust.md")).unwrap();
    let plain = |text: &str| text.replace('*', "").split_whitespace().collect::<Vec<_>>().join(" ");
    let readme = plain(&fs::read_to_string(root.join("README.md")).unwrap());
    let mut tests = 0;
    for line in trust.lines() {
        if let Some(claim) = line.strip_prefix("> ") {
            let claim = plain(claim);
            let claim = claim.trim_end_matches('.');
            assert!(readme.contains(claim), "the README does not say: {claim}");
        }
        let Some((name, place)) = line.strip_prefix("- `").and_then(|rest| rest.split_once("` in [")) else { continue };
        let (file, _) = place.split_once(']').unwrap();
        let code = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(code.contains(&format!("fn {name}(")), "there is no test {name} in {file}");
        tests += 1;
    }
    assert!(tests > 20, "only {tests} tests are named");
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
