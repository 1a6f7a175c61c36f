//! Opening streams to connected peers, within the limits.

use std::{collections::BTreeSet, sync::Arc};

use fedledger_ledger::PublicKey;
use libp2p::Stream;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    CallError,
    driver::{Command, Renewals},
    limits::{Limits, Permit},
    streams::{OpenError, OpenStream},
};
use crate::wire::Protocol;

/// Asks the driver for streams.
#[derive(Clone)]
pub(super) struct Opener {
    pub commands: mpsc::Sender<Command>,
    pub connected: watch::Receiver<BTreeSet<PublicKey>>,
    pub renewed: watch::Receiver<Renewals>,
    pub limits: Arc<Limits>,
}

impl Opener {
    /// Whether the peer is connected.
    pub fn is_connected(&self, peer: &PublicKey) -> bool {
        self.connected.borrow().contains(peer)
    }

    /// A stream to the peer, as soon as this node has few enough open to it.
    pub async fn open(&self, peer: PublicKey, protocol: Protocol) -> Result<(Stream, Permit), CallError> {
        if !self.is_connected(&peer) {
            return Err(CallError::NotConnected(peer));
        }
        let permit = self.limits.acquire(peer, protocol).await.ok_or(CallError::NotConnected(peer))?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Open { peer, request: OpenStream { protocol, reply } };
        self.commands.send(command).await.map_err(|_| CallError::NotConnected(peer))?;
        // The reply is dropped unanswered when the connection closes meanwhile.
        match answer.await.unwrap_or(Err(OpenError::NotConnected)) {
            Ok(stream) => Ok((stream, permit)),
            Err(OpenError::NotConnected) => Err(CallError::NotConnected(peer)),
            Err(OpenError::NotSupported) => Err(CallError::NotSupported(protocol)),
            Err(OpenError::TimedOut) => Err(CallError::TimedOut),
            Err(OpenError::Io(error)) => Err(CallError::Frame(error.into())),
        }
    }
}
