//! Writes the seeds of the fuzz targets: one of each message, and streams of frames. `cargo run --example seeds`

use std::{error::Error, fs, path::Path};

use fedledger_ledger::{Digest, SecretKey, codec};
use fedledger_proto::wire::{
    Answer, BlobGet, BlobHeader, BlobPut, BlobRequest, BlobStored, CheckpointRequest, CheckpointResponse, EventFrame,
    EventsAccepted, EventsRequest, PutDecision, Refusal, RefusalCode, SubmitRequest, SubmitResponse,
};

fn main() -> Result<(), Box<dyn Error>> {
    let digest = Digest::of(b"blob");
    let leader = Some(SecretKey::from_seed([1; 32]).public());
    let note = Some("log\n1\nAAAA\n".to_owned());
    let outcome = SubmitResponse::Outcome { index: 7, leaf: vec![4; 3] };
    let refused = SubmitResponse::Refused { code: "expired".into(), message: "too late".into() };
    let busy = Answer::<SubmitResponse>::Busy;
    let messages = [
        ("submit", codec::encode(&SubmitRequest { envelope: vec![1, 2, 3] })),
        ("outcome", codec::encode(&Answer::Granted(outcome))),
        ("refused", codec::encode(&Answer::Granted(refused))),
        ("redirect", codec::encode(&Answer::Granted(SubmitResponse::Redirect { leader }))),
        ("busy", codec::encode(&busy)),
        ("refusal", codec::encode(&Answer::<BlobStored>::Refused(Refusal::new(RefusalCode::Storage, "no")))),
        ("latest", codec::encode(&CheckpointRequest::Latest)),
        ("offer", codec::encode(&CheckpointRequest::Offer { note: "note".into() })),
        ("checkpoint", codec::encode(&Answer::Granted(CheckpointResponse::Latest { note }))),
        ("taken", codec::encode(&Answer::Granted(CheckpointResponse::Taken))),
        ("follow", codec::encode(&EventsRequest { from: 3 })),
        ("accepted", codec::encode(&Answer::Granted(EventsAccepted { next: 3 }))),
        ("event", codec::encode(&EventFrame { index: 3, leaf: vec![5; 9] })),
        ("get", codec::encode(&BlobRequest::Get(BlobGet { digest, size_max: u64::MAX, offset: 0 }))),
        ("put", codec::encode(&BlobRequest::Put(BlobPut { digest, size: 5, offset: 0 }))),
        ("found", codec::encode(&Answer::Granted(BlobHeader::Found { size: 5 }))),
        ("too-large", codec::encode(&Answer::Granted(BlobHeader::TooLarge { size: 6 }))),
        ("send", codec::encode(&Answer::Granted(PutDecision::Send { offset: 0 }))),
        ("stored", codec::encode(&Answer::Granted(BlobStored { size: 5 }))),
    ];
    for (name, bytes) in &messages {
        write("message", name, bytes)?;
    }
    // The largest frame in sixteenths, the size of pieces less one, the stream.
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes(), body].concat();
    let two = [frame(b"first"), frame(&messages[0].1)].concat();
    write("frame", "two-frames", &[&[255, 2], two.as_slice()].concat())?;
    write("frame", "byte-by-byte", &[&[255, 0], frame(&[7; 300]).as_slice()].concat())?;
    write("frame", "empty-frames", &[&[1, 9], [0; 12].as_slice()].concat())?;
    write("frame", "too-large", &[&[1, 255], frame(&[7; 17]).as_slice()].concat())?;
    write("frame", "cut", &[&[9, 255], &frame(&[7; 17])[..9]].concat())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}
