//! Reads a machine's history from the vault.

use futures::StreamExt;
use tidegate_model::{Name, Remedy};

use super::history::MachineHistory;
use super::trace::Traces;
use crate::log::{Found, LogError, LogReader};
use crate::meta::{self, MetaError};

/// Why a machine's history couldn't be read.
#[derive(Debug, thiserror::Error)]
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
    /// [`HistoryError`] when there is no such machine, or something can't be read that tells where
    /// its logs are. Damage in the logs is no error: it is in [`MachineHistory::losses`].
    pub async fn read(reader: &LogReader, machine: &Name) -> Result<Self, HistoryError> {
        let (store, ring) = (reader.store(), reader.ring());
        let epochs = meta::list_epochs(store, ring, machine).await?;
        if epochs.is_empty() {
            let names = meta::list_machines(store).await?;
            return Err(HistoryError::NoMachine { machine: machine.clone(), known: known(&names) });
        }
        let mut sessions = Vec::new();
        for epoch in &epochs {
            sessions.extend(meta::list_sessions(store, ring, machine, epoch.epoch).await?);
        }
        let mut history = Self::new(machine.clone(), epochs, sessions);
        history.read_logs(reader).await?;
        Ok(history)
    }

    /// Reads the logs of the machine's epochs: every index from its first pack on. What is damaged
    /// goes to `losses`; whether it held anything of this machine shows in the chains.
    ///
    /// # Errors
    /// [`LogError`] when the store can't be read, or a key or a newer program is needed.
    pub async fn read_logs(&mut self, reader: &LogReader) -> Result<(), LogError> {
        let mut traces = Traces::default();
        for (log, first) in self.logs() {
            let survey = reader.survey(&log).await?;
            let lost = survey.counted.missing.iter().filter(|(_, last)| *last >= first);
            self.losses.extend(lost.map(|(pack, _)| LogError::Missing(survey.place(*pack))));
            let mut packs = std::pin::pin!(reader.packs(&survey, survey.counted_from(first)));
            while let Some((_, pack)) = packs.next().await {
                match pack {
                    Ok(Found::Pack(pack)) => {
                        traces.add_pack(log.id, &pack.index, Some(&self.machine));
                    }
                    Ok(Found::Tombstone) => break,
                    Err(error) if error.is_damage() => self.losses.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
        self.take_traces(&mut traces);
        Ok(())
    }
}

/// The machines that there are, in words.
fn known(names: &[Name]) -> String {
    const SHOWN: usize = 10;
    let mut text = match names.len() {
        0 => return "no machine was ever sent to it".into(),
        1 => "it has only ".to_owned(),
        _ => "it has ".to_owned(),
    };
    let shown: Vec<&str> = names.iter().take(SHOWN).map(Name::as_str).collect();
    text.push_str(&shown.join(", "));
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
