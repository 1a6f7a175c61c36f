//! `member.toml`: what the ledger says of a member, where that is not what the genesis file says.
//!
//! A member that was admitted later, or has replaced keys, starts from this record. Whether it is still right shows when
//! the node has read the ledger.

use std::path::Path;

use fedledger_federation::member::{Member, NodeKind};

use super::{
    error::KitError,
    files::{GenesisFile, parse_toml, read_text},
    request::check_member,
};

/// Name of the file.
pub(super) const RECORD_FILE: &str = "member.toml";

/// The member with this id, as the record or else the genesis file of a directory knows it.
pub(super) fn member(directory: &Path, genesis: &GenesisFile, id: &str) -> Result<Option<Member>, KitError> {
    match read(&directory.join(RECORD_FILE)) {
        Ok(member) if member.id == id => Ok(Some(member)),
        Ok(_) => Err(KitError::Unknown { file: directory.join(RECORD_FILE), name: id.to_owned() }),
        Err(KitError::Missing { .. }) => Ok(genesis.genesis.members.iter().find(|member| member.id == id).cloned()),
        Err(error) => Err(error),
    }
}

fn read(file: &Path) -> Result<Member, KitError> {
    let member: Member = parse_toml(&read_text(file)?, file)?;
    check(&member).map_err(|source| KitError::Record { file: file.to_owned(), source })?;
    Ok(member)
}

/// Checks a member whose replica may have any number.
pub(super) fn check(member: &Member) -> Result<(), fedledger_federation::member::GenesisError> {
    let mut alone = member.clone();
    for node in &mut alone.nodes {
        if let NodeKind::Replica { number, .. } = &mut node.kind {
            *number = 1;
        }
    }
    check_member(alone)
}
