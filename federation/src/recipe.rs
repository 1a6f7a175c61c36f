//! From the ledger to arithmetic: which files a version is made of, and making it.
//!
//! The coordinator, every attesting replica and every auditor run the same [`Recipe`], so that they compute the same bytes.

use std::io::{self, Read};

use fedledger_ledger::Digest;

use crate::{
    Federation, VersionId,
    aggregation::{
        self, Aggregation, AggregationError, Aggregator, Base, ContributionError, ContributionStream, EncodeError,
        FixedPoint, Outputs,
    },
    apply,
    architecture::{Architecture, ArchitectureError},
    command::{Contribute, FileRef, OutputFiles, RoundKey},
    decimal::Decimal,
    manifest::Manifest,
    member::MemberId,
    plan::{Plan, Rule, ServerOptimizer},
    records::{Participation, Phase},
    rejection::Rejection,
    tensors::{Dtype, LayoutError, ReadError, Tensor, TensorLayout, TensorSpec, WriteError, write_tensors},
};

/// The verdict on an update file that is not the one contributed.
pub const WRONG_DIGEST: &str = "wrong_digest";

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// What a version is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The attempt; round 0 for an initial version.
    pub key: RoundKey,
    plan: Plan,
    cohort: usize,
    /// Files of the base version; none for an initial version.
    pub base: Option<OutputFiles>,
    /// The updates, by member.
    pub updates: Vec<Update>,
}

/// An update to be aggregated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Who contributed it.
    pub member: MemberId,
    /// The file.
    pub file: FileRef,
    /// Examples behind it.
    pub examples: u64,
}

/// Why a version cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The ledger does not say how.
    #[error(transparent)]
    Ledger(#[from] Rejection),
    /// The architecture has no initial weights.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// The initial weights cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file could not be read.
    #[error("file {digest} could not be read: {source}")]
    Io {
        /// SHA-256 of the file.
        digest: Digest,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not the one that the ledger names.
    #[error("file {expected} has the SHA-256 {found}")]
    Digest {
        /// SHA-256 on the ledger.
        expected: Digest,
        /// SHA-256 of what was read.
        found: Digest,
    },
    /// An update cannot be aggregated.
    #[error("the update of {member} is refused: {source}")]
    Update {
        /// Who contributed it.
        member: MemberId,
        /// Why.
        source: ContributionError,
    },
    /// Aggregation failed.
    #[error(transparent)]
    Aggregation(#[from] AggregationError),
}

impl From<LayoutError> for RecipeError {
    fn from(error: LayoutError) -> Self {
        Self::Aggregation(error.into())
    }
}

impl From<EncodeError> for RecipeError {
    fn from(error: EncodeError) -> Self {
        Self::Aggregation(AggregationError::Contribution { index: 0, source: error.into() })
    }
}

impl Architecture {
    /// The tensors of a weights or update file.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if the model is too large for a file.
    pub fn layout(&self) -> Result<TensorLayout, LayoutError> {
        let specs = self.parameters().into_iter().map(|(name, shape)| TensorSpec::new(name, shape, Dtype::F32));
        TensorLayout::new(specs.collect())
    }

    /// Size of an update file, in bytes; 0 for a model too large for a file, which no update has.
    pub fn update_size_bytes(&self) -> u64 {
        self.layout().map_or(0, |layout| layout.file_size_bytes() as u64)
    }
}

impl Plan {
    /// The arithmetic of a round with `cohort` selected participants.
    ///
    /// # Errors
    ///
    /// [`AggregationError`] for a plan that [`Plan::check`] would refuse.
    pub fn arithmetic(&self, cohort: usize) -> Result<Aggregation, AggregationError> {
        let contribution = |source: EncodeError| AggregationError::Contribution { index: 0, source: source.into() };
        let fixed_point = FixedPoint::new(self.aggregation.example_scale, cohort).map_err(contribution)?;
        Aggregation::new(rule(&self.aggregation.rule), fixed_point, self.architecture.layout()?)
    }

    /// The weights file of the initial version.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Architecture`] or [`RecipeError::Write`] for a plan that [`Plan::check`] would refuse.
    pub fn initial_weights(&self) -> Result<Vec<u8>, RecipeError> {
        let tensors = self.architecture.initial_weights(self.seed)?;
        let tensors: Vec<Tensor> =
            tensors.into_iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect();
        Ok(write_tensors(&tensors)?)
    }
}

impl Recipe {
    /// The recipe of an attempt whose contributions are fixed, or of the initial version for round 0.
    ///
    /// # Errors
    ///
    /// [`Rejection`] where the ledger knows no such attempt, or it is still collecting.
    pub fn of(state: &Federation, key: &RoundKey) -> Result<Self, Rejection> {
        let record = state.plans().get(&key.plan).ok_or(Rejection::UnknownPlan(key.plan))?;
        let plan = record.plan.clone();
        if key.round == 0 {
            return Ok(Self { key: *key, plan, cohort: 1, base: None, updates: Vec::new() });
        }
        let round = state.rounds().get(key).ok_or(Rejection::UnknownRound)?;
        let (Phase::Closed { excluded, .. } | Phase::Completed { excluded, .. }) = &round.phase else {
            return Err(Rejection::RoundCollecting);
        };
        let updates = state.participations(key).filter_map(|(member, participation)| match participation {
            Participation::Contributed { contribution, .. } if !excluded.contains_key(member) => {
                Some(Update::of(member, contribution))
            }
            _ => None,
        });
        let updates = updates.collect();
        let base = state.versions().get(&round.base).ok_or(Rejection::UnknownVersion(round.base))?;
        let mut files = base.manifest.outputs().ok_or(Rejection::WrongOutputs)?;
        // Moments belong to one plan; the next plan on the branch begins with zeros.
        if base.manifest.plan != key.plan {
            files.optimizer_state = None;
        }
        Ok(Self { key: *key, plan, cohort: round.cohort.len(), base: Some(files), updates })
    }

    /// Every file that is needed.
    pub fn files(&self) -> impl Iterator<Item = FileRef> {
        let base = self.base.into_iter().flat_map(|files| [Some(files.weights), files.optimizer_state]).flatten();
        base.chain(self.updates.iter().map(|update| update.file))
    }

    /// Makes the version's files, reading what is needed through `open`. Every byte read is checked against the ledger.
    ///
    /// Memory: the sum (two model sizes), one update, base and outputs, whatever the number of updates.
    ///
    /// # Errors
    ///
    /// [`RecipeError`].
    pub fn compute<R: Read>(
        &self,
        mut open: impl FnMut(&FileRef) -> io::Result<R>,
        threads: usize,
    ) -> Result<Outputs, RecipeError> {
        let Some(base) = self.base else {
            return Ok(Outputs { weights: self.plan.initial_weights()?, optimizer_state: None });
        };
        let mut aggregator = Aggregator::new(self.plan.arithmetic(self.cohort)?);
        for update in &self.updates {
            let refused = |source| RecipeError::Update { member: update.member.clone(), source };
            let mut stream = aggregator.begin(update.examples)?;
            let io = |source| RecipeError::Io { digest: update.file.digest, source };
            let mut reader = open(&update.file).map_err(io)?;
            let mut chunk = vec![0; CHUNK_BYTES];
            loop {
                match reader.read(&mut chunk).map_err(io)? {
                    0 => break,
                    count => stream.push(chunk.get(..count).unwrap_or_default()).map_err(refused)?,
                }
            }
            let contribution = stream.finish().map_err(refused)?;
            if contribution.digest() != update.file.digest {
                return Err(RecipeError::Digest { expected: update.file.digest, found: contribution.digest() });
            }
            aggregator.add(contribution)?;
        }
        let weights = read_file(&base.weights, &mut open)?;
        let state = base.optimizer_state.map(|file| read_file(&file, &mut open)).transpose()?;
        Ok(aggregator.finish(Base { weights: &weights, optimizer_state: state.as_deref() }, threads)?)
    }

    /// The manifest that these outputs lead to, and its id.
    ///
    /// # Errors
    ///
    /// [`Rejection`] where the ledger has moved on.
    pub fn manifest(&self, state: &Federation, outputs: &OutputFiles) -> Result<(Manifest, VersionId), Rejection> {
        let manifest = apply::versions::manifest(state, &self.key, outputs)?;
        let id = manifest.id();
        Ok((manifest, id))
    }
}

impl Update {
    /// The update that a contribution names.
    pub fn of(member: &MemberId, contribution: &Contribute) -> Self {
        let file = FileRef { digest: contribution.update, size: contribution.size };
        Self { member: member.clone(), file, examples: contribution.examples }
    }
}

impl OutputFiles {
    /// Digests and sizes of computed files.
    pub fn of(outputs: &Outputs) -> Self {
        let file = |bytes: &[u8]| FileRef { digest: Digest::of(bytes), size: bytes.len() as u64 };
        Self { weights: file(&outputs.weights), optimizer_state: outputs.optimizer_state.as_deref().map(file) }
    }
}

/// Checks an update file against the plan before its contribution is counted.
///
/// # Errors
///
/// The stable code of the reason for which it must be excluded, and the reason in words.
pub fn check_update(
    plan: &Plan,
    cohort: usize,
    update: &Update,
    mut reader: impl Read,
) -> io::Result<Result<(), (&'static str, String)>> {
    let refused = |code: &'static str, text: String| Ok(Err((code, text)));
    let arithmetic = match plan.arithmetic(cohort) {
        Ok(arithmetic) => arithmetic,
        Err(error) => return refused("invalid_plan", error.to_string()),
    };
    let mut stream = match ContributionStream::new(&arithmetic, update.examples) {
        Ok(stream) => stream,
        Err(error) => return refused("wrong_examples", error.to_string()),
    };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = reader.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        if let Err(error) = stream.push(chunk.get(..count).unwrap_or_default()) {
            return refused(exclusion_code(&error), error.to_string());
        }
    }
    match stream.finish() {
        Ok(contribution) if contribution.digest() == update.file.digest => Ok(Ok(())),
        Ok(contribution) => refused(WRONG_DIGEST, format!("the file has the SHA-256 {}", contribution.digest())),
        Err(error) => refused(exclusion_code(&error), error.to_string()),
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

fn read_file<R: Read>(
    file: &FileRef,
    open: &mut impl FnMut(&FileRef) -> io::Result<R>,
) -> Result<Vec<u8>, RecipeError> {
    let io = |source| RecipeError::Io { digest: file.digest, source };
    let mut bytes = Vec::new();
    open(file).map_err(io)?.take(file.size.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    let found = Digest::of(&bytes);
    if found == file.digest { Ok(bytes) } else { Err(RecipeError::Digest { expected: file.digest, found }) }
}

fn rule(rule: &Rule) -> aggregation::Rule {
    // A decimal's text is always a number; the nearest 64-bit float is the same for everybody.
    let value = |decimal: &Decimal| decimal.as_str().parse::<f64>().unwrap_or(f64::NAN);
    let parameters =
        |p: &ServerOptimizer| (value(&p.server_learning_rate), value(&p.beta1), value(&p.beta2), value(&p.tau));
    match rule {
        Rule::FedAvg { server_learning_rate } => {
            aggregation::Rule::FedAvg { server_learning_rate: value(server_learning_rate) }
        }
        Rule::FedAvgM { server_learning_rate, momentum } => {
            aggregation::Rule::FedAvgM { server_learning_rate: value(server_learning_rate), momentum: value(momentum) }
        }
        Rule::FedAdagrad(p) => {
            let (server_learning_rate, beta1, _, tau) = parameters(p);
            aggregation::Rule::FedAdagrad { server_learning_rate, beta1, tau }
        }
        Rule::FedAdam(p) => {
            let (server_learning_rate, beta1, beta2, tau) = parameters(p);
            aggregation::Rule::FedAdam { server_learning_rate, beta1, beta2, tau }
        }
        Rule::FedYogi(p) => {
            let (server_learning_rate, beta1, beta2, tau) = parameters(p);
            aggregation::Rule::FedYogi { server_learning_rate, beta1, beta2, tau }
        }
    }
}
