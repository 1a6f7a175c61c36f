//! What nodes and people start from, and every reason why they do not.

use std::{fs, os::unix::fs::PermissionsExt as _};

use fedledger_ledger::Digest;

use super::*;

#[test]
fn a_replica_starts_from_its_kit() {
    let folder = written();
    let kit = ReplicaKit::load(&folder.path().join("cleveland/replica")).unwrap();
    assert_eq!((kit.member.as_str(), kit.number), ("cleveland", 1));
    assert_eq!(kit.config.settings, ReplicaSettings::default());
    let peers: Vec<_> =
        kit.config.peers.iter().map(|peer| (peer.name.as_str(), peer.addresses[0].to_string())).collect();
    assert_eq!(peers, [("budapest/replica", "ledger.example.org:9000".to_owned())], "without itself");
    assert_eq!(kit.genesis.chain, Digest::of(&kit.genesis.bytes));
    let (_, node) = kit.genesis.genesis.nodes().find(|(_, node)| node.name == "cleveland/replica").unwrap();
    assert_eq!(kit.transaction_key.public(), node.transaction_key);
    assert_eq!(kit.transport_key.public(), node.transport_key);
}

#[test]
fn a_participant_starts_from_its_kit() {
    let folder = written();
    let kit = ParticipantKit::load(&folder.path().join("cleveland/participant")).unwrap();
    assert_eq!(kit.policy, SitePolicy::default());
    assert_eq!(kit.config.settings.device, ComputeDevice::Cpu);
    assert_eq!(kit.table_path(), folder.path().join("cleveland/participant/data.csv"));
    assert_eq!(kit.config.peers.len(), 2, "every replica");
    let kit = ParticipantKit::load(&folder.path().join("budapest/participant")).unwrap();
    assert_eq!(kit.table_path(), Path::new("/srv/heart.csv"));
    assert_eq!(kit.schema_path(), folder.path().join("budapest/participant/heart.toml"));
    assert!(kit.policy.auto_approve && kit.policy.plans.allows("heart") && !kit.policy.plans.allows("lung"));
    assert!(kit.policy.operators.allows("anybody"));
}

#[test]
fn every_member_has_an_identity() {
    let folder = written();
    for member in ["budapest", "cleveland", "regulator"] {
        let identity = Identity::load(&folder.path().join(member).join("identity")).unwrap();
        let recorded = identity.genesis.genesis.members.iter().find(|recorded| recorded.id == member).unwrap();
        assert_eq!(identity.member, member);
        assert_eq!(identity.organisation_key.public(), recorded.organisation_key);
        assert_eq!(*identity.tls.public_key(), recorded.api_key);
    }
}

#[test]
fn the_kind_of_a_node_is_known_from_its_directory() {
    let folder = written();
    let config = NodeConfig::load(&folder.path().join("budapest/replica")).unwrap();
    assert!(matches!(&config, NodeConfig::Replica(replica) if replica.api == "192.0.2.7:9100".parse().unwrap()));
    assert_eq!(config.name(), "budapest/replica");
    assert!(matches!(
        NodeConfig::load(&folder.path().join("budapest/participant")).unwrap(),
        NodeConfig::Participant(_)
    ));
}

#[test]
fn foreign_directories_are_refused_with_advice() {
    let folder = written();
    let cleveland = folder.path().join("cleveland");
    let error = ReplicaKit::load(&cleveland).unwrap_err();
    assert!(matches!(error, KitError::NotANode { .. }), "{error}");
    let error = Identity::load(&cleveland.join("replica")).unwrap_err();
    assert!(matches!(error, KitError::NotAnIdentity { .. }), "{error}");
    let error = ReplicaKit::load(&cleveland.join("participant")).unwrap_err().to_string();
    assert!(error.ends_with(
        "is the directory of cleveland/participant, a participant: start it with `fedledger participant`, or give the \
         directory of a replica"
    ));
    let error = ParticipantKit::load(&cleveland.join("replica")).unwrap_err();
    let expected = matches!(error, KitError::WrongRole { found: NodeRole::Replica, needed: NodeRole::Participant, .. });
    assert!(expected, "{error}");
}

#[test]
fn every_missing_file_is_named() {
    for kit in ["cleveland/replica", "cleveland/participant", "cleveland/identity"] {
        let folder = written();
        let files: Vec<_> = provisioned(&described()).unwrap().files.into_keys().collect();
        // Participants of earlier versions have no certificate of the authority; they dial no WebSocket.
        let needed = |file: &Path| file.starts_with(kit) && !file.ends_with("participant/keys/ca.crt");
        for file in files.iter().filter(|file| needed(file)) {
            let path = folder.path().join(file);
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let error = load(&folder.path().join(kit)).unwrap_err();
            let named = match &error {
                KitError::Missing { file } => *file == path,
                KitError::NotANode { .. } => path.ends_with("node.toml"),
                KitError::NotAnIdentity { .. } => path.ends_with("identity.toml"),
                _ => false,
            };
            assert!(named, "{}: {error}", file.display());
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        load(&folder.path().join(kit)).unwrap();
    }
}

/// Loads whatever the directory is.
fn load(directory: &Path) -> Result<(), KitError> {
    match directory.file_name().unwrap().to_str().unwrap() {
        "replica" => ReplicaKit::load(directory).map(drop),
        "participant" => ParticipantKit::load(directory).map(drop),
        _ => Identity::load(directory).map(drop),
    }
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let folder = written();
    let secrets = [
        ("cleveland/replica", "keys/transaction.key"),
        ("cleveland/replica", "keys/log.key"),
        ("cleveland/replica", "keys/api.key"),
        ("cleveland/participant", "keys/transport.key"),
        ("cleveland/identity", "organisation.key"),
        ("cleveland/identity", "api.key"),
    ];
    for (kit, secret) in secrets {
        let file = folder.path().join(kit).join(secret);
        for mode in [0o640, 0o604] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&folder.path().join(kit)).unwrap_err();
            assert!(matches!(error, KitError::Permissions { mode: found, .. } if found == mode), "{error}");
            assert!(error.to_string().contains("chmod 600"));
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        load(&folder.path().join(kit)).unwrap();
    }
}

#[test]
fn damaged_and_foreign_keys_are_refused() {
    let folder = written();
    let at = |path: &str| folder.path().join(path);
    let key = at("cleveland/replica/keys/transaction.key");
    let good = fs::read(&key).unwrap();
    for damaged in [&b""[..], b"00", &good[1..], b"\xff\xfe", &vec![b'0'; 20_000]] {
        fs::write(&key, damaged).unwrap();
        let error = load(&at("cleveland/replica")).unwrap_err();
        let named = match &error {
            KitError::MalformedKey { file, .. } | KitError::Read { file, .. } | KitError::TooLarge { file, .. } => file,
            _ => panic!("{error}"),
        };
        assert_eq!(*named, key);
    }
    fs::copy(at("budapest/replica/keys/transaction.key"), &key).unwrap();
    let error = load(&at("cleveland/replica")).unwrap_err().to_string();
    assert!(
        error.contains("is not the one that the genesis file or the ledger names for cleveland/replica"),
        "{error}"
    );
    fs::write(&key, good).unwrap();

    // TLS: a key without its certificate, and a pair of another member.
    fs::copy(at("budapest/identity/api.key"), at("cleveland/identity/api.key")).unwrap();
    let error = load(&at("cleveland/identity")).unwrap_err();
    assert!(matches!(error, KitError::ForeignCertificate { .. }), "{error}");
    fs::copy(at("budapest/identity/api.crt"), at("cleveland/identity/api.crt")).unwrap();
    let error = load(&at("cleveland/identity")).unwrap_err();
    assert!(matches!(&error, KitError::ForeignKey { owner, .. } if owner == "cleveland"), "{error}");
    fs::write(at("cleveland/replica/keys/ca.crt"), "no certificate").unwrap();
    let error = load(&at("cleveland/replica")).unwrap_err();
    assert!(matches!(&error, KitError::Certificate { source: CertificateError::NotPem, .. }), "{error}");
}

#[test]
fn mistakes_in_configuration_are_named_with_their_line() {
    let cases = [
        ("replica/node.toml", "api = ", "apis = ", "unknown field `apis`"),
        ("replica/node.toml", "tick_ms = 30", "tick_ms = 0", "`settings.tick_ms` must be 1 to 60000 milliseconds"),
        ("replica/node.toml", "heartbeat_ticks = 3", "heartbeat_ticks = 20", "`settings.election_ticks` must be"),
        ("replica/node.toml", "listen = \"", "listen = \"x", "line 3"),
        ("replica/node.toml", "cleveland/replica", "cleveland/other", "names \"cleveland/other\", which is not in"),
        ("replica/node.toml", "ledger.example.org:9000", "ledger.example.org", "expected host:port"),
        ("participant/policy.toml", "plans = \"any\"", "plans = \"none\"", "expected \"any\" or a list of names"),
        ("participant/policy.toml", "auto_approve = false", "auto_approve = 'no'", "line 2"),
        (
            "participant/node.toml",
            "replica_timeout_ms = 10000",
            "replica_timeout_ms = 1",
            "`settings.replica_timeout_ms`",
        ),
        (
            "participant/node.toml",
            "replica_timeout_ms = 10000",
            "device = \"gpu\"",
            "unknown variant `gpu`, expected `cpu` or `cuda`",
        ),
        ("identity/identity.toml", "cleveland", "paris", "names \"paris\", which is not in"),
    ];
    for (file, from, to, expected) in cases {
        let folder = written();
        let path = folder.path().join("cleveland").join(file);
        replace(&path, from, to);
        let error = load(path.parent().unwrap()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(file), "{file}, {to}: {error}");
    }
}

#[test]
fn another_genesis_file_is_noticed() {
    let (folder, other) = (written(), tempfile::tempdir().unwrap());
    let mut source = 100;
    let provisioned = provision(&described(), &mut || {
        source += 1;
        [source; 32]
    })
    .unwrap();
    write_kits(&provisioned, other.path(), false).unwrap();
    let genesis = folder.path().join("cleveland/replica/genesis.cbor");
    fs::copy(other.path().join("genesis.cbor"), &genesis).unwrap();
    assert!(matches!(load(&folder.path().join("cleveland/replica")), Err(KitError::ForeignKey { .. })));
    fs::write(&genesis, b"\xa0").unwrap();
    assert!(matches!(load(&folder.path().join("cleveland/replica")), Err(KitError::Genesis { .. })));
}

#[test]
fn an_empty_policy_is_the_default_one() {
    assert_eq!(toml::from_str::<SitePolicy>("").unwrap(), SitePolicy::default());
}

#[test]
fn defaults_are_found_from_below_and_resolved() {
    let folder = written();
    let found = CliDefaults::find(&folder.path().join("cleveland/replica/keys")).unwrap().unwrap();
    assert_eq!(found.ledger, Some(folder.path().join("cleveland/replica")));
    assert_eq!(found.identity, Some(folder.path().join("cleveland/identity")));
    assert_eq!(found.connect.first().map(String::as_str), Some("https://127.0.0.1:7101"), "its own replica");
    assert_eq!(found.connect.len(), 2, "and the other one");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(CliDefaults::find(empty.path()).unwrap(), None);
    fs::write(empty.path().join("fedledger.toml"), "connect = 'https://a'").unwrap();
    assert_eq!(CliDefaults::find(empty.path()).unwrap().unwrap().connect, ["https://a"], "a single one");
    fs::write(empty.path().join("fedledger.toml"), "connect = 7").unwrap();
    assert!(CliDefaults::find(empty.path()).unwrap_err().to_string().contains("line 1"));
    fs::write(empty.path().join("fedledger.toml"), "conect = 'https://a'").unwrap();
    let error = CliDefaults::find(empty.path()).unwrap_err().to_string();
    assert!(error.contains("conect") && error.contains("line 1"), "{error}");
}
