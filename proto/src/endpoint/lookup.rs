//! Looking up the host names of addresses.

use std::{io, net::SocketAddr, time::Duration};

use futures::future::join_all;
use libp2p::Multiaddr;
use tokio::time::timeout;
use tracing::debug;

use super::{
    NodeAddress, Transports,
    address::{Address, Via},
};

/// Addresses of one host name that are tried.
const ADDRESSES_PER_NAME_MAX: usize = 8;

/// How long looking a name up may take. Other addresses of the same peer wait for it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The IP addresses of an address.
///
/// # Errors
///
/// What the system's resolver says, or that it said nothing in time.
pub(super) async fn look_up(address: &Address) -> io::Result<Vec<SocketAddr>> {
    match address {
        Address::Socket(address) => Ok(vec![*address]),
        Address::Name { host, port } => {
            let found = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host.as_str(), *port))).await;
            let found = found.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
            Ok(found.take(ADDRESSES_PER_NAME_MAX).collect())
        }
    }
}

/// Everything at which a peer with these addresses is dialed. Names that are not found are left out.
pub(super) async fn dialable(addresses: Vec<NodeAddress>, transports: Transports) -> Vec<Multiaddr> {
    let lookups = addresses.iter().map(|address| async move {
        // The server's name is looked up by whoever connects with it, which may be a proxy.
        if matches!(address.via, Via::WebSocket | Via::SecureWebSocket) {
            return address.multiaddrs(&[], transports);
        }
        let found = look_up(&address.at).await.unwrap_or_else(|error| {
            debug!(host = address.at.host(), %error, "host name not found");
            Vec::new()
        });
        address.multiaddrs(&found, transports)
    });
    join_all(lookups).await.into_iter().flatten().collect()
}
