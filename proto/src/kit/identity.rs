//! Loading the identity of a member's people.

use std::path::{Path, PathBuf};

use fedledger_federation::member::MemberId;
use fedledger_ledger::SecretKey;
use serde::{Deserialize, Serialize};

use super::{
    IDENTITY_FILE,
    error::KitError,
    files::{GenesisFile, parse_toml, read_text},
    keys::{self, ORGANISATION_KEY},
    tls::{API_KEY, TlsIdentity},
};

/// Who somebody is to the consortium: the people of a member, with its organisation key and its API key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Where it was loaded from.
    pub directory: PathBuf,
    /// The member.
    pub member: MemberId,
    /// The consortium as it begins.
    pub genesis: GenesisFile,
    /// Signs the member's decisions.
    pub organisation_key: SecretKey,
    /// Identifies the member's people and programs to the API.
    pub tls: TlsIdentity,
}

/// `identity.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityFile {
    /// Id of the member.
    pub member: MemberId,
}

impl Identity {
    /// Loads and checks an identity.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load(directory: &Path) -> Result<Self, KitError> {
        let file = directory.join(IDENTITY_FILE);
        let text = read_text(&file).map_err(|error| match error {
            KitError::Missing { .. } => KitError::NotAnIdentity { directory: directory.to_owned() },
            other => other,
        })?;
        let IdentityFile { member: id } = parse_toml(&text, &file)?;
        let genesis = GenesisFile::of_kit(directory)?;
        let found = genesis.genesis.members.iter().find(|member| member.id == id);
        let member = found.ok_or_else(|| KitError::Unknown { file, name: id.clone() })?;
        let organisation_file = directory.join(ORGANISATION_KEY);
        let organisation_key = keys::load(&organisation_file, &member.organisation_key, &id)?;
        let tls = TlsIdentity::load(directory)?;
        keys::check_owner(tls.public_key(), &directory.join(API_KEY), &member.api_key, &id)?;
        Ok(Self { directory: directory.to_owned(), member: id, genesis, organisation_key, tls })
    }
}
