//! The directory itself: its configuration, its keys, and whether a process runs in it.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use fedledger_proto::kit::{GENESIS_FILE, GenesisFile, KitError, NODE_FILE, NodeConfig, ParticipantKit, ReplicaKit};

use super::Check;
use crate::context::Context;

/// Locked while a participant runs.
const PARTICIPANT_LOCK: &str = "lock";

/// Locked while a replica runs.
const REPLICA_LOCK: &str = "ledger/LOCK";

/// A directory that is a node's.
pub(super) struct Examined {
    pub directory: PathBuf,
    pub config: NodeConfig,
    pub genesis: GenesisFile,
    pub running: bool,
    /// What the node would start with; none if its keys cannot be opened.
    pub kit: Option<Kit>,
}

/// A node's kit.
pub(super) enum Kit {
    Participant(Box<ParticipantKit>),
    Replica(Box<ReplicaKit>),
}

/// Reads what the node would read when it starts; none if it is not clear which node it is.
pub(super) fn examine(context: &Context, directory: &Path, checks: &mut Vec<Check>) -> Option<Examined> {
    let opened = NodeConfig::load(directory)
        .and_then(|config| GenesisFile::load(&directory.join(GENESIS_FILE)).map(|genesis| (config, genesis)));
    let (config, genesis) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let check = Check::fail("directory", directory.display().to_string(), error.to_string());
            checks.push(check.advise("name the directory that provisioning wrote for this node, or repair the file"));
            return None;
        }
    };
    let found = format!("{NODE_FILE} of {} in the consortium {}", config.name(), genesis.genesis.consortium);
    checks.push(Check::ok("directory", directory.display().to_string(), found));
    let running = is_running(directory, &config);
    let what =
        if running { "a process runs in this directory, which is not disturbed" } else { "no process runs here" };
    checks.push(Check::ok("process", "", what));
    let kit = kit(context, directory, &config, checks);
    Some(Examined { directory: directory.to_owned(), config, genesis, running, kit })
}

fn kit(context: &Context, directory: &Path, config: &NodeConfig, checks: &mut Vec<Check>) -> Option<Kit> {
    let kit = context.unlock(|passphrase| match config {
        NodeConfig::Participant(_) => {
            ParticipantKit::load_with(directory, passphrase).map(|kit| Kit::Participant(Box::new(kit)))
        }
        NodeConfig::Replica(_) => ReplicaKit::load_with(directory, passphrase).map(|kit| Kit::Replica(Box::new(kit))),
    });
    match kit {
        Ok(kit) => {
            let found = "all there, readable by their owner only, those of the genesis file or the record beside it";
            checks.push(Check::ok("keys", "", found));
            Some(kit)
        }
        Err(error @ KitError::Locked { .. }) => {
            let check = Check::warn("keys", "", format!("they were not looked at: {error}"));
            checks.push(check.advise("give the passphrase with --passphrase-file or FEDLEDGER_PASSPHRASE"));
            None
        }
        Err(error) => {
            let check = Check::fail("keys", "", error.to_string());
            checks.push(check.advise("restore the file, or correct its permissions with chmod 600"));
            None
        }
    }
}

/// Whether a process holds the lock of the directory. It is only tried, never kept.
fn is_running(directory: &Path, config: &NodeConfig) -> bool {
    let lock = match config {
        NodeConfig::Participant(_) => PARTICIPANT_LOCK,
        NodeConfig::Replica(_) => REPLICA_LOCK,
    };
    let Ok(file) = File::open(directory.join(lock)) else { return false };
    match config {
        // The node wants the lock alone; asking to share it does not keep it from getting it for longer than this call.
        NodeConfig::Participant(_) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        NodeConfig::Replica(_) => is_locked_by_database(&file),
    }
}

/// RocksDB locks with `fcntl`, which the standard library does not.
#[cfg(unix)]
fn is_locked_by_database(file: &File) -> bool {
    use rustix::fs::{FlockOperation, fcntl_lock};
    fcntl_lock(file, FlockOperation::NonBlockingLockShared).is_err()
}

#[cfg(not(unix))]
fn is_locked_by_database(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}
