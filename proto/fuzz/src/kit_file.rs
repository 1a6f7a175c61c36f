//! The other files of kits, which people write and send to each other: what is read is written back as the same.

use std::{collections::BTreeSet, fmt::Debug};

use fedledger_federation::member::{Genesis, Member};
use fedledger_ledger::{Digest, SecretKey};
use fedledger_proto::kit::{
    CliDefaults, ConsortiumDescription, MemberRequest, ParticipantConfig, ReplicaConfig, RotationRequest, SitePolicy,
    TlsIdentity, certified_key,
};
use serde::{Serialize, de::DeserializeOwned};

/// Reads the bytes as each kind of file.
pub fn run(data: &[u8]) {
    if let Ok(genesis) = Genesis::parse(data) {
        assert_eq!(genesis.to_bytes(), data, "a genesis file has one encoding");
        assert_eq!(genesis.epoch().number, 0);
    }
    let _ = certified_key(data);
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(identity) = TlsIdentity::new(&SecretKey::from_seed([7; 32]), text.to_owned(), text.to_owned()) {
        assert_eq!(identity.certificate_pem(), text);
    }
    if let Ok(request) = MemberRequest::from_toml(text) {
        again(&request, |text| MemberRequest::from_toml(text).ok());
        for number in [None, Some(1), Some(u64::MAX)] {
            if let Ok(member) = request.check(number) {
                assert_eq!((&member.id, member.nodes.len()), (&request.id, request.nodes.len()));
            }
        }
    }
    if let Ok(request) = RotationRequest::from_toml(text) {
        again(&request, |text| RotationRequest::from_toml(text).ok());
        assert!(request.check(&Digest::of(b"another chain"), &nobody()).is_err(), "nobody's keys were replaced");
    }
    if let Ok(description) = ConsortiumDescription::from_toml(text) {
        again(&description, |text| ConsortiumDescription::from_toml(text).ok());
    }
    check::<ReplicaConfig>(text);
    check::<ParticipantConfig>(text);
    check::<SitePolicy>(text);
    check::<CliDefaults>(text);
}

fn check<T: Debug + PartialEq + Serialize + DeserializeOwned>(text: &str) {
    if let Ok(value) = toml::from_str::<T>(text) {
        again(&value, |text| toml::from_str(text).ok());
    }
}

/// What can be written is read as what it was.
fn again<T: Debug + PartialEq + Serialize>(value: &T, read: impl Fn(&str) -> Option<T>) {
    let text = toml::to_string(value).expect("what was read can be written");
    assert_eq!(read(&text).as_ref(), Some(value), "it was written as something else: {text}");
}

/// A member without nodes.
fn nobody() -> Member {
    Member {
        id: "nobody".to_owned(),
        name: "Nobody".to_owned(),
        roles: BTreeSet::new(),
        organisation_key: SecretKey::from_seed([1; 32]).public(),
        api_key: SecretKey::from_seed([2; 32]).public(),
        nodes: Vec::new(),
    }
}
