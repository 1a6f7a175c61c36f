//! Making evidence of two signed heads.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::Args;
use fedledger_federation::history::Source as _;
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    evidence::{Evidence, Prefix},
    merkle::{LeafHashes, leaf_hash},
    note::{NOTE_SIZE_BYTES_MAX, NoteSignature, SignedNote},
};
use serde::Serialize;

use crate::{
    context::{Context, read_file},
    error::{Exit, Failure},
    output::write_file,
};

/// The form of the result as JSON.
const MADE_SCHEMA: &str = "fedledger.evidence-made/1";

/// Arguments of `fedledger evidence make`.
#[derive(Debug, Args)]
pub(crate) struct MakeArgs {
    /// A signed head of the log (C2SP tlog-checkpoint)
    #[arg(value_name = "NOTE")]
    one: PathBuf,
    /// Another one that contradicts it. If the sizes differ, the larger one must be of the ledger given by --ledger or
    /// --connect, which shows what it begins with
    #[arg(value_name = "NOTE")]
    other: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write over an existing file
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct MadeView {
    file: String,
    bytes: usize,
    origin: String,
    sizes: [u64; 2],
    /// Names of keys with lines in both heads; whether these verify, `evidence check` tells.
    accused: Vec<String>,
}

/// A head and the note that is signed.
struct Head {
    note: SignedNote,
    checkpoint: Checkpoint,
}

/// Makes evidence of two files.
pub(super) fn run(context: &Context, args: &MakeArgs) -> Result<(), Failure> {
    if !args.force && args.out.exists() {
        return Err(Failure::new(Exit::Failed, format!("{} exists already", args.out.display()))
            .next("give another name, or --force to write over it"));
    }
    let (one, other) = (read_head(&args.one)?, read_head(&args.other)?);
    let (small, large) = if one.checkpoint.size() <= other.checkpoint.size() { (one, other) } else { (other, one) };
    let sizes = [small.checkpoint.size(), large.checkpoint.size()];
    let prefix = match sizes {
        [smaller, larger] if smaller < larger => Some(prefix(context, smaller, &large.checkpoint)?),
        _ => None,
    };
    let [small, large] = common_lines(&small.note, &large.note)?;
    let accused: BTreeSet<String> = small.signatures().iter().map(|line| line.name().to_owned()).collect();
    let what = "these heads are no evidence";
    let evidence = Evidence::new(small, large, prefix).map_err(|error| Failure::because(Exit::Failed, what, error))?;
    let bytes = evidence.to_bytes();
    write_file(&args.out, &bytes)?;
    let file = args.out.display().to_string();
    let origin = evidence.origin().to_owned();
    let view = MadeView { file, bytes: bytes.len(), origin, sizes, accused: accused.into_iter().collect() };
    context.output.object(MADE_SCHEMA, &view, || {
        format!(
            "wrote {} against {}; `fedledger evidence check` tells whether the signatures hold",
            view.file,
            view.accused.join(", ")
        )
    })
}

fn read_head(path: &Path) -> Result<Head, Failure> {
    let no_head = |error: &dyn std::fmt::Display| {
        Failure::because(Exit::Failed, format!("{} is no signed head", path.display()), error)
    };
    let bytes = read_file(path, NOTE_SIZE_BYTES_MAX as u64)?;
    let text = String::from_utf8(bytes).map_err(|error| no_head(&error))?;
    let note = SignedNote::parse(&text).map_err(|error| no_head(&error))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| no_head(&error))?;
    Ok(Head { note, checkpoint })
}

/// What the ledger's beginning of `smaller` entries is, and that the larger head goes on from there.
fn prefix(context: &Context, smaller: u64, larger: &Checkpoint) -> Result<Prefix, Failure> {
    let source = context.source()?;
    let progress = context.output.progress("reading the ledger");
    let mut hashes = LeafHashes::default();
    hashes.push(leaf_hash(&source.genesis()?));
    for leaf in source.leaves()? {
        if hashes.size() >= larger.size() {
            break;
        }
        hashes.push(leaf_hash(&leaf?));
    }
    drop(progress);
    let size = larger.size();
    let what = "the larger head is not of this ledger, which therefore shows nothing about it";
    let root = hashes.root_at(size).ok_or_else(|| {
        Failure::because(Exit::Failed, what, format!("the ledger has {} entries, the head {size}", hashes.size()))
    })?;
    if root != *larger.root() {
        let why = format!("the first {size} entries have the root {root}, the head says {}", larger.root());
        return Err(Failure::because(Exit::Failed, what, why)
            .next("give the ledger of whoever has the larger head, or another head signed with the same key"));
    }
    let unproven = |error: &dyn std::fmt::Display| Failure::because(Exit::Failed, "there is no proof", error);
    let proof: Vec<Digest> = hashes.consistency(smaller, size).map_err(|error| unproven(&error))?;
    let root = hashes.root_at(smaller).ok_or_else(|| unproven(&"the ledger is too short"))?;
    Ok(Prefix { root, proof })
}

/// Both notes with the lines of keys that have one in each: other lines convict nobody.
fn common_lines(one: &SignedNote, other: &SignedNote) -> Result<[SignedNote; 2], Failure> {
    let with_lines_of = |note: &SignedNote, keys: &SignedNote| {
        let is_in_both = |line: &&NoteSignature| {
            keys.signatures().iter().any(|key| key.name() == line.name() && key.key_id() == line.key_id())
        };
        let lines = note.signatures().iter().filter(is_in_both).cloned().collect();
        SignedNote::from_parts(note.text(), lines).map_err(|_| {
            Failure::new(Exit::Failed, "no key has signed both heads, so they convict nobody")
                .next("look for another head signed with one of these keys")
        })
    };
    Ok([with_lines_of(one, other)?, with_lines_of(other, one)?])
}
