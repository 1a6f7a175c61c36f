//! What a conductor asks of its shell, and what the shell tells it.

use fedledger_ledger::Digest;

use crate::{
    Command,
    command::{FileRef, OutputFiles, RoundKey},
    member::MemberId,
    recipe::{Recipe, Update},
};

/// Something to be done by the shell.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and none is kept")]
pub enum Duty {
    /// Sign and submit this command with the replica's key; then report [`Report::Submitted`].
    Submit(Command),
    /// Obtain the update and check it; then report [`Report::Checked`].
    Check {
        /// The attempt.
        key: RoundKey,
        /// The update.
        update: Update,
    },
    /// Obtain the files of an attested version that are not here, such as after having been away; then report
    /// [`Report::Obtained`].
    Obtain {
        /// Number of the version.
        number: u64,
        /// Its weights, optimiser state and updates, each update with its contributor.
        files: Vec<(FileRef, Option<MemberId>)>,
    },
    /// Delete files that the ledger has let go, as far as they are here; then report [`Report::Discarded`].
    Discard {
        /// Index of the last entry that let one of them go.
        last_index: u64,
        /// SHA-256 of each.
        files: Vec<Digest>,
    },
    /// Obtain the recipe's files, compute the version, keep its files; then report [`Report::Computed`] or
    /// [`Report::ComputeFailed`].
    Compute(Box<Recipe>),
}

/// What became of a duty.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and none is kept")]
pub enum Report {
    /// An update was checked.
    Checked {
        /// The attempt.
        key: RoundKey,
        /// Whose update.
        member: MemberId,
        /// Fine, or the code of the reason for which it must be excluded.
        verdict: Result<(), String>,
    },
    /// An update could not be checked now.
    CheckFailed {
        /// The attempt.
        key: RoundKey,
        /// Whose update.
        member: MemberId,
    },
    /// Nobody who could be asked has an update. It is looked for again until it is checked, and this is reported every time.
    NotFound {
        /// The attempt.
        key: RoundKey,
        /// Whose update.
        member: MemberId,
    },
    /// A version's files were computed and are kept.
    Computed {
        /// The attempt.
        key: RoundKey,
        /// The files.
        outputs: OutputFiles,
    },
    /// A version could not be computed.
    ComputeFailed {
        /// The attempt.
        key: RoundKey,
        /// The code of a reason that will not go away; without one, it is tried again.
        permanent: Option<String>,
    },
    /// The files of a version are here, or could not all be had.
    Obtained {
        /// Number of the version.
        number: u64,
        /// Whether they are all here.
        complete: bool,
    },
    /// Files were deleted, or not all of them could be.
    Discarded {
        /// Index of the last entry that let one of them go.
        last_index: u64,
        /// Whether none of them is here any more.
        complete: bool,
    },
    /// A command was submitted; `accepted` is false when it was rejected or its fate is unknown.
    Submitted {
        /// The command.
        command: Command,
        /// Whether it took effect.
        accepted: bool,
    },
}
