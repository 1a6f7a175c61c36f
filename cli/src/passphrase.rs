//! Passphrases of encrypted keys: from a file, from the environment, or asked for on a terminal.

use std::{
    env,
    io::{IsTerminal as _, stderr, stdin},
    path::Path,
};

use console::Term;
use fedledger_proto::kit::{ApprovalError, KitError, Passphrase, SiteError};
use zeroize::Zeroizing;

use crate::{
    context::Context,
    error::{Exit, Failure},
};

/// Holds the passphrase itself.
const VARIABLE: &str = "FEDLEDGER_PASSPHRASE";

/// Errors that may mean that a passphrase is missing.
pub(crate) trait Locked {
    /// Whether it does.
    fn is_locked(&self) -> bool;
}

impl Locked for KitError {
    fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }
}

impl Locked for SiteError {
    fn is_locked(&self) -> bool {
        matches!(self, Self::Kit(KitError::Locked { .. }))
    }
}

impl Locked for ApprovalError {
    fn is_locked(&self) -> bool {
        matches!(self, Self::Kit(KitError::Locked { .. }))
    }
}

/// The passphrase in the file that was named, or in the environment.
pub(crate) fn given(file: Option<&Path>) -> Result<Option<Passphrase>, KitError> {
    if let Some(file) = file {
        return Passphrase::load(file).map(Some);
    }
    let Some(text) = env::var_os(VARIABLE).filter(|text| !text.is_empty()) else { return Ok(None) };
    let text = Zeroizing::new(text.to_string_lossy().into_owned());
    let malformed = |source| KitError::PassphraseFile { file: VARIABLE.into(), source };
    Passphrase::new(text).map(Some).map_err(malformed)
}

/// Opens something with the passphrase that was given; if that is missing and somebody sits at a terminal, asks.
pub(crate) fn unlock<T, E: Locked + From<KitError>>(
    file: Option<&Path>,
    open: impl Fn(Option<&Passphrase>) -> Result<T, E>,
) -> Result<T, E> {
    let given = given(file)?;
    match open(given.as_ref()) {
        Err(error) if error.is_locked() && given.is_none() => match ask("Passphrase: ") {
            Some(typed) => open(Some(&typed)),
            None => Err(error),
        },
        result => result,
    }
}

/// The passphrase for new keys: the one that was given, or one that is typed twice if that was `asked` for.
pub(crate) fn wanted(asked: bool, context: &Context) -> Result<Option<Passphrase>, Failure> {
    if let Some(given) = context.passphrase()? {
        return Ok(Some(given));
    }
    if !asked {
        return Ok(None);
    }
    let nobody = || {
        Failure::new(Exit::Usage, "there is no terminal to ask for a passphrase on")
            .next("name a file with --passphrase-file, or set FEDLEDGER_PASSPHRASE")
    };
    let first = typed("New passphrase: ").ok_or_else(nobody)?;
    let second = typed("The same again: ").ok_or_else(nobody)?;
    if *first != *second {
        return Err(Failure::new(Exit::Failed, "the two passphrases differ").next("begin again"));
    }
    let invalid = |error| Failure::because(Exit::Failed, "this cannot be a passphrase", error);
    Passphrase::new(first).map(Some).map_err(invalid)
}

fn ask(prompt: &str) -> Option<Passphrase> {
    Passphrase::new(typed(prompt)?).ok()
}

/// What somebody types, without showing it.
fn typed(prompt: &str) -> Option<Zeroizing<String>> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return None;
    }
    let terminal = Term::stderr();
    terminal.write_str(prompt).ok()?;
    terminal.read_secure_line().ok().map(Zeroizing::new)
}
