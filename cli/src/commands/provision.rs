//! `fedledger provision`: genesis file, keys and one directory per node.

use std::path::PathBuf;

use clap::Args;
use fedledger_federation::member::{Genesis, NodeKind, Role};
use fedledger_ledger::Digest;
use fedledger_proto::kit::{
    ConsortiumDescription, MemberRequest, Protection, ScryptCost, WriteError, provision_with_requests, write_kits,
};
use serde::Serialize;

use crate::{
    commands::identity::requests::read_requests,
    context::{Context, read_text},
    error::{Exit, Failure},
    output::list,
    passphrase, random,
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
    /// Requests of members that make their keys on site: files, or folders with files *.toml
    #[arg(long, value_name = "PATH", num_args = 1..)]
    requests: Vec<PathBuf>,
    /// Ask for a passphrase, and encrypt every key with it
    #[arg(long)]
    passphrase: bool,
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
    /// Whether its keys were made on site, and its folder holds none.
    keys_on_site: bool,
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
    let requests = read_requests(&args.requests)?;
    let passphrase = passphrase::wanted(args.passphrase, context)?;
    let mut randomness = random::source()?;
    let provisioned = provision_with_requests(&description, &requests, &mut randomness);
    let mut provisioned = provisioned.map_err(|error| cannot_read(error.to_string()))?;
    if let Some(passphrase) = &passphrase {
        let protection = Protection { passphrase, cost: ScryptCost::default() };
        let progress = context.output.progress("encrypting the keys");
        let protected = provisioned.protect(protection, &mut randomness);
        drop(progress);
        protected.map_err(|error| Failure::because(Exit::Failed, "the keys were not encrypted", error))?;
    }
    write_kits(&provisioned, &args.out, args.force).map_err(|error| match error {
        WriteError::Io { .. } => Failure::new(Exit::Failed, error.to_string()),
        error => Failure::because(Exit::Failed, "the kits were not written", error),
    })?;
    let view = View::of(&provisioned.genesis, &requests, args);
    context.output.object(PROVISION_SCHEMA, &view, || view.text())
}

impl<'a> View<'a> {
    fn of(genesis: &'a Genesis, requests: &[MemberRequest], args: &ProvisionArgs) -> Self {
        let below = |path: &str| args.out.join(path).display().to_string();
        let members = genesis.members.iter().map(|member| MemberView {
            id: &member.id,
            roles: member.roles.iter().copied().collect(),
            identity: below(&format!("{}/identity", member.id)),
            keys_on_site: requests.iter().any(|request| request.id == member.id),
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
        let (on_site, here): (Vec<_>, Vec<_>) = self.members.iter().partition(|member| member.keys_on_site);
        for member in on_site {
            lines.push(format!(
                "Send {} the folder {}/{}, which holds no secret, for `fedledger identity install`.",
                member.id, self.directory, member.id
            ));
        }
        if !here.is_empty() {
            let whose = list(here.iter().map(|member| member.id));
            lines.push(format!("Give {whose} each its folder over a safe way, then start the nodes:"));
        }
        for node in here.iter().flat_map(|member| &member.nodes) {
            let command = if node.kind == "replica" { "coordinator" } else { "participant" };
            lines.push(format!("  fedledger {command} --dir {}", node.directory));
        }
        lines.join("\n")
    }
}
