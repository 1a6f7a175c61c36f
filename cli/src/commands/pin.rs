//! `fedledger pin`: versions whose files are kept at any age.

use clap::Args;
use fedledger_federation::{Command, retention::PinVersion};
use serde_json::json;

use crate::{
    context::Context,
    error::Failure,
    follow::Follower,
    names::{self, Short},
    writing::Writer,
};

/// Arguments of `fedledger pin`.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// Number, branch, tag, or the beginning of an id
    version: String,
    /// Leave the version to the members' rules again
    #[arg(long)]
    off: bool,
    /// Why, for the record
    #[arg(long)]
    reason: String,
}

/// Pins a version, or no longer.
pub(crate) fn run(context: &Context, args: PinArgs) -> Result<(), Failure> {
    let writer = Writer::connect(context)?;
    let follower = context.block_on(Follower::current(&writer.client))?;
    let version = names::version(follower.state(), &args.version)?;
    let number = Short::of(follower.state()).number(&version);
    let pinned = !args.off;
    let about = json!({ "version": version, "pinned": pinned });
    let command = Command::PinVersion(PinVersion { version, pinned, reason: args.reason });
    let submitted = writer.submit(context, &command)?;
    writer.show(context, &command, &submitted, about, || match pinned {
        true => format!("pinned {number}: its files are kept until it is unpinned"),
        false => format!("unpinned {number}: its files are kept as long as the members' rules say"),
    })
}
