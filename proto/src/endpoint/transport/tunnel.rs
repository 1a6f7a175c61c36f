//! TCP as WebSocket uses it: to host names, and through a proxy where there is one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use libp2p::{
    Multiaddr, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
    multiaddr::Protocol,
    tcp::tokio::{TcpStream, Transport as Tcp},
};

use super::stack::tcp_config;
use crate::endpoint::Proxy;

/// See the module's documentation.
pub(super) struct Tunnel {
    tcp: Tcp,
    proxy: Option<Proxy>,
}

impl Tunnel {
    pub fn new(proxy: Option<Proxy>) -> Self {
        Self { tcp: Tcp::new(tcp_config()), proxy }
    }
}

impl Transport for Tunnel {
    type Output = TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = <Tcp as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<TcpStream>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.tcp.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.tcp.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some((host, port)) = target(&address) else { return Err(TransportError::MultiaddrNotSupported(address)) };
        let proxy = self.proxy.clone().filter(|proxy| proxy.serves(&host, port));
        Ok(async move {
            let stream = match proxy {
                Some(proxy) => proxy.connect(&host, port).await?,
                None => tokio::net::TcpStream::connect((host.as_str(), port)).await?,
            };
            stream.set_nodelay(true)?;
            Ok(TcpStream(stream))
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.tcp).poll(context)
    }
}

/// The host and the port in `/dns/a.org/tcp/443` and the like, whatever peer is expected there.
fn target(address: &Multiaddr) -> Option<(String, u16)> {
    let mut protocols = address.iter();
    let host = match protocols.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    let Protocol::Tcp(port) = protocols.next()? else { return None };
    protocols.all(|rest| matches!(rest, Protocol::P2p(_))).then_some((host, port))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_host_and_a_port_are_all_that_is_dialed() {
        let target = |text: &str| super::target(&text.parse().unwrap());
        assert_eq!(target("/dns/a.org/tcp/443"), Some(("a.org".to_owned(), 443)));
        assert_eq!(target("/ip6/::1/tcp/1"), Some(("::1".to_owned(), 1)));
        for other in ["/dns/a.org/udp/443", "/ip4/192.0.2.1/tcp/1/ws", "/tcp/1", "/memory/1"] {
            assert_eq!(target(other), None, "{other}");
        }
    }
}
