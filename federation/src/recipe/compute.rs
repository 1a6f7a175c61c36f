//! Making a version's files.

use std::{
    collections::BTreeSet,
    io::{self, Cursor, Read, Seek, Write},
};

use rayon::prelude::*;

use super::{
    Recipe, RecipeError, Update,
    check::{read_through, stream_into},
};
use crate::{
    aggregation::{
        Aggregation, AggregationError, BaseInputs, Destination, Outputs, RunningSum, StreamError, Sums, Term,
        UPDATE_FILES_MAX, aggregate_files, running::AdditionError,
    },
    command::{FileRef, OutputFiles},
    history::hash,
    tensors::{FileError, Input},
};

/// Updates by which a running sum may differ from the recipe, as a share of the recipe's: above it, reading all of them is
/// not much slower than bringing the sum up to date.
const ADJUSTED_SHARE: usize = 2;

impl Recipe {
    /// Whether the version has an optimiser state.
    pub fn keeps_optimizer_state(&self) -> bool {
        self.base.is_some() && self.plan.aggregation.rule.keeps_state()
    }

    /// Makes the version's files in memory, for models that are small enough. Every byte that is read through `open` is
    /// checked against the ledger.
    ///
    /// # Errors
    ///
    /// [`RecipeError`].
    pub fn compute<R: Read + Send>(
        &self,
        open: impl FnMut(&FileRef) -> io::Result<R>,
        threads: usize,
    ) -> Result<Outputs, RecipeError> {
        let (mut weights, mut state) = (Vec::new(), Cursor::new(Vec::new()));
        let destination =
            Destination { weights: &mut weights, optimizer_state: self.keeps_optimizer_state().then_some(&mut state) };
        let files = self.compute_into(open, destination, None, threads)?;
        Ok(Outputs { weights, optimizer_state: files.optimizer_state.map(|_| state.into_inner()) })
    }

    /// Makes the version's files, block by block. Every byte that is read through `open` is checked against the ledger, and
    /// what was written is worth nothing before this returns without an error.
    ///
    /// `sum` may be the sum that was formed while the updates arrived. It is used if it holds the recipe's updates, or
    /// brought up to date if it nearly does. Without one, updates are read side by side, and the memory needed does not
    /// depend on the size of the model; only for more than [`UPDATE_FILES_MAX`] their sum is formed first, which takes eight
    /// bytes a parameter.
    ///
    /// # Errors
    ///
    /// [`RecipeError`].
    pub fn compute_into<R, W, S>(
        &self,
        mut open: impl FnMut(&FileRef) -> io::Result<R>,
        destination: Destination<W, S>,
        sum: Option<&RunningSum>,
        threads: usize,
    ) -> Result<OutputFiles, RecipeError>
    where
        R: Read + Send,
        W: Write + Send,
        S: Read + Write + Seek + Send,
    {
        let Some(base) = self.base else {
            let weights = self.plan.write_initial_weights(destination.weights)?;
            return Ok(OutputFiles { weights, optimizer_state: None });
        };
        let aggregation = self.plan.arithmetic(self.cohort)?;
        let formed;
        let sums = match sum {
            Some(sum) if *sum.aggregation() == aggregation && self.bring_up_to_date(sum, &mut open)? => {
                Sums::Running(sum)
            }
            _ if self.updates.len() <= UPDATE_FILES_MAX => Sums::Files(self.open_updates(&mut open)?),
            _ => {
                formed = self.form_sum(aggregation.clone(), &mut open, threads)?;
                Sums::Running(&formed)
            }
        };
        let inputs = BaseInputs {
            weights: input(&base.weights, &mut open)?,
            optimizer_state: match base.optimizer_state {
                Some(file) => {
                    let times = aggregation.rule().moments().max(1);
                    (0..times).map(|_| input(&file, &mut open)).collect::<Result<_, _>>()?
                }
                None => Vec::new(),
            },
        };
        let made = aggregate_files(&aggregation, inputs, sums, destination, threads);
        made.map_err(|error| self.of_stream(error))
    }

    fn open_updates<R>(
        &self,
        open: &mut impl FnMut(&FileRef) -> io::Result<R>,
    ) -> Result<Vec<(u64, Input<R>)>, RecipeError> {
        self.updates.iter().map(|update| Ok((update.examples, input(&update.file, open)?))).collect()
    }

    /// Whether the sum holds exactly the recipe's updates, and none will ever be added, after a few are added or removed if
    /// need be.
    fn bring_up_to_date<R: Read>(
        &self,
        sum: &RunningSum,
        open: &mut impl FnMut(&FileRef) -> io::Result<R>,
    ) -> Result<bool, RecipeError> {
        let Some(terms) = sum.terms() else { return Ok(false) };
        let found: BTreeSet<Term> = terms.into_iter().collect();
        let wanted: BTreeSet<Term> = self.updates.iter().map(Update::term).collect();
        if found.symmetric_difference(&wanted).count() > self.updates.len() / ADJUSTED_SHARE {
            return Ok(false);
        }
        for term in found.difference(&wanted) {
            // Only digest and weight matter to find the file; nothing reads beyond its end.
            let file =
                FileRef { digest: term.digest, size: sum.aggregation().update_layout().file_size_bytes() as u64 };
            let removed = match sum.begin_removal(term) {
                Some(removal) => matches!(stream_into(removal, || open(&file)), Ok(Ok(()))),
                None => false,
            };
            if !removed {
                return Ok(false);
            }
        }
        for update in self.updates.iter().filter(|update| !found.contains(&update.term())) {
            let addition = sum.begin(update.term()).map_err(|error| update.refused(error.into()))?;
            let Some(addition) = addition else { return Ok(false) };
            if !matches!(stream_into(addition, || open(&update.file)), Ok(Ok(()))) {
                // Reading all files will tell what is wrong with this one.
                return Ok(false);
            }
        }
        // A file that comes late, of a contribution that does not count, must not get into what is being read.
        Ok(sum.close(&wanted))
    }

    /// The sum of all updates, of which as many are read at a time as there are threads.
    fn form_sum<R: Read + Send>(
        &self,
        aggregation: Aggregation,
        open: &mut impl FnMut(&FileRef) -> io::Result<R>,
        threads: usize,
    ) -> Result<RunningSum, RecipeError> {
        let cohort = aggregation.fixed_point().cohort();
        let sum = RunningSum::new(aggregation).map_err(RecipeError::Memory)?;
        for updates in self.updates.chunks(threads.max(1)) {
            let mut readers = Vec::with_capacity(updates.len());
            for update in updates {
                readers.push((update, input(&update.file, open)?));
            }
            let add = |(update, input): (&Update, Input<R>)| update.add_to(&sum, input);
            let added: Vec<Result<(), RecipeError>> = match threads {
                0 | 1 => readers.into_iter().map(add).collect(),
                _ => readers.into_par_iter().map(add).collect(),
            };
            for (update, added) in updates.iter().zip(added) {
                added.map_err(|error| update.judge(error, open))?;
            }
        }
        match sum.terms() {
            Some(terms) if terms.len() == self.updates.len() => Ok(sum),
            _ => Err(AggregationError::TooManyContributions { found: self.updates.len(), cohort }.into()),
        }
    }

    fn of_stream(&self, error: StreamError) -> RecipeError {
        match error {
            StreamError::File(error) => error.into(),
            StreamError::Write(source) => RecipeError::Output(source),
            StreamError::Aggregation(AggregationError::Contribution { index, source }) => {
                match self.updates.get(index) {
                    Some(update) => update.refused(source),
                    None => AggregationError::Contribution { index, source }.into(),
                }
            }
            StreamError::Aggregation(error) => error.into(),
        }
    }
}

impl Update {
    /// What it is in a sum.
    pub fn term(&self) -> Term {
        Term { contributor: self.member.clone(), digest: self.file.digest, example_count: self.examples }
    }

    fn add_to<R: Read>(&self, sum: &RunningSum, input: Input<R>) -> Result<(), RecipeError> {
        let Input { file, mut reader } = input;
        let addition = sum.begin(self.term()).map_err(|error| self.refused(error.into()))?;
        // The caller counts the terms.
        let Some(mut addition) = addition else { return Ok(()) };
        match read_through(&mut addition, &mut reader) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(AdditionError::Digest { found })) => Err(RecipeError::Digest { expected: file.digest, found }),
            Ok(Err(AdditionError::Contribution(source))) => Err(self.refused(source)),
            Err(source) => Err(RecipeError::Io { digest: file.digest, source }),
        }
    }

    /// Tells an update that was never right from one that is damaged here.
    fn judge<R: Read>(&self, error: RecipeError, open: &mut impl FnMut(&FileRef) -> io::Result<R>) -> RecipeError {
        let expected = self.file.digest;
        match (&error, open(&self.file).and_then(hash)) {
            (RecipeError::Update { .. }, Ok((found, _))) if found != expected => {
                RecipeError::Digest { expected, found }
            }
            (RecipeError::Update { .. }, Err(source)) => RecipeError::Io { digest: expected, source },
            _ => error,
        }
    }

    fn refused(&self, source: crate::aggregation::ContributionError) -> RecipeError {
        RecipeError::Update { member: self.member.clone(), source }
    }
}

impl From<FileError> for RecipeError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { file, source } => Self::Io { digest: file, source },
            FileError::Damaged { file, found } => Self::Digest { expected: file, found },
            // Every reader has said already what its content is wrong for.
            FileError::Content { file, source } => Self::Io { digest: file, source: io::Error::other(source) },
        }
    }
}

fn input<R>(file: &FileRef, open: &mut impl FnMut(&FileRef) -> io::Result<R>) -> Result<Input<R>, RecipeError> {
    let reader = open(file).map_err(|source| RecipeError::Io { digest: file.digest, source })?;
    Ok(Input { file: *file, reader })
}
