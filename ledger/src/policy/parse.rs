//! The text of a policy, read line by line.

use std::str;

use super::{
    POLICY_LINES_MAX, POLICY_SIZE_BYTES_MAX, Policy, PolicyBuilder, PolicyDefect, Threshold,
    name::{is_allowed, quoted},
};
use crate::note::{VerifierKey, VerifierKeyError};

const LOG_FORM: &str = "log KEY [URL]";
const WITNESS_FORM: &str = "witness NAME KEY [URL]";
const GROUP_FORM: &str = "group NAME all|any|NUMBER MEMBER...";
const QUORUM_FORM: &str = "quorum NAME";

/// Text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the policy: {defect}")]
pub struct ParsePolicyError {
    /// Number of the line at which it shows, from 1; one more than there are where something is missing at the end.
    pub line: usize,
    /// What is wrong.
    #[source]
    pub defect: PolicyDefect,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    ///
    /// [`ParsePolicyError`] for everything that the format does not allow, and for what exceeds
    /// [`POLICY_SIZE_BYTES_MAX`] or [`POLICY_LINES_MAX`].
    pub fn parse(text: &[u8]) -> Result<Self, ParsePolicyError> {
        if let Some(start) = text.get(..POLICY_SIZE_BYTES_MAX)
            && start.len() < text.len()
        {
            let line = 1 + start.iter().filter(|&&octet| octet == b'\n').count();
            return Err(ParsePolicyError { line, defect: PolicyDefect::TooLarge });
        }
        let mut builder = PolicyBuilder::new();
        let mut end = 1;
        for (line, number) in text.split_inclusive(|&octet| octet == b'\n').zip(1..) {
            read_line(&mut builder, line, number).map_err(|defect| ParsePolicyError { line: number, defect })?;
            end = number + 1;
        }
        builder.build().map_err(|defect| ParsePolicyError { line: end, defect })
    }
}

fn read_line(builder: &mut PolicyBuilder, line: &[u8], number: usize) -> Result<(), PolicyDefect> {
    if number > POLICY_LINES_MAX {
        return Err(PolicyDefect::TooManyLines);
    }
    let line = line.strip_suffix(b"\n").ok_or(PolicyDefect::NoFinalNewline)?;
    if let Some(&octet) = line.iter().find(|&&octet| octet != b'\t' && !is_allowed(octet)) {
        return Err(PolicyDefect::ControlCharacter(octet));
    }
    let words = line.split(|octet| matches!(octet, b' ' | b'\t')).filter(|word| !word.is_empty());
    read_words(builder, &words.collect::<Vec<_>>())
}

fn read_words(builder: &mut PolicyBuilder, words: &[&[u8]]) -> Result<(), PolicyDefect> {
    let Some((&kind, rest)) = words.split_first().filter(|(kind, _)| !kind.starts_with(b"#")) else {
        return Ok(());
    };
    match (kind, rest) {
        (b"log", &[key]) => builder.log(verifier_key(key)?, None)?,
        (b"log", &[key, url]) => builder.log(verifier_key(key)?, Some(url))?,
        (b"log", _) => return Err(PolicyDefect::Form(LOG_FORM)),
        (b"witness", &[name, key]) => builder.witness(name, verifier_key(key)?, None)?,
        (b"witness", &[name, key, url]) => builder.witness(name, verifier_key(key)?, Some(url))?,
        (b"witness", _) => return Err(PolicyDefect::Form(WITNESS_FORM)),
        (b"group", &[name, count, ref members @ ..]) if !members.is_empty() => {
            builder.group(name, threshold(count, members.len())?, members)?
        }
        (b"group", _) => return Err(PolicyDefect::Form(GROUP_FORM)),
        (b"quorum", &[name]) => builder.quorum(name)?,
        (b"quorum", _) => return Err(PolicyDefect::Form(QUORUM_FORM)),
        _ => return Err(PolicyDefect::UnknownKind(quoted(kind))),
    };
    Ok(())
}

fn verifier_key(word: &[u8]) -> Result<VerifierKey, PolicyDefect> {
    let text = str::from_utf8(word).map_err(|_| VerifierKeyError::Malformed(quoted(word)))?;
    Ok(text.parse()?)
}

/// A threshold in its only form: a number has no sign and no leading zeros.
fn threshold(word: &[u8], members: usize) -> Result<Threshold, PolicyDefect> {
    match word {
        b"all" => Some(Threshold::All),
        b"any" => Some(Threshold::Any),
        [b'1'..=b'9', ..] => str::from_utf8(word).ok().and_then(|text| text.parse().ok()).map(Threshold::AtLeast),
        _ => None,
    }
    .ok_or_else(|| PolicyDefect::Threshold { threshold: quoted(word), members })
}
