//! Reads a machine's history from the vault.

use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use tidegate_model::{LogName, Name, PackNumber, Remedy};

use super::history::{Loss, MachineHistory};
use super::trace::Traces;
use crate::fold::{Manifest, newest_manifest};
use crate::log::{LogError, LogReader, PackRead, Survey};
use crate::meta::{self, MetaError};

/// How often what is read may be collected meanwhile: each time others have folded it twice.
pub(crate) const READ_TRIES_MAX: u32 = 4;

/// Why a machine's history couldn't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The logs can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The records of the machine's epochs can't be read.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// There is no such machine.
    #[error("the vault has no machine {machine}: {known}")]
    NoMachine {
        /// What was asked for.
        machine: Name,
        /// Which there are.
        known: String,
    },
}

impl HistoryError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Log(error) => error.remedy(),
            Self::Meta(error) => error.remedy(),
            Self::NoMachine { .. } => Remedy::Refuse,
        }
    }
}

impl MachineHistory {
    /// Reads all that the vault holds of a machine, but for its disks' bytes.
    ///
    /// # Errors
    /// [`HistoryError`] when there is no such machine, the store can't be read, or a key or a newer
    /// program is needed. Damage is no error: it is in [`MachineHistory::losses`].
    pub async fn read(reader: &LogReader, machine: &Name) -> Result<Self, HistoryError> {
        Self::read_telling(reader, machine, |_| ()).await
    }

    /// The same; where the newest epoch seems to be cut off, all logs are looked at before that is
    /// said, for the record of a session may be lost without a trace. `tell` is shown every pack that
    /// its history follows from and that isn't folded, some of them twice, so that who wants more of
    /// an index doesn't read it again.
    ///
    /// # Errors
    /// As [`MachineHistory::read`].
    pub async fn read_telling(
        reader: &LogReader,
        machine: &Name,
        mut tell: impl FnMut(&PackRead) + Send,
    ) -> Result<Self, HistoryError> {
        let mut tries = 0;
        loop {
            let newest = newest_manifest(reader.store(), reader.ring(), machine).await?;
            let mut history =
                Self::read_beyond(reader, machine, newest.manifest, &mut tell).await?;
            tries += 1;
            let collected = |loss: &Loss| matches!(loss, Loss::Log(error) if error.is_collected());
            if tries < READ_TRIES_MAX && history.losses.iter().any(collected) {
                // Others folded it meanwhile: the newest manifest doesn't need what went.
                continue;
            }
            if let Some(error) = newest.damage {
                tracing::warn!(%error, "the logs are read instead");
                history.losses.push(Loss::Record(error));
            }
            return Ok(history);
        }
    }

    /// Reads a machine's history from this manifest of it, if it is one, and from what the logs have
    /// besides.
    ///
    /// # Errors
    /// As [`MachineHistory::read`].
    pub(crate) async fn read_beyond(
        reader: &LogReader,
        machine: &Name,
        fold: Option<Manifest>,
        mut tell: impl FnMut(&PackRead) + Send,
    ) -> Result<Self, HistoryError> {
        let fold = fold.map(Arc::new);
        let mut history = Self::listed(reader, machine, fold.clone()).await?;
        history.read_logs_telling(reader, &mut tell).await?;
        if history.strayed || !history.seems_cut() {
            return Ok(history);
        }
        let unnamed = history.clone().look_besides(reader).await?;
        if !unnamed.is_empty() {
            // From the beginning: what was read until now is of other moments, and not in the order
            // of the logs.
            history = Self::listed(reader, machine, fold).await?;
            history.besides = unnamed.iter().map(|unnamed| unnamed.place.log.clone()).collect();
            history.losses.extend(unnamed.into_iter().map(Loss::Unnamed));
            history.read_logs_telling(reader, &mut tell).await?;
            history.strayed = true;
        }
        Ok(history)
    }

    /// What is recorded of a machine; its logs aren't read yet.
    pub(crate) async fn listed(
        reader: &LogReader,
        machine: &Name,
        fold: Option<Arc<Manifest>>,
    ) -> Result<Self, HistoryError> {
        let (store, ring) = (reader.store(), reader.ring());
        let epochs = meta::list_epochs(store, ring, machine).await?;
        if epochs.whole.is_empty() && epochs.damaged.is_empty() {
            let names = meta::list_machines(store).await?;
            return Err(HistoryError::NoMachine { machine: machine.clone(), known: known(&names) });
        }
        let sessions = meta::list_sessions(store, ring, machine).await?;
        let mut history = Self::new(machine.clone(), epochs, sessions);
        history.remove_upto(meta::removed_upto(store, ring, machine).await?);
        if history.is_gone() {
            let known = "it was removed".to_owned();
            return Err(HistoryError::NoMachine { machine: machine.clone(), known });
        }
        history.set_fold(fold);
        Ok(history)
    }

    /// Reads the logs of the machine's epochs: every index from its first pack on. What is damaged
    /// goes to `losses`; whether it held anything of this machine shows in the chains. Where a
    /// session's log isn't known any more, every log of the vault is read: slow, but all that is
    /// left of the machine is found.
    ///
    /// # Errors
    /// [`LogError`] when the store can't be read, or a key or a newer program is needed.
    pub async fn read_logs(&mut self, reader: &LogReader) -> Result<(), LogError> {
        self.read_logs_telling(reader, |_| ()).await
    }

    async fn read_logs_telling(
        &mut self,
        reader: &LogReader,
        mut tell: impl FnMut(&PackRead) + Send,
    ) -> Result<(), LogError> {
        if self.strayed {
            self.besides = reader.logs().await?;
        }
        let mut traces = Traces::default();
        if let Some(fold) = &self.fold {
            fold.seed(&self.machine, &mut traces);
        }
        for (log, first) in self.logs() {
            let (survey, first) = self.survey(reader, &log, first).await?;
            let packs = first..PackNumber(u64::MAX);
            let losses = self.read_log(reader, &survey, packs, &mut traces, &mut tell).await?;
            self.losses.extend(losses);
        }
        self.take_traces(&mut traces);
        Ok(())
    }

    /// A log whose records may begin with pack `first`, and the first pack to read of it: what lies
    /// before is folded.
    pub(crate) async fn survey(
        &self,
        reader: &LogReader,
        log: &LogName,
        first: PackNumber,
    ) -> Result<(Survey, PackNumber), LogError> {
        match self.folded_upto(log, first) {
            Some(upto) => Ok((reader.survey_from(log, upto).await?, upto)),
            None => Ok((reader.survey(log).await?, first)),
        }
    }

    /// The first pack of a log that isn't folded; `None` where nothing of the log is whose records may
    /// begin with pack `first`.
    pub(crate) fn folded_upto(&self, log: &LogName, first: PackNumber) -> Option<PackNumber> {
        self.fold.as_ref().and_then(|fold| fold.upto(log, first))
    }

    /// Reads packs of a log; gives what is wrong with them.
    pub(super) async fn read_log(
        &self,
        reader: &LogReader,
        survey: &Survey,
        range: Range<PackNumber>,
        traces: &mut Traces,
        mut tell: impl FnMut(&PackRead) + Send,
    ) -> Result<Vec<Loss>, LogError> {
        let missing = survey.counted.missing.iter();
        let lost = missing.filter(|(first, last)| *last >= range.start && *first < range.end);
        let lost = lost.map(|(pack, _)| LogError::Missing(survey.place(*pack)));
        let mut losses: Vec<Loss> = lost.map(Loss::Log).collect();
        let mut numbers = survey.counted_from(range.start);
        numbers.retain(|number| *number < range.end);
        let mut packs = std::pin::pin!(reader.packs(survey, numbers));
        while let Some((place, pack)) = packs.next().await {
            match pack {
                Ok(pack) => {
                    traces.add_pack(&place, &pack.index, Some(&self.machine));
                    tell(&pack);
                }
                Err(error) if error.is_damage() => losses.push(error.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(losses)
    }
}

/// How many machines are named to who asked for one that isn't there: a line's worth.
const NAMED_MAX: usize = 10;

/// The machines that there are, in words.
fn known(names: &[Name]) -> String {
    let mut text = match names.len() {
        0 => return "no machine was ever sent to it".into(),
        1 => "it has only ".to_owned(),
        _ => "it has ".to_owned(),
    };
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).map(Name::as_str).collect();
    text.push_str(&shown.join(", "));
    if names.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMED_MAX));
    }
    text
}
