//! `fedledger provision`: genesis file, keys and one directory per node.

use std::path::PathBuf;

use clap::Args;
use fedledger_federation::member::{Genesis, NodeKind, Role};
use fedledger_ledger::Digest;
use fedledger_proto::kit::{ConsortiumDescription, WriteError, provision, write_kits};
use serde::Serialize;

use crate::{
    context::{Context, read_text},
    error::{Exit, Failure},
};

/// The form of the result as JSON.
const PROVISION_SCHEMA: &str = "fedledger.provision/1";

/// Arguments of `fedledger provision`.
#[derive(Debug, Args)]
pub(crate) struct ProvisionArgs {
    /// Description of the consortium (consortium.toml)
    #[arg(value_name = "FILE")]
    description: PathBuf,
    /// Directory to write the kits to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the consortium that was provisioned there, ledgers and all
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct View<'a> {
    consortium: &'a str,
    chain: Digest,
    finality_threshold: u64,
    directory: String,
    members: Vec<MemberView<'a>>,
}

#[derive(Debug, Serialize)]
struct MemberView<'a> {
    id: &'a str,
    roles: Vec<Role>,
    identity: String,
    nodes: Vec<NodeView<'a>>,
}

#[derive(Debug, Serialize)]
struct NodeView<'a> {
    name: &'a str,
    kind: &'static str,
    directory: String,
}

/// Provisions a consortium.
pub(crate) fn run(context: &Context, args: &ProvisionArgs) -> Result<(), Failure> {
    let file = args.description.display();
    let cannot_read = |why: String| Failure::because(Exit::Failed, format!("{file} describes no consortium"), why);
    let description =
        ConsortiumDescription::from_toml(&read_text(&args.description)?).map_err(|e| cannot_read(e.to_string()))?;
    let mut random_failure = None;
    let mut randomness = || {
        let mut bytes = [0; 32];
        if let Err(error) = getrandom::fill(&mut bytes) {
            random_failure = Some(error);
        }
        bytes
    };
    let provisioned = provision(&description, &mut randomness);
    if let Some(error) = random_failure {
        return Err(Failure::because(Exit::Failed, "the system gives no random numbers for keys", error));
    }
    let provisioned = provisioned.map_err(|error| cannot_read(error.to_string()))?;
    write_kits(&provisioned, &args.out, args.force).map_err(|error| match error {
        WriteError::Io { .. } => Failure::new(Exit::Failed, error.to_string()),
        error => Failure::because(Exit::Failed, "the kits were not written", error),
    })?;
    let view = View::of(&provisioned.genesis, args);
    context.output.object(PROVISION_SCHEMA, &view, || view.text())
}

impl<'a> View<'a> {
    fn of(genesis: &'a Genesis, args: &ProvisionArgs) -> Self {
        let below = |path: &str| args.out.join(path).display().to_string();
        let members = genesis.members.iter().map(|member| MemberView {
            id: &member.id,
            roles: member.roles.iter().copied().collect(),
            identity: below(&format!("{}/identity", member.id)),
            nodes: member
                .nodes
                .iter()
                .map(|node| NodeView {
                    name: &node.name,
                    kind: match node.kind {
                        NodeKind::Replica { .. } => "replica",
                        NodeKind::Participant { .. } => "participant",
                    },
                    directory: below(&node.name),
                })
                .collect(),
        });
        Self {
            consortium: &genesis.consortium,
            chain: Digest::of(&genesis.to_bytes()),
            finality_threshold: genesis.finality_threshold,
            directory: args.out.display().to_string(),
            members: members.collect(),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("consortium {} (chain {}) in {}", self.consortium, self.chain, self.directory)];
        lines.push("Give each member its folder over a safe way, then start the nodes:".to_owned());
        for node in self.members.iter().flat_map(|member| &member.nodes) {
            let command = if node.kind == "replica" { "coordinator" } else { "participant" };
            lines.push(format!("  fedledger {command} --dir {}", node.directory));
        }
        lines.join("\n")
    }
}
