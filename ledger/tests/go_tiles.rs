//! Tiles as another implementation reads them: the tile code of the Go checksum database (`golang.org/x/mod/sumdb/tlog`).
//!
//! Needs Go and golang.org/x/mod where Debian's package golang-golang-x-mod-dev puts it. Where they are missing, the tests
//! print that they were skipped.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    note::{VerifierKey, sign_note},
    tiles::{Tile, TileBuilder},
};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/go/programs/tiles.go");

/// Where Debian keeps the sources of Go packages.
const GO_PATH: &str = "/usr/share/gocode";

const ORIGIN: &str = "fedledger/go-tiles";

/// Enough for three levels, with partial tiles on each.
const SIZE: u64 = 66_000;

/// Sizes that the log of [`SIZE`] entries has had.
const OLD_SIZES: [u64; 7] = [1, 255, 256, 257, 65_535, 65_536, 65_999];

/// A directory with a log's tiles, and the program that reads them.
struct Fixture {
    folder: tempfile::TempDir,
    program: PathBuf,
    key: String,
    /// Earlier heads as the program takes them.
    old: Vec<String>,
}

impl Fixture {
    /// `None` where Go or the package is missing.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let program = match build(folder.path()) {
            Ok(program) => program,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let key = SecretKey::from_seed([9; 32]);
        let verifier = VerifierKey::ed25519(ORIGIN, key.public()).unwrap().to_string();
        let mut fixture = Self { folder, program, key: verifier, old: Vec::new() };
        let mut builder = TileBuilder::new();
        for index in 0..SIZE {
            for (tile, bytes) in builder.append(&entry(index)).unwrap() {
                fixture.write(&tile, &bytes);
            }
            if OLD_SIZES.contains(&builder.size()) {
                let text = head(&builder).to_note_text();
                let root = text.lines().nth(2).unwrap();
                fixture.old.push(format!("{}={root}", builder.size()));
            }
        }
        for (tile, bytes) in builder.partial() {
            fixture.write(&tile, &bytes);
        }
        let note = sign_note(&head(&builder).to_note_text(), ORIGIN, &key).unwrap();
        fs::write(fixture.path("checkpoint"), note.to_string()).unwrap();
        Some(fixture)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("log").join(name)
    }

    fn write(&self, tile: &Tile, bytes: &[u8]) {
        let path = self.path(&tile.to_string());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Lets Go prove these entries and the earlier heads.
    fn prove(&self, indexes: &str, old: &[String]) -> Output {
        let mut command = Command::new(&self.program);
        command.arg(self.path("")).args([&self.key, indexes]).args(old).output().unwrap()
    }

    /// What Go says against the log after a change of a bit in a file; the change is taken back.
    fn tampered(&self, name: &str, position: usize, indexes: &str) -> String {
        let path = self.path(name);
        let good = fs::read(&path).unwrap();
        let mut changed = good.clone();
        changed[position] ^= 1;
        fs::write(&path, changed).unwrap();
        let output = self.prove(indexes, &[]);
        fs::write(&path, good).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name} was changed: {}", text(&output.stdout));
        text(&output.stderr)
    }
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").repeat(usize::try_from(index % 4).unwrap()).into_bytes()
}

fn head(builder: &TileBuilder) -> Checkpoint {
    Checkpoint::new(ORIGIN, builder.size(), builder.root()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Compiles the program, or says what is missing for that.
fn build(folder: &Path) -> Result<PathBuf, String> {
    let go = |arguments: &[&str]| -> io::Result<Output> {
        let mut command = Command::new("go");
        command.env("GO111MODULE", "off").env("GOPATH", GO_PATH).env("GOCACHE", folder.join("cache"));
        command.env_remove("GOFLAGS").args(arguments).output()
    };
    let listed = go(&["list", "golang.org/x/mod/sumdb/tlog", "golang.org/x/mod/sumdb/note"]);
    let listed = listed.map_err(|error| format!("Go cannot be run: {error}"))?;
    if !listed.status.success() {
        return Err(format!("golang.org/x/mod is not in {GO_PATH}"));
    }
    let program = folder.join("tiles");
    let built = go(&["build", "-o", program.to_str().unwrap(), PROGRAM]).unwrap();
    assert!(built.status.success(), "the program does not compile: {}", text(&built.stderr));
    Ok(program)
}

#[test]
fn go_proves_entries_and_growth_from_our_tiles_and_refuses_changed_ones() {
    let Some(fixture) = Fixture::new() else { return };
    assert_eq!(fixture.old.len(), OLD_SIZES.len());
    let indexes = "0,1,2,255,256,511,512,32767,65535,65536,65791,65792,65999";
    let output = fixture.prove(indexes, &fixture.old);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert_eq!(said.lines().count(), 13 + OLD_SIZES.len(), "{said}");
    assert!(said.contains("entry 65999 is in the log of 66000"), "{said}");
    assert!(said.contains("the log of 66000 continues that of 65536"), "{said}");

    // Each of these hashes is needed for the proof. Some tiles are compared with the one above, all proofs with the root.
    for (name, position, indexes) in [
        ("tile/0/000", 32, "0"),
        ("tile/0/000", 8191, "3"),
        ("tile/0/257.p/208", 17, "65999"),
        ("tile/1/000", 0, "300"),
        ("tile/1/001.p/1", 0, "65536"),
        ("tile/2/000.p/1", 31, "5"),
    ] {
        let refusal = fixture.tampered(name, position, indexes);
        let refused = ["inconsistent tile", "invalid transparency proof"].iter().any(|reason| refusal.contains(reason));
        assert!(refused, "{name}: {refusal}");
    }
    let refusal = fixture.tampered("tile/entries/001", 3, "257");
    assert!(refusal.contains("invalid transparency proof"), "{refusal}");
    let refusal = fixture.tampered("checkpoint", ORIGIN.len() + 1, "0");
    assert!(refusal.contains("no verifiable signatures") || refusal.contains("invalid signature"), "{refusal}");

    // The head of another log with the same size as one that this log has had.
    let other = Checkpoint::new(ORIGIN, 256, Digest::of(b"another log")).unwrap().to_note_text();
    let other = format!("256={}", other.lines().nth(2).unwrap());
    let output = fixture.prove("0", &[other]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("size 256: "), "{}", text(&output.stderr));
}
