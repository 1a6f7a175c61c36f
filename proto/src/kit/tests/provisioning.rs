//! What a description becomes.

use fedledger_federation::member::{Genesis, GenesisError, MemberError, NodeKind, Role};
use fedledger_ledger::{Digest, limits::LEAF_SIZE_BYTES_MAX};

use super::*;

#[test]
fn the_genesis_file_is_valid_and_names_every_node() {
    let provisioned = provisioned(&described()).unwrap();
    let genesis = Genesis::parse(&provisioned.files[Path::new("genesis.cbor")].bytes).unwrap();
    assert_eq!(genesis, provisioned.genesis);
    assert_eq!((genesis.consortium.as_str(), genesis.finality_threshold), ("heart", 2));
    let members: Vec<_> = genesis.members.iter().map(|member| (member.id.as_str(), member.name.as_str())).collect();
    assert_eq!(members, [("budapest", "budapest"), ("cleveland", "Cleveland Clinic"), ("regulator", "regulator")]);
    let budapest = genesis.members.iter().find(|member| member.id == "budapest").unwrap();
    assert!(budapest.roles.contains(&Role::Replica), "implied by its table");
    let numbers: Vec<_> = genesis
        .replicas()
        .filter_map(|(_, node)| match node.kind {
            NodeKind::Replica { number, .. } => Some((node.name.as_str(), number)),
            NodeKind::Participant { .. } => None,
        })
        .collect();
    assert_eq!(numbers, [("budapest/replica", 2), ("cleveland/replica", 1)], "numbered as described");
}

#[test]
fn exactly_the_documented_files_are_made() {
    let provisioned = provisioned(&described()).unwrap();
    let node = ["genesis.cbor", "keys/transaction.key", "keys/transport.key", "node.toml"];
    let replica = ["keys/api.crt", "keys/api.key", "keys/ca.crt", "keys/cosign.key", "keys/log.key"];
    let participant = ["keys/ca.crt", "keys/witness.key", "policy.toml"];
    let identity = ["api.crt", "api.key", "ca.crt", "genesis.cbor", "identity.toml", "organisation.key"];
    let mut expected: Vec<String> =
        ["ca/ca.crt", "ca/ca.key", "fedledger.toml", "genesis.cbor"].map(String::from).into();
    for member in ["budapest", "cleveland"] {
        expected.extend(node.iter().chain(&replica).map(|file| format!("{member}/replica/{file}")));
        expected.extend(node.iter().chain(&participant).map(|file| format!("{member}/participant/{file}")));
    }
    for member in ["budapest", "cleveland", "regulator"] {
        expected.extend(identity.map(|file| format!("{member}/identity/{file}")));
    }
    expected.sort();
    let mut found: Vec<String> = provisioned.files.keys().map(|path| path.to_str().unwrap().to_owned()).collect();
    found.sort();
    assert_eq!(found, expected);
    for (path, file) in &provisioned.files {
        assert_eq!(file.secret, path.extension().is_some_and(|extension| extension == "key"), "{}", path.display());
    }
}

#[test]
fn the_same_description_and_randomness_give_the_same_files() {
    assert_eq!(provisioned(&described()).unwrap().files, provisioned(&described()).unwrap().files);
    let mut shorter = described();
    shorter.members.pop();
    let (a, b) = (provisioned(&described()).unwrap(), provisioned(&shorter).unwrap());
    assert_ne!(a.genesis.salt, provision(&described(), &mut counter(100)).unwrap().genesis.salt);
    assert_eq!(a.genesis.members[0].nodes, b.genesis.members[0].nodes);
}

fn counter(mut start: u8) -> impl FnMut() -> [u8; 32] {
    move || {
        start += 1;
        [start; 32]
    }
}

#[test]
fn no_two_keys_are_the_same() {
    // `Genesis::check` sees the keys that it names; these are all.
    let mut drawn = 0;
    let mut source = counter(0);
    provision(&described(), &mut || {
        drawn += 1;
        source()
    })
    .unwrap();
    // Salt and authority; two keys per identity; five per replica; three per participant.
    assert_eq!(drawn, 2 + 3 * 2 + 2 * 5 + 2 * 3);
}

#[test]
fn a_description_survives_being_written() {
    let text = described().to_toml().unwrap();
    assert_eq!(ConsortiumDescription::from_toml(&text).unwrap(), described());
}

#[test]
fn default_ports_count_up() {
    let description =
        "name = 'heart'\n[[members]]\nid = 'a'\nroles = ['replica']\n[[members]]\nid = 'b'\nroles = ['replica']";
    let provisioned = provisioned(&ConsortiumDescription::from_toml(description).unwrap()).unwrap();
    let text = |path: &str| String::from_utf8(provisioned.files[Path::new(path)].bytes.clone()).unwrap();
    assert!(
        text("a/replica/node.toml")
            .contains("listen = \"127.0.0.1:7001\"\napi = \"127.0.0.1:7101\"\nhttp = \"127.0.0.1:7201\"\n")
    );
    assert!(
        text("b/replica/node.toml")
            .contains("listen = \"127.0.0.1:7002\"\napi = \"127.0.0.1:7102\"\nhttp = \"127.0.0.1:7202\"\n")
    );
    let connect = "connect = [\"https://127.0.0.1:7101\", \"https://127.0.0.1:7102\"]\n";
    assert!(text("fedledger.toml").contains(connect), "{}", text("fedledger.toml"));
}

#[test]
fn mistakes_are_named_with_their_line() {
    let cases = [
        ("name = 'heart'\nthreshold = 3", "line 2", "threshold"),
        ("name = 'heart'\n[[members]]\nid = 'a'\nroles = ['janitor']", "line 4", "janitor"),
        ("name = 'heart'\n[[members]]\nroles = ['replica']", "line 2", "missing field `id`"),
        ("name = 'heart'\n[[members]]\nid = 'a'\nreplica = { listen = 'here' }", "line 4", "socket address"),
        ("[[members]]\nid = 'a'", "line 1", "missing field `name`"),
        ("name = 'heart", "line 1", "name = 'heart"),
    ];
    for (text, line, what) in cases {
        let error = ConsortiumDescription::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(what), "{text:?}: {error}");
    }
}

#[test]
fn impossible_consortia_are_refused() {
    let refused = |members: &str| {
        let description = ConsortiumDescription::from_toml(&format!("name = 'heart'\n{members}")).unwrap();
        provisioned(&description).map(|provisioned| provisioned.genesis).unwrap_err()
    };
    let member = |id: &str, rest: &str| format!("[[members]]\nid = '{id}'\n{rest}\n");
    assert_eq!(refused(""), ProvisionError::NoReplica);
    assert_eq!(refused(&member("a", "roles = ['participant']")), ProvisionError::NoReplica);
    let twice = member("a", "roles = ['replica']") + &member("a", "");
    assert_eq!(refused(&twice), ProvisionError::Genesis(GenesisError::Order("a".into())));
    assert_eq!(refused(&member("ca", "roles = ['replica']")), ProvisionError::ReservedId("ca".into()));
    let outside = member("../a", "roles = ['replica']");
    assert_eq!(refused(&outside), ProvisionError::Genesis(GenesisError::Member(MemberError::Name("../a".into()))));
    let everywhere = refused(&member("a", "replica = { listen = '0.0.0.0:7001' }"));
    assert!(matches!(everywhere, ProvisionError::Unreachable { setting: "address", .. }), "{everywhere}");
    let everywhere = refused(&member("a", "replica = { api = '[::]:7101' }"));
    assert!(matches!(everywhere, ProvisionError::Unreachable { setting: "api_address", .. }), "{everywhere}");
    let malformed = refused(&member("a", "replica = { address = 'a b:1' }"));
    assert!(matches!(malformed, ProvisionError::NodeAddress { .. }), "{malformed}");
    let slow = refused(&member("a", "replica = { settings = { election_ticks = 2 } }"));
    assert!(matches!(slow, ProvisionError::Setting { setting: "settings.election_ticks", .. }), "{slow}");
    let same = member("a", "roles = ['replica']") + &member("b", "replica = { listen = '127.0.0.1:7101' }");
    let same = refused(&same).to_string();
    assert_eq!(same, "the API of a and the replica of b are both at 127.0.0.1:7101: give one of them another port");
    let same = refused(&member("a", "replica = { http = '127.0.0.1:7101' }")).to_string();
    let expected = "the API of a and the HTTP server of a are both at 127.0.0.1:7101: give one of them another port";
    assert_eq!(same, expected);
}

#[test]
fn a_consortium_begins_with_as_many_members_as_the_genesis_file_takes() {
    let described = |count: u32| {
        let member = |number: u32| {
            let roles = if number <= 50 { "'replica', 'participant'" } else { "'participant'" };
            format!("[[members]]\nid = 'hospital-{number}'\nroles = [{roles}]\n")
        };
        let members: String = (1..=count).map(member).collect();
        ConsortiumDescription::from_toml(&format!("name = 'heart'\n{members}")).unwrap()
    };
    let mut randomness = (0_u64..).map(|drawn| *Digest::of(&drawn.to_be_bytes()).as_bytes());
    let mut provision = |count| provision(&described(count), &mut || randomness.next().unwrap());
    let genesis = provision(100).unwrap().genesis.to_bytes();
    assert!(genesis.len() <= LEAF_SIZE_BYTES_MAX, "{} bytes", genesis.len());
    let refused = provision(400).unwrap_err();
    assert!(matches!(refused, ProvisionError::Genesis(GenesisError::TooLarge(_))), "{refused}");
}

#[test]
fn an_unreachable_threshold_is_refused() {
    let description = ConsortiumDescription { finality_threshold: Some(3), ..described() };
    let refused = provisioned(&description).unwrap_err();
    let expected = GenesisError::FinalityThreshold { threshold: 3, replicas: 2 };
    assert_eq!(refused, ProvisionError::Genesis(expected));
}

#[test]
fn a_replica_may_be_reached_in_several_ways() {
    let description = ConsortiumDescription::from_toml(
        "name = 'heart'\n[[members]]\nid = 'a'\nroles = ['participant']\n\
         replica = { websocket = 'wss://0.0.0.0:443', address = ['a.org:7001', 'wss://web.a.org'] }\n\
         [[members]]\nid = 'b'\nreplica = { websocket = 'ws://127.0.0.1:8080' }\n",
    )
    .unwrap();
    let files = provisioned(&description).unwrap().files;
    let text = |path: &str| String::from_utf8(files[Path::new(path)].bytes.clone()).unwrap();
    let replica = text("a/replica/node.toml");
    assert!(replica.contains("websocket = \"wss://0.0.0.0:443\""), "{replica}");
    let peers = text("a/participant/node.toml");
    assert!(peers.contains("address = [\"a.org:7001\", \"wss://web.a.org:443\"]"), "{peers}");
    assert!(peers.contains("address = [\"127.0.0.1:7002\", \"ws://127.0.0.1:8080\"]"), "{peers}");
    assert_eq!(text("a/participant/keys/ca.crt"), text("ca/ca.crt"), "what a replica shows over WebSocket is checked");
    let (_, pem) = x509_parser::pem::parse_x509_pem(text("a/replica/keys/api.crt").as_bytes()).unwrap();
    let certificate = String::from_utf8_lossy(&pem.contents).into_owned();
    assert!(certificate.contains("web.a.org"), "the name under which it is reached is certified");

    let taken = "name = 'heart'\n[[members]]\nid = 'a'\nreplica = { websocket = 'wss://127.0.0.1:7101' }";
    let error = provisioned(&ConsortiumDescription::from_toml(taken).unwrap()).unwrap_err().to_string();
    assert!(error.contains("the API of a and the WebSocket of a are both at 127.0.0.1:7101"), "{error}");
    let named = "name = 'heart'\n[[members]]\nid = 'a'\nreplica = { websocket = 'wss://a.org' }";
    let error = ConsortiumDescription::from_toml(named).unwrap_err().to_string();
    assert!(error.contains("wss://IP:PORT"), "{error}");
}
