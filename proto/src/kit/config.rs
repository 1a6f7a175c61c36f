//! `node.toml`: what a node is told when it starts. Relative paths start from the node's directory.

use std::{collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU64, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{ByteSize, TrainerConfig, TransferConfig, addresses};
use crate::endpoint::{NodeAddress, WebSocketListen};

/// The configuration of a node, by what the genesis file says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeConfig {
    /// Of a replica.
    Replica(ReplicaConfig),
    /// Of a participant.
    Participant(ParticipantConfig),
}

/// `node.toml` of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaConfig {
    /// Name of the node in the genesis file, such as `cleveland/replica`.
    pub name: String,
    /// Where it listens for other nodes, with QUIC and TCP on the same port.
    pub listen: SocketAddr,
    /// Where it listens for other nodes over WebSocket, as `wss://IP:PORT`, or `ws://IP:PORT` behind a server that speaks
    /// TLS; nowhere if it is absent.
    #[serde(default, with = "addresses::websocket_text", skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebSocketListen>,
    /// Where it serves the gRPC API.
    pub api: SocketAddr,
    /// Where it shows its log to whoever asks, over HTTP (C2SP tlog-tiles); nowhere if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Timing and switches.
    #[serde(default)]
    pub settings: ReplicaSettings,
    /// What files may take of its connection.
    #[serde(default, skip_serializing_if = "TransferConfig::is_unlimited")]
    pub transfers: TransferConfig,
    /// Every replica with the addresses at which this node reaches it; this node itself may be among them.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
}

/// `node.toml` of a participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantConfig {
    /// Name of the node in the genesis file, such as `cleveland/participant`.
    pub name: String,
    /// The site's data.
    pub data: DataConfig,
    /// Timing and limits.
    #[serde(default)]
    pub settings: ParticipantSettings,
    /// What files may take of its connection.
    #[serde(default, skip_serializing_if = "TransferConfig::is_unlimited")]
    pub transfers: TransferConfig,
    /// Programs that may train here, by the names that plans know them by. None but these is ever run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trainers: BTreeMap<String, TrainerConfig>,
    /// Every replica with the addresses at which this node reaches it. A participant dials out only.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
}

/// Where a participant's data lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The table with the site's records.
    pub table: PathBuf,
    /// What its columns mean.
    pub schema: PathBuf,
}

/// A replica as other nodes reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Name of the node in the genesis file.
    pub name: String,
    /// Its address, or a list of those that are tried: `host:port` for QUIC and TCP, `wss://host` for WebSocket.
    #[serde(rename = "address", with = "addresses")]
    pub addresses: Vec<NodeAddress>,
}

/// A replica's timing and switches. The defaults suit a local network; over slow links raise `tick_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicaSettings {
    /// Length of a Raft tick, in milliseconds.
    pub tick_ms: u64,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Ticks without a leader after which an election begins at the earliest; at the latest it begins after twice as
    /// many.
    pub election_ticks: u32,
    /// Whether the API describes itself to tools such as grpcurl (gRPC reflection).
    pub reflection: bool,
}

impl Default for ReplicaSettings {
    fn default() -> Self {
        Self { tick_ms: 30, heartbeat_ticks: 3, election_ticks: 20, reflection: false }
    }
}

/// Longest tick, in milliseconds.
const TICK_MS_MAX: u64 = 60_000;
/// Longest election timeout, in ticks.
const ELECTION_TICKS_MAX: u32 = 10_000;

impl ReplicaSettings {
    /// The first setting out of its range, with the range.
    pub(super) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        if !(1..=TICK_MS_MAX).contains(&self.tick_ms) {
            return Some(("settings.tick_ms", "1 to 60000 milliseconds"));
        }
        if self.heartbeat_ticks == 0 {
            return Some(("settings.heartbeat_ticks", "at least 1"));
        }
        if self.election_ticks <= self.heartbeat_ticks || self.election_ticks > ELECTION_TICKS_MAX {
            return Some(("settings.election_ticks", "more than `settings.heartbeat_ticks` and at most 10000"));
        }
        None
    }
}

/// A participant's timing and limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParticipantSettings {
    /// How long a replica may stay silent before another one is asked, in milliseconds.
    pub replica_timeout_ms: u64,
    /// Memory that a training may take, the site's records included; if it is absent, three quarters of the machine's, where the
    /// system tells that. A round of which the estimate is higher is declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<ByteSize>,
    /// Most steps of training between two local checkpoints, which are also saved by time; by time alone if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps_max: Option<NonZeroU64>,
    /// Where built-in training computes its gradients.
    #[serde(skip_serializing_if = "ComputeDevice::is_default")]
    pub device: ComputeDevice,
}

impl Default for ParticipantSettings {
    fn default() -> Self {
        Self {
            replica_timeout_ms: 10_000,
            memory_max: None,
            checkpoint_steps_max: None,
            device: ComputeDevice::default(),
        }
    }
}

/// What computes the gradients of built-in training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// The first CUDA device. Where there is none, nothing is trained.
    Cuda,
}

impl ComputeDevice {
    /// Its name in `node.toml` and in the description of the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ParticipantSettings {
    /// The first setting out of its range, with the range.
    pub(super) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        let allowed = (100..=3_600_000).contains(&self.replica_timeout_ms);
        (!allowed).then_some(("settings.replica_timeout_ms", "100 to 3600000 milliseconds"))
    }
}
