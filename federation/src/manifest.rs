//! Manifests: the recipe of a global model version.
//!
//! A manifest says what a version was made from and what came out. It holds nothing that depends on leader, index, time or
//! place, so the same contributions give the same manifest, and its content id is the version's id. Given the files that it
//! names, anybody can make the weights again.

use std::collections::BTreeMap;

use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};

use crate::{
    command::{FileRef, OutputFiles},
    content_id::{BlobId, VersionId},
    member::MemberId,
    plan::Rule,
};

/// The format of manifests.
pub const MANIFEST_SCHEMA: &str = "fedledger.manifest/1";

/// Media type of tensor files.
pub const SAFETENSORS: &str = "application/vnd.safetensors";

/// Role of the version's weights.
pub const WEIGHTS: &str = "weights";

/// Role of the server optimiser's state.
pub const OPTIMIZER_STATE: &str = "optimizer_state";

/// A version's recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_SCHEMA`].
    pub schema: String,
    /// The versions that it was made from; none for an initial version.
    pub parents: Vec<VersionId>,
    /// Files by role.
    pub artifacts: BTreeMap<String, Artifact>,
    /// The plan that was carried out.
    pub plan: Digest,
    /// The round of the plan; 0 for an initial version.
    pub round: u64,
    /// The aggregation rule and its parameters; none for an initial version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// The updates that were aggregated, by member.
    pub contributions: Vec<ContributionRef>,
    /// Contributions that were left out, with the code of the reason.
    pub excluded: BTreeMap<MemberId, String>,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Content id; its digest is the file's SHA-256.
    pub cid: BlobId,
    /// Size in bytes.
    pub size: u64,
    /// Media type (RFC 6838).
    pub media_type: String,
}

/// An aggregated update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContributionRef {
    /// Who contributed.
    pub member: MemberId,
    /// The update file.
    pub update: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// Examples behind it: its weight.
    pub examples: u64,
}

impl Manifest {
    /// The version's id.
    pub fn id(&self) -> VersionId {
        VersionId::of_manifest(Digest::of(&codec::encode(self)))
    }

    /// The weights file.
    pub fn weights(&self) -> Option<FileRef> {
        self.file(WEIGHTS)
    }

    /// The server optimiser's state.
    pub fn optimizer_state(&self) -> Option<FileRef> {
        self.file(OPTIMIZER_STATE)
    }

    /// The weights and, where there is one, the optimiser's state.
    pub fn outputs(&self) -> Option<OutputFiles> {
        Some(OutputFiles { weights: self.weights()?, optimizer_state: self.optimizer_state() })
    }

    fn file(&self, role: &str) -> Option<FileRef> {
        self.artifacts.get(role).map(|artifact| FileRef { digest: *artifact.cid.digest(), size: artifact.size })
    }
}

/// The artifacts that stand for computed files.
pub fn artifacts(outputs: &OutputFiles) -> BTreeMap<String, Artifact> {
    let artifact = |file: FileRef| Artifact {
        cid: BlobId::of_file(file.digest),
        size: file.size,
        media_type: SAFETENSORS.to_owned(),
    };
    let mut artifacts = BTreeMap::from([(WEIGHTS.to_owned(), artifact(outputs.weights))]);
    if let Some(state) = outputs.optimizer_state {
        artifacts.insert(OPTIMIZER_STATE.to_owned(), artifact(state));
    }
    artifacts
}
