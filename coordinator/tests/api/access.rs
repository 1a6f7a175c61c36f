//! Who is let in.

use std::{error::Error, time::Duration};

use fedledger_coordinator::api::ApiConfig;
use fedledger_ledger::SecretKey;
use fedledger_proto::{
    api::{ApiClient, ApiError, v1},
    kit::{CertificateAuthority, GenesisFile, TlsIdentity},
};
use tonic::{
    Code, Request,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::fixture::{Fixture, Running, loopback};

#[tokio::test]
async fn members_are_let_in() {
    let fixture = Fixture::new().await;
    for member in ["cleveland", "budapest", "regulator"] {
        let status = fixture.client(member).await.status().await.unwrap();
        assert_eq!((status.consortium.as_str(), status.log_size), ("heart", 1));
        assert_eq!(status.peers[0].matched_index, Some(0), "zero is not absent");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let fixture = Fixture::new().await;
    let authority = fixture.authority().certificate_pem().to_owned();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    // With TLS 1.3 the refusal may show at the first call only.
    let refused = match fixture.channel(tls).await {
        Ok(channel) => {
            let answer = v1::ledger_client::LedgerClient::new(channel).status(v1::StatusRequest {}).await;
            innermost(&answer.unwrap_err())
        }
        Err(error) => innermost(&error),
    };
    assert!(refused.contains("CertificateRequired"), "{refused}");
}

fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let fixture = Fixture::new().await;
    let own = fixture.authority();
    // One with its own name, and one that has taken ours.
    for (name, alert) in [("lung", "UnknownCA"), ("heart", "DecryptError")] {
        let other = CertificateAuthority::new(name, SecretKey::from_seed([99; 32])).unwrap();
        let key = SecretKey::from_seed([98; 32]);
        let certificate = other.issue_client("cleveland", &key.public()).unwrap();
        let tls = TlsIdentity::new(&key, certificate, own.certificate_pem().to_owned()).unwrap();
        let error = fixture.connect_with(&tls).await.unwrap_err();
        assert_eq!(error.code(), "unreachable", "{error}");
        assert!(error.to_string().contains(alert), "{error}");
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let fixture = Fixture::new().await;
    let other = CertificateAuthority::new("heart", SecretKey::from_seed([99; 32])).unwrap();
    let key = SecretKey::from_seed([98; 32]);
    let certificate = fixture.authority().issue_client("cleveland", &key.public()).unwrap();
    let tls = TlsIdentity::new(&key, certificate, other.certificate_pem().to_owned()).unwrap();
    let error = fixture.connect_with(&tls).await.unwrap_err();
    assert_eq!(error.code(), "unreachable", "{error}");
}

#[tokio::test]
async fn a_member_cannot_pose_as_a_server_nor_a_server_as_a_member() {
    let fixture = Fixture::new().await;
    let key = SecretKey::from_seed([98; 32]);
    let own = fixture.authority();
    let certificate = own.issue_server("cleveland/replica", &key.public(), &["127.0.0.1"]).unwrap();
    let tls = TlsIdentity::new(&key, certificate, own.certificate_pem().to_owned()).unwrap();
    let error = fixture.connect_with(&tls).await.unwrap_err();
    assert_eq!(error.code(), "unreachable", "a server's certificate: {error}");

    let config = ApiConfig { listen: loopback(), tls: fixture.identity("budapest").tls, reflection: false };
    let posing = Running::start(config, fixture.ledger.clone()).await;
    let url = format!("https://{}", posing.address);
    let error = ApiClient::connect(&url, &fixture.identity("cleveland")).await.unwrap_err();
    assert_eq!(error.code(), "unreachable", "a member's certificate: {error}");
}

#[tokio::test]
async fn a_certified_key_that_the_ledger_does_not_know_is_refused() {
    let fixture = Fixture::new().await;
    let key = SecretKey::from_seed([98; 32]);
    let own = fixture.authority();
    let certificate = own.issue_client("cleveland", &key.public()).unwrap();
    let tls = TlsIdentity::new(&key, certificate, own.certificate_pem().to_owned()).unwrap();
    let error = fixture.connect_with(&tls).await.unwrap_err();
    assert_eq!(error.code(), "unknown_member");
    assert!(error.to_string().contains(&key.public().to_string()), "{error}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    client.submit(b"before").await.unwrap();
    fixture.ledger.revoke("budapest");
    let refused = [
        client.status().await.map(drop),
        client.submit(b"after").await.map(drop),
        client.genesis().await.map(drop),
        client.checkpoint().await.map(drop),
        client.consistency_proof(0, 1).await.map(drop),
        client.state_proof(b"key").await.map(drop),
        client.inclusion_proof(0, 1).await.map(drop),
        client.has_blobs(&[*client.chain()]).await.map(drop),
        client.fetch(client.chain(), 1).await.map(drop),
        client.entries(0, false).next().await.map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().code(), "unknown_member");
    }
    assert_eq!(fixture.ledger.size(), 3, "nothing came onto the ledger");
}

#[tokio::test]
async fn a_stream_ends_when_its_member_is_revoked() {
    let fixture = Fixture::new().await;
    let mut entries = fixture.client("budapest").await.entries(0, true);
    assert_eq!(entries.next().await.unwrap().unwrap().index, 0);
    fixture.ledger.revoke("budapest");
    assert_eq!(entries.next().await.unwrap_err().code(), "unknown_member");
}

#[tokio::test]
async fn another_consortium_is_noticed() {
    let fixture = Fixture::new().await;
    let identity = fixture.identity("cleveland");
    let other = fedledger_ledger::Digest::of(b"another genesis file");
    let genesis = GenesisFile { chain: other, ..identity.genesis };
    let error = ApiClient::connect_with(&fixture.url(), &identity.tls, &genesis).await.unwrap_err();
    assert!(matches!(error, ApiError::WrongChain { expected, .. } if expected == other), "{error}");
}

#[tokio::test]
async fn addresses_without_a_replica_are_named() {
    let fixture = Fixture::new().await;
    let identity = fixture.identity("cleveland");
    for url in ["", "127.0.0.1:7101", "http://127.0.0.1:7101", "ftp://127.0.0.1"] {
        let error = ApiClient::connect(url, &identity).await.unwrap_err();
        assert_eq!(error.code(), "invalid_url", "{url}: {error}");
    }
    let url = fixture.url();
    fixture.running.stop().await;
    let error = ApiClient::connect(&url, &identity).await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
    assert!(error.to_string().contains(&url) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn the_services_describe_themselves_only_if_told_to_and_only_to_members() {
    let fixture = Fixture::new().await;
    let channel = fixture.channel(fixture.identity("budapest").tls.client_config()).await.unwrap();
    assert_eq!(services(channel).await.unwrap_err(), Code::Unimplemented);

    let fixture = Fixture::with(true).await;
    let channel = fixture.channel(fixture.identity("budapest").tls.client_config()).await.unwrap();
    let described = services(channel.clone()).await.unwrap();
    assert_eq!(described, ["fedledger.v1.Blobs", "fedledger.v1.Ledger", "grpc.reflection.v1.ServerReflection"]);
    fixture.ledger.revoke("budapest");
    assert_eq!(services(channel).await.unwrap_err(), Code::Unauthenticated);
}

/// What a server says that it offers.
async fn services(channel: Channel) -> Result<Vec<String>, Code> {
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut request = Request::new(futures::stream::iter([question]));
    request.set_timeout(Duration::from_secs(10));
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(request).await.map_err(|status| status.code())?.into_inner();
    let answer = answers.message().await.map_err(|status| status.code())?.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    Ok(names)
}
