//! `fedledger man`: the manual page.

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::{args::Cli, context::Context, error::Failure};

/// Prints the manual page, in the language of `man`.
pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page).map_err(|error| Failure::output(&error))?;
    context.output.text(&String::from_utf8_lossy(&page))
}
