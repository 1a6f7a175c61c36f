//! The commands, one file each.

pub(crate) mod audit;
pub(crate) mod branch;
pub(crate) mod checkout;
pub(crate) mod completions;
pub(crate) mod coordinator;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod evidence;
pub(crate) mod export;
pub(crate) mod identity;
pub(crate) mod log;
pub(crate) mod man;
pub(crate) mod member;
pub(crate) mod participant;
pub(crate) mod pin;
pub(crate) mod plan;
pub(crate) mod promise;
pub(crate) mod proposal;
pub(crate) mod prove;
pub(crate) mod provision;
pub(crate) mod rollback;
pub(crate) mod round;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod tag;
pub(crate) mod verify;
pub(crate) mod version;

use crate::{args::Command, context::Context, error::Failure};

/// Runs a command.
pub(crate) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(context, args),
        Command::Provision(args) => provision::run(context, &args),
        Command::Identity(command) => identity::run(context, command),
        Command::Coordinator(args) => coordinator::run(context, &args),
        Command::Participant(args) => participant::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::Member(command) => member::run(context, command),
        Command::Proposal(command) => proposal::run(context, command),
        Command::Plan(command) => plan::run(context, command),
        Command::Round(command) => round::run(context, &command),
        Command::Events(args) => events::run(context, &args),
        Command::Log(args) => log::run(context, &args),
        Command::Show(args) => show::run(context, &args),
        Command::Diff(args) => diff::run(context, &args),
        Command::Checkout(args) => checkout::run(context, &args),
        Command::Branch(args) => branch::run(context, args),
        Command::Tag(args) => tag::run(context, args),
        Command::Pin(args) => pin::run(context, args),
        Command::Rollback(args) => rollback::run(context, args),
        Command::Audit(command) => audit::run(context, &command),
        Command::Verify(args) => verify::run(context, &args),
        Command::Prove(args) => prove::run(context, &args),
        Command::Evidence(command) => evidence::run(context, command),
        Command::Promise(command) => promise::run(context, &command),
        Command::Export(args) => export::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
        Command::Man => man::run(context),
        Command::Version => version::run(context),
    }
}
