//! Saying whom evidence convicts, without a network and without the log.

use std::path::Path;

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    evidence::{EVIDENCE_SIZE_BYTES_MAX, Evidence, EvidenceError, Signer, Signers},
    note::{SignatureType, SignedNote},
};
use serde::Serialize;

use crate::{
    context::{Context, read_file},
    error::{Exit, Failure},
};

/// The form of the result as JSON.
const EVIDENCE_SCHEMA: &str = "fedledger.evidence/1";

#[derive(Debug, Default, Serialize)]
struct EvidenceView {
    ok: bool,
    file: String,
    origin: String,
    /// The keys that have signed both histories.
    convicted: Vec<String>,
    /// The same, with the nodes whose keys they are.
    signers: Vec<SignerView>,
    /// The heads that no log can have had both, the smaller one first.
    heads: Vec<HeadView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct SignerView {
    /// Name of the node; that of the key for one that was given by hand or by a policy.
    node: String,
    key: String,
    /// `log` for signatures in the name of the log, `cosignature` for those in the node's own.
    signs: &'static str,
}

#[derive(Debug, Serialize)]
struct HeadView {
    size: u64,
    root: Digest,
}

impl EvidenceView {
    fn of(bytes: &[u8], signers: &Signers) -> Result<Self, EvidenceError> {
        let evidence = Evidence::from_bytes(bytes)?;
        let convicted = signers.convicted_by(&evidence);
        if convicted.is_empty() {
            return Err(EvidenceError::NobodySignedBoth);
        }
        Ok(Self {
            ok: true,
            origin: evidence.origin().to_owned(),
            convicted: convicted.iter().map(|signer| signer.key.to_string()).collect(),
            signers: convicted.into_iter().map(SignerView::of).collect(),
            heads: vec![HeadView::of(evidence.first())?, HeadView::of(evidence.second())?],
            ..Self::default()
        })
    }

    fn text(&self, context: &Context) -> String {
        if let Some(problem) = &self.problem {
            return context.output.bad(&format!("this convicts nobody: {problem}"));
        }
        let mut lines = vec![format!("{} has been signed twice, with different histories", self.origin)];
        lines.extend(self.heads.iter().map(|head| format!("head      {} entries, root {}", head.size, head.root)));
        for signer in &self.signers {
            let how = if signer.signs == "log" { "in the name of the log" } else { "as a co-signature" };
            lines.push(format!("signed by {}, {how}, with {}", signer.node, signer.key));
        }
        lines.join("\n")
    }
}

impl SignerView {
    fn of(signer: &Signer) -> Self {
        let signs = match signer.key.kind() {
            SignatureType::Ed25519 => "log",
            SignatureType::CosignatureV1 => "cosignature",
        };
        Self { node: signer.node.clone(), key: signer.key.to_string(), signs }
    }
}

impl HeadView {
    fn of(note: &SignedNote) -> Result<Self, EvidenceError> {
        let head = Checkpoint::parse(note.text())?;
        Ok(Self { size: head.size(), root: *head.root() })
    }
}

/// Says whom evidence convicts; a failure if nobody.
pub(crate) fn check(context: &Context, path: &Path, signers: &Signers) -> Result<(), Failure> {
    let bytes = read_file(path, EVIDENCE_SIZE_BYTES_MAX as u64)?;
    let checked = EvidenceView::of(&bytes, signers);
    let next = match &checked {
        Err(EvidenceError::NobodySignedBoth) => {
            "if keys have changed since the genesis file, give the chain of epochs with --epochs FILE; else ask for both \
             signed heads"
        }
        _ => "ask whoever gave you the file for both signed heads: `fedledger evidence make` makes evidence of them",
    };
    let view =
        checked.unwrap_or_else(|error| EvidenceView { problem: Some(error.to_string()), ..EvidenceView::default() });
    let view = EvidenceView { file: path.display().to_string(), ..view };
    context.output.object(EVIDENCE_SCHEMA, &view, || view.text(context))?;
    match view.problem {
        None => Ok(()),
        Some(problem) => {
            let failure = Failure::because(Exit::Mismatch, format!("{} convicts nobody", path.display()), problem);
            Err(failure.next(next))
        }
    }
}
