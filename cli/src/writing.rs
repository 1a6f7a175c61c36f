//! Writing to the ledger: signing a command with the organisation's key and bringing it to a replica.

use fedledger_federation::Command;
use fedledger_ledger::{
    intake::IntakeReceipt,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::{
    api::{ApiClient, ApiError, Level, Submission, Submitted},
    kit::Identity,
};
use serde::Serialize;

use crate::{
    context::Context,
    error::{Exit, Failure},
    output::write_file,
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
    /// None while it is only promised to be on the ledger.
    index: Option<u64>,
    kind: &'static str,
    outcome: Option<&'a str>,
    author: &'a str,
    level: Level,
    /// Index by which it is promised to be on the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_index: Option<u64>,
    /// The replica's signed promise, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    intake_receipt: Option<String>,
    #[serde(flatten)]
    about: serde_json::Value,
}

impl Writer {
    /// Connects with the replica that was named.
    pub fn connect(context: &Context) -> Result<Self, Failure> {
        let (client, identity) = context.client()?;
        Ok(Self { client, identity })
    }

    /// Signs a command, submits it, and waits until it has been accepted and has reached the level asked for.
    pub fn submit(&self, context: &Context, command: &Command) -> Result<Submission, Failure> {
        self.try_submit(context, command)?.map_err(|error| self.refused(command, error))
    }

    /// The same, with what the replica or the ledger says against it.
    pub fn try_submit(&self, context: &Context, command: &Command) -> Result<Result<Submission, ApiError>, Failure> {
        let level = context.wait_for();
        let mut nonce = [0; 16];
        let random = getrandom::fill(&mut nonce);
        random.map_err(|error| Failure::because(Exit::Failed, "the system gives no random numbers", error))?;
        let progress = context.output.progress(match level {
            Level::Accepted => "waiting until a replica has taken the transaction",
            Level::Committed => "waiting until a majority of the replicas has the transaction",
            Level::Final => "waiting until enough replicas have co-signed the transaction",
            Level::Unanimous => "waiting until every replica has co-signed the transaction",
        });
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
            Ok(match self.client.submit_until(&envelope.to_bytes(), level).await? {
                Submission::Recorded(submitted) => Submission::Recorded(submitted.accepted()?),
                accepted @ Submission::Accepted(_) => accepted,
            })
        });
        drop(progress);
        if let Ok(Submission::Accepted(receipt)) = &submitted {
            self.remark_on(context, receipt);
            if let Some(path) = context.promise() {
                let kept = write_file(path, &receipt.to_bytes());
                kept.map_err(|failure| {
                    failure
                        .next(format!("the transaction is taken; the promise is {}", hex::encode(receipt.to_bytes())))
                })?;
            }
        }
        Ok(submitted)
    }

    /// A promise is worth something only by a replica.
    fn remark_on(&self, context: &Context, receipt: &IntakeReceipt) {
        if self.client.replica_of_author(&receipt.replica).is_none() {
            context.output.remark(&format!(
                "the promise is signed with the key {}, which is no replica's in the last epoch that is known to be final",
                receipt.replica
            ));
        }
    }

    /// Shows what was submitted: an object with `about` in it, or the text.
    pub fn show(
        &self,
        context: &Context,
        command: &Command,
        submission: &Submission,
        about: serde_json::Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let (kind, author) = (command.kind(), self.identity.member.as_str());
        let receipt = match submission {
            Submission::Recorded(Submitted { index, leaf, level, .. }) => Receipt {
                index: Some(*index),
                kind,
                outcome: Some(leaf.outcome.code()),
                author,
                level: *level,
                by_index: None,
                intake_receipt: None,
                about,
            },
            Submission::Accepted(receipt) => Receipt {
                index: None,
                kind,
                outcome: None,
                author,
                level: Level::Accepted,
                by_index: Some(receipt.by_index),
                intake_receipt: Some(hex::encode(receipt.to_bytes())),
                about,
            },
        };
        context.output.object(SUBMITTED_SCHEMA, &receipt, || match submission {
            Submission::Recorded(submitted) => {
                format!("{} (entry {}, {})", text(), submitted.index, submitted.level)
            }
            Submission::Accepted(receipt) => {
                format!("not committed yet, promised to be on the ledger by entry {}: {}", receipt.by_index, text())
            }
        })
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
