//! The libp2p behaviour that opens and accepts streams of our protocols.
//!
//! Inbound streams reach the driver as events, with back-pressure on the connection they came over, so a burst is never
//! silently dropped: each is served or answered that the node is busy. Outbound streams are opened on the newest
//! connection that has proved to work both ways (see [`Behaviour::confirm`]).

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{Endpoint, InboundUpgrade, OutboundUpgrade, UpgradeInfo, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::oneshot;

use crate::wire::Protocol;

/// Why a stream could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    NotConnected,
    NotSupported,
    TimedOut,
    Io(std::io::Error),
}

/// A stream to be opened, and who waits for it.
#[derive(Debug)]
pub(super) struct OpenStream {
    pub protocol: Protocol,
    pub reply: oneshot::Sender<Result<Stream, OpenError>>,
}

impl OpenStream {
    /// The waiting side may have given up; then there is nobody to tell.
    fn answer(self, result: Result<Stream, OpenError>) {
        self.reply.send(result).ok();
    }
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(super) struct InboundStream {
    pub peer: PeerId,
    pub protocol: Protocol,
    pub stream: Stream,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Behaviour {
    /// Confirmed connections of each peer, newest last.
    confirmed: HashMap<PeerId, Vec<ConnectionId>>,
    outbox: VecDeque<ToSwarm<InboundStream, OpenStream>>,
}

impl Behaviour {
    /// Says that the peer answered on this connection, so that streams may be opened on it.
    pub fn confirm(&mut self, peer: PeerId, connection: ConnectionId) {
        let connections = self.confirmed.entry(peer).or_default();
        if !connections.contains(&connection) {
            connections.push(connection);
        }
    }

    /// Opens a stream, or says at once that the peer is not connected.
    pub fn open(&mut self, peer: PeerId, request: OpenStream) {
        match self.confirmed.get(&peer).and_then(|connections| connections.last()) {
            Some(&connection) => self.outbox.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: request,
            }),
            None => request.answer(Err(OpenError::NotConnected)),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = InboundStream;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event
            && let Some(connections) = self.confirmed.get_mut(&closed.peer_id)
        {
            connections.retain(|connection| *connection != closed.connection_id);
            if connections.is_empty() {
                self.confirmed.remove(&closed.peer_id);
            }
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        (protocol, stream): THandlerOutEvent<Self>,
    ) {
        self.outbox.push_back(ToSwarm::GenerateEvent(InboundStream { peer, protocol, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Whoever adds to the outbox polls the swarm next, so there is no waker to keep.
        self.outbox.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One connection's side of [`Behaviour`].
#[derive(Default)]
pub(super) struct Handler {
    to_open: VecDeque<OpenStream>,
    accepted: VecDeque<(Protocol, Stream)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenStream;
    type ToBehaviour = (Protocol, Stream);
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenStream;

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(Upgrade(Protocol::ALL.to_vec()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Upgrade, OpenStream, (Protocol, Stream)>> {
        if let Some(accepted) = self.accepted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(accepted));
        }
        // The connection polls again after every event that it delivers, so there is no waker to keep.
        while let Some(request) = self.to_open.pop_front() {
            if !request.reply.is_closed() {
                let protocol = SubstreamProtocol::new(Upgrade(vec![request.protocol]), request);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, request: OpenStream) {
        self.to_open.push_back(request);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Upgrade, Upgrade, (), OpenStream>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.accepted.push_back(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (_, stream), info }) => {
                info.answer(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                info.answer(Err(match error {
                    StreamUpgradeError::Timeout => OpenError::TimedOut,
                    StreamUpgradeError::NegotiationFailed => OpenError::NotSupported,
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }
}

/// The negotiation of one of some protocols; the stream itself is left as it is.
#[derive(Debug, Clone)]
pub(super) struct Upgrade(Vec<Protocol>);

impl UpgradeInfo for Upgrade {
    type Info = Protocol;
    type InfoIter = std::vec::IntoIter<Protocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Upgrade {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: Protocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for Upgrade {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: Protocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
