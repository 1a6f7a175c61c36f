//! Writing to the ledger: signing a command with the organisation's key and bringing it to a replica.

use fedledger_federation::Command;
use fedledger_ledger::transaction::{Nonce, Transaction};
use fedledger_proto::{
    api::{ApiClient, ApiError, Submitted},
    kit::Identity,
};
use serde::Serialize;

use crate::{
    context::Context,
    error::{Exit, Failure},
};

/// The form of a receipt as JSON.
const SUBMITTED_SCHEMA: &str = "fedledger.submitted/1";

/// Entries after which a transaction that did not get through is void.
const VALIDITY_ENTRIES: u64 = 10_000;

/// A replica, and the identity that signs.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The connection.
    pub client: ApiClient,
    /// Who signs.
    pub identity: Identity,
}

/// What became of a transaction, for programs.
#[derive(Debug, Serialize)]
struct Receipt<'a> {
    index: u64,
    kind: &'static str,
    outcome: &'a str,
    author: &'a str,
    #[serde(flatten)]
    about: serde_json::Value,
}

impl Writer {
    /// Connects with the replica that was named.
    pub fn connect(context: &Context) -> Result<Self, Failure> {
        let (client, identity) = context.client()?;
        Ok(Self { client, identity })
    }

    /// Signs a command, submits it, and waits until it has been accepted.
    pub fn submit(&self, context: &Context, command: &Command) -> Result<Submitted, Failure> {
        self.try_submit(context, command)?.map_err(|error| self.refused(command, error))
    }

    /// The same, with what the replica or the ledger says against it.
    pub fn try_submit(&self, context: &Context, command: &Command) -> Result<Result<Submitted, ApiError>, Failure> {
        let mut nonce = [0; 16];
        let random = getrandom::fill(&mut nonce);
        random.map_err(|error| Failure::because(Exit::Failed, "the system gives no random numbers", error))?;
        let progress = context.output.progress("waiting until a majority of the replicas has the transaction");
        let submitted = context.block_on(async {
            let size = self.client.status().await?.log_size;
            let transaction = Transaction {
                chain: *self.client.chain(),
                author: self.identity.organisation_key.public(),
                nonce: Nonce(nonce),
                not_after_index: size.saturating_add(VALIDITY_ENTRIES),
                kind: command.kind().to_owned(),
                payload: command.payload(),
            };
            let envelope = transaction.sign(&self.identity.organisation_key);
            self.client.submit(&envelope.to_bytes()).await?.accepted()
        });
        drop(progress);
        Ok(submitted)
    }

    /// Shows what was submitted: an object with `about` in it, or the text.
    pub fn show(
        &self,
        context: &Context,
        command: &Command,
        submitted: &Submitted,
        about: serde_json::Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let receipt = Receipt {
            index: submitted.index,
            kind: command.kind(),
            outcome: submitted.leaf.outcome.code(),
            author: &self.identity.member,
            about,
        };
        context.output.object(SUBMITTED_SCHEMA, &receipt, || format!("{} (entry {})", text(), submitted.index))
    }

    /// What to tell people of a command that did not get through.
    pub fn refused(&self, command: &Command, error: ApiError) -> Failure {
        let ApiError::Rejected { index, code, reason } = error else { return error.into() };
        let what = format!("the ledger rejected {} of {} (entry {index})", command.kind(), self.identity.member);
        // Some replicas say the code in the reason, too.
        let prefix = format!("{code}: ");
        let why = match &reason {
            Some(reason) => format!("{prefix}{}", reason.strip_prefix(prefix.as_str()).unwrap_or(reason)),
            None => code.clone(),
        };
        let failure = Failure::because(Exit::Refused, what, why);
        match code.as_str() {
            "not_permitted" => failure.next("use the identity of a member with that role: --identity DIR"),
            "target_changed" => failure.next("look at what is there now, and propose anew"),
            "head_moved" => failure.next("look at `fedledger branch`, and decide again"),
            _ => failure.next("nothing was changed; the rejection stands on the ledger"),
        }
    }
}
