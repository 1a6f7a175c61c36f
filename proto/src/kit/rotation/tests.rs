//! Rotations that may happen, and those that must not.

use std::collections::BTreeSet;

use fedledger_federation::member::Node;

use super::*;
use crate::kit::PossessionError;

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

fn chain() -> Digest {
    Digest::of(b"chain")
}

fn member() -> Member {
    let public = |number| key(number).public();
    Member {
        id: "va".into(),
        name: "va".into(),
        roles: BTreeSet::from([fedledger_federation::member::Role::Replica]),
        organisation_key: public(1),
        api_key: public(2),
        nodes: vec![Node {
            name: "va/replica".into(),
            kind: NodeKind::Replica { number: 3, log_key: public(3), cosign_key: public(4) },
            transport_key: public(5),
            transaction_key: public(6),
        }],
    }
}

fn rotated(node: Option<&str>, purpose: KeyPurpose, old: u8, new: u8) -> RotatedKey {
    RotatedKey { node: node.map(String::from), purpose, old: key(old).public(), new: key(new).public() }
}

fn request(keys: Vec<RotatedKey>, secrets: &[SecretKey]) -> RotationRequest {
    let schema = ROTATION_REQUEST_SCHEMA.to_owned();
    let request =
        RotationRequest { schema, chain: chain(), member: "va".into(), keys, possession: Possession::default() };
    request.prove(secrets)
}

#[test]
fn keys_are_replaced_and_nothing_else() {
    let keys = vec![
        rotated(None, KeyPurpose::Organisation, 1, 11),
        rotated(Some("va/replica"), KeyPurpose::Log, 3, 13),
        rotated(Some("va/replica"), KeyPurpose::Transport, 5, 15),
    ];
    let request = request(keys, &[key(11), key(13), key(15)]);
    let read = RotationRequest::from_toml(&request.to_toml().unwrap()).unwrap();
    assert_eq!(read, request);
    let changed = read.check(&chain(), &member()).unwrap();
    let mut expected = member();
    expected.organisation_key = key(11).public();
    expected.nodes[0].transport_key = key(15).public();
    expected.nodes[0].kind = NodeKind::Replica { number: 3, log_key: key(13).public(), cosign_key: key(4).public() };
    assert_eq!(changed, expected);
    assert!(matches!(read.check(&chain(), &changed), Err(RequestError::NotCurrent { .. })), "once only");
    assert!(matches!(read.check(&Digest::of(b"other"), &member()), Err(RequestError::Chain { .. })));
    let other = Member { id: "cleveland".into(), ..member() };
    assert!(matches!(read.check(&chain(), &other), Err(RequestError::NotCurrent { .. })));
}

#[test]
fn rotations_that_make_no_sense_are_refused() {
    assert_eq!(request(Vec::new(), &[]).check(&chain(), &member()), Err(RequestError::Empty));
    let wrong = [
        rotated(None, KeyPurpose::Transport, 5, 15),
        rotated(Some("va/replica"), KeyPurpose::Witness, 3, 13),
        rotated(Some("va/replica"), KeyPurpose::Organisation, 1, 11),
        rotated(Some("va/participant"), KeyPurpose::Transport, 5, 15),
        rotated(Some("va/replica"), KeyPurpose::Transport, 6, 15),
    ];
    for key in wrong {
        let refused = request(vec![key], &[self::key(11), self::key(13), self::key(15)]).check(&chain(), &member());
        assert!(matches!(refused, Err(RequestError::NotCurrent { .. })), "{refused:?}");
    }
    // A key that the member uses for something else already.
    let shared = request(vec![rotated(None, KeyPurpose::Organisation, 1, 6)], &[key(6)]);
    assert!(matches!(shared.check(&chain(), &member()), Err(RequestError::Member(_))));
}

#[test]
fn a_new_key_must_be_held() {
    let keys = vec![rotated(None, KeyPurpose::Organisation, 1, 11)];
    let missing = request(keys.clone(), &[]).check(&chain(), &member());
    assert_eq!(missing, Err(PossessionError::Missing(key(11).public()).into()));
    let mut changed = request(keys, &[key(11)]);
    changed.member = "cleveland".into();
    let other = Member { id: "cleveland".into(), nodes: Vec::new(), roles: BTreeSet::new(), ..member() };
    assert_eq!(changed.check(&chain(), &other), Err(PossessionError::Forged(key(11).public()).into()));
}
