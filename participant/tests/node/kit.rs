//! A participant's directory, as provisioning would write it for the consortium of the fixture.

use std::{fmt::Write as _, fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path};

use crate::fixture::{Purpose, genesis, key};

const SCHEMA: &str = r#"
missing = "error"
normalize = "none"

[label]
column = "sick"
positive_when = { greater_than = "0" }

[[features]]
kind = "numeric"
column = "age"

[[features]]
kind = "numeric"
column = "pressure"

[split]
kind = "test_fraction"
fraction = "0.25"
seed = 7
"#;

/// Writes the directory of a member's participant, which reaches these members' replicas at these addresses.
pub fn write_directory(directory: &Path, member: &str, replicas: &[(&str, SocketAddr)]) {
    let keys = directory.join("keys");
    fs::create_dir_all(&keys).unwrap();
    let purposes = [
        ("transaction", Purpose::Participant),
        ("transport", Purpose::ParticipantTransport),
        ("witness", Purpose::Witness),
    ];
    for (name, purpose) in purposes {
        let file = keys.join(format!("{name}.key"));
        fs::write(&file, format!("{}\n", hex::encode(key(member, purpose).seed()))).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(directory.join("genesis.cbor"), genesis()).unwrap();
    let policy = "auto_approve = true\nsurprises = \"allow\"\nsuppress_below = 0\n";
    fs::write(directory.join("policy.toml"), policy).unwrap();
    fs::write(directory.join("schema.toml"), SCHEMA).unwrap();
    fs::write(directory.join("records.csv"), records()).unwrap();
    let mut config =
        format!("name = \"{member}/participant\"\n[data]\ntable = \"records.csv\"\nschema = \"schema.toml\"\n");
    for (replica, address) in replicas {
        write!(config, "[[peers]]\nname = \"{replica}/replica\"\naddress = \"{address}\"\n").unwrap();
    }
    fs::write(directory.join("node.toml"), config).unwrap();
}

/// Twenty records in which both features point to the label.
fn records() -> String {
    let mut text = "age,pressure,sick\n".to_owned();
    for row in 0..20 {
        let sick = row % 2;
        let age = f64::from(row) / 20.0 + f64::from(sick);
        writeln!(text, "{age},{},{sick}", 1.0 - age / 4.0).unwrap();
    }
    text
}
