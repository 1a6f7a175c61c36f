//! The examples of the C2SP specifications signed-note and tlog-checkpoint, as whole files.

use fedledger_ledger::{
    SecretKey,
    checkpoint::Checkpoint,
    note::{NoteError, SignedNote, VerifierKey, sign_note},
};

/// The example of tlog-checkpoint. Nobody has published its key.
const CHECKPOINT: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    \u{2014} example.com/behind-the-sofa \
    Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

/// The example of signed-note, whose text has an empty line and other letters than those of ASCII.
const NOTE: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
    ed \u{e8} subito sera.\n\n\
    \u{2014} quasimodo.example/salvatore \
    NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

#[test]
fn the_checkpoint_of_the_specification_is_read_and_written_back() {
    let note = SignedNote::parse(CHECKPOINT).unwrap();
    assert_eq!(note.to_string(), CHECKPOINT);
    assert_eq!(note.signatures().len(), 1);
    assert_eq!(note.signatures()[0].key_id().to_string(), "033de0ae");
    let checkpoint = Checkpoint::parse(note.text()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(checkpoint.to_note_text(), note.text());
}

#[test]
fn the_note_of_the_specification_is_read_and_written_back() {
    let note = SignedNote::parse(NOTE).unwrap();
    assert_eq!(note.to_string(), NOTE);
    assert!(note.text().ends_with("\n\ned \u{e8} subito sera.\n"), "{:?}", note.text());
    assert_eq!(note.signatures()[0].key_id().to_string(), "367ba04b");
}

/// "Verifiers MUST ignore signatures from unknown keys, even if they share a name or ID (but not both) with a known key."
#[test]
fn a_line_that_shares_only_the_id_with_a_known_key_is_ignored() {
    let key = SecretKey::from_seed([9; 32]);
    let note = sign_note("text\n", "example.com/known", &key).unwrap().to_string();
    let line = note.lines().last().unwrap();
    let other_name = line.replace("example.com/known", "example.com/other");
    let both = SignedNote::parse(&format!("{note}{other_name}\n")).unwrap();
    assert_eq!(both.verify("example.com/known", &key.public()), Ok(()));
    let alone = SignedNote::parse(&note.replace(line, &other_name)).unwrap();
    let key_id = VerifierKey::ed25519("example.com/known", key.public()).unwrap().key_id();
    let missing = NoteError::NotSigned { name: "example.com/known".into(), key_id };
    assert_eq!(alone.verify("example.com/known", &key.public()), Err(missing));
}

/// "Verifiers ... MUST accept at least up to 16 signatures. ... post-quantum signatures can be up to nearly 5kB in size."
#[test]
fn sixteen_signatures_fit_even_with_the_largest_of_some() {
    let key = SecretKey::from_seed([9; 32]);
    let note = sign_note("text\n", "example.com/known", &key).unwrap().to_string();
    // ML-DSA-44 signatures have 2420 bytes, and their lines a timestamp and an id.
    let unknown = "\u{2014} example.com/witness ".to_owned() + &"AAAA".repeat((4 + 8 + 2420) / 3 + 1) + "\n";
    let parsed = SignedNote::parse(&format!("{note}{}", unknown.repeat(15))).unwrap();
    assert_eq!(parsed.signatures().len(), 16);
    assert_eq!(parsed.verify("example.com/known", &key.public()), Ok(()));
}
