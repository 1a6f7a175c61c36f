//! Every way to every replica, each tried alone, and what to ask the people for who run the firewall.

use std::{collections::BTreeMap, time::Duration};

use fedledger_federation::member::Members;
use fedledger_ledger::{PublicKey, SecretKey};
use fedledger_participant::node::last_known_replicas;
use fedledger_proto::{
    endpoint::{
        Address, Endpoint, EndpointConfig, Leg, NodeAddress, PeerAddress, ProbeError, Prober, Proxy, Transports,
        WebSocketConfig,
    },
    kit::{NodeConfig, PeerConfig, authority_of_node},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Check, State,
    node::{Examined, Kit},
};
use crate::{context::Context, error::Failure, random};

/// Ways that are tried at the same time.
const ATTEMPTS_AT_ONCE: usize = 16;

/// How long the replicas may take to let the node in.
const ADMISSION_PATIENCE: Duration = Duration::from_secs(10);

/// One way to a replica.
#[derive(Debug, Clone)]
struct Way {
    replica: String,
    key: PublicKey,
    address: NodeAddress,
    leg: Leg,
}

/// Tries every way to every replica of the node's configuration.
pub(super) fn examine(
    context: &Context,
    node: &Examined,
    members: Option<&Members>,
    patience: Duration,
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let websocket = websocket(node, checks);
    let mut randomness = random::source()?;
    let prober = Prober { key: SecretKey::from_seed(randomness()), websocket, timeout: patience };
    let ways = ways(node, &keys(node, members), checks);
    checks.extend(context.block_on(names(&prober, &ways)));
    let tried = context.block_on(attempts(&prober, ways));
    let reached: Vec<&Way> = tried.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(way, _)| way).collect();
    checks.extend(legs(&prober, &tried));
    checks.push(enough(node, &tried));
    if !node.running && !reached.is_empty() {
        checks.extend(context.block_on(admission(node, &prober.websocket, &reached)));
    }
    Ok(())
}

/// What WebSocket needs, from the node's directory and the environment.
fn websocket(node: &Examined, checks: &mut Vec<Check>) -> WebSocketConfig {
    let proxy = Proxy::from_environment().unwrap_or_else(|error| {
        // The node starts without it where it needs none.
        let is_needed = error.concerns(peers(node).iter().flat_map(|peer| &peer.addresses));
        let check = if is_needed { Check::fail } else { Check::warn };
        let check = check("proxy", error.variable(), error.reason().to_string());
        checks.push(check.advise("correct the variable where the node is started, or unset it"));
        None
    });
    if let Some(proxy) = &proxy {
        let found = format!("{proxy} is used for WebSocket (wss://), and for nothing else");
        checks.push(Check::ok("proxy", proxy.variable().unwrap_or_default(), found));
    }
    let authority = authority_of_node(&node.directory).unwrap_or_else(|error| {
        checks.push(Check::warn("certificates", "", error.to_string()));
        None
    });
    WebSocketConfig { authorities: authority.into_iter().collect(), proxy, ..WebSocketConfig::default() }
}

fn peers(node: &Examined) -> &[PeerConfig] {
    match &node.config {
        NodeConfig::Participant(config) => &config.peers,
        NodeConfig::Replica(config) => &config.peers,
    }
}

/// The transport keys of replicas: those that the ledger names, or else those that the node knew last, or began with.
fn keys(node: &Examined, members: Option<&Members>) -> BTreeMap<String, PublicKey> {
    if let Some(members) = members {
        let replicas = members.nodes().filter(|(_, recorded)| recorded.replica_number().is_some());
        return replicas.map(|(_, replica)| (replica.name.clone(), replica.transport_key)).collect();
    }
    let begun_with = node.genesis.genesis.replicas();
    let mut keys: BTreeMap<_, _> =
        begun_with.map(|(_, replica)| (replica.name.clone(), replica.transport_key)).collect();
    keys.extend(last_known_replicas(&node.directory).unwrap_or_default());
    keys
}

fn ways(node: &Examined, keys: &BTreeMap<String, PublicKey>, checks: &mut Vec<Check>) -> Vec<Way> {
    let mut ways = Vec::new();
    for peer in peers(node).iter().filter(|peer| peer.name != node.config.name()) {
        let Some(key) = keys.get(&peer.name) else {
            let check = Check::warn("replica", &peer.name, "the ledger names no such replica");
            checks.push(check.advise("remove it from `peers` in node.toml, or correct its name"));
            continue;
        };
        for address in &peer.addresses {
            let legs = address.legs();
            ways.extend(legs.map(|leg| Way { replica: peer.name.clone(), key: *key, address: address.clone(), leg }));
        }
    }
    ways
}

/// Looks up every host name once.
async fn names(prober: &Prober, ways: &[Way]) -> Vec<Check> {
    let mut names: BTreeMap<String, Address> = BTreeMap::new();
    for way in ways.iter().filter(|way| prober.proxy(&way.address, way.leg).is_none()) {
        if let Address::Name { host, .. } = &way.address.at {
            names.insert(host.clone(), way.address.at.clone());
        }
    }
    let mut checks = Vec::new();
    for (host, address) in names {
        checks.push(match prober.look_up(&address).await {
            Ok(count) => Check::ok("name", host, format!("{count} addresses")),
            Err(error) => Check::warn("name", host, error.to_string())
                .advise("ask for DNS to resolve it, or write the IP address into node.toml"),
        });
    }
    checks
}

/// Tries all ways, some at a time; in the order in which they were given.
async fn attempts(prober: &Prober, ways: Vec<Way>) -> Vec<(Way, Result<Duration, ProbeError>)> {
    let mut waiting = ways.into_iter().enumerate();
    let (mut tasks, mut tried) = (JoinSet::new(), BTreeMap::new());
    loop {
        while tasks.len() < ATTEMPTS_AT_ONCE
            && let Some((number, way)) = waiting.next()
        {
            let prober = prober.clone();
            tasks.spawn(async move {
                let outcome = prober.shake_hands(&way.key, &way.address, way.leg).await;
                (number, way, outcome)
            });
        }
        match tasks.join_next().await {
            Some(Ok((number, way, outcome))) => drop(tried.insert(number, (way, outcome))),
            Some(Err(_)) => {}
            None => return tried.into_values().collect(),
        }
    }
}

/// What became of each way. The first one blocked of an address bears what to ask the firewall's people for.
fn legs(prober: &Prober, tried: &[(Way, Result<Duration, ProbeError>)]) -> Vec<Check> {
    let mut asked: Vec<(&str, &NodeAddress)> = Vec::new();
    let mut checks = Vec::new();
    for (way, outcome) in tried {
        let subject = format!("{} at {}", way.replica, way.address.at);
        let error = match outcome {
            Ok(took) => {
                let found = format!("the replica answers and proves its key, after {} ms", took.as_millis());
                checks.push(Check::ok(way.leg.as_str(), subject, found));
                continue;
            }
            Err(error) => error,
        };
        let mut check = Check::warn(way.leg.as_str(), subject, error.to_string()).advise(advice(error));
        let leaves = !matches!(way.address.at, Address::Socket(address) if address.ip().is_loopback());
        if leaves && is_blocked(error) && !asked.contains(&(way.replica.as_str(), &way.address)) {
            asked.push((&way.replica, &way.address));
            let same = |(other, _): &&(Way, _)| other.replica == way.replica && other.address == way.address;
            let blocked = tried.iter().filter(same).filter(|(_, outcome)| outcome.as_ref().is_err_and(is_blocked));
            let legs: Vec<Leg> = blocked.map(|(way, _)| way.leg).collect();
            check.ask = Some(ask(&way.address, &legs, prober.proxy(&way.address, way.leg)));
        }
        checks.push(check);
    }
    checks
}

/// Whether a firewall may be why.
const fn is_blocked(error: &ProbeError) -> bool {
    matches!(error, ProbeError::Silent(_) | ProbeError::Connect(_) | ProbeError::Handshake(_))
}

fn advice(error: &ProbeError) -> &'static str {
    match error {
        ProbeError::Name { .. } => "ask for DNS to resolve it, or write the IP address into node.toml",
        ProbeError::Silent(_) => {
            "ask whoever runs the firewall to let it through (see below), unless another way works; see that the replica runs"
        }
        ProbeError::Connect(_) => "see that the replica runs; if it does, a firewall refuses (see below)",
        ProbeError::Handshake(_) => {
            "something on the way changes what is sent, such as TLS inspection: ask for an exception for this address"
        }
        ProbeError::OtherNode(_) => "ask the replica's people for its address, and whether its key was replaced",
        ProbeError::Endpoint(_) => "correct the certificates in the directory",
    }
}

/// What to write to the people who run the firewall.
fn ask(address: &NodeAddress, blocked: &[Leg], proxy: Option<&Proxy>) -> String {
    let (host, port) = (address.at.host(), address.at.port());
    if let Some(proxy) = proxy {
        return format!(
            "Please let the proxy {proxy} forward CONNECT to {host} port {port} for this host, without TLS inspection; \
             no inbound is needed."
        );
    }
    let has = |leg| blocked.contains(&leg);
    let protocols = match (has(Leg::Quic), has(Leg::Tcp) || has(Leg::WebSocket)) {
        (true, true) => "UDP and TCP",
        (true, false) => "UDP",
        (false, _) => "TCP",
    };
    let inspection = if has(Leg::WebSocket) { ", without TLS inspection" } else { "" };
    format!("Please allow outbound {protocols} from this host to {host} port {port}{inspection}; no inbound is needed.")
}

/// Whether the node reaches as many replicas as it needs: a participant one, a replica a majority with itself.
fn enough(node: &Examined, tried: &[(Way, Result<Duration, ProbeError>)]) -> Check {
    let mut reached: BTreeMap<&str, bool> = BTreeMap::new();
    for (way, outcome) in tried {
        *reached.entry(&way.replica).or_default() |= outcome.is_ok();
    }
    let (count, all) = (reached.values().filter(|reached| **reached).count(), reached.len());
    let needed = match &node.config {
        NodeConfig::Participant(_) => 1,
        NodeConfig::Replica(_) => node.genesis.genesis.replicas().count() / 2,
    };
    let state = if count < needed {
        State::Fail
    } else if count < all {
        State::Warn
    } else {
        State::Ok
    };
    let found = format!("{count} of {all} are reached, {needed} are needed");
    let missing: Vec<&str> = reached.iter().filter(|(_, reached)| !**reached).map(|(name, _)| *name).collect();
    let check = Check::new(state, "replicas", "", found);
    if missing.is_empty() { check } else { check.advise(format!("not reached: {}", missing.join(", "))) }
}

/// Connects as the node itself, which does not run, and sees who lets it in.
async fn admission(node: &Examined, websocket: &WebSocketConfig, reached: &[&Way]) -> Option<Check> {
    let transport_key = match node.kit.as_ref()? {
        Kit::Participant(kit) => kit.transport_key.clone(),
        Kit::Replica(kit) => kit.transport_key.clone(),
    };
    let mut dial: BTreeMap<PublicKey, Vec<NodeAddress>> = BTreeMap::new();
    for way in reached {
        dial.entry(way.key).or_default().push(way.address.clone());
    }
    let admitted = dial.keys().copied().collect();
    let dial = dial.into_iter().map(|(key, addresses)| PeerAddress { key, addresses }).collect();
    let websocket = websocket.clone();
    let transports = Transports::default();
    let config = EndpointConfig { transport_key, listen: Vec::new(), dial, admitted, transports, websocket };
    let (endpoint, _incoming) = match Endpoint::start(config) {
        Ok(started) => started,
        Err(error) => return Some(Check::fail("admission", "", error.to_string())),
    };
    let mut connected = endpoint.connected();
    let let_in = timeout(ADMISSION_PATIENCE, connected.wait_for(|peers| !peers.is_empty())).await.is_ok();
    endpoint.close().await;
    Some(if let_in {
        Check::ok("admission", "", "the replicas let this node in")
    } else {
        Check::fail(
            "admission",
            "",
            "replicas answer, but do not let this node in: they know it under another key, or not",
        )
        .advise("ask the members whether this node was excluded or its keys were replaced")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_names_the_protocols_that_are_blocked_and_no_others() {
        let address: NodeAddress = "ledger.example.org:7001".parse().unwrap();
        let asked = |legs: &[Leg]| ask(&address, legs, None);
        assert_eq!(
            asked(&[Leg::Quic, Leg::Tcp]),
            "Please allow outbound UDP and TCP from this host to ledger.example.org port 7001; no inbound is needed."
        );
        assert!(asked(&[Leg::Quic]).contains("outbound UDP from"));
        assert!(asked(&[Leg::Tcp]).contains("outbound TCP from"));
        let web: NodeAddress = "wss://ledger.example.org".parse().unwrap();
        assert!(ask(&web, &[Leg::WebSocket], None).contains("port 443, without TLS inspection;"));
        let proxy: Proxy = "http://me:secret@proxy:3128".parse().unwrap();
        let asked = ask(&web, &[Leg::WebSocket], Some(&proxy));
        assert!(asked.contains("the proxy proxy:3128 forward CONNECT") && !asked.contains("secret"), "{asked}");
    }
}
