//! `fedledger completions`: completion scripts for shells.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::{args::Cli, context::Context, error::Failure};

/// Arguments of `fedledger completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints a completion script.
pub(crate) fn run(context: &Context, args: &CompletionsArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(args.shell, &mut command, name, &mut script);
    context.output.text(&String::from_utf8_lossy(&script))
}
