//! Loading the kit of a node.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use fedledger_federation::member::{MemberId, Node, NodeKind};
use fedledger_ledger::SecretKey;
use serde::Deserialize;

use super::{
    KEYS_FOLDER, NODE_FILE, POLICY_FILE,
    config::{NodeConfig, ParticipantConfig, ReplicaConfig},
    error::KitError,
    files::{GenesisFile, parse_toml, read_text},
    keys::{self, COSIGN_KEY, LOG_KEY, TRANSACTION_KEY, TRANSPORT_KEY, WITNESS_KEY},
    policy::SitePolicy,
    tls::TlsIdentity,
};

/// What a node is, as people call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// A replica.
    Replica,
    /// A participant.
    Participant,
}

/// Everything that a replica starts with.
#[derive(Debug, Clone)]
pub struct ReplicaKit {
    /// The node's directory.
    pub directory: PathBuf,
    /// Its configuration.
    pub config: ReplicaConfig,
    /// The consortium as it begins.
    pub genesis: GenesisFile,
    /// The member that runs the node.
    pub member: MemberId,
    /// The replica's number in the Raft configuration, from 1.
    pub number: u64,
    /// Signs its transactions.
    pub transaction_key: SecretKey,
    /// Identifies it to other nodes.
    pub transport_key: SecretKey,
    /// Signs its checkpoints.
    pub log_key: SecretKey,
    /// Co-signs the log's head.
    pub cosign_key: SecretKey,
    /// Identifies its API.
    pub tls: TlsIdentity,
}

/// Everything that a participant starts with.
#[derive(Debug, Clone)]
pub struct ParticipantKit {
    /// The node's directory.
    pub directory: PathBuf,
    /// Its configuration.
    pub config: ParticipantConfig,
    /// What the site agrees to.
    pub policy: SitePolicy,
    /// The consortium as it begins.
    pub genesis: GenesisFile,
    /// The member that runs the node.
    pub member: MemberId,
    /// Signs its transactions.
    pub transaction_key: SecretKey,
    /// Identifies it to other nodes.
    pub transport_key: SecretKey,
    /// Co-signs heads of the log that it has witnessed.
    pub witness_key: SecretKey,
}

impl NodeRole {
    /// The command that starts such a node.
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Replica => "coordinator",
            Self::Participant => "participant",
        }
    }

    const fn of(node: &Node) -> Self {
        match node.kind {
            NodeKind::Replica { .. } => Self::Replica,
            NodeKind::Participant { .. } => Self::Participant,
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replica => "replica",
            Self::Participant => "participant",
        })
    }
}

impl NodeConfig {
    /// Loads `node.toml`; the genesis file beside it says whether it is a replica's or a participant's. No key is read.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file, the line and what to do.
    pub fn load(directory: &Path) -> Result<Self, KitError> {
        let opened = Opened::new(directory)?;
        Ok(match NodeRole::of(opened.node()?.1) {
            NodeRole::Replica => Self::Replica(opened.replica_config()?),
            NodeRole::Participant => Self::Participant(opened.participant_config()?),
        })
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        match self {
            Self::Replica(config) => &config.name,
            Self::Participant(config) => &config.name,
        }
    }
}

impl ReplicaKit {
    /// Loads and checks the kit of a replica.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load(directory: &Path) -> Result<Self, KitError> {
        let opened = Opened::new(directory)?;
        let (member, node) = opened.node()?;
        let NodeKind::Replica { number, log_key, cosign_key } = &node.kind else {
            return Err(opened.wrong_role(NodeRole::Participant, NodeRole::Replica));
        };
        let keys_folder = directory.join(KEYS_FOLDER);
        Ok(Self {
            config: opened.replica_config()?,
            member,
            number: *number,
            transaction_key: keys::load(&keys_folder.join(TRANSACTION_KEY), &node.transaction_key, &node.name)?,
            transport_key: keys::load(&keys_folder.join(TRANSPORT_KEY), &node.transport_key, &node.name)?,
            log_key: keys::load(&keys_folder.join(LOG_KEY), log_key, &node.name)?,
            cosign_key: keys::load(&keys_folder.join(COSIGN_KEY), cosign_key, &node.name)?,
            tls: TlsIdentity::load(&keys_folder)?,
            directory: directory.to_owned(),
            genesis: opened.genesis,
        })
    }
}

impl ParticipantKit {
    /// Loads and checks the kit of a participant.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load(directory: &Path) -> Result<Self, KitError> {
        let opened = Opened::new(directory)?;
        let (member, node) = opened.node()?;
        let NodeKind::Participant { witness_key } = &node.kind else {
            return Err(opened.wrong_role(NodeRole::Replica, NodeRole::Participant));
        };
        let keys_folder = directory.join(KEYS_FOLDER);
        let policy_file = directory.join(POLICY_FILE);
        Ok(Self {
            config: opened.participant_config()?,
            policy: parse_toml(&read_text(&policy_file)?, &policy_file)?,
            member,
            transaction_key: keys::load(&keys_folder.join(TRANSACTION_KEY), &node.transaction_key, &node.name)?,
            transport_key: keys::load(&keys_folder.join(TRANSPORT_KEY), &node.transport_key, &node.name)?,
            witness_key: keys::load(&keys_folder.join(WITNESS_KEY), witness_key, &node.name)?,
            directory: directory.to_owned(),
            genesis: opened.genesis,
        })
    }

    /// The table with the site's records.
    pub fn table_path(&self) -> PathBuf {
        self.directory.join(&self.config.data.table)
    }

    /// What its columns mean.
    pub fn schema_path(&self) -> PathBuf {
        self.directory.join(&self.config.data.schema)
    }
}

/// A node's directory of which the name and the genesis file have been read.
struct Opened {
    directory: PathBuf,
    file: PathBuf,
    text: String,
    name: String,
    genesis: GenesisFile,
}

/// The part of `node.toml` that every node has.
#[derive(Deserialize)]
struct NameOnly {
    name: String,
}

impl Opened {
    fn new(directory: &Path) -> Result<Self, KitError> {
        let file = directory.join(NODE_FILE);
        let text = read_text(&file).map_err(|error| match error {
            KitError::Missing { .. } => KitError::NotANode { directory: directory.to_owned() },
            other => other,
        })?;
        let NameOnly { name } = parse_toml(&text, &file)?;
        let genesis = GenesisFile::of_kit(directory)?;
        Ok(Self { directory: directory.to_owned(), file, text, name, genesis })
    }

    /// The node in the genesis file, and its member.
    fn node(&self) -> Result<(MemberId, &Node), KitError> {
        let found = self.genesis.genesis.nodes().find(|(_, node)| node.name == self.name);
        let (member, node) =
            found.ok_or_else(|| KitError::Unknown { file: self.file.clone(), name: self.name.clone() })?;
        Ok((member.id.clone(), node))
    }

    fn wrong_role(&self, found: NodeRole, needed: NodeRole) -> KitError {
        KitError::WrongRole { directory: self.directory.clone(), node: self.name.clone(), found, needed }
    }

    fn replica_config(&self) -> Result<ReplicaConfig, KitError> {
        let config: ReplicaConfig = parse_toml(&self.text, &self.file)?;
        self.check_setting(config.settings.mistake())?;
        Ok(config)
    }

    fn participant_config(&self) -> Result<ParticipantConfig, KitError> {
        let config: ParticipantConfig = parse_toml(&self.text, &self.file)?;
        self.check_setting(config.settings.mistake())?;
        Ok(config)
    }

    fn check_setting(&self, mistake: Option<(&'static str, &'static str)>) -> Result<(), KitError> {
        match mistake {
            None => Ok(()),
            Some((setting, range)) => Err(KitError::Setting { file: self.file.clone(), setting, range }),
        }
    }
}
