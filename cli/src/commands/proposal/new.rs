//! Making proposals.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fedledger_federation::{
    Command, Federation,
    governance::{Action, Change, NodeKeys, Propose, RotateKeys},
    member::{Member, Node, NodeKind, UNNUMBERED},
    retention::Retention,
};
use fedledger_ledger::{Digest, machine::RejectionCode as _};
use fedledger_proto::kit::{MemberRequest, RotationRequest};
use serde_json::json;

use super::{status_after, view::ChangesView};
use crate::{
    context::{Context, read_text},
    error::{Exit, Failure},
    follow::Follower,
    names,
    writing::Writer,
};

/// What to propose.
#[derive(Debug, Subcommand)]
pub(crate) enum NewCommand {
    /// Admit an organisation with its nodes
    AdmitMember {
        /// The request with its public keys
        #[arg(value_name = "FILE")]
        request: PathBuf,
        #[command(flatten)]
        propose: ProposeArgs,
    },
    /// Exclude a member for good, with its keys, nodes and consents
    RevokeMember {
        /// Id of the member
        member: String,
        #[command(flatten)]
        propose: ProposeArgs,
    },
    /// Exclude a node
    RevokeNode {
        /// Name of the node
        node: String,
        #[command(flatten)]
        propose: ProposeArgs,
    },
    /// Replace keys of a member or of one of its nodes
    RotateKeys {
        /// The request with the new public keys
        #[arg(value_name = "FILE")]
        request: PathBuf,
        #[command(flatten)]
        propose: ProposeArgs,
    },
    /// Change how many replicas must co-sign
    ChangePolicy {
        /// Co-signatures that make a head final; without it, they follow the number of replicas
        #[arg(long, value_name = "N")]
        finality_threshold: Option<u64>,
        #[command(flatten)]
        propose: ProposeArgs,
    },
    /// Change how many of the newest versions keep their files
    ChangeRetention {
        /// Versions of each branch that keep the updates that they were made of; all, if not given
        #[arg(long, value_name = "N")]
        updates: Option<u64>,
        /// Versions of each branch that keep weights and optimiser state; all, if not given
        #[arg(long, value_name = "N")]
        versions: Option<u64>,
        #[command(flatten)]
        propose: ProposeArgs,
    },
    /// Propose an action that is written out in TOML, as `proposal show --json` shows it
    Action {
        /// The action
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        propose: ProposeArgs,
    },
}

/// Arguments of everything that is proposed.
#[derive(Debug, Args)]
pub(crate) struct ProposeArgs {
    /// Why, for the record
    #[arg(long)]
    reason: String,
    /// For how many entries of the ledger votes are taken
    #[arg(long, value_name = "ENTRIES", default_value_t = 100_000)]
    expires_in: u64,
}

/// Makes a proposal.
pub(super) fn run(context: &Context, command: NewCommand) -> Result<(), Failure> {
    match command {
        NewCommand::AdmitMember { request, propose } => admit_member(context, &request, propose),
        NewCommand::RevokeMember { member, propose } => revoke_member(context, member, propose),
        NewCommand::RotateKeys { request, propose } => rotate_keys(context, &request, propose),
        NewCommand::RevokeNode { node, propose } => {
            self::propose(context, propose, |_, _| Ok(Action::RevokeNode { node }))
        }
        NewCommand::ChangePolicy { finality_threshold, propose } => {
            self::propose(context, propose, |_, _| Ok(Action::ChangePolicy { finality_threshold }))
        }
        NewCommand::ChangeRetention { updates, versions, propose } => {
            let retention = Retention { updates, versions };
            self::propose(context, propose, |_, _| Ok(Action::ChangeRetention(retention)))
        }
        NewCommand::Action { file, propose } => {
            let action: Action = toml::from_str(&read_text(&file)?).map_err(|error| no_request(&file, &error))?;
            self::propose(context, propose, |_, _| Ok(action))
        }
    }
}

/// Proposes to admit the member of a request.
pub(crate) fn admit_member(context: &Context, request: &Path, args: ProposeArgs) -> Result<(), Failure> {
    let parsed = MemberRequest::from_toml(&read_text(request)?).map_err(|error| no_request(request, &error))?;
    let number = parsed.has_replica().then_some(UNNUMBERED);
    let member = parsed.check(number).map_err(|error| no_request(request, &error))?;
    context.output.remark(&format!("fingerprint of the request of {}: {}", member.id, parsed.fingerprint()));
    propose(context, args, |_, _| Ok(Action::AdmitMember { member }))
}

/// Proposes to exclude a member.
pub(crate) fn revoke_member(context: &Context, member: String, args: ProposeArgs) -> Result<(), Failure> {
    propose(context, args, |_, _| Ok(Action::RevokeMember { member }))
}

/// Proposes to replace the keys of a request.
pub(crate) fn rotate_keys(context: &Context, request: &Path, args: ProposeArgs) -> Result<(), Failure> {
    let parsed = RotationRequest::from_toml(&read_text(request)?).map_err(|error| no_request(request, &error))?;
    context.output.remark(&format!("fingerprint of the request of {}: {}", parsed.member, parsed.fingerprint()));
    propose(context, args, |state, chain| {
        let before = state.members().get(&parsed.member).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("there is no member {:?}", parsed.member))
                .next("`fedledger member list` lists the members")
        })?;
        let after = parsed.check(chain, before).map_err(|error| no_request(request, &error))?;
        Ok(Action::RotateKeys(difference(before, &after)?))
    })
}

/// Proposes what `action` makes of the state and the chain id.
fn propose(
    context: &Context,
    args: ProposeArgs,
    action: impl FnOnce(&Federation, &Digest) -> Result<Action, Failure>,
) -> Result<(), Failure> {
    let writer = Writer::connect(context)?;
    let mut follower = context.block_on(Follower::current(&writer.client))?;
    let (state, size) = (follower.state(), follower.size());
    let action = action(state, writer.client.chain())?;
    if let Err(rejection) = Change::of(state, &action, size) {
        let why = format!("{}: {rejection}", rejection.code());
        return Err(
            Failure::because(Exit::Refused, "the ledger would reject this proposal", why).next("nothing was submitted")
        );
    }
    if !context.output.is_json() {
        context.output.remark(&ChangesView::of(state, &action, size).lines().join("\n"));
    }
    let against = action.target(state);
    let expires_index = size.saturating_add(args.expires_in);
    let content = Propose { action, against, expires_index, reason: args.reason };
    let (proposal, name) = (content.id(&writer.identity.member), content.action.name());
    let command = Command::Propose(content);
    let submitted = writer.submit(context, &command)?;
    let status = status_after(context, &mut follower, &proposal, &submitted)?;
    let about = json!({ "proposal": proposal, "action": name, "against": against, "status": status });
    writer
        .show(context, &command, &submitted, about, || format!("proposed {name} as {proposal}, which is {status}"))?;
    if status == "open" && !context.output.is_json() {
        let short = names::short_digest(&proposal);
        context.output.remark(&format!("the others vote with `fedledger proposal vote {short} --approve`"));
    }
    Ok(())
}

/// The keys that differ between a member and the same with new keys.
fn difference(before: &Member, after: &Member) -> Result<RotateKeys, Failure> {
    let mut changed = before.nodes.iter().zip(&after.nodes).filter(|(before, after)| before != after);
    let node = changed.next().map(|(before, after)| node_difference(before, after));
    if changed.next().is_some() {
        return Err(Failure::new(Exit::Failed, "the request replaces keys of several nodes")
            .next("make a request for one node at a time, so that the members can decide on each"));
    }
    Ok(RotateKeys {
        member: before.id.clone(),
        organisation_key: new_value(before.organisation_key, after.organisation_key),
        api_key: new_value(before.api_key, after.api_key),
        node,
    })
}

fn node_difference(before: &Node, after: &Node) -> NodeKeys {
    let mut keys = NodeKeys {
        name: before.name.clone(),
        transport_key: new_value(before.transport_key, after.transport_key),
        transaction_key: new_value(before.transaction_key, after.transaction_key),
        ..NodeKeys::default()
    };
    match (before.kind.clone(), after.kind.clone()) {
        (NodeKind::Replica { log_key, cosign_key, .. }, NodeKind::Replica { log_key: log, cosign_key: cosign, .. }) => {
            keys.log_key = new_value(log_key, log);
            keys.cosign_key = new_value(cosign_key, cosign);
        }
        (NodeKind::Participant { witness_key }, NodeKind::Participant { witness_key: witness }) => {
            keys.witness_key = new_value(witness_key, witness);
        }
        // Rotation does not turn one into the other.
        (NodeKind::Replica { .. }, NodeKind::Participant { .. })
        | (NodeKind::Participant { .. }, NodeKind::Replica { .. }) => {}
    }
    keys
}

fn new_value<T: PartialEq>(before: T, after: T) -> Option<T> {
    (before != after).then_some(after)
}

fn no_request(file: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::because(Exit::Failed, format!("{} cannot be proposed", file.display()), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_written_in_toml() {
        let actions = [
            ("[change_policy]\nfinality_threshold = 3", Action::ChangePolicy { finality_threshold: Some(3) }),
            ("[change_policy]", Action::ChangePolicy { finality_threshold: None }),
            (
                "[change_retention]\nupdates = 2",
                Action::ChangeRetention(Retention { updates: Some(2), versions: None }),
            ),
            ("[revoke_node]\nnode = 'porto/replica'", Action::RevokeNode { node: "porto/replica".to_owned() }),
        ];
        for (text, action) in actions {
            assert_eq!(toml::from_str::<Action>(text).unwrap(), action, "{text}");
        }
        assert!(toml::from_str::<Action>("[change_policy]\nthreshold = 3").is_err());
    }
}
