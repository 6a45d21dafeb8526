//! Folds one machine: reads what isn't folded yet, and creates layers and a manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use tidegate_model::{Epoch, LogName, Lsn, Name, PackNumber};

use super::FoldError;
use super::ages::stored_times;
use super::fate::Fate;
use super::folding::{Done, FoldReport, Folding};
use super::gather::{Gatherer, LogGather};
use super::keep::goes_back_to;
use super::layer::{LAYER_EXTENTS_MAX, Layer};
use super::manifest::{Base, FoldedEpoch, FoldedLog, LayerEntry, Manifest};
use super::objects::{Newest, newest_manifest, newest_number};
use super::unnamed::create_and_sweep;
use crate::chain::{Loss, MachineHistory};
use crate::gc::{Collected, Pin};
use crate::log::{LogError, LogReader, PackRead};
use crate::pack::{Content, Record};
use crate::points::Referred;
use crate::restore::target_place;
use crate::store::Put;

/// How often another may be first: each time something was folded.
const TRIES_MAX: u32 = 4;

/// Folds what can be folded of a machine.
///
/// # Errors
/// [`FoldError`]. Damage is no error as long as something can be read: what lies behind it isn't
/// folded, and it is in the report.
pub async fn fold(
    reader: &LogReader,
    machine: &Name,
    mut folding: Folding,
    progress: &(dyn Fn(Done) + Send + Sync),
) -> Result<FoldReport, FoldError> {
    if !folding.anew {
        match try_fold(reader, machine, folding, progress).await {
            // What a new layer was to be put together with can't be read: the logs are left.
            Err(FoldError::Meta(error)) if error.is_damage() => {
                tracing::warn!(%error, "folded anew from the logs");
            }
            Err(FoldError::BeginsBefore { .. }) => {}
            folded => return folded,
        }
    }
    folding.anew = true;
    // What is read from the logs once more mustn't be collected meanwhile.
    let mut pin = Pin::logs(reader, machine).await?;
    let folded = pin.during(try_fold(reader, machine, folding, progress)).await;
    pin.release().await?;
    folded
}

async fn try_fold(
    reader: &LogReader,
    machine: &Name,
    folding: Folding,
    progress: &(dyn Fn(Done) + Send + Sync),
) -> Result<FoldReport, FoldError> {
    for _ in 0..TRIES_MAX {
        let newest = newest_number(reader.store(), machine).await?;
        if let Some(limits) = folding.limits {
            limits.check(reader, machine).await?;
        }
        match try_once(reader, machine, folding, progress).await {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => tracing::debug!(%machine, "another folded it meanwhile; once more"),
            // Layers and packs go when newer manifests don't need them.
            Err(error)
                if error.is_damage() && newest_number(reader.store(), machine).await? > newest =>
            {
                tracing::debug!(%machine, %error, "another folded it meanwhile; once more");
            }
            Err(error) => return Err(error),
        }
    }
    Err(FoldError::Contended { machine: machine.clone() })
}

/// `None` when another was first.
async fn try_once(
    reader: &LogReader,
    machine: &Name,
    folding: Folding,
    progress: &(dyn Fn(Done) + Send + Sync),
) -> Result<Option<FoldReport>, FoldError> {
    let mut folder = Folder::begin(reader, machine, folding, progress).await?;
    folder.gather().await?;
    folder.finish().await
}

/// One try.
pub(super) struct Folder<'r> {
    pub(super) reader: &'r LogReader,
    pub(super) folding: Folding,
    pub(super) history: MachineHistory,
    /// What is folded already; empty when nothing is.
    pub(super) base: Manifest,
    /// To which packs what is folded now refers.
    pub(super) referred: Referred,
    /// The number of the newest manifest.
    pub(super) newest: u64,
    /// Whether what is gone on from is the one before, for the newest let go what an epoch continues.
    goes_back: bool,
    /// What nothing may refer to that is folded from the logs alone: no manifest has kept it.
    collected: Option<Arc<Collected>>,
    gatherer: Gatherer,
    logs: Vec<FoldedLog>,
    layers: BTreeMap<Epoch, Vec<LayerEntry>>,
    pub(super) report: FoldReport,
    progress: &'r (dyn Fn(Done) + Send + Sync),
    done: Done,
}

impl<'r> Folder<'r> {
    async fn begin(
        reader: &'r LogReader,
        machine: &Name,
        folding: Folding,
        progress: &'r (dyn Fn(Done) + Send + Sync),
    ) -> Result<Self, FoldError> {
        let newest = newest_manifest(reader.store(), reader.ring(), machine).await?;
        let mut manifest = newest.manifest.clone().filter(|_| !folding.anew);
        let read = |fold| MachineHistory::read_beyond(reader, machine, fold, |_| ());
        let mut history = read(manifest.clone()).await?;
        let before = goes_back_to(reader, &history, newest.number, manifest.as_ref()).await?;
        let goes_back = before.is_some();
        if goes_back {
            manifest = before;
            history = read(manifest.clone()).await?;
        }
        if manifest.as_ref().is_some_and(|base| begins_before(&history, base)) {
            return Err(FoldError::BeginsBefore { machine: machine.clone() });
        }
        if history.is_strayed() {
            return Err(FoldError::Strayed { machine: machine.clone() });
        }
        check_logs(reader, &history, &newest, manifest.is_some()).await?;
        let collected = match manifest.is_some() {
            true => None,
            false => Some(reader.collected(false).await?),
        };
        let base = manifest.unwrap_or_default();
        let ends = history.epochs.iter();
        let ends = ends.map(|(epoch, told)| (*epoch, told.trace.chain.end())).collect();
        let losses = history.losses.iter().cloned().chain(newest.damage.map(Loss::Record));
        let of_base = |epoch: &FoldedEpoch| (epoch.epoch, epoch.layers.clone());
        Ok(Self {
            reader,
            folding,
            gatherer: Gatherer::new(machine, &ends, &base, &history.gone),
            newest: newest.number,
            goes_back,
            collected,
            referred: Referred::default(),
            logs: base.logs.clone(),
            layers: base.epochs.iter().map(of_base).collect(),
            report: FoldReport { losses: losses.collect(), ..FoldReport::default() },
            history,
            base,
            progress,
            done: Done::default(),
        })
    }

    /// Takes what can be taken of every log.
    async fn gather(&mut self) -> Result<(), FoldError> {
        for (log, first) in self.history.logs() {
            self.gather_log(&log, first).await?;
        }
        Ok(())
    }

    async fn gather_log(&mut self, log: &LogName, first: PackNumber) -> Result<(), FoldError> {
        let (survey, start) = self.history.survey(self.reader, log, first).await?;
        let missing = survey.first_missing(start).map(|place| place.number);
        let mut numbers = survey.counted_from(start);
        numbers.retain(|number| missing.is_none_or(|missing| *number < missing));
        let times = stored_times(self.reader.store(), log, start).await.map_err(LogError::from)?;
        let (mut taken, mut next, mut ended) = (LogGather::default(), start, missing.is_none());
        let mut packs = std::pin::pin!(self.reader.packs(&survey, numbers));
        while let Some((place, pack)) = packs.next().await {
            if self.folding.limits.is_some_and(|limits| self.done.packs >= limits.taken) {
                (self.report.more, ended) = (true, false);
                break;
            }
            self.done.packs += 1;
            (self.progress)(self.done);
            let pack = match pack {
                Ok(pack) => Some(pack),
                // Told by the history, which read it before.
                Err(error) if error.is_damage() => None,
                Err(error) => return Err(error.into()),
            };
            // One that this listing lacks came just now.
            let stored = times.get(&place.number).copied();
            let stored = stored.or_else(|| times.values().max().copied()).unwrap_or_default();
            let Some(pack) = pack.filter(|pack| self.gatherer.take(&mut taken, pack, stored))
            else {
                ended = false;
                break;
            };
            let collected = self.collected.as_ref().filter(|all| all.newest > 0);
            if collected.is_some_and(|all| refers_to_any(&pack, &self.history.machine, all)) {
                return Err(FoldError::Collected { machine: self.history.machine.clone() });
            }
            if self.folding.keeping.is_some() {
                self.referred.add_pack(&pack, Some(&self.history.machine));
            }
            next = place.number.next();
            while let Some(layer) = self.gatherer.full() {
                self.store_layer(layer).await?;
            }
        }
        let (upto, usage) = self.gatherer.upto(taken, next, ended);
        self.report.packs += upto.0.saturating_sub(start.0);
        self.base.usage = self.base.usage.plus(&usage);
        match self.logs.iter_mut().find(|folded| folded.log == *log) {
            Some(folded) => folded.upto = upto,
            None if upto > first => {
                self.logs.push(FoldedLog { log: log.clone(), from: first, upto });
            }
            None => {}
        }
        Ok(())
    }

    async fn store_layer(&mut self, layer: Layer) -> Result<(), FoldError> {
        let epoch = layer.epoch;
        let entry = self.create_layer(layer).await?;
        self.layers.entry(epoch).or_default().push(entry);
        Ok(())
    }

    /// Stores what is left, and the manifest; `None` when another was first.
    async fn finish(mut self) -> Result<Option<FoldReport>, FoldError> {
        let traces = std::mem::take(&mut self.gatherer.traces);
        let mut epochs = Vec::new();
        for ((_, epoch), trace) in &traces.0 {
            // Something of it may have come late.
            if self.history.gone.contains(epoch) {
                continue;
            }
            self.store_rest(*epoch).await?;
            let mut folded = self.gatherer.folded(*epoch, trace);
            folded.layers = self.layers.remove(epoch).unwrap_or_default();
            folded.base = self.base_of(*epoch).cloned();
            epochs.push(folded);
        }
        let records = |epochs: &[FoldedEpoch]| -> u64 {
            let runs = epochs.iter().flat_map(|epoch| &epoch.runs);
            runs.map(|(first, last)| last.0 - first.0 + 1).sum()
        };
        self.report.records = records(&epochs).saturating_sub(records(&self.base.epochs));
        let is_changed = self.keep(&mut epochs).await? || self.goes_back;
        if self.report.packs == 0 && self.report.records == 0 && !is_changed {
            return Ok(Some(self.report));
        }
        self.check_again(&epochs).await?;
        let (number, usage) = (self.newest.saturating_add(1), self.base.usage);
        let machine = &self.history.machine;
        let gone = self.history.gone.iter().copied().collect();
        let manifest = Manifest { number, logs: self.logs, epochs, gone, usage };
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let put = create_and_sweep(store, ring, machine, &manifest).await?;
        self.report.manifest = number;
        Ok((put == Put::Created).then_some(self.report))
    }

    /// What was folded from the logs alone is still there: a pin is no promise to who was stopped for
    /// longer than it lasts.
    async fn check_again(&self, epochs: &[FoldedEpoch]) -> Result<(), FoldError> {
        if self.collected.is_none() {
            return Ok(());
        }
        let collected = self.reader.collected(true).await?;
        let mut kept_in = epochs.iter().flat_map(FoldedEpoch::kept_in);
        if was_collected(self.reader, &self.history).await?
            || kept_in.any(|(place, _)| collected.forbids(&place.log, place.number))
        {
            return Err(FoldError::Collected { machine: self.history.machine.clone() });
        }
        Ok(())
    }

    /// Lets go of what isn't kept of the epochs, and completes them; true if that changes anything.
    async fn keep(&mut self, epochs: &mut Vec<FoldedEpoch>) -> Result<bool, FoldError> {
        let mut fates = self.fates(epochs).await?;
        let mut is_changed = false;
        for mut folded in std::mem::take(epochs) {
            let mut packs = self.gatherer.packs(folded.epoch);
            let retained = match fates.remove(&folded.epoch) {
                Some(Fate::Goes) => {
                    self.history.gone.insert(folded.epoch);
                    self.report.epochs_gone += 1;
                    is_changed = true;
                    continue;
                }
                Some(Fate::Stays(retained)) => Some(retained),
                None => None,
            };
            let from = retained.as_ref().map_or(folded.retained.from, |retained| retained.from);
            let mut base = folded.next_base(self.folding.base_extents_min, from);
            // Where no base comes after all, the one that is there still has what its place needs.
            let is_replaced = base.is_some() && folded.base.as_ref().is_some_and(Base::is_whole);
            let mut is_thinned = false;
            if let Some(retained) = retained {
                is_thinned = self.thin(&mut folded, &mut packs, retained, is_replaced).await?;
                is_changed |= is_thinned;
                // Where that took too much memory the window begins where it did.
                if folded.retained.from < from {
                    let from = folded.retained.from;
                    base = folded.next_base(self.folding.base_extents_min, from);
                }
            }
            if let Some(lsn) = base {
                let thinned = is_replaced && is_thinned;
                match self.make_base(&mut folded, &mut packs, lsn).await? {
                    true => is_changed = true,
                    false => {
                        self.report.too_long += 1;
                        // Layers may lie across the place of the one that was to be replaced.
                        folded.base = folded.base.filter(|_| !thinned);
                    }
                }
            }
            self.look_at(&mut packs).await?;
            folded.set_packs(&packs);
            epochs.push(folded);
        }
        Ok(is_changed)
    }

    /// Stores what is left of an epoch, together with the last layers that aren't much longer: so
    /// there are few layers, and each extent is written anew as often as layers double.
    async fn store_rest(&mut self, epoch: Epoch) -> Result<(), FoldError> {
        let mut rest = self.gatherer.rest(epoch);
        if rest.len() == 0 {
            return Ok(());
        }
        let base = self.base_of(epoch).map_or(Lsn::NONE, |base| base.lsn);
        let mut layers = self.layers.remove(&epoch).unwrap_or_default();
        while let Some(last) = layers.last().copied() {
            let extents = last.extents as usize;
            let long = extents > 2 * rest.len() || extents + rest.len() > LAYER_EXTENTS_MAX;
            // None lies across a base, so that who needs that doesn't need what is before it.
            if long || last.first <= base {
                break;
            }
            rest.add_layer(&self.read_layer(epoch, last).await?);
            layers.pop();
        }
        self.layers.insert(epoch, layers);
        match rest.close(epoch) {
            Some(layer) => self.store_layer(layer).await,
            None => Ok(()),
        }
    }

    fn base_of(&self, epoch: Epoch) -> Option<&Base> {
        let folded = self.base.epochs.iter().find(|folded| folded.epoch == epoch);
        folded.and_then(|folded| folded.base.as_ref())
    }
}

/// Refuses to fold what would be less than was folded already. What a policy keeps, and packs that were
/// collected, only the newest manifests lead to: where one is damaged, or none is gone on from, nothing
/// of it may be missing.
async fn check_logs(
    reader: &LogReader,
    history: &MachineHistory,
    newest: &Newest,
    goes_on: bool,
) -> Result<(), FoldError> {
    let lacks = |folded: &FoldedEpoch| {
        let told = history.epochs.get(&folded.epoch);
        told.is_some_and(|told| told.trace.chain.end() < folded.chain().end())
    };
    let has_hole = history.epochs.values().any(|told| told.hole().is_some());
    let is_less = newest.manifest.iter().flat_map(|known| &known.epochs).any(lacks);
    let is_less = is_less || newest.damage.is_some() && has_hole;
    if is_less || !goes_on && was_collected(reader, history).await? {
        return Err(FoldError::Collected { machine: history.machine.clone() });
    }
    Ok(())
}

/// Whether packs that a fold from the logs alone would read were collected, or will be.
async fn was_collected(reader: &LogReader, history: &MachineHistory) -> Result<bool, FoldError> {
    let collected = reader.collected(true).await?;
    for (log, first) in history.logs() {
        let sets = [&collected.removed, &collected.condemned];
        let gone = sets.into_iter().filter_map(|packs| packs.of(&log)?.next(first)).min();
        let Some(gone) = gone else { continue };
        // What lies beyond a tombstone is nothing that was ever to be folded.
        if reader.survey(&log).await?.tombstone.is_none_or(|end| gone < end) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a record of the machine in this pack refers to one that was collected, or will be.
fn refers_to_any(pack: &PackRead, machine: &Name, collected: &Collected) -> bool {
    let machines = &pack.index.machines;
    let ours = |record: &&Record| machines[usize::from(record.machine)].name == *machine;
    let mut targets = pack.index.records.iter().filter(ours).filter_map(|record| {
        let Content::Reference { target, .. } = &record.content else { return None };
        Some(target_place(&pack.place, &pack.index, target.log, target.pack))
    });
    targets.any(|target| collected.forbids(&target.log, target.number))
}

/// Whether records of a machine may lie before what was folded of their log: the record of a session
/// was brought back since. Then all is folded anew.
fn begins_before(history: &MachineHistory, base: &Manifest) -> bool {
    let folded = |log: &LogName| base.logs.iter().any(|folded| folded.log == *log);
    history.logs().iter().any(|(log, first)| folded(log) && base.upto(log, *first).is_none())
}
