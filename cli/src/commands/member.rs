//! `fedledger member`: members of the consortium.

use std::path::PathBuf;

use clap::Subcommand;
use fedledger_federation::{
    history::Keep,
    member::{Member, NodeKind, Role},
    records::MemberRecord,
};
use serde::Serialize;

use super::proposal::{self, ProposeArgs};
use crate::{
    context::Context,
    error::{Exit, Failure},
    output::{Table, list},
};

/// The form of a member as JSON.
const MEMBER_SCHEMA: &str = "fedledger.member/1";

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// List the members
    List,
    /// Show one member, present or former, with its keys and nodes
    Show {
        /// Id of the member
        #[arg(value_name = "MEMBER")]
        id: String,
    },
    /// Propose to admit an organisation
    Admit {
        /// The request with its public keys
        #[arg(value_name = "FILE")]
        request: PathBuf,
        #[command(flatten)]
        propose: ProposeArgs,
    },
    /// Propose to exclude a member for good
    Revoke {
        /// Id of the member
        member: String,
        #[command(flatten)]
        propose: ProposeArgs,
    },
    /// Propose to replace keys of a member or of one of its nodes
    Rotate {
        /// The request with the new public keys
        #[arg(value_name = "FILE")]
        request: PathBuf,
        #[command(flatten)]
        propose: ProposeArgs,
    },
}

#[derive(Debug, Serialize)]
struct MemberView<'a> {
    #[serde(flatten)]
    member: &'a Member,
    admitted_index: u64,
    revoked_index: Option<u64>,
}

/// Shows members, or proposes to change them.
pub(crate) fn run(context: &Context, command: MemberCommand) -> Result<(), Failure> {
    match command {
        MemberCommand::List => list_members(context),
        MemberCommand::Show { id } => show(context, &id),
        MemberCommand::Admit { request, propose } => proposal::admit_member(context, &request, propose),
        MemberCommand::Revoke { member, propose } => proposal::revoke_member(context, member, propose),
        MemberCommand::Rotate { request, propose } => proposal::rotate_keys(context, &request, propose),
    }
}

fn list_members(context: &Context) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let members: Vec<&Member> = history.state().members().iter().collect();
    context.output.array(&members, || {
        let mut table = Table::new(&["member", "name", "roles", "nodes"]);
        for member in &members {
            let nodes = list(member.nodes.iter().map(|node| &node.name));
            table.row(vec![member.id.clone(), member.name.clone(), list(roles(member)), nodes]);
        }
        context.output.table(&table)
    })
}

fn show(context: &Context, id: &str) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let records = history.state().member_records();
    let record = records.get(&id.to_owned()).ok_or_else(|| {
        let known = list(records.iter().map(|(id, _)| id));
        Failure::because(Exit::Failed, format!("there is no member {id:?}"), format!("the members are {known}"))
    })?;
    let MemberRecord { member, admitted_index, revoked_index } = record;
    let view = MemberView { member, admitted_index: *admitted_index, revoked_index: *revoked_index };
    context.output.object(MEMBER_SCHEMA, &view, || {
        let excluded = revoked_index.map(|index| format!("\nexcluded by entry {index}; these were its keys"));
        text(member) + &excluded.unwrap_or_default()
    })
}

fn roles(member: &Member) -> impl Iterator<Item = &'static str> {
    member.roles.iter().map(|role| match role {
        Role::Participant => "participant",
        Role::Replica => "replica",
        Role::Evaluator => "evaluator",
        Role::Auditor => "auditor",
        Role::Operator => "operator",
        Role::Delegate => "delegate",
    })
}

fn text(member: &Member) -> String {
    let mut lines = vec![
        format!("member            {}", member.id),
        format!("name              {}", member.name),
        format!("roles             {}", list(roles(member))),
        format!("organisation key  {}", member.organisation_key),
        format!("API key           {}", member.api_key),
    ];
    for node in &member.nodes {
        let kind = match &node.kind {
            NodeKind::Replica { number, log_key, cosign_key } => {
                format!("replica {number}, log key {log_key}, co-signing key {cosign_key}")
            }
            NodeKind::Participant { witness_key } => format!("participant, witness key {witness_key}"),
        };
        lines.push(format!("{}: {kind}", node.name));
        lines.push(format!("  transport key   {}", node.transport_key));
        lines.push(format!("  transaction key {}", node.transaction_key));
    }
    lines.join("\n")
}
