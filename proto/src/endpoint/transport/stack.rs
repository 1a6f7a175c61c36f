//! The transports that carry connections, each with its security and its multiplexing.

use std::time::Duration;

use libp2p::{
    PeerId, Transport as _,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
        upgrade::Version,
    },
    identity::Keypair,
    noise, quic, tcp, websocket, yamux,
};

use super::tunnel::Tunnel;
use crate::endpoint::{EndpointError, WebSocketConfig};

/// How long a connection may take from its first packet to the end of its handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that are open on one TCP connection; more than both sides' limits together.
const YAMUX_STREAMS_MAX: usize = 256;

/// Receive window of one QUIC stream, in bytes.
const QUIC_STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// How often a QUIC connection on which nothing moves shows that it lives.
const QUIC_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// A QUIC connection without a packet for this long, in milliseconds, counts as dead: nothing else tells that the process
/// at the other end was killed. On links that are slower than that, three probe timeouts are waited (RFC 9000, section 10.1).
const QUIC_IDLE_TIMEOUT_MS: u32 = 3_000;

/// Receive window of a QUIC connection, in bytes: room for the windows of every stream that a peer may fill (see
/// [`crate::endpoint::limits`]), so that bodies that wait for a slow disk never stop its other streams.
const QUIC_CONNECTION_WINDOW_BYTES: u32 = 48 * 1024 * 1024;

/// Largest message of a WebSocket, in bytes: several of the largest frames of Noise. Whoever connects may send one before
/// it has shown who it is, and it is held in memory.
const WEBSOCKET_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Every transport in one.
pub(in crate::endpoint) type Stack = Boxed<(PeerId, StreamMuxerBox)>;

/// The transports of a node with this key.
pub(in crate::endpoint) fn stack(key: &Keypair, websocket: &WebSocketConfig) -> Result<Stack, EndpointError> {
    let security = noise::Config::new(key)?;
    let multiplexing = || {
        let mut yamux = yamux::Config::default();
        yamux.set_max_num_streams(YAMUX_STREAMS_MAX);
        yamux
    };
    let tcp = tcp::tokio::Transport::new(tcp_config())
        .upgrade(Version::V1Lazy)
        .authenticate(security.clone())
        .multiplex(multiplexing())
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let mut web = websocket::Config::new(Tunnel::new(websocket.proxy.clone()));
    web.set_tls_config(tls(websocket)?).set_max_data_size(WEBSOCKET_MESSAGE_BYTES_MAX);
    let web = web
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex(multiplexing())
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let mut quic = quic::Config::new(key);
    quic.max_stream_data = QUIC_STREAM_WINDOW_BYTES;
    quic.max_connection_data = QUIC_CONNECTION_WINDOW_BYTES;
    quic.keep_alive_interval = QUIC_KEEP_ALIVE_INTERVAL;
    quic.max_idle_timeout = QUIC_IDLE_TIMEOUT_MS;
    let quic = quic::tokio::Transport::new(quic);
    let quic = quic.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let all = web.or_transport(tcp).map(|either, _| either.into_inner());
    let all = all.or_transport(quic).map(|either, _| either.into_inner());
    Ok(TransportTimeout::new(all, CONNECT_TIMEOUT).boxed())
}

/// Settings of every TCP connection.
pub(super) fn tcp_config() -> tcp::Config {
    tcp::Config::default().nodelay(true)
}

/// Public authorities are trusted as well, so that a web server with a public certificate can stand in front of a replica.
fn tls(websocket: &WebSocketConfig) -> Result<websocket::tls::Config, EndpointError> {
    let failed = |error: websocket::tls::Error| EndpointError::Certificate(error.to_string());
    let mut tls = websocket::tls::Config::builder();
    for authority in &websocket.authorities {
        tls.add_trust(&websocket::tls::Certificate::new(authority.clone())).map_err(failed)?;
    }
    if let Some(own) = &websocket.certificate {
        let key = websocket::tls::PrivateKey::new(own.key.to_vec());
        tls.server(key, [websocket::tls::Certificate::new(own.certificate.clone())]).map_err(failed)?;
    } else if let Some(listen) = websocket.listen.filter(|listen| listen.tls) {
        return Err(EndpointError::NoCertificate(listen.at));
    }
    Ok(tls.finish())
}
