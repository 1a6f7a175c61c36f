//! Making receipts.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use fedledger_federation::{
    VersionId,
    history::{Keep, Proofs, ProveError, Wanted},
    subject::Subject,
};
use fedledger_ledger::PublicKey;
use tempfile::NamedTempFile;

use super::ProveArgs;
use crate::{
    context::Context,
    error::{DAMAGE_ADVICE, Exit, Failure},
    names,
    output::written,
};

/// Makes the receipt that is asked for.
pub(super) fn run(context: &Context, args: &ProveArgs, out: &Path) -> Result<(), Failure> {
    if !args.force && out.exists() {
        return Err(Failure::new(Exit::Failed, format!("{} exists already", out.display()))
            .next("give another name, or --force to write over it"));
    }
    let subject = subject(context, args)?;
    let record = subject.as_ref().map(Subject::record_key);
    let wanted = Wanted { entry: args.entry, record };
    if wanted == Wanted::default() {
        return Err(Failure::new(Exit::Usage, "nothing is given to prove")
            .next("give the index of an entry, or --branch, --tag, --version, --member or --revoked-key"));
    }
    let source = context.source()?;
    let progress = context.output.progress("reading the ledger");
    let proofs = Proofs::read(&source, wanted, context.threads()).map_err(failure)?;
    drop(progress);
    let (bytes, leaf) = match subject {
        Some(_) => (proofs.state_receipt().map_err(failure)?.to_bytes(), None),
        None => {
            let receipt = proofs.receipt().map_err(failure)?;
            let apart = if receipt.extra().is_none() { proofs.entry() } else { None };
            (receipt.to_string().into_bytes(), apart)
        }
    };
    write(out, &bytes)?;
    let leaf = leaf.map(|leaf| {
        let path = leaf_path(out);
        write(&path, leaf).map(|()| path)
    });
    let leaf = leaf.transpose()?;
    let policy = proofs.policy().map_err(failure)?;
    // Whoever makes a receipt sees what others will.
    let trust = crate::trust::Trust::Policy(policy);
    let bytes = leaf.as_deref().map(|path| crate::context::read_file(path, super::check::LEAF_SIZE_BYTES_MAX));
    let view = super::check::check_file(out, bytes.transpose()?.as_deref(), &trust)?;
    if let Some(leaf) = leaf {
        context.output.remark(&format!("the entry is too large for the receipt and stands in {}", leaf.display()));
    }
    super::report(context, &view)
}

/// Where an entry stands that is too large for its receipt.
fn leaf_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".leaf");
    name.into()
}

/// The record that is asked for, if it is one.
fn subject(context: &Context, args: &ProveArgs) -> Result<Option<Subject>, Failure> {
    if let Some(name) = &args.branch {
        return Ok(Some(Subject::Branch(name.clone())));
    }
    if let Some(name) = &args.tag {
        return Ok(Some(Subject::Tag(name.clone())));
    }
    if let Some(id) = &args.member {
        return Ok(Some(Subject::Member(id.clone())));
    }
    if let Some(key) = &args.revoked_key {
        let key: PublicKey = key.parse().map_err(|error| {
            Failure::because(Exit::Usage, "this is no key", error).next("give all 64 hexadecimal digits of it")
        })?;
        return Ok(Some(Subject::RevokedKey(key)));
    }
    let Some(version) = &args.version else { return Ok(None) };
    // That a version is not there can be proven only of a whole id.
    if let Ok(id) = version.parse::<VersionId>() {
        return Ok(Some(Subject::Version(id)));
    }
    let (_, history) = context.history(Keep::State)?;
    names::version(history.state(), version).map(Subject::Version).map(Some)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = written(path, NamedTempFile::new_in(folder))?;
    written(path, file.write_all(bytes))?;
    written(path, file.as_file().sync_all())?;
    written(path, file.persist(path).map_err(|error| error.error))?;
    Ok(())
}

fn failure(error: ProveError) -> Failure {
    let what = "it cannot be proven";
    match error {
        ProveError::History(error) => error.into(),
        ProveError::NothingFinal | ProveError::NotFinal { .. } => Failure::because(Exit::Failed, what, error)
            .next("wait until enough replicas have co-signed a later head; `fedledger status` shows how far they are"),
        error @ ProveError::Unsound(_) => Failure::because(Exit::Mismatch, what, error).next(DAMAGE_ADVICE),
        error => Failure::because(Exit::Failed, what, error),
    }
}
