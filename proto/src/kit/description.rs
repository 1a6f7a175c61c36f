//! The description of a consortium, from which it is provisioned.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use fedledger_federation::member::{MemberId, Role};
use serde::{Deserialize, Serialize};

use super::{
    addresses::{self, AddressList},
    config::ReplicaSettings,
    policy::SitePolicy,
};
use crate::endpoint::WebSocketListen;

/// `consortium.toml`. The shortest one names members and what they do:
///
/// ```toml
/// name = "heart"
///
/// [[members]]
/// id = "cleveland"
/// roles = ["replica", "participant", "operator"]
///
/// [[members]]
/// id = "budapest"
/// roles = ["replica", "participant"]
/// replica = { listen = "0.0.0.0:7001", address = "ledger.budapest.example:7001" }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsortiumDescription {
    /// Name of the consortium: lowercase letters, digits and inner hyphens. It is the origin of the checkpoints.
    pub name: String,
    /// Co-signatures that make a checkpoint final. Default: as many as keep two heads from becoming final while at most
    /// a third of the replicas is dishonest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finality_threshold: Option<u64>,
    /// The organisations.
    #[serde(default)]
    pub members: Vec<MemberDescription>,
}

/// One organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberDescription {
    /// Unique and stable: lowercase letters, digits and inner hyphens.
    pub id: MemberId,
    /// For people. Default: the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it may do: `participant`, `replica`, `evaluator`, `auditor`, `operator`, `delegate`. The first two give it
    /// a node.
    #[serde(default)]
    pub roles: BTreeSet<Role>,
    /// Its replica, where the defaults do not suit; implies the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaDescription>,
    /// Its participant, where the defaults do not suit; implies the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantDescription>,
}

/// Where a replica listens and is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicaDescription {
    /// Where it listens for other nodes. Default: `127.0.0.1`, port 7001 for the first replica, 7002 for the second,
    /// ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where it serves the API. Default: `127.0.0.1`, port 7101 for the first replica, 7102 for the second, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<SocketAddr>,
    /// Where it shows its log to whoever asks, over HTTP. Default: `127.0.0.1`, port 7201 for the first replica, 7202
    /// for the second, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Where it listens for other nodes over WebSocket, as `wss://IP:PORT`, for hospitals that let only the web through; or
    /// `ws://IP:PORT` behind a server that speaks TLS. Default: nowhere.
    #[serde(with = "addresses::websocket_text", skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebSocketListen>,
    /// Where other nodes reach it: `host:port`, or a list such as `["ledger.example:7001", "wss://ledger.example"]`.
    /// Default: `listen`, and `websocket`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressList>,
    /// `host:port` at which clients reach its API; the host stands in its certificate. Default: `api`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_address: Option<String>,
    /// Timing and switches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<ReplicaSettings>,
}

/// A participant's data and policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParticipantDescription {
    /// The table with the site's records, seen from the participant's directory. Default: `data.csv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// What its columns mean, seen from the participant's directory. Default: `schema.toml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<PathBuf>,
    /// What the site agrees to. Default: [`SitePolicy::default`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<SitePolicy>,
}

/// Text that describes no consortium.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the description of the consortium is malformed: {0}")]
pub struct DescriptionError(#[from] toml::de::Error);

impl ConsortiumDescription {
    /// Reads a description. What it says is checked by [`provision`](super::provision).
    ///
    /// # Errors
    ///
    /// [`DescriptionError`], which names the line.
    pub fn from_toml(text: &str) -> Result<Self, DescriptionError> {
        Ok(toml::from_str(text)?)
    }

    /// The description as a file.
    ///
    /// # Errors
    ///
    /// A path in it is not valid UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

impl MemberDescription {
    /// The roles, with those that its nodes imply.
    pub fn effective_roles(&self) -> BTreeSet<Role> {
        let mut roles = self.roles.clone();
        roles.extend(self.replica.is_some().then_some(Role::Replica));
        roles.extend(self.participant.is_some().then_some(Role::Participant));
        roles
    }
}
