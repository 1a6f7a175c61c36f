//! Bringing one transaction onto the ledger.
//!
//! It is signed once and the same bytes are sent until a replica says where they stand, so that however often it is sent,
//! it takes effect once. Only after the envelope has expired may it be signed anew.

use std::{sync::Arc, time::Duration};

use fedledger_federation::Command;
use fedledger_ledger::{
    PublicKey,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::{
    fault_point::fault_point,
    wire::{SubmitRequest, SubmitResponse},
};
use tokio_util::sync::CancellationToken;

use super::{context::Context, core::Input, intent::Intent, peers::Replica};

/// How long a transaction may be applied, in log entries.
const VALIDITY_ENTRIES: u64 = 10_000;

/// Code of the refusal of an expired envelope.
const EXPIRED: &str = "expired";

/// What one replica answered.
enum Answer {
    Committed(u64),
    Expired,
    Redirect(Option<PublicKey>),
    Failed,
}

/// Submits a command until it is on the ledger or its envelope has expired; none once cancelled.
pub async fn submit(
    context: Arc<Context>,
    intent: Intent,
    command: Box<Command>,
    stop: CancellationToken,
) -> Option<Input> {
    let mut failures = 0;
    let (request, not_after_index) = loop {
        match sign(&context, &command) {
            Ok(signed) => break signed,
            Err(error) => tracing::error!(%error, "the operating system gives no random numbers"),
        }
        if !context.wait(failures, &stop).await {
            return None;
        }
        failures = failures.saturating_add(1);
    };
    let mut turn = 0;
    fault_point(&format!("before-{}", command.kind()));
    loop {
        let answer = tokio::select! {
            () = stop.cancelled() => return None,
            answer = ask_all(&context, &request, turn) => answer,
        };
        match answer {
            Some(Answer::Committed(index)) => {
                fault_point(&format!("after-{}", command.kind()));
                return Some(Input::Committed { intent, index });
            }
            Some(Answer::Expired) => return Some(Input::Expired(intent)),
            Some(Answer::Redirect(_) | Answer::Failed) | None => {}
        }
        if *context.size.borrow() > not_after_index {
            return Some(Input::Expired(intent));
        }
        if !context.wait(turn, &stop).await {
            return None;
        }
        turn = turn.saturating_add(1);
    }
}

fn sign(context: &Context, command: &Command) -> Result<(SubmitRequest, u64), getrandom::Error> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)?;
    let not_after_index = context.size.borrow().saturating_add(VALIDITY_ENTRIES);
    let transaction = Transaction {
        chain: context.chain,
        author: context.transaction_key.public(),
        nonce: Nonce(nonce),
        not_after_index,
        kind: command.kind().to_owned(),
        payload: command.payload(),
    };
    let envelope = transaction.sign(&context.transaction_key).to_bytes();
    Ok((SubmitRequest { envelope }, not_after_index))
}

/// Asks each connected replica once, and the leader that one of them names; the first definite answer counts.
async fn ask_all(context: &Context, request: &SubmitRequest, turn: u32) -> Option<Answer> {
    let replicas = context.available(turn as usize);
    let mut named = None;
    let patience = context.patience(turn);
    for replica in &replicas {
        match ask(context, replica, request, patience).await {
            Answer::Redirect(leader) => named = leader.or(named),
            Answer::Failed => {}
            definite => return Some(definite),
        }
        if let Some(leader) = replicas.iter().find(|replica| Some(replica.key) == named) {
            let answer = ask(context, leader, request, patience).await;
            if matches!(answer, Answer::Committed(_) | Answer::Expired) {
                return Some(answer);
            }
            named = None;
        }
    }
    None
}

async fn ask(context: &Context, replica: &Replica, request: &SubmitRequest, patience: Duration) -> Answer {
    match context.endpoint.call(replica.key, request, patience).await {
        Ok(SubmitResponse::Outcome { index, .. }) => Answer::Committed(index),
        Ok(SubmitResponse::Refused { code, .. }) if code == EXPIRED => Answer::Expired,
        Ok(SubmitResponse::Refused { code, message }) => {
            tracing::warn!(replica = replica.name, code, message, "a replica refuses a transaction of this node");
            Answer::Failed
        }
        Ok(SubmitResponse::Redirect { leader }) => Answer::Redirect(leader),
        Err(error) => {
            tracing::debug!(replica = replica.name, %error, "submitting failed");
            Answer::Failed
        }
    }
}
