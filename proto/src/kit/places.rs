//! Where replicas listen and are reached.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use fedledger_federation::member::{MemberId, Role};

use super::{
    REPLICA_FOLDER,
    config::{PeerConfig, ReplicaSettings},
    description::MemberDescription,
    node_name,
    provision::{ProvisionError, has_role},
};
use crate::endpoint::Address;

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
    /// Where other nodes reach it.
    pub address: Address,
    /// Where clients reach its API.
    pub api_address: Address,
    /// Timing and switches.
    pub settings: ReplicaSettings,
}

impl Place {
    /// The replica as other nodes reach it.
    pub fn peer(&self) -> PeerConfig {
        PeerConfig { name: node_name(&self.member, REPLICA_FOLDER), address: self.address.clone() }
    }
}

/// The places of all replicas, by number.
pub(super) fn choose(members: &[MemberDescription]) -> Result<Vec<Place>, ProvisionError> {
    let replicas = members.iter().filter(|member| has_role(member, Role::Replica));
    let places: Vec<Place> =
        replicas.zip(1..).map(|(member, number)| place(member, number)).collect::<Result<_, _>>()?;
    let mut taken = BTreeMap::new();
    for place in &places {
        let claims = [(&place.address, "replica"), (&place.api_address, "API")];
        for (address, what) in claims {
            let owner = format!("the {what} of {}", place.member);
            if let Some(first) = taken.insert(address.to_string(), owner.clone()) {
                return Err(ProvisionError::AddressTaken { address: address.to_string(), first, second: owner });
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
    check_http(member, http, listen, api)?;
    let settings = described.settings.unwrap_or_default();
    if let Some((setting, range)) = settings.mistake() {
        return Err(ProvisionError::Setting { member: member.id.clone(), setting, range });
    }
    Ok(Place {
        address: reached_at(member, described.address.as_deref(), listen, "address")?,
        api_address: reached_at(member, described.api_address.as_deref(), api, "api_address")?,
        member: member.id.clone(),
        number,
        listen,
        api,
        http,
        settings,
    })
}

/// The three sockets of a replica must differ. Those of different replicas need not: they may run on different machines.
fn check_http(
    member: &MemberDescription,
    http: SocketAddr,
    listen: SocketAddr,
    api: SocketAddr,
) -> Result<(), ProvisionError> {
    let taken = [(listen, "replica"), (api, "API")].into_iter().find(|(address, _)| *address == http);
    match taken {
        None => Ok(()),
        Some((address, what)) => Err(ProvisionError::AddressTaken {
            address: address.to_string(),
            first: format!("the {what} of {}", member.id),
            second: format!("the HTTP server of {}", member.id),
        }),
    }
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

/// The host of an address.
pub(super) fn host(address: &Address) -> String {
    match address {
        Address::Socket(socket) => socket.ip().to_string(),
        Address::Name { host, .. } => host.clone(),
    }
}
