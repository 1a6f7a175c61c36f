//! `fedledger version`: what this program is.

use fedledger_federation::{manifest::MANIFEST_SCHEMA, member::GENESIS_SCHEMA};
use serde::Serialize;

use crate::{context::Context, error::Failure};

/// The form of the result as JSON.
const PROGRAM_SCHEMA: &str = "fedledger.program/1";

#[derive(Debug, Serialize)]
struct View {
    version: &'static str,
    /// The forms of files that it reads and writes.
    genesis_schema: &'static str,
    manifest_schema: &'static str,
    target: String,
}

/// Shows the version.
pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let view = View {
        version: env!("CARGO_PKG_VERSION"),
        genesis_schema: GENESIS_SCHEMA,
        manifest_schema: MANIFEST_SCHEMA,
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    };
    context.output.object(PROGRAM_SCHEMA, &view, || format!("fedledger {} ({})", view.version, view.target))
}
