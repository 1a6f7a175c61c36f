//! Requests that are believed, and every way in which one is not.

use fedledger_federation::member::MemberError;

use super::*;

/// Keys that are none but for a test.
fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

fn all_keys() -> Vec<SecretKey> {
    (1..=10).map(key).collect()
}

fn unsigned() -> MemberRequest {
    let public = |number| key(number).public();
    MemberRequest {
        schema: MEMBER_REQUEST_SCHEMA.to_owned(),
        id: "va".into(),
        name: "V.A. Medical Center".into(),
        roles: [Role::Replica, Role::Participant].into(),
        organisation_key: public(1),
        api_key: public(2),
        replica: Some(ReplicaDescription {
            listen: Some("[::]:7001".parse().unwrap()),
            api: Some("0.0.0.0:7101".parse().unwrap()),
            websocket: None,
            address: Some("ledger.va.example:7001".into()),
            api_address: Some("ledger.va.example:7101".into()),
            http: None,
            settings: Some(Default::default()),
        }),
        nodes: vec![
            RequestedNode::Replica {
                name: "va/replica".into(),
                transport_key: public(3),
                transaction_key: public(4),
                log_key: public(5),
                cosign_key: public(6),
                server_key: public(7),
            },
            RequestedNode::Participant {
                name: "va/participant".into(),
                transport_key: public(8),
                transaction_key: public(9),
                witness_key: public(10),
            },
        ],
        possession: Possession::default(),
    }
}

fn request() -> MemberRequest {
    unsigned().prove(&all_keys())
}

#[test]
fn a_request_survives_its_file_and_gives_the_member() {
    let text = request().to_toml().unwrap();
    let read = MemberRequest::from_toml(&text).unwrap();
    assert_eq!(read, request());
    let member = read.check(Some(5)).unwrap();
    assert_eq!((member.id.as_str(), member.nodes.len()), ("va", 2));
    assert_eq!(member.nodes[0].replica_number(), Some(5));
    assert_eq!(member.nodes[1].transport_key, key(8).public());
    for secret in all_keys() {
        assert!(!text.contains(&hex::encode(secret.seed())));
    }
}

#[test]
fn members_without_nodes_may_ask() {
    let auditor = MemberRequest { roles: [Role::Auditor].into(), replica: None, nodes: Vec::new(), ..unsigned() };
    let auditor = auditor.prove(&all_keys()[..2]);
    assert_eq!(auditor.check(None).unwrap().nodes, []);
    assert_eq!(auditor.check(Some(5)), Err(RequestError::ReplicaNumber));
    assert_eq!(request().check(None), Err(RequestError::ReplicaNumber));
}

#[test]
fn the_fingerprint_is_of_what_is_asked_for() {
    let shown = request().fingerprint().to_string();
    assert_eq!(shown.len(), 8 * 4 + 7);
    assert_eq!(unsigned().fingerprint().to_string(), shown, "signatures are checked, not compared");
    let renamed = MemberRequest { name: "Somebody".into(), ..request() };
    assert_ne!(renamed.fingerprint().to_string(), shown);
}

#[test]
fn a_claim_to_somebody_elses_key_is_refused() {
    let victim = key(200).public();
    // With no signature, with one's own signature in its place, and with the victim's from its own request.
    let claimed = MemberRequest { api_key: victim, ..unsigned() };
    let without: Vec<_> = all_keys().into_iter().filter(|secret| secret.public() != key(2).public()).collect();
    let missing = claimed.clone().prove(&without).check(Some(1));
    assert_eq!(missing, Err(PossessionError::Missing(victim).into()));
    let unnamed = claimed.clone().prove(&all_keys()).check(Some(1));
    assert_eq!(unnamed, Err(PossessionError::Unnamed(key(2).public()).into()));
    let theirs = MemberRequest { api_key: victim, id: "cleveland".into(), ..unsigned() };
    let mut copied = claimed.prove(&without);
    let signature = Possession::prove(DOMAIN, &theirs.digest(), [&key(200)]);
    let text = format!("{}{}", copied.to_toml().unwrap(), toml::to_string(&signature).unwrap());
    copied = MemberRequest::from_toml(&text).unwrap();
    assert_eq!(copied.check(Some(1)), Err(PossessionError::Forged(victim).into()));
    // A signature for another kind of object.
    let other = Possession::prove(b"fedledger/v1/key-rotation\n", &unsigned().digest(), &all_keys());
    let other = MemberRequest { possession: other, ..unsigned() };
    assert!(matches!(other.check(Some(1)), Err(RequestError::Possession(PossessionError::Forged(_)))));
}

#[test]
fn every_changed_character_is_noticed() {
    let text = request().to_toml().unwrap();
    assert!(text.is_ascii());
    for (position, old) in text.bytes().enumerate() {
        let mut bytes = text.clone().into_bytes();
        bytes[position] = if old == b'1' { b'2' } else { b'1' };
        let changed = String::from_utf8(bytes).unwrap();
        let refused = MemberRequest::from_toml(&changed).and_then(|request| request.check(Some(1)));
        assert!(refused.is_err(), "character {position} ({:?}) does not matter", char::from(old));
    }
}

#[test]
fn what_is_no_member_is_refused() {
    let refused = |request: MemberRequest| request.prove(&all_keys()).check(Some(1)).unwrap_err();
    let error = refused(MemberRequest { roles: [Role::Replica].into(), ..unsigned() });
    assert_eq!(error, RequestError::Member(MemberError::RoleWithoutNode("va".into()).into()));
    let error = refused(MemberRequest { id: "../va".into(), ..unsigned() });
    assert!(matches!(error, RequestError::NodeName { .. }), "{error}");
    let error = refused(MemberRequest { api_key: key(1).public(), ..unsigned() });
    assert!(matches!(error, RequestError::Member(GenesisError::Member(MemberError::SharedKey { .. }))), "{error}");
    let mut twice = unsigned();
    twice.nodes.push(twice.nodes[1].clone());
    assert!(matches!(refused(twice), RequestError::Member(GenesisError::Member(_))));
    // The ledger does not know the key of the API, so only the request itself shows that it is used twice.
    let mut shared = unsigned();
    if let RequestedNode::Replica { server_key, .. } = &mut shared.nodes[0] {
        *server_key = key(10).public();
    }
    assert_eq!(refused(shared), RequestError::SharedKey(key(10).public()));
    let participant = vec![unsigned().nodes[1].clone()];
    let addresses = MemberRequest { roles: [Role::Participant].into(), nodes: participant, ..unsigned() };
    assert_eq!(addresses.check(None), Err(RequestError::AddressesWithoutReplica("va".into())));
}

#[test]
fn other_files_are_no_requests() {
    let large = format!("# {}", "x".repeat(REQUEST_SIZE_BYTES_MAX));
    assert_eq!(MemberRequest::from_toml(&large), Err(RequestError::TooLarge));
    let error = MemberRequest::from_toml("schema = 'x'\nidd = 'va'").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    let newer = request().to_toml().unwrap().replace("member-request/1", "member-request/2");
    assert!(matches!(MemberRequest::from_toml(&newer), Err(RequestError::Schema { .. })));
}
