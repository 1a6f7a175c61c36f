//! Where replicas listen and are reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use fedledger_federation::member::{MemberId, Role};

use super::{
    REPLICA_FOLDER,
    config::{PeerConfig, ReplicaSettings},
    description::{MemberDescription, ReplicaDescription},
    node_name,
    provision::{ProvisionError, has_role},
};
use crate::endpoint::{Address, NodeAddress, ParseNodeAddressError, Via, WebSocketListen};

/// The default port of the first replica's node; the second has the next one.
const FIRST_NODE_PORT: u64 = 7001;
/// The default port of the first replica's API; the second has the next one.
const FIRST_API_PORT: u64 = 7101;
/// The default port of the first replica's HTTP server; the second has the next one.
const FIRST_HTTP_PORT: u64 = 7201;

/// Where a replica is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Who runs it.
    pub member: MemberId,
    /// Its number, from 1, in the order of the description.
    pub number: u64,
    /// Where it listens for other nodes.
    pub listen: SocketAddr,
    /// Where it serves the API.
    pub api: SocketAddr,
    /// Where it serves its log over HTTP.
    pub http: SocketAddr,
    /// Where it listens over WebSocket.
    pub websocket: Option<WebSocketListen>,
    /// Where other nodes reach it.
    pub addresses: Vec<NodeAddress>,
    /// Where clients reach its API.
    pub api_address: Address,
    /// Timing and switches.
    pub settings: ReplicaSettings,
}

impl Place {
    /// The replica as other nodes reach it.
    pub fn peer(&self) -> PeerConfig {
        PeerConfig { name: node_name(&self.member, REPLICA_FOLDER), addresses: self.addresses.clone() }
    }

    /// The hosts that its certificate must name: those at which its API and its WebSocket are reached.
    pub fn certified_hosts(&self) -> BTreeSet<String> {
        let secure = self.addresses.iter().filter(|address| address.via == Via::SecureWebSocket);
        let mut hosts: BTreeSet<String> = secure.map(|address| address.at.host()).collect();
        hosts.insert(self.api_address.host());
        if !self.api.ip().is_unspecified() {
            hosts.insert(self.api.ip().to_string());
        }
        hosts
    }
}

/// The places of all replicas, by number.
pub(super) fn choose(members: &[MemberDescription]) -> Result<Vec<Place>, ProvisionError> {
    let replicas = members.iter().filter(|member| has_role(member, Role::Replica));
    let places: Vec<Place> =
        replicas.zip(1..).map(|(member, number)| place(member, number)).collect::<Result<_, _>>()?;
    let mut taken = BTreeMap::new();
    for place in &places {
        let nodes = place.addresses.iter().map(|address| (address.to_string(), "replica"));
        for (address, what) in nodes.chain([(place.api_address.to_string(), "API")]) {
            let owner = format!("the {what} of {}", place.member);
            if let Some(first) = taken.insert(address.clone(), owner.clone()) {
                return Err(ProvisionError::AddressTaken { address, first, second: owner });
            }
        }
    }
    Ok(places)
}

/// The place of a member's replica with this number.
pub(super) fn place(member: &MemberDescription, number: u64) -> Result<Place, ProvisionError> {
    let described = member.replica.clone().unwrap_or_default();
    let default = |first_port: u64| {
        let port = u16::try_from(first_port.saturating_add(number.saturating_sub(1)))
            .map_err(|_| ProvisionError::NoPort(member.id.clone()))?;
        Ok::<_, ProvisionError>(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    };
    let listen = described.listen.map_or_else(|| default(FIRST_NODE_PORT), Ok)?;
    let api = described.api.map_or_else(|| default(FIRST_API_PORT), Ok)?;
    let http = described.http.map_or_else(|| default(FIRST_HTTP_PORT), Ok)?;
    let websocket = described.websocket;
    check_sockets(member, [("replica", listen), ("API", api), ("HTTP server", http)], websocket)?;
    let settings = described.settings.clone().unwrap_or_default();
    if let Some((setting, range)) = settings.mistake() {
        return Err(ProvisionError::Setting { member: member.id.clone(), setting, range });
    }
    Ok(Place {
        addresses: addresses(member, &described, listen)?,
        api_address: reached_at(member, described.api_address.as_deref(), api, "api_address")?,
        member: member.id.clone(),
        number,
        listen,
        websocket,
        api,
        http,
        settings,
    })
}

/// The sockets of a replica must differ. Those of different replicas need not: they may run on different machines.
fn check_sockets(
    member: &MemberDescription,
    sockets: [(&'static str, SocketAddr); 3],
    websocket: Option<WebSocketListen>,
) -> Result<(), ProvisionError> {
    let mut taken: BTreeMap<SocketAddr, &'static str> = BTreeMap::new();
    // The last one is blamed, which is the one that was added to a description that worked.
    for (what, address) in sockets.into_iter().chain(websocket.map(|listen| ("WebSocket", listen.at))) {
        if let Some(first) = taken.insert(address, what) {
            return Err(ProvisionError::AddressTaken {
                address: address.to_string(),
                first: format!("the {first} of {}", member.id),
                second: format!("the {what} of {}", member.id),
            });
        }
    }
    Ok(())
}

/// The addresses at which other nodes reach a replica.
fn addresses(
    member: &MemberDescription,
    described: &ReplicaDescription,
    listen: SocketAddr,
) -> Result<Vec<NodeAddress>, ProvisionError> {
    if let Some(list) = &described.address {
        let failed = |source: ParseNodeAddressError| ProvisionError::NodeAddress { member: member.id.clone(), source };
        return list.texts().map(|text| text.parse().map_err(failed)).collect();
    }
    let mut addresses = vec![reached_at(member, None, listen, "address")?.into()];
    if let Some(listen) = described.websocket {
        let via = if listen.tls { Via::SecureWebSocket } else { Via::WebSocket };
        addresses.push(NodeAddress { via, at: reached_at(member, None, listen.at, "address")? });
    }
    Ok(addresses)
}

/// The address at which others reach what listens on `listen`.
fn reached_at(
    member: &MemberDescription,
    described: Option<&str>,
    listen: SocketAddr,
    setting: &'static str,
) -> Result<Address, ProvisionError> {
    match described {
        Some(text) => text.parse().map_err(|source| ProvisionError::Address { member: member.id.clone(), source }),
        None if listen.ip().is_unspecified() || listen.port() == 0 => {
            Err(ProvisionError::Unreachable { member: member.id.clone(), listen, setting })
        }
        None => Ok(Address::Socket(listen)),
    }
}
