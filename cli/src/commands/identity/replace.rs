//! Replacing keys, and changing the passphrase of key files.

use std::{cell::RefCell, path::PathBuf};

use clap::{Args, ValueEnum};
use fedledger_federation::history::Keep;
use fedledger_proto::kit::{
    InstalledSite, KeyPurpose, NodeRole, Passphrase, Protection, ScryptCost, change_passphrase,
};
use serde::Serialize;

use crate::{
    context::Context,
    error::{Exit, Failure},
    output::written,
    passphrase, random,
};

/// The form of a rotation as JSON.
const ROTATION_SCHEMA: &str = "fedledger.rotation/1";
/// The form of a list of changed key files as JSON.
const FILES_SCHEMA: &str = "fedledger.key-files/1";

/// Arguments of `fedledger identity rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// The member's folder, with `identity`, `replica` and `participant`
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Whose keys
    #[arg(long, value_enum, value_name = "NODE")]
    node: Owner,
    /// Which keys; all by default
    #[arg(long, value_enum, value_name = "PURPOSE", value_delimiter = ',', num_args = 1..)]
    purpose: Vec<Purpose>,
    /// File to write the request to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Whose keys are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Owner {
    Replica,
    Participant,
    Organisation,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Purpose {
    Organisation,
    Transport,
    Transaction,
    Log,
    Cosign,
    Witness,
}

/// Arguments of `fedledger identity adopt`.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The member's folder, with `identity`, `replica` and `participant`
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Arguments of `fedledger identity protect`.
#[derive(Debug, Args)]
pub(crate) struct ProtectArgs {
    /// A member's folder, an identity, a node's directory, or the output of `fedledger provision`
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// File with the passphrase of keys that are encrypted already
    #[arg(long, value_name = "FILE")]
    old_passphrase_file: Option<PathBuf>,
}

/// Arguments of `fedledger identity unprotect`.
#[derive(Debug, Args)]
pub(crate) struct UnprotectArgs {
    /// A member's folder, an identity, a node's directory, or the output of `fedledger provision`
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Serialize)]
struct RotationView {
    member: String,
    keys: usize,
    fingerprint: String,
    file: String,
}

#[derive(Debug, Serialize)]
struct FilesView {
    files: Vec<String>,
}

/// Draws keys to follow the current ones.
pub(super) fn rotate(context: &Context, args: &RotateArgs) -> Result<(), Failure> {
    let node = match args.node {
        Owner::Replica => Some(NodeRole::Replica),
        Owner::Participant => Some(NodeRole::Participant),
        Owner::Organisation => None,
    };
    let purposes: Vec<KeyPurpose> = args.purpose.iter().copied().map(KeyPurpose::from).collect();
    let site = InstalledSite::open(&args.dir)?;
    let randomness = RefCell::new(random::source()?);
    let request =
        context.unlock(|passphrase| site.rotate(node, &purposes, passphrase, &mut || (randomness.borrow_mut())()))?;
    let text = request.to_toml().map_err(|error| Failure::because(Exit::Failed, "cannot write the request", error))?;
    written(&args.out, std::fs::write(&args.out, text))?;
    let view = RotationView {
        member: request.member.clone(),
        keys: request.keys.len(),
        fingerprint: request.fingerprint().to_string(),
        file: args.out.display().to_string(),
    };
    context.output.object(ROTATION_SCHEMA, &view, || {
        format!(
            "{} new keys of {} are drawn; the request for them is in {}\nfingerprint  {}\n\
             Next: `fedledger member rotate {}`. The current keys count until that is decided; keep them.",
            view.keys, view.member, view.file, view.fingerprint, view.file
        )
    })
}

/// Takes the keys that the ledger names.
pub(super) fn adopt(context: &Context, args: &AdoptArgs) -> Result<(), Failure> {
    let site = InstalledSite::open(&args.dir)?;
    let (_, history) = context.history(Keep::State)?;
    if *history.state().consortium() != site.genesis().genesis {
        let what = format!("the ledger is of another consortium than {}", args.dir.display());
        return Err(Failure::new(Exit::Failed, what).next("name the right one with --ledger or --connect"));
    }
    let id = &site.member().id;
    let member = history.state().members().get(id);
    let member = member.ok_or_else(|| Failure::new(Exit::Refused, format!("{id} is not a member any more")))?;
    let files = context.unlock(|passphrase| site.clone().adopt(member.clone(), passphrase))?;
    report(context, files, "keys were replaced", "the keys were the current ones already")
}

/// Encrypts keys.
pub(super) fn protect(context: &Context, args: &ProtectArgs) -> Result<(), Failure> {
    let passphrase = passphrase::wanted(true, context)?;
    let new = passphrase.as_ref().map(|passphrase| Protection { passphrase, cost: ScryptCost::default() });
    let old = args.old_passphrase_file.as_deref().map(Passphrase::load).transpose()?;
    let progress = context.output.progress("encrypting the keys");
    let files = change_passphrase(&args.dir, old.as_ref(), new, &mut random::source()?);
    drop(progress);
    let failed = |error| {
        let failure = Failure::because(Exit::Failed, "the passphrase was not changed", error);
        if args.old_passphrase_file.is_some() {
            return failure;
        }
        failure.next("keys that are encrypted already need their passphrase in --old-passphrase-file")
    };
    report(context, files.map_err(failed)?, "key files are encrypted now", "all had this passphrase already")
}

/// Decrypts keys for good.
pub(super) fn unprotect(context: &Context, args: &UnprotectArgs) -> Result<(), Failure> {
    // Without protection nothing is drawn.
    let files = context.unlock(|passphrase| change_passphrase(&args.dir, passphrase, None, &mut || [0; 32]))?;
    report(context, files, "key files are not encrypted any more", "none was encrypted")
}

fn report(context: &Context, files: Vec<PathBuf>, done: &str, nothing: &str) -> Result<(), Failure> {
    let view = FilesView { files: files.iter().map(|file| file.display().to_string()).collect() };
    context.output.object(FILES_SCHEMA, &view, || match view.files.len() {
        0 => nothing.to_owned(),
        count => format!("{count} {done}"),
    })
}

impl From<Purpose> for KeyPurpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Organisation => Self::Organisation,
            Purpose::Transport => Self::Transport,
            Purpose::Transaction => Self::Transaction,
            Purpose::Log => Self::Log,
            Purpose::Cosign => Self::Cosign,
            Purpose::Witness => Self::Witness,
        }
    }
}
