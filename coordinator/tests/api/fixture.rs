//! A provisioned consortium with one API that is served.

use std::{net::SocketAddr, path::Path, sync::Arc};

use fedledger_coordinator::api::{ApiConfig, ApiServer, ApiServerError};
use fedledger_ledger::SecretKey;
use fedledger_proto::{
    api::{
        ApiClient, ApiError,
        v1::{blobs_client::BlobsClient, ledger_client::LedgerClient},
    },
    kit::{CertificateAuthority, ConsortiumDescription, Identity, ReplicaKit, TlsIdentity, provision, write_kits},
};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::backend::MemoryLedger;

/// Runs a replica; trains; only reads.
const DESCRIPTION: &str = r#"
name = "heart"

[[members]]
id = "cleveland"
roles = ["replica", "operator"]

[[members]]
id = "budapest"
roles = ["participant"]

[[members]]
id = "regulator"
roles = ["auditor"]
"#;

/// The second seed that provisioning draws is the certificate authority's.
const AUTHORITY_SEED: [u8; 32] = [2; 32];

pub struct Fixture {
    pub ledger: Arc<MemoryLedger>,
    kits: tempfile::TempDir,
    pub running: Running,
}

/// An API that is served.
pub struct Running {
    pub address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    pub task: JoinHandle<Result<(), ApiServerError>>,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(false).await
    }

    pub async fn with(reflection: bool) -> Self {
        let kits = tempfile::tempdir().unwrap();
        let description = ConsortiumDescription::from_toml(DESCRIPTION).unwrap();
        let mut counter = 0;
        let provisioned = provision(&description, &mut || {
            counter += 1;
            [counter; 32]
        });
        write_kits(&provisioned.unwrap(), kits.path(), false).unwrap();
        let kit = ReplicaKit::load(&kits.path().join("cleveland/replica")).unwrap();
        let ledger = Arc::new(MemoryLedger::new(kit.genesis));
        let config = ApiConfig { listen: loopback(), tls: kit.tls, reflection };
        let running = Running::start(config, ledger.clone()).await;
        Self { ledger, kits, running }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.running.address)
    }

    pub fn identity(&self, member: &str) -> Identity {
        Identity::load(&self.kits.path().join(member).join("identity")).unwrap()
    }

    pub async fn client(&self, member: &str) -> ApiClient {
        ApiClient::connect(&self.url(), &self.identity(member)).await.unwrap()
    }

    /// Connects with the certificate of a member that is none of ours.
    pub async fn connect_with(&self, tls: &TlsIdentity) -> Result<ApiClient, ApiError> {
        ApiClient::connect_with(&self.url(), tls, &self.identity("cleveland").genesis).await
    }

    /// The consortium's certificate authority.
    pub fn authority(&self) -> CertificateAuthority {
        let authority = CertificateAuthority::new("heart", SecretKey::from_seed(AUTHORITY_SEED)).unwrap();
        let written = std::fs::read_to_string(self.kits.path().join("ca/ca.crt")).unwrap();
        assert_eq!(authority.certificate_pem(), written);
        authority
    }

    pub fn server_config(&self, listen: SocketAddr) -> ApiConfig {
        let kit = ReplicaKit::load(&self.replica_directory()).unwrap();
        ApiConfig { listen, tls: kit.tls, reflection: false }
    }

    pub fn replica_kit(&self) -> ReplicaKit {
        ReplicaKit::load(&self.replica_directory()).unwrap()
    }

    fn replica_directory(&self) -> std::path::PathBuf {
        Path::new(self.kits.path()).join("cleveland/replica")
    }

    /// A connection below the client, for messages that it would not send.
    pub async fn channel(&self, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_shared(self.url()).unwrap().tls_config(tls).unwrap().connect().await
    }

    pub async fn raw_ledger(&self, member: &str) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel(self.identity(member).tls.client_config()).await.unwrap())
    }

    pub async fn raw_blobs(&self, member: &str) -> BlobsClient<Channel> {
        BlobsClient::new(self.channel(self.identity(member).tls.client_config()).await.unwrap())
    }
}

impl Running {
    pub async fn start(config: ApiConfig, ledger: Arc<MemoryLedger>) -> Self {
        let server = ApiServer::bind(config).await.unwrap();
        let address = server.local_address();
        let (shutdown, signal) = oneshot::channel();
        let signal = async {
            // An error means that the fixture is gone, which is a reason to stop as well.
            let _ = signal.await;
        };
        let task = tokio::spawn(server.serve(ledger, signal));
        Self { address, shutdown, task }
    }

    /// Stops serving, and waits until every connection is closed.
    pub async fn stop(self) {
        let _ = self.shutdown.send(());
        self.task.await.unwrap().unwrap();
    }
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}
