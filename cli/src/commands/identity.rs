//! `fedledger identity`: keys that are made on site and never leave it.

mod approve;
mod make;
mod replace;
pub(crate) mod requests;

use clap::Subcommand;

use crate::{context::Context, error::Failure};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Draw a member's keys into a directory of its own
    New(make::NewArgs),
    /// Write the public half of the keys, to be sent to the consortium
    Request(make::RequestArgs),
    /// Check requests of members, and write what an admitted one starts from
    Approve(approve::ApproveArgs),
    /// Merge what the consortium sent back into the directory with the keys
    Install(make::InstallArgs),
    /// Draw new keys to follow the current ones, and write the request for them
    Rotate(replace::RotateArgs),
    /// Take the keys that the ledger names by now
    Adopt(replace::AdoptArgs),
    /// Encrypt the keys of a directory with a passphrase, or change it
    Protect(replace::ProtectArgs),
    /// Store the keys of a directory without a passphrase
    Unprotect(replace::UnprotectArgs),
}

/// Does it.
pub(crate) fn run(context: &Context, command: IdentityCommand) -> Result<(), Failure> {
    match command {
        IdentityCommand::New(args) => make::new(context, args),
        IdentityCommand::Request(args) => make::request(context, &args),
        IdentityCommand::Approve(args) => approve::run(context, &args),
        IdentityCommand::Install(args) => make::install(context, &args),
        IdentityCommand::Rotate(args) => replace::rotate(context, &args),
        IdentityCommand::Adopt(args) => replace::adopt(context, &args),
        IdentityCommand::Protect(args) => replace::protect(context, &args),
        IdentityCommand::Unprotect(args) => replace::unprotect(context, &args),
    }
}
