//! Which way to a peer is tried first: the ways start one after the other, each with a head start before the next, and the
//! first that leads to the peer wins (after RFC 8305, "Happy Eyeballs").
//!
//! QUIC goes first, TCP next, for networks that drop UDP, WebSocket last, for those that let only the web through. The way
//! that worked last time goes before all others, so that who is behind such a firewall waits for it only once.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
    multiaddr::Protocol,
};
use tokio::time::sleep;

use super::stack::Stack;
use crate::endpoint::address::Leg;

/// How long a way is tried before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// How long the last way waits for its turn at most.
pub(super) const HEAD_STARTS_MAX: Duration = HEAD_START.saturating_mul(Leg::ALL.len() as u32);

/// Peers whose way is remembered; above it all are forgotten, which costs them a head start.
const PEERS_REMEMBERED_MAX: usize = 1024;

/// The way that worked last, by peer.
#[derive(Debug, Clone, Default)]
pub(in crate::endpoint) struct Memory(Arc<Mutex<HashMap<PeerId, Leg>>>);

impl Memory {
    /// Remembers that a connection to the peer worked at this address.
    pub fn remember(&self, peer: PeerId, address: &Multiaddr) {
        let mut legs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if legs.len() >= PEERS_REMEMBERED_MAX && !legs.contains_key(&peer) {
            legs.clear();
        }
        legs.insert(peer, Leg::of(address));
    }

    /// How long the others are tried before this address is.
    fn wait(&self, address: &Multiaddr) -> Duration {
        let peer = address.iter().find_map(|protocol| match protocol {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        let first = peer.and_then(|peer| self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).copied());
        let leg = Leg::of(address);
        if Some(leg) == first {
            return Duration::ZERO;
        }
        let before = Leg::ALL.into_iter().filter(|other| Some(*other) == first || *other < leg).count();
        HEAD_START.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX))
    }
}

/// A transport whose dials wait for their turn.
pub(super) struct Race {
    transport: Stack,
    memory: Memory,
}

impl Race {
    pub const fn new(transport: Stack, memory: Memory) -> Self {
        Self { transport, memory }
    }
}

impl Transport for Race {
    type Output = <Stack as Transport>::Output;
    type Error = io::Error;
    type ListenerUpgrade = <Stack as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<Self::Output, io::Error>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.transport.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.transport.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let wait = self.memory.wait(&address);
        // Nothing is sent before this is polled.
        let dial = self.transport.dial(address, options)?;
        Ok(async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            dial.await
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.transport).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGS: [&str; 3] = ["/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.1/tcp/1", "/dns/a.org/tcp/443/tls/ws"];

    fn waits(memory: &Memory, peer: PeerId) -> [Duration; 3] {
        LEGS.map(|leg| memory.wait(&leg.parse::<Multiaddr>().unwrap().with(Protocol::P2p(peer))))
    }

    #[test]
    fn what_worked_last_goes_first() {
        let (memory, peer) = (Memory::default(), PeerId::random());
        assert_eq!(waits(&memory, peer), [Duration::ZERO, HEAD_START, HEAD_START * 2]);
        memory.remember(peer, &LEGS[2].parse().unwrap());
        assert_eq!(waits(&memory, peer), [HEAD_START, HEAD_START * 2, Duration::ZERO]);
        memory.remember(peer, &LEGS[1].parse().unwrap());
        assert_eq!(waits(&memory, peer), [HEAD_START, Duration::ZERO, HEAD_START * 2]);
        assert_eq!(waits(&memory, PeerId::random())[0], Duration::ZERO, "another peer");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let memory = Memory::default();
        for _ in 0..2 * PEERS_REMEMBERED_MAX {
            memory.remember(PeerId::random(), &LEGS[1].parse().unwrap());
        }
        assert!(memory.0.lock().unwrap().len() <= PEERS_REMEMBERED_MAX);
    }
}
