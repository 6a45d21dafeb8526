//! What each machine takes: of disks, and of the vault.
//!
//! Owns the sums. What a machine's frames take is exact; heads of packs (header and index) are
//! shared out by records. Shared blocks are counted where they are kept: with the machine that
//! sent them first. Reads every index of the vault that isn't folded for all who are in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use tidegate_model::{Disk, LogName, Name, PackNumber};

use crate::chain::{HistoryError, MachineHistory, Traces};
use crate::fold::{FoldedEpoch, FoldedUsage, newest_manifest};
use crate::layout;
use crate::log::{LogReader, PackRead};
use crate::meta;
use crate::pack::{Content, PackIndex};
use crate::points::{GapCause, Lacks, MachinePoints, RecoveryPoint, Referred};

/// What a machine takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineUsage {
    /// Its disks, as they are at its last point, or as they were declared last.
    pub disks: Vec<Disk>,
    /// Bytes that frames keep for it, before they were made smaller.
    pub kept_bytes: u64,
    /// Bytes that were zero.
    pub zero_bytes: u64,
    /// Bytes that refer to kept ones.
    pub reference_bytes: u64,
    /// Bytes of the store: its frames, and its share of the packs' heads.
    pub stored_bytes: u64,
    /// Bytes of its dense packs, which keep some of that once more.
    pub dense_bytes: u64,
    /// How many recovery points it has.
    pub points: usize,
    /// The newest of them.
    pub last_point: Option<RecoveryPoint>,
    /// Whether it has none because, by all that is known, something of it is damaged or missing.
    pub points_lost: bool,
}

/// What every machine takes, by name.
///
/// # Errors
/// [`HistoryError`] when the vault can't be read. What is damaged is left out: `verify` tells it.
pub async fn usage(reader: &LogReader) -> Result<BTreeMap<Name, MachineUsage>, HistoryError> {
    let (mut histories, removed) = recorded(reader).await?;
    let mut sums = Sums::of(&histories);
    let mut broken = Broken::default();
    for survey in reader.surveys().await?.0.values() {
        broken.extend(survey.counted.missing.last().map(|(_, last)| (survey.log.clone(), *last)));
        let numbers = survey.counted_from(first_unfolded(&survey.log, &histories));
        let mut packs = std::pin::pin!(reader.packs(survey, numbers));
        while let Some((place, pack)) = packs.next().await {
            match pack {
                Ok(pack) => sums.add_pack(&pack, &histories),
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "left out");
                    let last = broken.entry(place.log).or_insert(place.number);
                    *last = place.number.max(*last);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let Sums { mut usages, mut traces, referred } = sums;
    usages.retain(|machine, _| !removed.contains(machine));
    let lacks = referred.check(reader).await?;
    for (machine, history) in &mut histories {
        history.take_traces(&mut traces);
        let usage = usages.entry(machine.clone()).or_default();
        add_history(usage, history, &lacks);
        if usage.last_point.is_none() {
            // The logs were read in no order: only a history that is read in order tells a loss from
            // a machine that moved on meanwhile.
            usage.points_lost = points_lost(history, &lacks, &broken) && {
                let history = MachineHistory::read(reader, machine).await?;
                points_lost(&history, &lacks, &broken)
            };
        }
    }
    Ok(usages)
}

/// What is recorded of every machine, and folded of it; and the machines that were removed.
async fn recorded(
    reader: &LogReader,
) -> Result<(BTreeMap<Name, MachineHistory>, BTreeSet<Name>), HistoryError> {
    let (store, ring) = (reader.store(), reader.ring());
    let (mut histories, mut removed) = (BTreeMap::new(), BTreeSet::new());
    for machine in meta::list_machines(store).await? {
        let newest = newest_manifest(store, ring, &machine).await?;
        newest.damage.iter().for_each(|error| tracing::warn!(%error, "the logs are read instead"));
        let epochs = meta::list_epochs(store, ring, &machine).await?;
        epochs.damaged.iter().for_each(|error| tracing::warn!(%error, "left out"));
        let sessions = meta::list_sessions(store, ring, &machine).await?;
        let mut history = MachineHistory::new(machine.clone(), epochs, sessions);
        history.remove_upto(meta::removed_upto(store, ring, &machine).await?);
        if history.is_gone() {
            removed.insert(machine);
            continue;
        }
        history.set_fold(newest.manifest.map(Arc::new));
        histories.insert(machine, history);
    }
    Ok((histories, removed))
}

/// The first pack of a log that has something of a machine and isn't folded for it. What lies before
/// was there when the folds were made, and so before any session that isn't recorded yet.
fn first_unfolded(log: &LogName, histories: &BTreeMap<Name, MachineHistory>) -> PackNumber {
    let of_machine = |history: &MachineHistory| {
        if history.is_strayed() {
            return Some(PackNumber(0));
        }
        let named = history.logs().into_iter().find(|(of, _)| of == log);
        let folded = |(_, first)| history.fold.as_ref().and_then(|fold| fold.upto(log, first));
        named.map(|named| folded(named.clone()).unwrap_or(named.1))
    };
    histories.values().filter_map(of_machine).min().unwrap_or_default()
}

/// What is added up, pack by pack.
#[derive(Default)]
struct Sums {
    usages: BTreeMap<Name, MachineUsage>,
    traces: Traces,
    referred: Referred,
}

impl Sums {
    /// What is folded.
    fn of(histories: &BTreeMap<Name, MachineHistory>) -> Self {
        let mut sums = Self::default();
        for (machine, history) in histories {
            let Some(fold) = &history.fold else { continue };
            sums.add(machine, &fold.usage);
            let dense = fold.epochs.iter().flat_map(FoldedEpoch::kept_in);
            let dense = dense.filter(|(place, _)| layout::is_dense(&place.log));
            let dense: BTreeMap<_, _> = dense.map(|(place, need)| (place, need.bytes)).collect();
            sums.usages.entry(machine.clone()).or_default().dense_bytes = dense.values().sum();
            fold.seed(machine, &mut sums.traces);
            sums.referred.add_fold(machine, fold);
        }
        sums
    }

    fn add_pack(&mut self, pack: &PackRead, histories: &BTreeMap<Name, MachineHistory>) {
        for (machine, part) in pack.index.machines.iter().zip(usages_in(pack)) {
            let fold = histories.get(&machine.name).and_then(|history| history.fold.as_ref());
            if !fold.is_some_and(|fold| fold.has(&pack.place)) {
                self.add(&machine.name, &part);
            }
        }
        self.traces.add_pack(&pack.place, &pack.index, None);
        self.referred.add_pack(pack, None);
    }

    fn add(&mut self, machine: &Name, part: &FoldedUsage) {
        let usage = self.usages.entry(machine.clone()).or_default();
        usage.kept_bytes += part.kept_bytes;
        usage.zero_bytes += part.zero_bytes;
        usage.reference_bytes += part.reference_bytes;
        usage.stored_bytes += part.stored_bytes;
    }
}

/// For each log the last pack of it that is damaged or missing.
type Broken = BTreeMap<LogName, PackNumber>;

/// Whether a machine without a point lacks them because of damage: of its records, of what it refers
/// to, or of packs in which it may have been.
fn points_lost(history: &MachineHistory, lacks: &Lacks, broken: &Broken) -> bool {
    let mut points = MachinePoints::of(history);
    points.withhold(history, lacks);
    let harmless = |cause: &_| matches!(cause, GapCause::CopyUnfinished(_) | GapCause::Stretch(_));
    let gap = points.gaps.iter().any(|gap| !harmless(&gap.cause));
    let in_broken = |(log, first)| broken.get(&log).is_some_and(|last| *last >= first);
    gap || !history.losses.is_empty() || history.logs().into_iter().any(in_broken)
}

/// What a pack takes of each machine that it lists.
fn usages_in(pack: &PackRead) -> Vec<FoldedUsage> {
    let index = &pack.index;
    let mut places = vec![FoldedUsage::default(); index.machines.len()];
    for record in &index.records {
        let usage = &mut places[usize::from(record.machine)];
        match &record.content {
            Content::Kept { extent, .. } => usage.kept_bytes += extent.length,
            Content::Zero(extent) => usage.zero_bytes += extent.length,
            Content::Reference { extent, .. } => usage.reference_bytes += extent.length,
            Content::Disk(_) | Content::Bookmark(_) | Content::Time => {}
        }
    }
    for (place, frame) in (0..).zip(&index.frames) {
        // A frame holds what one machine sent.
        let owner = index.kept_of(place).next().map(|record| usize::from(record.machine));
        if let Some(owner) = owner {
            places[owner].stored_bytes += frame.object_bytes();
        }
    }
    share_head(&mut places, index, pack.header.frames_begin());
    places
}

/// What a pack takes of one machine, in all its epochs.
pub(crate) fn usage_in(pack: &PackRead, machine: &Name) -> FoldedUsage {
    let of_machine = pack.index.machines.iter().zip(usages_in(pack));
    let of_machine = of_machine.filter(|(entry, _)| entry.name == *machine);
    of_machine.fold(FoldedUsage::default(), |sum, (_, part)| sum.plus(&part))
}

/// Shares out the bytes of header and index; what doesn't divide goes to the first machine.
fn share_head(places: &mut [FoldedUsage], index: &PackIndex, head_bytes: u64) {
    let mut records = vec![0_u64; places.len()];
    for record in &index.records {
        records[usize::from(record.machine)] += 1;
    }
    let all: u64 = records.iter().sum();
    let mut left = head_bytes;
    for (usage, records) in places.iter_mut().zip(records) {
        let share = (head_bytes * records).checked_div(all).unwrap_or(0);
        usage.stored_bytes += share;
        left -= share;
    }
    if let Some(first) = places.first_mut() {
        first.stored_bytes += left;
    }
}

fn add_history(usage: &mut MachineUsage, history: &MachineHistory, lacks: &Lacks) {
    let mut points = MachinePoints::of(history);
    points.withhold(history, lacks);
    usage.points = points.points.len();
    usage.last_point = points.points.last().cloned();
    usage.disks = match &usage.last_point {
        Some(point) => point.disks.clone(),
        None => history.disks(&history.newest().map_or_else(Vec::new, |point| vec![point])),
    };
}

#[cfg(test)]
mod tests;
