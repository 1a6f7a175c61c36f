//! The head of the log at one size, in the form in which it is signed.
//!
//! The text is that of C2SP tlog-checkpoint (<https://c2sp.org/tlog-checkpoint>): origin, size and root, a line each.
//! Its extension lines are neither written nor read, since no proof would cover what they say.
//!
//! ```text
//! example.com/behind-the-sofa
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::{
    Digest,
    digest::shortened,
    note::{NoteError, SignedNote},
};

/// Longest origin, in bytes. C2SP tlog-cosignature carries its length in one byte where a log is cosigned with ML-DSA.
pub const ORIGIN_SIZE_BYTES_MAX: usize = 255;

/// What a log commits to: its first `size` entries have the Merkle root `root`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Digest,
}

/// Text that is no checkpoint, or an origin that none can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// An origin that is empty, too long or more than one line of text.
    #[error("the origin {0:?} is empty, longer than {ORIGIN_SIZE_BYTES_MAX} bytes or contains control characters")]
    Origin(String),
    /// A size that is not a decimal number below 2^64 without leading zeros.
    #[error("the log size {0:?} is not a decimal number in its shortest form")]
    Size(String),
    /// A root that is not the base64 of 32 bytes.
    #[error("the root hash {0:?} is not 32 bytes in base64")]
    Root(String),
    /// Fewer than three lines, or a last line without its newline.
    #[error("a checkpoint has three lines, origin, size and root hash, each with a newline at its end")]
    Incomplete,
    /// More than three lines.
    #[error("the checkpoint has extension lines, which are not supported")]
    ExtensionLines,
}

/// A note that is no head of a certain log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointNoteError {
    /// The note cannot be read, or a signature by a known key does not verify.
    #[error("the note is not acceptable: {0}")]
    Note(#[from] NoteError),
    /// Its text is no checkpoint.
    #[error("the checkpoint is malformed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// It is about another log.
    #[error("the checkpoint is of the log {found:?}, expected {expected:?}")]
    Origin {
        /// The log at hand.
        expected: String,
        /// The log that it names.
        found: String,
    },
}

impl Checkpoint {
    /// The checkpoint in a note, which must be of the log named `origin`. No signature is looked at.
    ///
    /// # Errors
    ///
    /// [`CheckpointNoteError`].
    pub fn of_note(note: &SignedNote, origin: &str) -> Result<Self, CheckpointNoteError> {
        let checkpoint = Self::parse(note.text())?;
        if checkpoint.origin() != origin {
            let (expected, found) = (origin.to_owned(), checkpoint.origin().to_owned());
            return Err(CheckpointNoteError::Origin { expected, found });
        }
        Ok(checkpoint)
    }

    /// The checkpoint of the log named `origin`, which is by custom an address without a scheme.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Origin`] if the origin cannot stand in a checkpoint.
    pub fn new(origin: impl Into<String>, size: u64, root: Digest) -> Result<Self, CheckpointError> {
        let origin = origin.into();
        let allowed = (1..=ORIGIN_SIZE_BYTES_MAX).contains(&origin.len()) && origin.bytes().all(|byte| byte >= b' ');
        if allowed { Ok(Self { origin, size, root }) } else { Err(CheckpointError::Origin(shortened(&origin))) }
    }

    /// Reads the text of a note. Nothing that it says may be relied on before the note has been verified.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] for everything that [`Checkpoint::to_note_text`] would not write in exactly this way.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Incomplete)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Incomplete);
        };
        if lines.next().is_some() {
            return Err(CheckpointError::ExtensionLines);
        }
        let size = parse_decimal(size).ok_or_else(|| CheckpointError::Size(shortened(size)))?;
        let root = parse_hash(root).ok_or_else(|| CheckpointError::Root(shortened(root)))?;
        Self::new(origin, size, root)
    }

    /// The text to be signed.
    pub fn to_note_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()))
    }

    /// Identity of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Entries in the log.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Root of the Merkle tree over these entries.
    pub fn root(&self) -> &Digest {
        &self.root
    }
}

/// A decimal number in the only form in which it is written.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    // The standard parser also takes a plus sign and leading zeros.
    let shortest = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| shortest)
}

/// The base64 of 32 bytes, in the only form in which it is written.
pub(crate) fn parse_hash(text: &str) -> Option<Digest> {
    // 44 characters may decode to as many as 33 bytes; a longer text does not fit and is refused.
    let mut bytes = [0; 33];
    let length = BASE64.decode_slice(text, &mut bytes).ok()?;
    bytes.get(..length)?.try_into().map(Digest::from_bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        keys::SecretKey,
        note::{SignedNote, VerifierKey, sign_note},
    };

    const ROOT: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";

    #[test]
    fn the_example_of_the_specification_is_read_and_written_back() {
        let text = format!("example.com/behind-the-sofa\n20852163\n{ROOT}\n");
        let checkpoint = Checkpoint::parse(&text).unwrap();
        assert_eq!((checkpoint.origin(), checkpoint.size()), ("example.com/behind-the-sofa", 20_852_163));
        let root = "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62";
        assert_eq!(checkpoint.root().to_string(), root);
        assert_eq!(checkpoint.to_note_text(), text);
    }

    #[test]
    fn a_checkpoint_of_the_go_checksum_database_verifies() {
        let note = "go.sum database tree\n65664258\nWVVNVD2qx+fTq31zkj6UAqxT5X6HvGphGM+o8Thnbsg=\n\n\
            \u{2014} sum.golang.org \
            Az3grligJmgX7KGyGPKybykNTh3VgsbLvUuvOwrM5zLVlulmFp2wdvbxOw74/gcNxURShXEpb7RXcs3+BYflYN+w0gQ=\n";
        let key: VerifierKey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8".parse().unwrap();
        let note = SignedNote::parse(note).unwrap();
        assert_eq!(note.verify(key.name(), key.public_key()), Ok(()));
        let checkpoint = Checkpoint::parse(note.text()).unwrap();
        assert_eq!((checkpoint.origin(), checkpoint.size()), ("go.sum database tree", 65_664_258));
    }

    #[test]
    fn every_deviation_from_the_format_is_refused() {
        let size = |text: &str| CheckpointError::Size(text.into());
        let root = |text: &str| CheckpointError::Root(text.into());
        let origin = |text: &str| CheckpointError::Origin(text.into());
        let cases = [
            (String::new(), CheckpointError::Incomplete),
            ("\n".into(), CheckpointError::Incomplete),
            ("log\n1\n".into(), CheckpointError::Incomplete),
            (format!("log\n1\n{ROOT}"), CheckpointError::Incomplete),
            (format!("log\n1\n{ROOT}\n\n"), CheckpointError::ExtensionLines),
            (format!("log\n1\n{ROOT}\nextension\n"), CheckpointError::ExtensionLines),
            (format!("\n1\n{ROOT}\n"), origin("")),
            (format!("l\tog\n1\n{ROOT}\n"), origin("l\tog")),
            (format!("{}\n1\n{ROOT}\n", "o".repeat(256)), origin(&"o".repeat(80))),
            (format!("log\n\n{ROOT}\n"), size("")),
            (format!("log\n01\n{ROOT}\n"), size("01")),
            (format!("log\n00\n{ROOT}\n"), size("00")),
            (format!("log\n+1\n{ROOT}\n"), size("+1")),
            (format!("log\n-1\n{ROOT}\n"), size("-1")),
            (format!("log\n1 \n{ROOT}\n"), size("1 ")),
            (format!("log\n0x1\n{ROOT}\n"), size("0x1")),
            (format!("log\n18446744073709551616\n{ROOT}\n"), size("18446744073709551616")),
            ("log\n1\n\n".into(), root("")),
            (format!("log\n1\n{}\n", &ROOT[..40]), root(&ROOT[..40])),
            (format!("log\n1\n{}\n", &ROOT[..43]), root(&ROOT[..43])),
            (format!("log\n1\n{ROOT}=\n"), root(&format!("{ROOT}="))),
            (format!("log\n1\n {ROOT}\n"), root(&format!(" {ROOT}"))),
            (format!("log\n1\n{}\n", "A".repeat(44)), root(&"A".repeat(44))),
            (format!("log\n1\n{}\n", "A".repeat(4000)), root(&"A".repeat(80))),
            // Stray bits after the last byte, and the URL alphabet: second encodings of the same root.
            (format!("log\n1\n{}J=\n", &ROOT[..42]), root(&format!("{}J=", &ROOT[..42]))),
            (format!("log\n1\n{}\n", ROOT.replace('/', "_")), root(&ROOT.replace('/', "_"))),
        ];
        for (text, error) in cases {
            assert_eq!(Checkpoint::parse(&text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_origin_is_one_line_of_bounded_length() {
        for origin in ["", "two\nlines", "tab\t"] {
            assert_eq!(Checkpoint::new(origin, 0, Digest::default()), Err(CheckpointError::Origin(origin.into())));
        }
        assert!(Checkpoint::new("o".repeat(ORIGIN_SIZE_BYTES_MAX), 0, Digest::default()).is_ok());
        assert!(Checkpoint::new("o".repeat(ORIGIN_SIZE_BYTES_MAX + 1), 0, Digest::default()).is_err());
    }

    proptest! {
        #[test]
        fn a_signed_checkpoint_is_read_back(
            origin in "[a-z./]{1,20}", size in any::<u64>(), root in any::<[u8; 32]>()
        ) {
            let checkpoint = Checkpoint::new(origin, size, Digest::from_bytes(root)).unwrap();
            let key = SecretKey::from_seed([3; 32]);
            let note = sign_note(&checkpoint.to_note_text(), checkpoint.origin(), &key).unwrap();
            let read = SignedNote::parse(&note.to_string()).unwrap();
            prop_assert_eq!(read.verify(checkpoint.origin(), &key.public()), Ok(()));
            prop_assert_eq!(Checkpoint::parse(read.text()), Ok(checkpoint));
        }

        #[test]
        fn whatever_parses_is_written_back_the_same(
            origin in "[a-z \n]{1,3}", size in "(0|[1-9][0-9]{0,3}|[0-9+ ]{0,3})", root in "[A-D]{42,43}={1,2}"
        ) {
            let text = format!("{origin}\n{size}\n{root}\n");
            if let Ok(checkpoint) = Checkpoint::parse(&text) {
                prop_assert_eq!(checkpoint.to_note_text(), text);
            }
        }
    }
}
