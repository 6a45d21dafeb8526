//! Records in places that nothing names: the record of the session that brought them is lost. It
//! leaves no gap in the numbers if it was the newest.
//!
//! Invariant: the record of an epoch or session is created before anything of it is stored, so that
//! what lies in another log, or before the pack that is named, is of a session without a record.
//! (One may have been granted since the records were read: they are asked for again.)

use std::collections::BTreeMap;

use tidegate_model::{Epoch, LogName, Lsn, Name, PackNumber, Point};

use super::history::{Broken, EpochHistory, MachineHistory};
use super::read::HistoryError;
use super::trace::Traces;
use crate::layout;
use crate::log::{LogReader, PackPlace};
use crate::meta::{self, MetaError, SessionRecord};

/// Records of an epoch where none of its records names them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "epoch {epoch} of {machine} has LSN {lsn} and others in {place} and behind it, and no record names that place: the record of the session that brought them is missing from {}; bring it back from a copy of the vault, or copy the machine anew",
    layout::sessions(.machine)
)]
pub struct Unnamed {
    /// The machine.
    pub machine: Name,
    /// The epoch.
    pub epoch: Epoch,
    /// The first pack there that has some of it.
    pub place: PackPlace,
    /// The lowest LSN there that pack has.
    pub lsn: Lsn,
}

impl EpochHistory {
    /// The first pack of a log in which the epoch's record, or one of `sessions`, says that it is.
    fn named(&self, log: &LogName, sessions: &[SessionRecord]) -> Option<PackNumber> {
        let of_epoch = sessions.iter().filter(|session| session.epoch == self.record.epoch);
        let named = of_epoch.map(|session| (&session.log, session.pack));
        let all = named.chain([(&self.record.log, self.record.pack)]);
        all.filter(|(of, _)| *of == log).map(|(_, pack)| pack).min()
    }
}

impl MachineHistory {
    /// What its logs hold where neither the records of its epochs nor `sessions` name it.
    fn unnamed_by(&self, sessions: &[SessionRecord]) -> Vec<Unnamed> {
        let mut unnamed = Vec::new();
        for (epoch, told) in &self.epochs {
            for (log, (pack, lsn)) in &told.trace.begins {
                if told.named(log, sessions).is_none_or(|named| *pack < named) {
                    let place = PackPlace { log: log.clone(), number: *pack };
                    let machine = self.machine.clone();
                    unnamed.push(Unnamed { machine, epoch: *epoch, place, lsn: *lsn });
                }
            }
        }
        unnamed
    }

    /// What its logs hold where no record names it, as far as it isn't known already that records of
    /// sessions are lost. From here on its history is read from all logs, if there is any.
    ///
    /// # Errors
    /// [`MetaError`] when the records can't be read again.
    pub async fn unnamed(&mut self, reader: &LogReader) -> Result<Vec<Unnamed>, MetaError> {
        let known: Vec<_> = self.epochs.values().flat_map(|told| told.sessions.clone()).collect();
        if self.strayed || self.unnamed_by(&known).is_empty() {
            return Ok(Vec::new());
        }
        let now = meta::list_sessions(reader.store(), reader.ring(), &self.machine).await?;
        let unnamed = self.unnamed_by(&now.whole);
        self.strayed = !unnamed.is_empty();
        Ok(unnamed)
    }

    /// Whether the newest epoch seems to have no end of its copy, or to continue what isn't whole:
    /// so it is while a copy goes on, and where the record of a newest session is lost.
    pub(super) fn seems_cut(&self) -> bool {
        let Some((epoch, told)) = self.epochs.last_key_value() else { return false };
        told.copy_end().is_none_or(|lsn| {
            let whole = self.whole_lineage(Point { epoch: *epoch, lsn });
            matches!(whole, Err(Broken::Ends { .. }))
        })
    }

    /// Reads what the other logs hold, and those that are named before the packs that are; gives what
    /// is there without a name. What this history says afterwards is of two moments.
    pub(super) async fn look_besides(
        mut self,
        reader: &LogReader,
    ) -> Result<Vec<Unnamed>, HistoryError> {
        let named: BTreeMap<_, _> = self.logs().into_iter().collect();
        let mut traces = Traces::default();
        self.give_traces(&mut traces);
        for log in reader.logs().await? {
            let until = named.get(&log).copied().unwrap_or(PackNumber(u64::MAX));
            if until > PackNumber(0) {
                let survey = reader.survey(&log).await?;
                self.read_log(reader, &survey, PackNumber(0)..until, &mut traces, |_| ()).await?;
            }
        }
        self.take_traces(&mut traces);
        Ok(self.unnamed(reader).await?)
    }
}
