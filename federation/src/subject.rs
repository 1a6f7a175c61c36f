//! Records of the state that people ask proofs of, and how they are shown.

use std::fmt;

use fedledger_ledger::{PublicKey, codec};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    VersionId, governance::RevokedKey, limits::RECORD_SIZE_BYTES_MAX, member::MemberId, records::MemberRecord,
};

/// Longest key of a record that is looked at, in bytes.
const KEY_SIZE_BYTES_MAX: usize = 64 * 1024;

// The tags of the tables, with which the keys of their records begin.
const VERSIONS: u8 = 4;
const BRANCHES: u8 = 5;
const TAGS: u8 = 6;
const MEMBERS: u8 = 9;
const REVOKED_KEYS: u8 = 10;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Where a branch points.
    Branch(String),
    /// Which version a tag names.
    Tag(String),
    /// A version, with its manifest and what became of it.
    Version(VersionId),
    /// A member as it is now, or as it was last.
    Member(MemberId),
    /// The revocation of a key: there is a record only if it is revoked.
    RevokedKey(PublicKey),
}

impl Subject {
    /// The key of the record.
    pub fn record_key(&self) -> Vec<u8> {
        match self {
            Self::Branch(name) => key(BRANCHES, name),
            Self::Tag(name) => key(TAGS, name),
            Self::Version(id) => key(VERSIONS, id),
            Self::Member(id) => key(MEMBERS, id),
            Self::RevokedKey(revoked) => key(REVOKED_KEYS, revoked),
        }
    }

    /// What the record of a key is about, if it is one of these.
    pub fn of_record_key(bytes: &[u8]) -> Option<Self> {
        let (tag, key) = bytes.split_first()?;
        let text = || codec::decode::<String>(key, KEY_SIZE_BYTES_MAX).ok();
        match *tag {
            BRANCHES => text().map(Self::Branch),
            TAGS => text().map(Self::Tag),
            VERSIONS => codec::decode(key, KEY_SIZE_BYTES_MAX).ok().map(Self::Version),
            MEMBERS => text().map(Self::Member),
            REVOKED_KEYS => codec::decode(key, KEY_SIZE_BYTES_MAX).ok().map(Self::RevokedKey),
            _ => None,
        }
    }

    /// What the record says, in words, or that there is none.
    pub fn statement(&self, value: Option<&[u8]>) -> String {
        match (self, value) {
            (Self::RevokedKey(_), None) => format!("{self} is not revoked"),
            (Self::RevokedKey(_), Some(value)) => match codec::decode::<RevokedKey>(value, RECORD_SIZE_BYTES_MAX) {
                Ok(revoked) => format!("{self} of {} is revoked since entry {}", revoked.owner, revoked.index),
                Err(_) => format!("{self} is revoked"),
            },
            (Self::Member(_), None) => format!("{self} was never in the consortium"),
            (Self::Member(_), Some(value)) => match codec::decode::<MemberRecord>(value, RECORD_SIZE_BYTES_MAX) {
                Ok(MemberRecord { revoked_index: Some(index), .. }) => format!("{self} was excluded by entry {index}"),
                Ok(_) => format!("{self} is in the consortium"),
                Err(_) => format!("{self} is or was in the consortium"),
            },
            (_, None) => format!("{self} does not exist"),
            (_, Some(_)) => format!("{self} is there"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(name) => write!(f, "branch {name}"),
            Self::Tag(name) => write!(f, "tag {name}"),
            Self::Version(id) => write!(f, "version {id}"),
            Self::Member(id) => write!(f, "member {id}"),
            Self::RevokedKey(key) => write!(f, "key {key}"),
        }
    }
}

fn key<K: Serialize>(tag: u8, key: &K) -> Vec<u8> {
    [&[tag], codec::encode(key).as_slice()].concat()
}

/// A record's value as JSON, for people: bytes and content ids become hexadecimal digits. `None` if it is no canonical
/// record.
pub fn record_as_json(value: &[u8]) -> Option<Value> {
    codec::decode_view::<Shown>(value, RECORD_SIZE_BYTES_MAX).ok().map(|shown| shown.0)
}

/// Any value that stands in a record.
struct Shown(Value);

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShownVisitor).map(Self)
    }
}

struct ShownVisitor;

impl<'de> Visitor<'de> for ShownVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a record")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(value.to_string().into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(hex::encode(value).into())
    }

    fn visit_byte_buf<E>(self, value: Vec<u8>) -> Result<Value, E> {
        Ok(hex::encode(value).into())
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Shown(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((key, Shown(value))) = map.next_entry::<String, Shown>()? {
            if values.insert(key, value).is_some() {
                return Err(de::Error::custom("a field stands twice"));
            }
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::Digest;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_subject_is_found_again_from_the_key_of_its_record() {
        let subjects = [
            Subject::Branch("main".to_owned()),
            Subject::Tag("v1".to_owned()),
            Subject::Version(VersionId::of_manifest(Digest::of(b"manifest"))),
            Subject::Member("basel".to_owned()),
            Subject::RevokedKey(PublicKey::from_bytes([7; 32])),
        ];
        for subject in subjects {
            assert_eq!(Subject::of_record_key(&subject.record_key()), Some(subject));
        }
        assert_eq!(Subject::of_record_key(b""), None);
        assert_eq!(Subject::of_record_key(&[200, 0x60]), None);
        assert_eq!(Subject::of_record_key(&[BRANCHES, 0x01]), None, "the name of a branch is text");
    }

    #[test]
    fn a_record_is_shown_whatever_it_holds() {
        #[derive(Serialize)]
        struct Record {
            digest: Digest,
            version: VersionId,
            count: i64,
            none: Option<u64>,
            list: Vec<bool>,
        }
        let digest = Digest::of(b"x");
        let version = VersionId::of_manifest(digest);
        let record = Record { digest, version, count: -3, none: None, list: vec![true] };
        let shown = record_as_json(&codec::encode(&record)).unwrap();
        assert_eq!((&shown["count"], &shown["none"], &shown["list"]), (&json!(-3), &json!(null), &json!([true])));
        assert_eq!(shown["digest"], digest.to_string());
        assert!(shown["version"].as_str().unwrap().contains(&digest.to_string()), "{shown}");
        assert_eq!(record_as_json(&[0xff]), None);
    }
}
