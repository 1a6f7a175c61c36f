//! Making keys, asking for admission with them, and installing what comes back.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fedledger_federation::member::Role;
use fedledger_proto::kit::{MemberDescription, MemberRequest, Protection, ReplicaDescription, ScryptCost, Site};
use serde::Serialize;

use crate::{
    context::Context,
    error::{Exit, Failure},
    output::written,
    passphrase, random,
};

/// The form of a request as JSON.
const REQUEST_SCHEMA: &str = "fedledger.request/1";
/// The form of what was installed as JSON.
const INSTALLED_SCHEMA: &str = "fedledger.installed/1";

/// Arguments of `fedledger identity new`.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Id of the member: lowercase letters, digits and inner hyphens
    #[arg(long, value_name = "ID")]
    member: String,
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// What it is to do; `replica` and `participant` give it a node
    #[arg(long, value_enum, value_name = "ROLE", value_delimiter = ',', num_args = 1..)]
    role: Vec<RoleName>,
    /// Directory for the keys, new or empty
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// `host:port` at which other nodes reach the replica
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// `host:port` at which clients reach the replica's API
    #[arg(long, value_name = "ADDRESS")]
    api_address: Option<String>,
    /// Ask for a passphrase, and encrypt every key with it
    #[arg(long)]
    passphrase: bool,
}

/// A role, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleName {
    Participant,
    Replica,
    Evaluator,
    Auditor,
    Operator,
    Delegate,
}

/// Arguments of `fedledger identity request`.
#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// Directory with the keys
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// File to write the request to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `fedledger identity install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Folder that the consortium sent back
    #[arg(value_name = "APPROVAL")]
    approval: PathBuf,
    /// Directory with the keys
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Serialize)]
struct RequestView {
    member: String,
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Debug, Serialize)]
struct InstalledView {
    member: String,
    identity: String,
    nodes: Vec<String>,
}

/// Draws keys.
pub(super) fn new(context: &Context, args: NewArgs) -> Result<(), Failure> {
    let passphrase = passphrase::wanted(args.passphrase, context)?;
    let protection = passphrase.as_ref().map(|passphrase| Protection { passphrase, cost: ScryptCost::default() });
    let reached = args.address.is_some() || args.api_address.is_some();
    let description = MemberDescription {
        id: args.member,
        name: args.name,
        roles: args.role.into_iter().map(Role::from).collect(),
        replica: reached.then(|| ReplicaDescription {
            address: args.address.map(Into::into),
            api_address: args.api_address,
            ..ReplicaDescription::default()
        }),
        participant: None,
    };
    Site::create(&args.dir, description, protection, &mut random::source()?)?;
    let request = context.unlock(|passphrase| Site::open(&args.dir)?.request(passphrase))?;
    let view = RequestView::of(&request, None);
    context.output.object(REQUEST_SCHEMA, &view, || {
        let dir = args.dir.display();
        format!(
            "keys of {} in {dir}{}\nNext: describe addresses and data in {dir}/site.toml, then\n  \
             fedledger identity request --dir {dir} --out {}.toml",
            view.member,
            if passphrase.is_some() { ", encrypted" } else { ", not encrypted (see `fedledger identity protect`)" },
            view.member
        )
    })
}

/// Writes a request.
pub(super) fn request(context: &Context, args: &RequestArgs) -> Result<(), Failure> {
    let request = context.unlock(|passphrase| Site::open(&args.dir)?.request(passphrase))?;
    let text = request.to_toml().map_err(|error| Failure::because(Exit::Failed, "cannot write the request", error))?;
    written(&args.out, std::fs::write(&args.out, text))?;
    let view = RequestView::of(&request, Some(args.out.display().to_string()));
    context.output.object(REQUEST_SCHEMA, &view, || {
        format!(
            "the request of {} is in {}\nfingerprint  {}\nSend the file, and read the fingerprint to whoever approves it \
             over the telephone.",
            view.member,
            args.out.display(),
            view.fingerprint
        )
    })
}

/// Installs what came back.
pub(super) fn install(context: &Context, args: &InstallArgs) -> Result<(), Failure> {
    let member = context.unlock(|passphrase| Site::open(&args.dir)?.install(&args.approval, passphrase))?;
    let below = |name: &str| args.dir.join(name).display().to_string();
    let folder = |name: &str| name.split_once('/').map_or_else(String::new, |(_, folder)| folder.to_owned());
    let view = InstalledView {
        identity: below("identity"),
        nodes: member.nodes.iter().map(|node| below(&folder(&node.name))).collect(),
        member: member.id.clone(),
    };
    context.output.object(INSTALLED_SCHEMA, &view, || {
        let mut lines = vec![format!("{} is installed in {}", view.member, args.dir.display())];
        for (node, directory) in member.nodes.iter().zip(&view.nodes) {
            let command = if node.replica_number().is_some() { "coordinator" } else { "participant" };
            lines.push(format!("  fedledger {command} --dir {directory}"));
        }
        lines.join("\n")
    })
}

impl RequestView {
    fn of(request: &MemberRequest, file: Option<String>) -> Self {
        Self { member: request.id.clone(), fingerprint: request.fingerprint().to_string(), file }
    }
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Participant => Self::Participant,
            RoleName::Replica => Self::Replica,
            RoleName::Evaluator => Self::Evaluator,
            RoleName::Auditor => Self::Auditor,
            RoleName::Operator => Self::Operator,
            RoleName::Delegate => Self::Delegate,
        }
    }
}
