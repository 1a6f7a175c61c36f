//! Content ids: CIDv1 with SHA-256, as IPLD tools read them.
//!
//! A version is named by the CID of its manifest (codec `dag-cbor`), a file by the CID of its bytes (codec `raw`), whose
//! digest is what `sha256sum` prints. In DAG-CBOR they are links (tag 42), in JSON and on the command line base32 text.

use std::{fmt, str::FromStr};

use cid::Cid;
use fedledger_ledger::Digest;
use multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Multicodec of SHA-256.
const SHA2_256: u64 = 0x12;
/// Multicodec of DAG-CBOR.
const DAG_CBOR: u64 = 0x71;
/// Multicodec of raw bytes.
const RAW: u64 = 0x55;

/// The id of a global model version: the CID of its manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(Digest);

/// The id of a file: the CID of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(Digest);

/// Text or bytes that are not the expected kind of content id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a content id of {expected} (CIDv1, sha2-256)")]
pub struct ContentIdError {
    text: String,
    expected: &'static str,
}

impl VersionId {
    /// The id of the manifest with this SHA-256.
    pub const fn of_manifest(digest: Digest) -> Self {
        Self(digest)
    }

    /// SHA-256 of the manifest.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

impl BlobId {
    /// The id of the file with this SHA-256.
    pub const fn of_file(digest: Digest) -> Self {
        Self(digest)
    }

    /// SHA-256 of the file.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

fn to_cid(codec: u64, digest: &Digest) -> Cid {
    #[expect(clippy::expect_used, reason = "32 bytes always fit into 64")]
    let hash = Multihash::wrap(SHA2_256, digest.as_bytes()).expect("a SHA-256 digest fits");
    Cid::new_v1(codec, hash)
}

fn from_cid(codec: u64, cid: &Cid) -> Option<Digest> {
    let matches = cid.version() == cid::Version::V1 && cid.codec() == codec && cid.hash().code() == SHA2_256;
    let bytes: [u8; 32] = cid.hash().digest().try_into().ok()?;
    matches.then(|| Digest::from_bytes(bytes))
}

fn parse(codec: u64, text: &str, expected: &'static str) -> Result<Digest, ContentIdError> {
    let error = || ContentIdError { text: text.chars().take(80).collect(), expected };
    let cid = Cid::from_str(text).map_err(|_| error())?;
    let digest = from_cid(codec, &cid).ok_or_else(error)?;
    // One spelling per id.
    if to_cid(codec, &digest).to_string() == text { Ok(digest) } else { Err(error()) }
}

fn serialize<S: Serializer>(codec: u64, digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    let cid = to_cid(codec, digest);
    if serializer.is_human_readable() { serializer.serialize_str(&cid.to_string()) } else { cid.serialize(serializer) }
}

fn deserialize<'de, D: Deserializer<'de>>(
    codec: u64,
    expected: &'static str,
    deserializer: D,
) -> Result<Digest, D::Error> {
    if deserializer.is_human_readable() {
        return parse(codec, &String::deserialize(deserializer)?, expected).map_err(D::Error::custom);
    }
    let cid = Cid::deserialize(deserializer)?;
    from_cid(codec, &cid).ok_or_else(|| D::Error::custom(format!("{cid} is not a content id of {expected}")))
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        to_cid(DAG_CBOR, &self.0).fmt(f)
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VersionId {
    type Err = ContentIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(DAG_CBOR, text, "a version").map(Self)
    }
}

impl Serialize for VersionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(DAG_CBOR, &self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for VersionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(DAG_CBOR, "a version", deserializer).map(Self)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        to_cid(RAW, &self.0).fmt(f)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobId {
    type Err = ContentIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(RAW, text, "a file").map(Self)
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(RAW, &self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(RAW, "a file", deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::codec;

    use super::*;

    #[test]
    fn ids_are_those_of_other_ipld_tools() {
        // SHA-256 of the empty string; both spellings are well known.
        let empty = Digest::of(b"");
        assert_eq!(BlobId::of_file(empty).to_string(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        assert_eq!(
            VersionId::of_manifest(Digest::of(&[0xa0])).to_string(),
            "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"
        );
    }

    #[test]
    fn ids_survive_both_encodings() {
        let id = VersionId::of_manifest(Digest::of(b"manifest"));
        assert_eq!(codec::decode::<VersionId>(&codec::encode(&id), 64), Ok(id));
        assert_eq!(serde_json::from_str::<VersionId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn the_id_of_a_file_is_none_of_a_version() {
        let id = BlobId::of_file(Digest::of(b"")).to_string();
        assert!(id.parse::<VersionId>().is_err());
        assert!("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n".parse::<BlobId>().is_err());
    }
}
