//! `fedledger member`: members of the consortium.

use clap::Subcommand;
use fedledger_federation::{
    history::Keep,
    member::{Member, NodeKind, Role},
};

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
    /// Show one member with its keys and nodes
    Show {
        /// Id of the member
        #[arg(value_name = "MEMBER")]
        id: String,
    },
}

/// Shows members.
pub(crate) fn run(context: &Context, command: &MemberCommand) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let members = history.state().members();
    match command {
        MemberCommand::List => {
            let members: Vec<&Member> = members.iter().collect();
            context.output.array(&members, || {
                let mut table = Table::new(&["member", "name", "roles", "nodes"]);
                for member in &members {
                    let nodes = list(member.nodes.iter().map(|node| &node.name));
                    table.row(vec![member.id.clone(), member.name.clone(), list(roles(member)), nodes]);
                }
                context.output.table(&table)
            })
        }
        MemberCommand::Show { id } => {
            let member = members.get(id).ok_or_else(|| {
                let known = list(members.iter().map(|member| &member.id));
                Failure::because(Exit::Failed, format!("there is no member {id:?}"), format!("the members are {known}"))
            })?;
            context.output.object(MEMBER_SCHEMA, member, || text(member))
        }
    }
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
