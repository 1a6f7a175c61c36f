//! `fedledger prove`: receipts of entries and records, in one file each, and checking them.

mod check;
mod make;
mod view;

use std::path::PathBuf;

use clap::Args;

pub(crate) use self::{
    check::{check_receipt, check_state_receipt},
    view::report,
};
use crate::{
    context::{Context, read_file},
    error::{Exit, Failure},
    trust::{Trust, TrustArgs},
};

/// Arguments of `fedledger prove`.
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// Index of the entry to prove
    #[arg(group = "subject")]
    entry: Option<u64>,
    /// Prove where a branch points
    #[arg(long, value_name = "NAME", group = "subject")]
    branch: Option<String>,
    /// Prove which version a tag names
    #[arg(long, value_name = "NAME", group = "subject")]
    tag: Option<String>,
    /// Prove what is recorded of a version: its manifest, and whether it is attested or revoked
    #[arg(long = "version", id = "version-id", value_name = "VERSION", group = "subject")]
    version: Option<String>,
    /// Prove that a member is in the consortium, or not
    #[arg(long, value_name = "ID", group = "subject")]
    member: Option<String>,
    /// Prove whether a key is revoked
    #[arg(long, value_name = "KEY", group = "subject", visible_alias = "key-not-revoked")]
    revoked_key: Option<String>,
    /// The receipt to check
    #[arg(long, value_name = "FILE", group = "subject", conflicts_with = "out")]
    check: Option<PathBuf>,
    /// The receipt to write
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write over an existing file
    #[arg(long, requires = "out")]
    force: bool,
    /// The bytes of the entry, if the receipt does not hold them
    #[arg(long, value_name = "FILE", requires = "check")]
    leaf: Option<PathBuf>,
    /// Whom you trust
    #[command(flatten)]
    trust: TrustArgs,
}

/// Proves or checks.
pub(crate) fn run(context: &Context, args: &ProveArgs) -> Result<(), Failure> {
    match &args.check {
        Some(path) => {
            let trust = Trust::read(&args.trust)?;
            let leaf = args.leaf.as_deref().map(|path| read_file(path, check::LEAF_SIZE_BYTES_MAX)).transpose()?;
            let view = check::check_file(path, leaf.as_deref(), &trust)?;
            report(context, &view)
        }
        None => match &args.out {
            Some(out) => make::run(context, args, out),
            None => Err(Failure::new(Exit::Usage, "no file is given to write or to check")
                .next("name what to prove and --out FILE, or --check FILE with --policy FILE or --trust GENESIS")),
        },
    }
}
