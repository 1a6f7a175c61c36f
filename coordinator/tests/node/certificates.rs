//! Replacing keys of the API as docs/consortium.md says, with OpenSSL: a replica's, a member's, and the authority's.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use fedledger_federation::governance::{Action, RotateKeys};
use fedledger_proto::{
    api::{ApiClient, ApiError},
    kit::{Identity, InstalledSite, ReplicaKit},
};

use super::{cluster::Cluster, rotation::decide};

const SERVER: &str = "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n\
                      subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:ledger.va.example\n";
const CLIENT: &str = "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n";
const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n";

/// Runs `openssl` in a directory.
fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command.current_dir(directory).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether there is an OpenSSL that can do this; says so if not.
fn is_there() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: there is no program `openssl` here");
    }
    there
}

/// A new key in `NAME.key`, and a certificate for it in `NAME.crt`, by the authority in `ca.key` and `ca.crt` of the same
/// directory, or by itself.
fn certify(directory: &Path, name: &str, extensions: &str, by_itself: bool) {
    fs::write(directory.join("extensions"), extensions).unwrap();
    openssl(directory, &format!("genpkey -algorithm ed25519 -out {name}.key"));
    openssl(directory, &format!("req -new -key {name}.key -subj /O=cluster/CN={name} -out {name}.csr"));
    let issuer = if by_itself { format!("-key {name}.key") } else { "-CA ca.crt -CAkey ca.key".to_owned() };
    let issue = format!("x509 -req -in {name}.csr {issuer} -days 36500 -extfile extensions -out {name}.crt");
    openssl(directory, &issue);
}

/// Puts a new key and its certificate into a kit.
fn install(from: &Path, name: &str, kit: &Path) {
    let key = kit.join("api.key");
    fs::copy(from.join(format!("{name}.key")), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(from.join(format!("{name}.crt")), kit.join("api.crt")).unwrap();
}

fn identity(cluster: &Cluster, site: u64) -> Identity {
    Identity::load(&cluster.directory().join(format!("site-{site}/identity"))).unwrap()
}

/// Calls a replica's API as a site.
async fn call(cluster: &Cluster, number: u64, site: u64) -> Result<ApiClient, ApiError> {
    let api = ReplicaKit::load(&cluster.replica_directory(number)).unwrap().config.api;
    ApiClient::connect(&format!("https://{api}"), &identity(cluster, site)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicas_api_goes_on_with_a_new_key_after_its_restart() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start(3).await;
    call(&cluster, 1, 2).await.unwrap();
    let (authority, keys) = (cluster.directory().join("ca"), cluster.replica_directory(1).join("keys"));
    let old = *ReplicaKit::load(&cluster.replica_directory(1)).unwrap().tls.public_key();
    certify(&authority, "server", SERVER, false);
    install(&authority, "server", &keys);
    cluster.kill(1).await;
    cluster.restart(1).await;
    assert_ne!(*ReplicaKit::load(&cluster.replica_directory(1)).unwrap().tls.public_key(), old);
    call(&cluster, 1, 2).await.unwrap();
    // By another authority it is believed by nobody.
    let elsewhere = tempfile::tempdir().unwrap();
    certify(elsewhere.path(), "ca", AUTHORITY, true);
    certify(elsewhere.path(), "server", SERVER, false);
    install(elsewhere.path(), "server", &keys);
    cluster.kill(1).await;
    cluster.restart(1).await;
    assert_eq!(call(&cluster, 1, 2).await.unwrap_err().code(), "unreachable");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_members_new_api_key_counts_with_the_vote_and_no_replica_is_started_again() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start(4).await;
    let (authority, site) = (cluster.directory().join("ca"), cluster.directory().join("site-4"));
    certify(&authority, "people", CLIENT, false);
    call(&cluster, 1, 4).await.unwrap();
    let directory = site.join("identity");
    let old = identity(&cluster, 4);
    install(&authority, "people", &directory);
    let refused = Identity::load(&directory).unwrap_err();
    assert!(refused.to_string().contains("api.key"), "the record still names the old key: {refused}");
    let api_key = *tls_key(&directory);
    let rotate = RotateKeys { member: "site-4".into(), organisation_key: None, api_key: Some(api_key), node: None };
    decide(&cluster, Action::RotateKeys(rotate)).await;
    let member = cluster.node(1).handle().query(|replica| replica.log().machine().members().get("site-4").cloned());
    InstalledSite::open(&site).unwrap().adopt(member.await.unwrap().unwrap(), None).unwrap();
    let client = call(&cluster, 1, 4).await.unwrap();
    let with_old_key = ApiClient::connect(client.url(), &old).await.unwrap_err();
    assert_eq!(with_old_key.code(), "unknown_member");
    cluster.stop().await;
}

/// The public key in the certificate of a kit.
fn tls_key(kit: &Path) -> Box<fedledger_ledger::PublicKey> {
    openssl(kit, "x509 -in api.crt -outform DER -out api.der");
    Box::new(fedledger_proto::kit::certified_key(&fs::read(kit.join("api.der")).unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_replaced_while_both_are_trusted() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start(3).await;
    let new = tempfile::tempdir().unwrap();
    certify(new.path(), "ca", AUTHORITY, true);
    let old = fs::read_to_string(cluster.directory().join("ca/ca.crt")).unwrap();
    let authority = fs::read_to_string(new.path().join("ca.crt")).unwrap();
    let (keys, people) = (cluster.replica_directory(1).join("keys"), cluster.directory().join("site-2/identity"));
    let trust = |text: &str| {
        fs::write(keys.join("ca.crt"), text).unwrap();
        fs::write(people.join("ca.crt"), text).unwrap();
    };
    // First everybody trusts both; then certificates by the new one come, here and there; then the old one goes.
    trust(&format!("{old}{authority}"));
    cluster.kill(1).await;
    cluster.restart(1).await;
    call(&cluster, 1, 2).await.unwrap();
    certify(new.path(), "server", SERVER, false);
    install(new.path(), "server", &keys);
    cluster.kill(1).await;
    cluster.restart(1).await;
    call(&cluster, 1, 2).await.unwrap();
    let certificate = format!(
        "x509 -new -force_pubkey {0}.pub -subj /CN=people -CA ca.crt -CAkey ca.key -days 36500 \
                               -extfile extensions -out {0}.crt",
        "people"
    );
    fs::write(new.path().join("extensions"), CLIENT).unwrap();
    fs::copy(people.join("api.key"), new.path().join("people.key")).unwrap();
    openssl(new.path(), "pkey -in people.key -pubout -out people.pub");
    openssl(new.path(), &certificate);
    fs::copy(new.path().join("people.crt"), people.join("api.crt")).unwrap();
    call(&cluster, 1, 2).await.unwrap();
    let site_3 = call(&cluster, 1, 3).await.unwrap_err();
    assert_eq!(site_3.code(), "unreachable", "it trusts the old one only: {site_3}");
    trust(&authority);
    cluster.kill(1).await;
    cluster.restart(1).await;
    call(&cluster, 1, 2).await.unwrap();
    cluster.stop().await;
}
