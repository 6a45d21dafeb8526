//! Reads what a collection asks for.
//!
//! Damage stops it wherever it could hide that something is needed: a record, a manifest, a pin, or a
//! pack that some reader would read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tidegate_model::{Epoch, LogName, Micros, Name, PackNumber, RunId};

use super::collection::{LogEnd, LogSeen};
use super::error::GcError;
use super::needs::{IndexEntry, MachineSeen, Root, folded_by};
use super::packs::{PackSet, Ranges};
use super::pin::read_pin;
use crate::chain::MachineHistory;
use crate::fold::{Needed, is_superseded, needed, read_manifest};
use crate::layout;
use crate::log::{LogError, LogReader, PackPlace, Survey};
use crate::meta::{self, MetaError, Records};
use crate::pack::{Content, MachineEntry, PackSummary};
use crate::restore::target_place;

/// What a collection has read of the vault.
pub(super) struct Look<'r> {
    pub reader: &'r LogReader,
    /// How much is told of packs at once: each counts, and each machine in it.
    pub told_max: u64,
    surveys: BTreeMap<LogName, Survey>,
    /// The runs that began lately.
    young: BTreeSet<RunId>,
    /// What is recorded of each machine, removed or not.
    histories: BTreeMap<Name, MachineHistory>,
}

impl<'r> Look<'r> {
    pub fn new(reader: &'r LogReader) -> Self {
        let (surveys, histories) = (BTreeMap::new(), BTreeMap::new());
        Self { reader, told_max: u64::MAX, surveys, young: BTreeSet::new(), histories }
    }

    /// Every log of every run, and every log that is there. A run is young until it is as old as
    /// `patience`.
    pub async fn logs(
        &mut self,
        now: Micros,
        patience: Duration,
    ) -> Result<BTreeMap<LogName, LogSeen>, GcError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let claimed: Vec<_> = store.list(layout::RUNS, None).try_collect().await?;
        let claimed = claimed.iter().filter(|object| !is_older(object.modified, now, patience));
        self.young = claimed.filter_map(|object| layout::parse_run(&object.path)).collect();
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
        let is_young = self.young.contains(&survey.log.id.run);
        let open = LogEnd::Open { is_young };
        let (stated, end) = match newest {
            None => (0, open),
            Some(number) => match self.reader.pack(&survey.place(number)).await {
                Ok(pack) if pack.index.last => (pack.index.condemned_list, LogEnd::Last),
                Ok(pack) => (pack.index.condemned_list, open),
                // Nobody can tell what it says: it is waited for.
                Err(error) if error.is_damage() => (0, open),
                Err(error) => return Err(error.into()),
            },
        };
        let end = if survey.tombstone == Some(next) { LogEnd::Fenced } else { end };
        if end == LogEnd::Fenced {
            let beyond = survey.counted.leftovers.iter().filter(|number| **number > next);
            beyond.for_each(|number| left_over.add(*number, *number));
        }
        Ok(LogSeen { packs, newest, left_over, next, stated, end })
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
        let removed = meta::removed_upto(store, ring, machine).await?;
        let named = self.newest_named(machine).await?;
        if removed > Epoch::NONE
            && named <= removed
            && self.pinned_numbers(machine, Micros(0)).await?.is_empty()
        {
            // Whatever has become of its records.
            return Ok(Some(MachineSeen { removed, ..MachineSeen::default() }));
        }
        let epochs = whole(meta::list_epochs(store, ring, machine).await?)?;
        let newest = epochs.last().map_or(Epoch::NONE, |record| record.epoch);
        if newest < named {
            let path = layout::epoch(machine, named);
            return Err(MetaError::Missing { path }.into());
        }
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
        history.remove_upto(removed);
        if history.is_gone() {
            return Ok(Some(MachineSeen { removed, ..MachineSeen::default() }));
        }
        let needed = needed(store, ring, machine).await?;
        history.let_go(needed.iter().flat_map(|needed| &needed.gone));
        let root = Root::of(&history.logs(), needed.as_ref());
        let folded = needed.as_ref().map(folded_by).unwrap_or_default();
        Ok(Some(MachineSeen { root, folded, removed, gone: history.gone, committed }))
    }

    /// The highest epoch that anything of a machine names: its record must be there.
    async fn newest_named(&self, machine: &Name) -> Result<Epoch, GcError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let mut named = meta::epoch_numbers(store, machine).await?.into_iter().max();
        let mut listed = store.list(&layout::sessions(machine), None);
        while let Some(object) = listed.try_next().await? {
            named = named.max(layout::parse_session(machine, &object.path).map(|(epoch, _)| epoch));
        }
        let folded = match needed(store, ring, machine).await {
            Ok(needed) => needed.and_then(|needed| needed.epochs.last().copied()),
            // Told where it matters.
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(error.into()),
        };
        Ok(named.max(folded).unwrap_or_default())
    }

    /// What those need who have pinned a manifest; pins from before `oldest` are deleted.
    pub async fn pins(&self, oldest: Micros) -> Result<Vec<Root>, GcError> {
        let mut roots = Vec::new();
        for (machine, history) in &self.histories {
            for needed in self.pinned(machine, oldest).await?.into_values() {
                // What was removed since is read all the same.
                let mut history = history.clone();
                history.let_go(needed.iter().flat_map(|needed| &needed.gone));
                roots.push(Root::of(&history.logs(), needed.as_ref()));
            }
        }
        Ok(roots)
    }

    /// The manifests of a machine that are pinned, and what they need; 0 stands for its logs, of which
    /// all is needed. Pins from before `oldest` are deleted.
    pub async fn pinned(
        &self,
        machine: &Name,
        oldest: Micros,
    ) -> Result<BTreeMap<u64, Option<Needed>>, GcError> {
        let mut pinned = BTreeMap::new();
        for number in self.pinned_numbers(machine, oldest).await? {
            match number {
                0 => drop(pinned.insert(0, None)),
                _ => pinned.extend(self.pinned_needs(machine, number).await?),
            }
        }
        Ok(pinned)
    }

    /// A pin that is renewed goes when the next one is there: when one goes between listing and
    /// reading, all are listed once more.
    async fn pinned_numbers(
        &self,
        machine: &Name,
        oldest: Micros,
    ) -> Result<BTreeSet<u64>, GcError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let (mut numbers, mut read, mut is_listed) = (BTreeSet::new(), BTreeSet::new(), false);
        loop {
            let listed: Vec<_> = store.list(&layout::pins(machine), None).try_collect().await?;
            let mut is_whole = true;
            for object in listed {
                let Some(id) = layout::parse_pin(machine, &object.path) else { continue };
                if object.modified < oldest {
                    tracing::warn!(%machine, pin = %id, "a pin that nobody has renewed is deleted");
                    store.delete(&object.path).await?;
                } else if read.insert(id) {
                    match read_pin(store, ring, machine, id).await {
                        Err(MetaError::Missing { .. }) => is_whole = false,
                        number => drop(numbers.insert(number?)),
                    }
                }
            }
            // What goes while a directory is listed isn't seen at all: two listings, one after the other,
            // see the one or the other.
            if is_whole && std::mem::replace(&mut is_listed, true) {
                return Ok(numbers);
            }
        }
    }

    /// `None` for a manifest that was superseded and deleted before it was pinned: who pinned it finds
    /// that out, or was killed.
    async fn pinned_needs(
        &self,
        machine: &Name,
        number: u64,
    ) -> Result<Option<(u64, Option<Needed>)>, GcError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        match read_manifest(store, ring, machine, number).await {
            Err(MetaError::Missing { .. }) if is_superseded(store, machine, number).await? => {
                Ok(None)
            }
            manifest => Ok(Some((number, Some(Needed::by(&manifest?))))),
        }
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

    /// What the indexes of these packs say, the newest of a log first, and the packs for which there was no
    /// room. One that can't be read is among neither: it stays.
    pub async fn indexes(&self, packs: &PackSet) -> Result<(Vec<Told>, PackSet), GcError> {
        let (mut told, mut room, mut left) = (Vec::new(), self.told_max, PackSet::default());
        for (log, ranges) in packs.logs().rev() {
            let Some(survey) = self.surveys.get(log) else { continue };
            let numbers = survey.counted.packs.iter().rev().copied();
            let numbers: Vec<_> = numbers.filter(|number| ranges.has(*number)).collect();
            let mut unread = numbers.clone().into_iter();
            let mut read = std::pin::pin!(self.reader.summaries(survey, numbers, entries));
            while room > 0
                && let Some((place, entries)) = read.next().await
            {
                match entries {
                    // Of one pack there is always room for what it says.
                    Ok(entries) if told.is_empty() || entries.len() as u64 + 1 < room => {
                        room = room.saturating_sub(1 + entries.len() as u64);
                        told.push((place, entries));
                    }
                    Ok(_) => {
                        room = 0;
                        break;
                    }
                    Err(error) if error.is_damage() => {
                        tracing::warn!(%error, "a pack that nobody needs stays: it can't be read");
                    }
                    Err(error) => return Err(error.into()),
                }
                unread.next();
            }
            unread.for_each(|number| left.add(&survey.place(number)));
        }
        Ok((told, left))
    }
}

/// What the index of a pack says.
pub(super) type Told = (PackPlace, Vec<IndexEntry>);

fn entries(_: &PackPlace, summary: PackSummary) -> Vec<IndexEntry> {
    let entry = |machine: MachineEntry| IndexEntry {
        machine: machine.name,
        epoch: machine.epoch,
        complete: machine.complete_lsn,
    };
    summary.machines.into_iter().map(entry).collect()
}

/// Whether what was made then is that old; what came since is of no age.
pub(super) fn is_older(made: Micros, now: Micros, than: Duration) -> bool {
    u128::from(now.0.saturating_sub(made.0)) >= than.as_micros()
}

/// Records of which none is damaged or missing.
fn whole<R>(records: Records<R>) -> Result<Vec<R>, GcError> {
    match records.damaged.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(records.whole),
    }
}
