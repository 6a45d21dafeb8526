//! Reads what a collection asks for.
//!
//! Damage stops it wherever it could hide that something is needed: a record, a manifest, a pin, or a
//! pack that some reader would read.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use tidegate_model::{LogName, Micros, Name, PackNumber, PinId};

use super::collection::{LogEnd, LogSeen};
use super::error::GcError;
use super::needs::{IndexEntry, MachineSeen, Root, folded_by};
use super::packs::{PackSet, Ranges};
use super::pin::read_pin;
use crate::chain::MachineHistory;
use crate::fold::{Needed, needed, read_manifest};
use crate::layout;
use crate::log::{LogError, LogReader, PackPlace, Survey};
use crate::meta::{self, MetaError, Records};
use crate::pack::{Content, PackSummary};
use crate::restore::target_place;

/// What a collection has read of the vault.
pub(super) struct Look<'r> {
    pub reader: &'r LogReader,
    /// How much is told of packs at most: each counts, and each machine in it.
    pub told_max: u64,
    surveys: BTreeMap<LogName, Survey>,
    /// What is recorded of each machine, removed or not.
    histories: BTreeMap<Name, MachineHistory>,
}

impl<'r> Look<'r> {
    pub const fn new(reader: &'r LogReader) -> Self {
        Self { reader, told_max: u64::MAX, surveys: BTreeMap::new(), histories: BTreeMap::new() }
    }

    /// Every log of every run, and every log that is there.
    pub async fn logs(&mut self) -> Result<BTreeMap<LogName, LogSeen>, GcError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let runs = whole(meta::list_runs(store, ring).await?)?;
        (self.surveys, _) = self.reader.surveys().await?;
        for log in runs.iter().flat_map(meta::Run::logs) {
            if !self.surveys.contains_key(&log) {
                let survey = self.reader.survey(&log).await?;
                self.surveys.insert(log, survey);
            }
        }
        let mut seen = BTreeMap::new();
        for (log, survey) in &self.surveys {
            seen.insert(log.clone(), self.log(survey).await?);
        }
        Ok(seen)
    }

    async fn log(&self, survey: &Survey) -> Result<LogSeen, GcError> {
        let next = survey.counted.next;
        let (mut packs, mut left_over) = (Ranges::default(), Ranges::default());
        survey.counted.packs.iter().for_each(|number| packs.add(*number, *number));
        let newest = survey.counted.packs.last().copied();
        let end = match newest {
            _ if survey.tombstone == Some(next) => LogEnd::Fenced,
            None => LogEnd::Open { stated: 0, next },
            Some(number) => match self.reader.pack(&survey.place(number)).await {
                Ok(pack) if pack.index.last => LogEnd::Last,
                Ok(pack) => LogEnd::Open { stated: pack.index.condemned_list, next },
                // Nobody can tell what it says: it is waited for.
                Err(error) if error.is_damage() => LogEnd::Open { stated: 0, next },
                Err(error) => return Err(error.into()),
            },
        };
        if end == LogEnd::Fenced {
            let beyond = survey.counted.leftovers.iter().filter(|number| **number > next);
            beyond.for_each(|number| left_over.add(*number, *number));
        }
        Ok(LogSeen { packs, newest, left_over, end })
    }

    /// Every machine.
    pub async fn machines(&mut self) -> Result<BTreeMap<Name, MachineSeen>, GcError> {
        let mut seen = BTreeMap::new();
        self.histories.clear();
        for machine in meta::list_machines(self.reader.store()).await? {
            if let Some(machine_seen) = self.machine(&machine).await? {
                seen.insert(machine, machine_seen);
            }
        }
        Ok(seen)
    }

    async fn machine(&mut self, machine: &Name) -> Result<Option<MachineSeen>, GcError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let epochs = whole(meta::list_epochs(store, ring, machine).await?)?;
        if epochs.is_empty() {
            return Ok(None);
        }
        let sessions = whole(meta::list_sessions(store, ring, machine).await?)?;
        // They are in order, so that the newest of an epoch is what stays.
        let committed = sessions.iter().map(|session| (session.epoch, session.committed)).collect();
        let records = |whole| Records { whole, damaged: Vec::new() };
        let sessions = Records { whole: sessions, damaged: Vec::new() };
        let mut history = MachineHistory::new(machine.clone(), records(epochs), sessions);
        self.histories.insert(machine.clone(), history.clone());
        history.remove_upto(meta::removed_upto(store, ring, machine).await?);
        if history.is_gone() {
            return Ok(Some(MachineSeen { gone: history.gone, ..MachineSeen::default() }));
        }
        let needed = needed(store, ring, machine).await?;
        history.let_go(needed.iter().flat_map(|needed| &needed.gone));
        let root = Root::of(&history.logs(), needed.as_ref());
        let folded = needed.as_ref().map(folded_by).unwrap_or_default();
        Ok(Some(MachineSeen { root, folded, gone: history.gone, committed }))
    }

    /// What those need who have pinned a manifest; pins from before `oldest` are deleted.
    pub async fn pins(&self, oldest: Micros) -> Result<Vec<Root>, GcError> {
        let mut roots = Vec::new();
        for (machine, history) in &self.histories {
            for number in self.pinned(machine, oldest).await? {
                let needed = self.pinned_needs(machine, number).await?;
                // What was removed since is read all the same.
                let mut history = history.clone();
                history.let_go(needed.iter().flat_map(|needed| &needed.gone));
                roots.push(Root::of(&history.logs(), needed.as_ref()));
            }
        }
        Ok(roots)
    }

    /// The manifests of a machine that are pinned; pins from before `oldest` are deleted.
    pub async fn pinned(&self, machine: &Name, oldest: Micros) -> Result<Vec<u64>, GcError> {
        let store = self.reader.store();
        let listed: Vec<_> = store.list(&layout::pins(machine), None).try_collect().await?;
        let mut pinned = Vec::new();
        for object in listed {
            let Some(id) = layout::parse_pin(machine, &object.path) else { continue };
            if object.modified < oldest {
                tracing::warn!(%machine, pin = %id, "a pin that nobody has renewed is deleted");
                store.delete(&object.path).await?;
                continue;
            }
            pinned.extend(self.pin(machine, id).await?);
        }
        Ok(pinned)
    }

    async fn pin(&self, machine: &Name, id: PinId) -> Result<Option<u64>, GcError> {
        match read_pin(self.reader.store(), self.reader.ring(), machine, id).await {
            // Its owner has ended.
            Err(MetaError::Missing { .. }) => Ok(None),
            pinned => Ok(Some(pinned?)),
        }
    }

    async fn pinned_needs(&self, machine: &Name, number: u64) -> Result<Option<Needed>, GcError> {
        if number == 0 {
            return Ok(None);
        }
        let (store, ring) = (self.reader.store(), self.reader.ring());
        Ok(Some(Needed::by(&read_manifest(store, ring, machine, number).await?)))
    }

    /// To what the packs of these logs refer, from these on.
    pub async fn references(
        &self,
        tails: &BTreeMap<LogName, PackNumber>,
    ) -> Result<PackSet, GcError> {
        let mut packs = PackSet::default();
        for (log, first) in tails {
            let Some(survey) = self.surveys.get(log) else { continue };
            if let Some(place) = survey.first_missing(*first) {
                return Err(LogError::Missing(place).into());
            }
            let mut read = self.reader.packs(survey, survey.counted_from(*first));
            let mut read = std::pin::pin!(read.by_ref());
            while let Some((place, pack)) = read.next().await {
                let index = &pack?.index;
                for record in &index.records {
                    if let Content::Reference { target, .. } = &record.content {
                        packs.add(&target_place(&place, index, target.log, target.pack));
                    }
                }
            }
        }
        Ok(packs)
    }

    /// What the indexes of these packs say; one that can't be read isn't among them, nor are those for
    /// which there is no room: they stay where they are.
    pub async fn indexes(
        &self,
        packs: &PackSet,
    ) -> Result<Vec<(PackPlace, Vec<IndexEntry>)>, GcError> {
        let (mut told, mut room) = (Vec::new(), self.told_max);
        for (log, ranges) in packs.logs() {
            let Some(survey) = self.surveys.get(log) else { continue };
            let numbers = survey.counted.packs.iter().copied();
            let numbers = numbers.filter(|number| ranges.has(*number)).collect();
            let entries = |_: &PackPlace, summary: PackSummary| {
                let entry = |machine: crate::pack::MachineEntry| IndexEntry {
                    machine: machine.name,
                    epoch: machine.epoch,
                    complete: machine.complete_lsn,
                };
                summary.machines.into_iter().map(entry).collect()
            };
            let mut read = std::pin::pin!(self.reader.summaries(survey, numbers, entries));
            while let Some((place, entries)) = read.next().await {
                match entries {
                    Ok(entries) => {
                        let entries: Vec<IndexEntry> = entries;
                        room = room.saturating_sub(1 + entries.len() as u64);
                        if room == 0 {
                            return Ok(told);
                        }
                        told.push((place, entries));
                    }
                    Err(error) if error.is_damage() => {
                        tracing::warn!(%error, "a pack that nobody needs stays: it can't be read");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(told)
    }
}

/// Records of which none is damaged or missing.
fn whole<R>(records: Records<R>) -> Result<Vec<R>, GcError> {
    match records.damaged.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(records.whole),
    }
}
