//! Replacing keys of a member whose kits are installed.
//!
//! New keys are drawn beside the old ones (`*.key.next`) and asked for with a [`RotationRequest`]. Once the ledger names
//! them, nodes take them by themselves; [`InstalledSite::adopt`] then gives them their names for good.

use std::path::{Path, PathBuf};

use fedledger_federation::member::{Member, NodeKind};
use fedledger_ledger::{PublicKey, SecretKey};
use serde::Deserialize;

use super::SiteError;
use crate::kit::{
    IDENTITY_FILE, IDENTITY_FOLDER, KEYS_FOLDER, KitFile, NODE_FILE, NodeRole, PARTICIPANT_FOLDER, REPLICA_FOLDER,
    error::KitError,
    files::{GenesisFile, parse_toml, read_text},
    identity::IdentityFile,
    keys::{
        self, COSIGN_KEY, LOG_KEY, ORGANISATION_KEY, TRANSACTION_KEY, TRANSPORT_KEY, WITNESS_KEY, check_owner, next_of,
    },
    member_files::record_text,
    node_name,
    passphrase::Passphrase,
    possession::Possession,
    protection::{self, Protection, ScryptCost},
    record::{self, RECORD_FILE},
    rotation::{KeyPurpose, ROTATION_REQUEST_SCHEMA, RotatedKey, RotationRequest},
    write::{rename, replace_file},
};

/// A member's folder with kits that nodes and people start from; some of them may lie on other machines.
#[derive(Debug, Clone)]
pub struct InstalledSite {
    directory: PathBuf,
    genesis: GenesisFile,
    member: Member,
}

/// The part of `node.toml` that every node has.
#[derive(Deserialize)]
struct NameOnly {
    name: String,
}

/// A key file that the ledger names the public half of.
struct NamedKey {
    node: Option<String>,
    purpose: KeyPurpose,
    file: PathBuf,
    current: PublicKey,
}

impl InstalledSite {
    /// Opens a member's folder.
    ///
    /// # Errors
    ///
    /// [`SiteError`], which names the file.
    pub fn open(directory: &Path) -> Result<Self, SiteError> {
        for folder in [IDENTITY_FOLDER, REPLICA_FOLDER, PARTICIPANT_FOLDER] {
            let kit = directory.join(folder);
            let id = match member_of(&kit) {
                Ok(id) => id,
                Err(KitError::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let genesis = GenesisFile::of_kit(&kit)?;
            let member = record::member(&kit, &genesis, &id)?;
            let member = member.ok_or(KitError::Unknown { file: kit, name: id })?;
            return Ok(Self { directory: directory.to_owned(), genesis, member });
        }
        Err(SiteError::NotInstalled { directory: directory.to_owned() })
    }

    /// The member, as it was known when its kits were written or its keys last adopted.
    pub const fn member(&self) -> &Member {
        &self.member
    }

    /// The consortium as it begins.
    pub const fn genesis(&self) -> &GenesisFile {
        &self.genesis
    }

    /// Draws new keys to follow those of a node, or of the organisation, and makes the request for them: all keys, or
    /// those with these purposes. Keys that were drawn before and are not in use yet are asked for again.
    ///
    /// A new key is encrypted if the current one is.
    ///
    /// # Errors
    ///
    /// [`SiteError`]: a key is missing, or is not the one that the consortium knows.
    pub fn rotate(
        &self,
        node: Option<NodeRole>,
        purposes: &[KeyPurpose],
        passphrase: Option<&Passphrase>,
        randomness: &mut dyn FnMut() -> [u8; 32],
    ) -> Result<RotationRequest, SiteError> {
        let chosen = self.choose(node, purposes)?;
        let mut rotated = Vec::new();
        let mut secrets = Vec::new();
        for NamedKey { node, purpose, file, current } in chosen {
            let owner = node.as_deref().unwrap_or(&self.member.id);
            check_owner(&keys::read(&file, passphrase)?.public(), &file, &current, owner)?;
            let key = following(&file, passphrase, randomness)?;
            rotated.push(RotatedKey { node, purpose, old: current, new: key.public() });
            secrets.push(key);
        }
        let request = RotationRequest {
            schema: ROTATION_REQUEST_SCHEMA.to_owned(),
            chain: self.genesis.chain,
            member: self.member.id.clone(),
            keys: rotated,
            possession: Possession::default(),
        };
        Ok(request.prove(&secrets))
    }

    /// Takes what the ledger says of the member now: records it, and gives keys that were drawn to follow, and are
    /// named by now, their names for good. The old keys are gone afterwards. Gives the files that were replaced.
    ///
    /// # Errors
    ///
    /// [`SiteError`]; unless every key that the ledger names is here, nothing is changed.
    pub fn adopt(mut self, member: Member, passphrase: Option<&Passphrase>) -> Result<Vec<PathBuf>, SiteError> {
        if member.id != self.member.id {
            let (approval, found) = (self.directory.clone(), member.id);
            return Err(SiteError::OtherMember { approval, found, expected: self.member.id });
        }
        self.member = member;
        let mut replaced = Vec::new();
        for NamedKey { node, file, current, .. } in self.named_keys() {
            if keys::read(&file, passphrase)?.public() == current {
                continue;
            }
            let next = next_of(&file);
            let owner = node.as_deref().unwrap_or(&self.member.id);
            match keys::read(&next, passphrase) {
                Ok(key) => check_owner(&key.public(), &next, &current, owner)?,
                Err(KitError::Missing { .. }) => {
                    let key = keys::read(&file, passphrase)?.public();
                    check_owner(&key, &file, &current, owner)?;
                }
                Err(error) => return Err(error.into()),
            }
            replaced.push(file);
        }
        // With the record, either of two keys is found; so the record comes first.
        let text = record_text(&self.member)?.into_bytes();
        for folder in self.kits() {
            let file = KitFile { bytes: text.clone(), secret: false };
            replace_file(&folder.join(RECORD_FILE), &file)?;
        }
        for file in &replaced {
            rename(&next_of(file), file)?;
        }
        Ok(replaced)
    }

    /// The folders that are here.
    fn kits(&self) -> impl Iterator<Item = PathBuf> {
        let folders = [IDENTITY_FOLDER, REPLICA_FOLDER, PARTICIPANT_FOLDER].map(|folder| self.directory.join(folder));
        folders.into_iter().filter(|folder| folder.join(IDENTITY_FILE).exists() || folder.join(NODE_FILE).exists())
    }

    /// Every key here that the ledger names.
    fn named_keys(&self) -> Vec<NamedKey> {
        let kits: Vec<PathBuf> = self.kits().collect();
        let mut found = Vec::new();
        let identity = self.directory.join(IDENTITY_FOLDER);
        if kits.contains(&identity) {
            let (purpose, current) = (KeyPurpose::Organisation, self.member.organisation_key);
            found.push(NamedKey { node: None, purpose, file: identity.join(ORGANISATION_KEY), current });
        }
        for node in &self.member.nodes {
            let (folder, own) = match &node.kind {
                NodeKind::Replica { log_key, cosign_key, .. } => (
                    REPLICA_FOLDER,
                    vec![(KeyPurpose::Log, LOG_KEY, *log_key), (KeyPurpose::Cosign, COSIGN_KEY, *cosign_key)],
                ),
                NodeKind::Participant { witness_key } => {
                    (PARTICIPANT_FOLDER, vec![(KeyPurpose::Witness, WITNESS_KEY, *witness_key)])
                }
            };
            let folder = self.directory.join(folder);
            if !kits.contains(&folder) {
                continue;
            }
            let common = [
                (KeyPurpose::Transport, TRANSPORT_KEY, node.transport_key),
                (KeyPurpose::Transaction, TRANSACTION_KEY, node.transaction_key),
            ];
            for (purpose, name, current) in common.into_iter().chain(own) {
                let file = folder.join(KEYS_FOLDER).join(name);
                found.push(NamedKey { node: Some(node.name.clone()), purpose, file, current });
            }
        }
        found
    }

    fn choose(&self, node: Option<NodeRole>, purposes: &[KeyPurpose]) -> Result<Vec<NamedKey>, SiteError> {
        let folder = match node {
            None => "organisation",
            Some(NodeRole::Replica) => REPLICA_FOLDER,
            Some(NodeRole::Participant) => PARTICIPANT_FOLDER,
        };
        let name = node.map(|_| node_name(&self.member.id, folder));
        let of_node: Vec<NamedKey> = self.named_keys().into_iter().filter(|key| key.node == name).collect();
        if of_node.is_empty() {
            let (member, directory) = (self.member.id.clone(), self.directory.clone());
            return Err(SiteError::NoNode { member, node: folder, directory });
        }
        if let Some(purpose) = purposes.iter().find(|purpose| !of_node.iter().any(|key| key.purpose == **purpose)) {
            return Err(SiteError::NoKey { node: folder, purpose: purpose.name() });
        }
        Ok(of_node.into_iter().filter(|key| purposes.is_empty() || purposes.contains(&key.purpose)).collect())
    }
}

/// The member that a kit belongs to.
fn member_of(kit: &Path) -> Result<String, KitError> {
    let identity = kit.join(IDENTITY_FILE);
    match read_text(&identity) {
        Ok(text) => return Ok(parse_toml::<IdentityFile>(&text, &identity)?.member),
        Err(KitError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let file = kit.join(NODE_FILE);
    let NameOnly { name } = parse_toml(&read_text(&file)?, &file)?;
    match name.split_once('/') {
        Some((member, _)) => Ok(member.to_owned()),
        None => Err(KitError::Unknown { file, name }),
    }
}

/// The key that is to follow the one in `file`, drawn if there is none yet.
fn following(
    file: &Path,
    passphrase: Option<&Passphrase>,
    randomness: &mut dyn FnMut() -> [u8; 32],
) -> Result<SecretKey, SiteError> {
    let next = next_of(file);
    match keys::read(&next, passphrase) {
        Err(KitError::Missing { .. }) => {}
        found => return Ok(found?),
    }
    let key = SecretKey::from_seed(randomness());
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let bytes = match passphrase {
        Some(passphrase) if keys::is_encrypted(file)? => {
            let protection = Protection { passphrase, cost: ScryptCost::default() };
            protection::encrypt(&key, protection, randomness())?.into_bytes()
        }
        _ => keys::to_text(name, &key)?.as_bytes().to_vec(),
    };
    replace_file(&next, &KitFile { bytes, secret: true })?;
    Ok(key)
}
