//! Writes the seeds of the fuzz targets: one of each message and file, and streams of frames. `cargo run --example seeds`

use std::{collections::BTreeMap, error::Error, fs, path::Path};

use fedledger_federation::member::Role;
use fedledger_ledger::{Digest, SecretKey, codec, intake::IntakeReceipt};
use fedledger_proto::api::{NodeStatus, PeerStatus, RaftRole, SealStatus, v1};
use fedledger_proto::kit::{
    CliDefaults, ConsortiumDescription, KeyPurpose, MEMBER_REQUEST_SCHEMA, MemberRequest, Protection,
    ROTATION_REQUEST_SCHEMA, RequestedNode, RotatedKey, RotationRequest, ScryptCost, encrypt_key, provision,
};
use fedledger_proto::wire::{
    Answer, BlobGet, BlobHeader, BlobPrefix, BlobPut, BlobRequest, BlobStart, BlobStored, CHUNK_BYTES,
    CheckpointRequest, CheckpointResponse, EventFrame, EventsAccepted, EventsRequest, PutDecision, Refusal,
    RefusalCode, SubmitRequest, SubmitResponse,
};
use fedledger_proto_fuzz::key_file;
use prost::Message as _;

/// Two members, one of which has both kinds of nodes.
const CONSORTIUM: &str = r#"name = "heart"
finality_threshold = 1

[[members]]
id = "va"
roles = ["replica", "participant", "operator"]
replica = { listen = "0.0.0.0:7001", address = "ledger.va.example:7001" }

[[members]]
id = "basel"
roles = ["participant"]
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let digest = Digest::of(b"blob");
    let leader = Some(SecretKey::from_seed([1; 32]).public());
    let note = Some("log\n1\nAAAA\n".to_owned());
    let outcome = SubmitResponse::Outcome { index: 7, leaf: vec![4; 3] };
    let refused = SubmitResponse::Refused { code: "expired".into(), message: "too late".into() };
    let held = Some(BlobPrefix { size: CHUNK_BYTES as u64, digest });
    let busy = Answer::<SubmitResponse>::Busy;
    let messages = [
        ("submit", codec::encode(&SubmitRequest { envelope: vec![1, 2, 3] })),
        ("outcome", codec::encode(&Answer::Granted(outcome))),
        ("refused", codec::encode(&Answer::Granted(refused))),
        ("redirect", codec::encode(&Answer::Granted(SubmitResponse::Redirect { leader }))),
        ("busy", codec::encode(&busy)),
        ("refusal", codec::encode(&Answer::<BlobStored>::Refused(Refusal::new(RefusalCode::Storage, "no")))),
        ("latest", codec::encode(&CheckpointRequest::Latest { known: note.clone() })),
        ("offer", codec::encode(&CheckpointRequest::Offer { note: "note".into() })),
        (
            "checkpoint",
            codec::encode(&Answer::Granted(CheckpointResponse::Latest {
                note: note.clone(),
                consistency: Some(vec![digest; 2]),
            })),
        ),
        ("taken", codec::encode(&Answer::Granted(CheckpointResponse::Taken { note, consistency: None }))),
        ("follow", codec::encode(&EventsRequest { from: 3 })),
        ("accepted", codec::encode(&Answer::Granted(EventsAccepted { next: 3 }))),
        ("event", codec::encode(&EventFrame { index: 3, leaf: vec![5; 9] })),
        ("get", codec::encode(&BlobRequest::Get(BlobGet { digest, size_max: u64::MAX, held, doubted: true }))),
        ("put", codec::encode(&BlobRequest::Put(BlobPut { digest, size: 5 }))),
        ("start", codec::encode(&BlobStart { offset: 262_144 })),
        ("found", codec::encode(&Answer::Granted(BlobHeader::Found { size: 5 }))),
        ("too-large", codec::encode(&Answer::Granted(BlobHeader::TooLarge { size: 6 }))),
        ("send", codec::encode(&Answer::Granted(PutDecision::Send { held }))),
        ("stored", codec::encode(&Answer::Granted(BlobStored { size: 5 }))),
    ];
    for (name, bytes) in &messages {
        write("message", name, bytes)?;
    }
    write_frames(&messages[0].1)?;
    write_api()?;
    write_kits()
}

fn write_frames(message: &[u8]) -> Result<(), Box<dyn Error>> {
    // The largest frame in sixteenths, the size of pieces less one, the stream.
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes(), body].concat();
    let two = [frame(b"first"), frame(message)].concat();
    write("frame", "two-frames", &[&[255, 2], two.as_slice()].concat())?;
    write("frame", "byte-by-byte", &[&[255, 0], frame(&[7; 300]).as_slice()].concat())?;
    write("frame", "empty-frames", &[&[1, 9], [0; 12].as_slice()].concat())?;
    write("frame", "too-large", &[&[1, 255], frame(&[7; 17]).as_slice()].concat())?;
    write("frame", "cut", &[&[9, 255], &frame(&[7; 17])[..9]].concat())
}

/// One of each message of the gRPC API with something to convert.
fn write_api() -> Result<(), Box<dyn Error>> {
    let (chain, key) = (Digest::of(b"chain"), SecretKey::from_seed([1; 32]));
    let digest = || chain.as_bytes().to_vec().into();
    let seal = SealStatus { number: 3, index: 20, time_ms: 1_700_000_000_000 };
    let peer = PeerStatus { node: "va/replica".into(), connected: true, matched_index: Some(9), cosigned_size: None };
    let status = NodeStatus {
        node: "basel/replica".into(),
        software: "0.1.0".into(),
        consortium: "heart".into(),
        chain,
        role: RaftRole::Leader,
        leader: Some("basel/replica".into()),
        term: 2,
        committed_index: 30,
        applied_index: 30,
        last_index: 31,
        log_size: 22,
        root: chain,
        final_size: 21,
        finality_threshold: 2,
        checkpoint: Some("heart\n21\nAAAA\n".into()),
        peers: vec![peer.clone()],
        unanimous_size: 21,
        cosigned_size: 21,
        epoch: 0,
        seal: Some(seal),
        trusted_time_s: Some(1_700_000_000),
        progress: Vec::new(),
    };
    let receipt = IntakeReceipt::sign(chain, Digest::of(b"envelope"), 5_022, &key).to_bytes();
    let promised = v1::SubmitResponse { intake_receipt: Some(receipt.into()), level: 1, ..Default::default() };
    let proof = v1::ConsistencyProofResponse { hashes: vec![digest(), digest()] };
    let checkpoint =
        v1::CheckpointResponse { note: Some("heart\n21\nAAAA\n".into()), consistency: Some(proof.clone()) };
    let messages = [
        ("submit", v1::SubmitRequest { envelope: vec![1, 2, 3].into(), wait: 3 }.encode_to_vec()),
        ("promised", promised.encode_to_vec()),
        ("status", v1::StatusResponse::from(status).encode_to_vec()),
        ("peer", v1::Peer::from(peer).encode_to_vec()),
        ("seal", v1::Seal::from(seal).encode_to_vec()),
        ("entries", v1::EntriesRequest { from: 7, follow: true, level: 2 }.encode_to_vec()),
        ("entry", v1::Entry { index: 7, leaf: vec![4; 9].into() }.encode_to_vec()),
        ("checkpoint", checkpoint.encode_to_vec()),
        ("proof", proof.encode_to_vec()),
        ("get-blob", v1::GetBlobRequest { digest: digest() }.encode_to_vec()),
        ("has-blobs", v1::HasBlobsRequest { digests: vec![digest(), vec![0; 31].into()] }.encode_to_vec()),
        ("held", v1::HasBlobsResponse { held: vec![true, false] }.encode_to_vec()),
        ("chunk", v1::BlobChunk { size: Some(3), data: vec![1, 2, 3].into() }.encode_to_vec()),
    ];
    messages.iter().try_for_each(|(name, bytes)| write("api", name, bytes))
}

/// Key files, and the other files of kits.
fn write_kits() -> Result<(), Box<dyn Error>> {
    let mut drawn = 0_u8;
    let mut randomness = || {
        drawn += 1;
        [drawn; 32]
    };
    let description = ConsortiumDescription::from_toml(CONSORTIUM)?;
    write("kit_file", "consortium.toml", CONSORTIUM.as_bytes())?;
    let provisioned = provision(&description, &mut randomness)?;
    let kits = [
        ("key_file", "api.key", "va/identity/api.key"),
        ("key_file", "transaction.key", "va/replica/keys/transaction.key"),
        ("kit_file", "genesis.cbor", "genesis.cbor"),
        ("kit_file", "api.crt", "va/identity/api.crt"),
        ("kit_file", "replica.toml", "va/replica/node.toml"),
        ("kit_file", "participant.toml", "basel/participant/node.toml"),
        ("kit_file", "policy.toml", "va/participant/policy.toml"),
    ];
    for (target, name, path) in kits {
        let file = provisioned.files.get(Path::new(path)).ok_or_else(|| format!("there is no file {path}"))?;
        write(target, name, &file.bytes)?;
    }
    let passphrase = key_file::passphrase();
    for (name, cost) in [("cheap", ScryptCost { log_n: 2, r: 1, p: 1 }), ("usual", ScryptCost::default())] {
        let protection = Protection { passphrase: &passphrase, cost };
        let text = encrypt_key(&key_file::key(), protection, [9; 32])?;
        write("key_file", name, text.as_bytes())?;
        write("key_file", &format!("{name}-der"), &der_of(&text)?)?;
    }
    let defaults = CliDefaults { connect: vec!["https://127.0.0.1:7101".into()], ..CliDefaults::default() };
    write("kit_file", "fedledger.toml", toml::to_string(&defaults)?.as_bytes())?;
    write_requests()
}

/// What the PEM of an encrypted key holds.
fn der_of(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let end = text.find("-----BEGIN PUBLIC KEY-----").ok_or("there is no public key")?;
    let (_, der) = ed25519_dalek::pkcs8::spki::der::pem::decode_vec(&text.as_bytes()[..end])?;
    Ok(der)
}

/// Requests of members, with one signature that proves nothing.
fn write_requests() -> Result<(), Box<dyn Error>> {
    let secret = |number| SecretKey::from_seed([number; 32]);
    let public = |number| secret(number).public();
    let node = RequestedNode::Participant {
        name: "lyon/participant".into(),
        transport_key: public(3),
        transaction_key: public(4),
        witness_key: public(5),
    };
    let request = MemberRequest {
        schema: MEMBER_REQUEST_SCHEMA.to_owned(),
        id: "lyon".into(),
        name: "Lyon".into(),
        roles: [Role::Participant].into(),
        organisation_key: public(1),
        api_key: public(2),
        replica: None,
        nodes: vec![node],
        possession: Default::default(),
    };
    write("kit_file", "request.toml", request.to_toml()?.as_bytes())?;
    let signatures = BTreeMap::from([(public(1), secret(1).sign(b"domain", b"message"))]);
    let signed = MemberRequest { possession: toml::from_str(&toml::to_string(&signatures)?)?, ..request };
    write("kit_file", "request-with-signature.toml", signed.to_toml()?.as_bytes())?;
    let rotated = |node: Option<&str>, purpose, old, new| RotatedKey {
        node: node.map(str::to_owned),
        purpose,
        old: public(old),
        new: public(new),
    };
    let rotation = RotationRequest {
        schema: ROTATION_REQUEST_SCHEMA.to_owned(),
        chain: Digest::of(b"chain"),
        member: "lyon".into(),
        keys: vec![
            rotated(None, KeyPurpose::Organisation, 1, 11),
            rotated(Some("lyon/participant"), KeyPurpose::Witness, 5, 15),
        ],
        possession: Default::default(),
    };
    write("kit_file", "rotation.toml", rotation.to_toml()?.as_bytes())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}
