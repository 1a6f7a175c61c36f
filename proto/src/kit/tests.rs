//! Tests of kits: what provisioning yields, what is written, and what is refused when it is loaded.

mod loading;
mod provisioning;
mod sites;
mod writing;

use std::path::Path;

use super::*;

/// Two members with all there is, one with an identity only.
const DESCRIPTION: &str = r#"
name = "heart"

[[members]]
id = "cleveland"
name = "Cleveland Clinic"
roles = ["replica", "participant", "operator"]

[[members]]
id = "budapest"
roles = ["participant"]
replica = { listen = "0.0.0.0:9000", address = "ledger.example.org:9000", api = "192.0.2.7:9100" }
participant = { data = "/srv/heart.csv", schema = "heart.toml", policy = { auto_approve = true, plans = ["heart"] } }

[[members]]
id = "regulator"
roles = ["auditor"]
"#;

fn described() -> ConsortiumDescription {
    ConsortiumDescription::from_toml(DESCRIPTION).unwrap()
}

/// Provisions with randomness that is none.
fn provisioned(description: &ConsortiumDescription) -> Result<Provisioned, ProvisionError> {
    let mut counter = 0u8;
    provision(description, &mut || {
        counter += 1;
        [counter; 32]
    })
}

/// A consortium on disk.
fn written() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_kits(&provisioned(&described()).unwrap(), folder.path(), false).unwrap();
    folder
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}
