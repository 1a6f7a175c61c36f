//! The network between nodes: every node reaches every replica over a relay of its own, and a node that is cut off loses
//! every datagram in either direction without a word, while its process lives.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    runtime::{Builder, Runtime},
    sync::watch,
    time::timeout,
};
use toml::{Table, Value};

/// The largest datagram that UDP knows, in bytes.
const DATAGRAM_SIZE_BYTES_MAX: usize = 65_535;

/// How long nothing may be lost of a node that is cut off: QUIC asks for a sign of life every second.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How many datagrams were lost of each node that is cut off.
type Losses = BTreeMap<String, u64>;

/// Every relay. They end when this is dropped.
pub struct Relays {
    runtime: Runtime,
    losses: Arc<watch::Sender<Losses>>,
}

/// The way from a node to a replica, and back.
struct Relay {
    ends: [String; 2],
    losses: Arc<watch::Sender<Losses>>,
    front: UdpSocket,
    replica: SocketAddr,
}

impl Relays {
    /// None yet.
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, losses: Arc::default() }
    }

    /// Has the node of this configuration reach every replica over a relay, by QUIC only.
    pub fn put_before(&self, node: &str, config: &Path) {
        let mut table: Table = fs::read_to_string(config).unwrap().parse().unwrap();
        for peer in table["peers"].as_array_mut().unwrap() {
            let name = peer["name"].as_str().unwrap().to_owned();
            let replica = peer["address"].as_str().unwrap().parse().unwrap();
            let relay = self.relay([node.to_owned(), name], replica);
            peer["address"] = Value::String(format!("quic://{relay}"));
        }
        fs::write(config, table.to_string()).unwrap();
    }

    /// Starts a relay; where it is reached.
    fn relay(&self, ends: [String; 2], replica: SocketAddr) -> SocketAddr {
        let front = self.runtime.block_on(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = front.local_addr().unwrap();
        let relay = Arc::new(Relay { ends, losses: Arc::clone(&self.losses), front, replica });
        self.runtime.spawn(relay.there());
        address
    }

    /// From now on nothing reaches this node, and nothing that it sends reaches anybody.
    pub fn cut_off(&self, node: &str) {
        self.losses.send_modify(|losses| *losses.entry(node.to_owned()).or_default() = 0);
    }

    /// Waits until so many datagrams from a node that is cut off, or to it, were lost.
    #[track_caller]
    pub fn wait_for_losses(&self, node: &str, count: u64) {
        let mut losses = self.losses.subscribe();
        let waiting = async { losses.wait_for(|losses| losses[node] >= count).await.map(drop) };
        let waited = self.runtime.block_on(async { timeout(SILENCE_MAX, waiting).await });
        assert!(waited.is_ok(), "{node} is silent");
    }

    /// Connects a node again.
    pub fn connect(&self, node: &str) {
        self.losses.send_if_modified(|losses| losses.remove(node).is_some());
    }
}

impl Relay {
    /// From the node to the replica. Each of the node's sockets has one here, to which the replica answers.
    async fn there(self: Arc<Self>) {
        let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut datagram = vec![0; DATAGRAM_SIZE_BYTES_MAX];
        loop {
            // An error tells that nobody took an earlier datagram.
            let Ok((size, from)) = self.front.recv_from(&mut datagram).await else { continue };
            let back = match backs.entry(from) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let back = Arc::new(self.socket_to_replica().await.unwrap());
                    tokio::spawn(Arc::clone(&self).back_again(Arc::clone(&back), from));
                    new.insert(back)
                }
            };
            if !self.is_lost() {
                back.send(&datagram[..size]).await.ok();
            }
        }
    }

    async fn socket_to_replica(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(self.replica).await?;
        Ok(socket)
    }

    /// From the replica to the node.
    async fn back_again(self: Arc<Self>, back: Arc<UdpSocket>, to: SocketAddr) {
        let mut datagram = vec![0; DATAGRAM_SIZE_BYTES_MAX];
        loop {
            let Ok(size) = back.recv(&mut datagram).await else { continue };
            if !self.is_lost() {
                self.front.send_to(&datagram[..size], to).await.ok();
            }
        }
    }

    /// Whether a datagram is lost now, because one of the ends is cut off.
    fn is_lost(&self) -> bool {
        self.losses.send_if_modified(|losses| {
            let mut lost = false;
            for end in &self.ends {
                if let Some(count) = losses.get_mut(end) {
                    *count += 1;
                    lost = true;
                }
            }
            lost
        })
    }
}
