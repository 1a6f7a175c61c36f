//! Arguments: what every command understands, and the list of commands.

use std::{env, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::{commands, finality::LevelArg};

/// A federation of hospitals and its ledger, from the command line.
#[derive(Debug, Parser)]
#[command(name = "fedledger", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 verification found a mismatch, \
                        4 refused by policy or governance, 5 timed out or no quorum.")]
pub(crate) struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Arguments of every command.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// A replica's directory, an exported bundle or a folder of tiles to read [env: FEDLEDGER_LEDGER]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Ledger")]
    pub ledger: Option<PathBuf>,
    /// URLs of replicas' APIs, separated by commas: the first that answers is asked, the others where it stalls
    /// [env: FEDLEDGER_CONNECT]
    #[arg(long, global = true, value_name = "URL", value_delimiter = ',', help_heading = "Ledger")]
    pub connect: Vec<String>,
    /// Directory of the identity to connect and sign with [env: FEDLEDGER_IDENTITY]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Ledger")]
    pub identity: Option<PathBuf>,
    /// How sure a written entry must be before a command returns
    #[arg(long, global = true, value_enum, value_name = "LEVEL", default_value_t, help_heading = "Ledger")]
    pub wait_for: LevelArg,
    /// With --wait-for accepted: the file in which to keep the replica's signed promise
    #[arg(long, global = true, value_name = "FILE", help_heading = "Ledger")]
    pub promise: Option<PathBuf>,
    /// File with the passphrase of encrypted keys, on one line [env: FEDLEDGER_PASSPHRASE, the passphrase itself]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Keys")]
    pub passphrase_file: Option<PathBuf>,
    /// Print JSON, and nothing else, on stdout
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Print no progress and no remarks
    #[arg(long, short, global = true, help_heading = "Output", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more (twice for still more)
    #[arg(long, short, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// When to use colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t, help_heading = "Output")]
    pub color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether output that goes to a terminal or not is coloured.
    pub fn allows(self, terminal: bool) -> bool {
        match self {
            Self::Auto => terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole consortium on this machine
    Demo(commands::demo::DemoArgs),
    /// Make genesis file, keys and one directory per node from a description of the members
    Provision(commands::provision::ProvisionArgs),
    /// Keys that are made on site and never leave it
    #[command(subcommand)]
    Identity(commands::identity::IdentityCommand),
    /// Run a replica of the ledger
    Coordinator(commands::coordinator::CoordinatorArgs),
    /// Run a hospital's participant
    Participant(commands::participant::ParticipantArgs),
    /// What keeps a node from working, and what to do about it
    Doctor(commands::doctor::DoctorArgs),
    /// Where replicas, log and rounds stand
    Status(commands::status::StatusArgs),
    /// Members of the consortium
    #[command(subcommand)]
    Member(commands::member::MemberCommand),
    /// What the members are asked to decide, and their votes
    #[command(subcommand)]
    Proposal(commands::proposal::ProposalCommand),
    /// Training plans and the hospitals' consent
    #[command(subcommand)]
    Plan(commands::plan::PlanCommand),
    /// Rounds of training
    #[command(subcommand)]
    Round(commands::round::RoundCommand),
    /// Entries of the ledger
    Events(commands::events::EventsArgs),
    /// Versions of the global model, newest first
    Log(commands::log::LogArgs),
    /// One version: its recipe and what the members think of it
    Show(commands::show::ShowArgs),
    /// How two versions differ
    Diff(commands::diff::DiffArgs),
    /// Write the files of a version, each verified
    Checkout(commands::checkout::CheckoutArgs),
    /// Branches and their heads
    Branch(commands::branch::BranchArgs),
    /// Tags, or name a version
    Tag(commands::tag::TagArgs),
    /// Keep the files of a version at any age
    Pin(commands::pin::PinArgs),
    /// Move a branch back to an earlier version
    Rollback(commands::rollback::RollbackArgs),
    /// What was contributed and whether versions can be computed again
    #[command(subcommand)]
    Audit(commands::audit::AuditCommand),
    /// Check a ledger: every signature, every entry, every version
    Verify(commands::verify::VerifyArgs),
    /// Prove an entry or a record to somebody who has nothing else, or check such a proof
    Prove(Box<commands::prove::ProveArgs>),
    /// Files that convict whoever has signed two histories
    #[command(subcommand)]
    Evidence(commands::evidence::EvidenceCommand),
    /// Whether replicas have kept their word to bring transactions onto the ledger
    #[command(subcommand)]
    Promise(commands::promise::PromiseCommand),
    /// Write the history as one file that can be verified anywhere, or as static files for the web
    Export(commands::export::ExportArgs),
    /// Print a completion script for a shell
    Completions(commands::completions::CompletionsArgs),
    /// Print the manual page
    Man,
    /// Print the version
    Version,
}

impl Command {
    /// Whether it runs until it is stopped, and logs what it does.
    pub const fn is_daemon(&self) -> bool {
        match self {
            Self::Coordinator(_) => true,
            Self::Participant(args) => args.is_daemon(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_of_all_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn colours_follow_the_terminal_only_by_default() {
        assert!(Color::Always.allows(false) && !Color::Never.allows(true) && !Color::Auto.allows(false));
    }
}
