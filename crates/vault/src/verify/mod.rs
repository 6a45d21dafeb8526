//! Checks a vault: indexes, gaps, references, chains and layers always; every frame on demand.
//!
//! Owns what is called damage and what it touches. Doesn't own the checks of a single pack
//! (`pack`, `log`). Changes nothing, and may run while servers write.
//!
//! Invariants: whatever is stored, this neither panics nor stops at the first thing that is wrong;
//! it ends early only when the store can't be read or a key or a newer program is needed. Memory:
//! the names of kept blocks (`indexes`), the reader's cache, and what is on its way.

mod contents;
mod dense;
mod ends;
mod folds;
mod indexes;
mod machines;
mod report;
mod touch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use tidegate_model::Remedy;

pub use report::{Counts, Finding, MachineReport, OpenLog, Report, Spot, Touch};

use crate::log::{LogError, LogReader, PackRead, Survey};
use crate::meta::MetaError;
use folds::Folds;
use indexes::Indexes;

/// Why a check couldn't be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The logs can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The records of runs and machines can't be read.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl VerifyError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Log(error) => error.remedy(),
            Self::Meta(error) => error.remedy(),
        }
    }

    fn stopped(error: tokio::task::JoinError) -> Self {
        Self::Log(LogError::Stopped(error.to_string()))
    }
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Packs whose indexes were checked.
    pub packs: u64,
    /// Packs that are there.
    pub packs_all: u64,
    /// Bytes of frames whose contents were checked.
    pub bytes: u64,
    /// Bytes that will be: 0 when contents aren't checked.
    pub bytes_all: u64,
}

/// One step of a check.
enum Progress {
    Index,
    Contents(u64),
}

/// Counts the steps and tells of them.
struct Steps<'p> {
    done: Done,
    tell: &'p (dyn Fn(Done) + Send + Sync),
}

impl Steps<'_> {
    fn step(&mut self, progress: Progress) {
        match progress {
            Progress::Index => self.done.packs += 1,
            Progress::Contents(bytes) => self.done.bytes += bytes,
        }
        (self.tell)(self.done);
    }
}

/// Checks a vault; the contents of every frame too, if `contents`.
///
/// # Errors
/// [`VerifyError`] when the check itself couldn't be made. Damage is no error: it is in the report.
pub async fn verify(
    reader: &LogReader,
    contents: bool,
    progress: &(dyn Fn(Done) + Send + Sync),
) -> Result<Report, VerifyError> {
    let mut findings = Vec::new();
    let mut histories = machines::records(reader, &mut findings).await?;
    let folds = Folds::read(reader, &histories, &mut findings).await?;
    let (mut surveys, strays) = reader.surveys().await?;
    folds.state(&mut surveys);
    let dense = folds.dense(reader, &mut findings).await?;
    let all = surveys.values().chain(dense.values());
    let mut steps = Steps { done: expected(all, contents), tell: progress };

    let collected = reader.collected(true).await?;
    let mut indexes = Indexes::new(surveys);
    if !collected.removed.is_empty() {
        // What the packs said that were removed, only manifests tell.
        folds.seed(&mut indexes.traces);
    }
    indexes.read(reader, &folds, &mut steps).await?;
    indexes.judge();
    let Indexes { surveys, mut counts, findings: of_logs, traces, closed, .. } = indexes;
    findings.extend(of_logs);
    counts.dense_packs = dense.len() as u64;
    dense::check(reader, &dense, &mut steps, &mut findings).await?;
    let open_logs = ends::open_logs(&surveys, &closed, &histories, &findings);
    if contents {
        findings.extend(
            contents::read(reader, surveys.values().chain(dense.values()), &mut steps).await?,
        );
    }
    let named = ends::named_logs(&histories);
    let logs = surveys.keys().chain(named.iter().filter(|log| !surveys.contains_key(*log)));
    counts.runs = machines::check_runs(reader, logs, &mut findings).await?;
    counts.layers = folds.check(reader, &mut findings).await?;
    folds.let_go(&mut histories);
    machines::compare(reader, &mut histories, traces, &mut findings).await?;
    folds.retain(&mut histories);
    if !findings.is_empty() {
        dense::touch(reader, &folds, &mut findings).await?;
        touch::read(reader, surveys.values(), &histories, &mut findings).await?;
    }
    let machines = histories.iter().map(machines::report).collect();
    Ok(Report { counts, damage: findings, open_logs, strays, machines })
}

/// What there is to do.
fn expected<'s>(surveys: impl Iterator<Item = &'s Survey> + Clone, contents: bool) -> Done {
    let packs_all = surveys.clone().map(|survey| survey.counted.packs.len() as u64).sum();
    let stored = surveys.flat_map(|survey| survey.stored.values());
    Done { packs_all, bytes_all: if contents { stored.sum() } else { 0 }, ..Done::default() }
}

/// The packs that count and can be read. What is wrong with the others was told before, unless the
/// store has ceased to answer since.
fn counted_packs<'s>(
    reader: &LogReader,
    surveys: impl Iterator<Item = &'s Survey>,
) -> impl Stream<Item = Result<Arc<PackRead>, LogError>> {
    let streams: Vec<_> =
        surveys.map(|survey| reader.packs(survey, survey.counted.packs.clone())).collect();
    stream::iter(streams).flatten().filter_map(async |(_, pack)| match pack {
        Ok(pack) => Some(Ok(pack)),
        Err(error) if error.is_damage() => None,
        Err(error) => Some(Err(error)),
    })
}
