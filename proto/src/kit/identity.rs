//! Loading the identity of a member's people.

use std::path::{Path, PathBuf};

use fedledger_federation::member::{Member, MemberId};
use fedledger_ledger::SecretKey;
use serde::{Deserialize, Serialize};

use super::{
    IDENTITY_FILE,
    error::KitError,
    files::{GenesisFile, parse_toml, read_text},
    keys::{self, Keyring, ORGANISATION_KEY},
    passphrase::Passphrase,
    record,
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
    keys: Keyring,
}

/// `identity.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityFile {
    /// Id of the member.
    pub member: MemberId,
}

impl Identity {
    /// Loads and checks an identity whose keys are not encrypted.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load(directory: &Path) -> Result<Self, KitError> {
        Self::load_with(directory, None)
    }

    /// Loads and checks an identity, with the passphrase of its keys if they are encrypted.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load_with(directory: &Path, passphrase: Option<&Passphrase>) -> Result<Self, KitError> {
        let file = directory.join(IDENTITY_FILE);
        let text = read_text(&file).map_err(|error| match error {
            KitError::Missing { .. } => KitError::NotAnIdentity { directory: directory.to_owned() },
            other => other,
        })?;
        let IdentityFile { member: id } = parse_toml(&text, &file)?;
        let genesis = GenesisFile::of_kit(directory)?;
        let member = record::member(directory, &genesis, &id)?;
        let member = member.ok_or_else(|| KitError::Unknown { file, name: id.clone() })?;
        let keys = Keyring::load(directory, &[ORGANISATION_KEY], passphrase)?;
        let organisation_key = keys.pick(ORGANISATION_KEY, &member.organisation_key, &id)?;
        let tls = TlsIdentity::load(directory, passphrase)?;
        keys::check_owner(tls.public_key(), &directory.join(API_KEY), &member.api_key, &id)?;
        Ok(Self { directory: directory.to_owned(), member: id, genesis, organisation_key, tls, keys })
    }

    /// The identity with the organisation's key that the ledger names now, which may be one that was drawn to follow.
    ///
    /// # Errors
    ///
    /// [`KitError::ForeignKey`] if it is neither here.
    pub fn for_member(self, member: &Member) -> Result<Self, KitError> {
        let organisation_key = self.keys.pick(ORGANISATION_KEY, &member.organisation_key, &self.member)?;
        Ok(Self { organisation_key, ..self })
    }
}
