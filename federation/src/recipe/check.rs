//! Checking updates before their contributions are counted.

use std::io::{self, Read};

use super::Update;
use crate::{
    aggregation::{Addition, AdditionError, ContributionError, ContributionStream, EncodeError, RunningSum},
    history::hash,
    plan::Plan,
    tensors::ReadError,
};

/// The verdict on an update file that is not the one contributed.
pub const WRONG_DIGEST: &str = "wrong_digest";

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Whether an update can be aggregated; otherwise the stable code of the reason for which it must be excluded, and the reason
/// in words.
pub type Verdict = Result<(), (&'static str, String)>;

/// Checks an update file against the plan before its contribution is counted.
///
/// # Errors
///
/// What the system says.
pub fn check_update(plan: &Plan, cohort: usize, update: &Update, mut reader: impl Read) -> io::Result<Verdict> {
    let arithmetic = match plan.arithmetic(cohort) {
        Ok(arithmetic) => arithmetic,
        Err(error) => return Ok(Err(("invalid_plan", error.to_string()))),
    };
    let mut stream = match ContributionStream::new(&arithmetic, update.examples) {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(("wrong_examples", error.to_string()))),
    };
    let pushed = for_each_chunk(&mut reader, |chunk| stream.push(chunk))?;
    Ok(match pushed.and_then(|()| stream.finish()) {
        Ok(found) if found == update.file.digest => Ok(()),
        Ok(found) => Err((WRONG_DIGEST, AdditionError::Digest { found }.to_string())),
        Err(error) => Err((exclusion_code(&error), error.to_string())),
    })
}

/// Checks an update file as [`check_update`] does, and in the same pass adds it to the sum of its round. An unusable update
/// is not in the sum afterwards. Where the sum has no place for it, it is only checked.
///
/// A file that is not the one contributed is told from one that was never right, whatever is wrong with its content.
///
/// # Errors
///
/// What the system says.
pub fn check_and_add<R: Read>(
    plan: &Plan,
    cohort: usize,
    update: &Update,
    sum: Option<&RunningSum>,
    mut open: impl FnMut() -> io::Result<R>,
) -> io::Result<Verdict> {
    let addition = sum.map(|sum| sum.begin(update.term())).transpose();
    let verdict = match addition {
        Err(error) => Err(("wrong_examples", error.to_string())),
        Ok(Some(Some(addition))) => match stream_into(addition, &mut open)? {
            Ok(()) => Ok(()),
            Err(error @ AdditionError::Digest { .. }) => Err((WRONG_DIGEST, error.to_string())),
            Err(AdditionError::Contribution(error)) => Err((exclusion_code(&error), error.to_string())),
        },
        Ok(Some(None) | None) => check_update(plan, cohort, update, open()?)?,
    };
    if verdict.is_err() {
        let (found, _) = hash(open()?)?;
        if found != update.file.digest {
            return Ok(Err((WRONG_DIGEST, AdditionError::Digest { found }.to_string())));
        }
    }
    Ok(verdict)
}

/// Reads a file into a sum. If it is refused, or cannot be read, it is taken back.
pub(super) fn stream_into<R: Read>(
    mut addition: Addition<'_>,
    mut open: impl FnMut() -> io::Result<R>,
) -> io::Result<Result<(), AdditionError>> {
    let outcome = open().and_then(|mut reader| read_through(&mut addition, &mut reader));
    if !matches!(outcome, Ok(Ok(()))) {
        // What cannot be taken back spoils the sum, and then it is not used.
        let _ = open().and_then(|reader| addition.take_back(reader));
    }
    outcome
}

/// Reads a whole file into a sum.
pub(super) fn read_through(
    addition: &mut Addition<'_>,
    reader: &mut impl Read,
) -> io::Result<Result<(), AdditionError>> {
    Ok(match for_each_chunk(reader, |chunk| addition.push(chunk))? {
        Ok(()) => addition.finish(),
        Err(error) => Err(error.into()),
    })
}

fn for_each_chunk<E>(
    reader: &mut impl Read,
    mut push: impl FnMut(&[u8]) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match reader.read(&mut chunk) {
            Ok(0) => return Ok(Ok(())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Err(error) = push(chunk.get(..count).unwrap_or_default()) {
            return Ok(Err(error));
        }
    }
}

/// The code under which an unusable update is excluded.
fn exclusion_code(error: &ContributionError) -> &'static str {
    match error {
        ContributionError::Read(ReadError::Truncated { .. } | ReadError::TooLong { .. }) => "wrong_length",
        ContributionError::Read(_) => "wrong_tensors",
        ContributionError::Encode(EncodeError::NotFinite { .. }) => "not_finite",
        ContributionError::Encode(_) => "out_of_range",
    }
}
