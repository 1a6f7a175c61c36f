//! The ports on which a replica listens.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use fedledger_proto::kit::ReplicaConfig;

use super::Check;

/// Tries to listen wherever the replica does.
pub(super) fn examine(config: &ReplicaConfig, running: bool) -> Vec<Check> {
    let tcp = |address: SocketAddr| TcpListener::bind(address).map(drop);
    let udp = UdpSocket::bind(config.listen).map(drop);
    let mut checks = vec![
        port("nodes over TCP", config.listen, tcp(config.listen), running),
        port("nodes over UDP", config.listen, udp, running),
        port("API", config.api, tcp(config.api), running),
    ];
    checks.extend(config.websocket.map(|listen| port("nodes over WebSocket", listen.at, tcp(listen.at), running)));
    checks.extend(config.http.map(|address| port("log over HTTP", address, tcp(address), running)));
    checks
}

fn port(what: &str, address: SocketAddr, bound: io::Result<()>, running: bool) -> Check {
    let subject = format!("{address} ({what})");
    match bound.map_err(|error| (error.kind(), error)) {
        Ok(()) if running => Check::warn("port", subject, "free, although the node runs")
            .advise("its configuration was changed since it started: start it again"),
        Ok(()) => Check::ok("port", subject, "free"),
        Err((io::ErrorKind::AddrInUse, _)) if running => {
            Check::ok("port", subject, "in use, as it is while the node runs")
        }
        Err((io::ErrorKind::AddrInUse, _)) => Check::fail("port", subject, "another process has it")
            .advise("stop that process (`ss -lptun` names it), or configure another port"),
        Err((io::ErrorKind::PermissionDenied, error)) => Check::fail("port", subject, error.to_string()).advise(
            "ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities in the systemd unit), or use a higher one",
        ),
        Err((io::ErrorKind::AddrNotAvailable, error)) => Check::fail("port", subject, error.to_string())
            .advise("this machine does not have that address: use 0.0.0.0, or one that `ip address` shows"),
        Err((_, error)) => Check::fail("port", subject, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn a_taken_port_is_a_failure_unless_the_node_itself_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let state = |running| port("API", address, TcpListener::bind(address).map(drop), running).state;
        assert_eq!((state(true), state(false)), (State::Ok, State::Fail));
        let free = |running| port("API", address, Ok(()), running).state;
        assert_eq!((free(true), free(false)), (State::Warn, State::Ok));
        let elsewhere: SocketAddr = "192.0.2.1:1".parse().unwrap();
        assert_eq!(port("API", elsewhere, TcpListener::bind(elsewhere).map(drop), false).state, State::Fail);
    }
}
