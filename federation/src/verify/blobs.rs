//! Files: whether their bytes match their digests.

use std::collections::BTreeMap;

use fedledger_ledger::Digest;

use super::{Problem, ProblemKind, Report};
use crate::{
    Federation,
    history::{NamedFile, Source, SourceError, hash, named_files},
};

/// Hashes every file that the source lists or the ledger names. A file that is not there is no problem.
///
/// Files that nobody names are judged only if the whole history is known.
pub(super) fn check<S: Source + ?Sized>(
    report: &mut Report,
    source: &S,
    state: &Federation,
    complete: bool,
) -> Result<(), SourceError> {
    let named = named_files(state);
    let listed = source.listed_blobs();
    let digests: Vec<Digest> = match &listed {
        Some(listed) => listed.keys().copied().collect(),
        None => named.keys().copied().collect(),
    };
    let offset = |digest: &Digest| listed.as_ref().and_then(|listed| listed.get(digest).copied());
    for digest in digests {
        if complete && !named.contains_key(&digest) {
            let detail = format!("the ledger names no file {digest}");
            report.add(Problem::new(ProblemKind::Blob, detail).at_byte(offset(&digest)));
        }
        let blob = source.blob(&digest);
        let Some(Some(content)) = report.settle(blob)? else { continue };
        let (found, _) = hash(content)?;
        if found == digest {
            report.blobs += 1;
        } else {
            let problem = mismatch(&digest, &found, &named);
            report.add(problem.at_byte(offset(&digest)));
        }
    }
    Ok(())
}

fn mismatch(digest: &Digest, found: &Digest, named: &BTreeMap<Digest, NamedFile>) -> Problem {
    let problem = Problem::new(ProblemKind::Blob, format!("file {digest} has the SHA-256 {found}: it is damaged"));
    match named.get(digest) {
        Some(file) => problem.at(file.index),
        None => problem,
    }
}
