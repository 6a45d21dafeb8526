//! Folds one machine: reads what isn't folded yet, and creates layers and a manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tidegate_model::{Epoch, LogName, Lsn, Name, PackNumber};

use super::FoldError;
use super::ages::stored_times;
use super::fate::Fate;
use super::gather::{Gatherer, LogGather};
use super::keep::Keeping;
use super::layer::{LAYER_EXTENTS_MAX, Layer};
use super::manifest::{Base, FoldedEpoch, FoldedLog, LayerEntry, Manifest};
use super::objects::{
    Newest, create_layer, create_manifest, newest_manifest, newest_number, read_layer,
};
use super::packs::{Needs, sizes_of};
use crate::chain::{Loss, MachineHistory};
use crate::gc::{Collected, PackSet, Pin};
use crate::log::{INDEXES_AHEAD, LogError, LogReader, PackPlace, PackRead};
use crate::pack::{Content, Record};
use crate::points::Referred;
use crate::restore::target_place;
use crate::store::Put;

/// How often another may be first: each time something was folded.
const TRIES_MAX: u32 = 4;

/// How a machine is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folding {
    /// From the logs alone, whatever was folded before.
    pub anew: bool,
    /// A base is made of that many extents at least.
    pub base_extents_min: u64,
    /// At most so many bytes are copied into dense packs, for each base that is made.
    pub copied_bytes_max: u64,
    /// By what the past is kept; `None` keeps all.
    pub keeping: Option<Keeping>,
}

impl Folding {
    /// From what was folded before, and everything is kept.
    pub(crate) const DEFAULT: Self = {
        // 30 KB of layers, compressed: less isn't worth another object, and more would tell on the
        // recovery of small disks. And what is copied in some five minutes, at 200 MB/s.
        Self { anew: false, base_extents_min: 1 << 10, copied_bytes_max: 64 << 30, keeping: None }
    };
}

impl Default for Folding {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What folding a machine did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldReport {
    /// The manifest that was created; 0 when there was nothing to fold.
    pub manifest: u64,
    /// Packs that nobody has to read any more for this machine's history.
    pub packs: u64,
    /// Records that were folded.
    pub records: u64,
    /// Layers that were created.
    pub layers: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Dense packs that were created.
    pub dense_packs: u64,
    /// Bytes of them.
    pub dense_bytes: u64,
    /// Versions of ranges that were let go.
    pub let_go: u64,
    /// Bookmarks that were.
    pub bookmarks_let_go: u64,
    /// Epochs of which nothing is kept any more.
    pub epochs_gone: u64,
    /// What stands in the way, or is wrong with what was folded before.
    pub losses: Vec<Loss>,
}

/// How far folding has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Packs that were read.
    pub packs: u64,
}

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
    // What is read from the logs once more mustn't be collected meanwhile.
    let pin = match folding.anew {
        true => Some(Pin::logs(reader, machine).await?),
        false => None,
    };
    let folded = fold_pinned(reader, machine, folding, progress).await;
    if let Some(pin) = pin {
        pin.release().await?;
    }
    match folded {
        // What a new layer was to be put together with can't be read: the logs are left.
        Err(FoldError::Meta(error)) if error.is_damage() && !folding.anew => {
            tracing::warn!(%error, "folded anew from the logs");
            folding.anew = true;
            Box::pin(fold(reader, machine, folding, progress)).await
        }
        folded => folded,
    }
}

async fn fold_pinned(
    reader: &LogReader,
    machine: &Name,
    folding: Folding,
    progress: &(dyn Fn(Done) + Send + Sync),
) -> Result<FoldReport, FoldError> {
    for _ in 0..TRIES_MAX {
        let mut folder = Folder::begin(reader, machine, folding, progress).await?;
        folder.gather().await?;
        let newest = folder.newest;
        match folder.finish().await {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => tracing::debug!(%machine, "another folded it meanwhile; once more"),
            // Layers go when a newer manifest doesn't name them.
            Err(FoldError::Meta(error))
                if error.is_damage() && newest_number(reader.store(), machine).await? > newest =>
            {
                tracing::debug!(%machine, %error, "another folded it meanwhile; once more");
            }
            Err(error) => return Err(error),
        }
    }
    Err(FoldError::Contended { machine: machine.clone() })
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
        if manifest.as_ref().is_some_and(|base| begins_before(&history, base)) {
            manifest = None;
            history = read(None).await?;
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

    pub(super) async fn create_layer(&mut self, layer: Layer) -> Result<LayerEntry, FoldError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let entry = create_layer(store, ring, &self.history.machine, layer).await?;
        self.report.layers += 1;
        self.report.bytes += entry.bytes;
        Ok(entry)
    }

    pub(super) async fn read_layer(
        &self,
        epoch: Epoch,
        entry: LayerEntry,
    ) -> Result<Layer, FoldError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        Ok(read_layer(store, ring, &self.history.machine, epoch, entry).await?)
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
        let is_changed = self.keep(&mut epochs).await?;
        if self.report.packs == 0 && self.report.records == 0 && !is_changed {
            return Ok(Some(self.report));
        }
        let (number, usage) = (self.newest.saturating_add(1), self.base.usage);
        let machine = &self.history.machine;
        let gone = self.history.gone.iter().copied().collect();
        let manifest = Manifest { number, logs: self.logs, epochs, gone, usage };
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let put = create_manifest(store, ring, machine, &manifest).await?;
        self.report.manifest = number;
        Ok((put == Put::Created).then_some(self.report))
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
            let base = folded.next_base(self.folding.base_extents_min, from);
            if let Some(retained) = retained {
                is_changed |= self.thin(&mut folded, &mut packs, retained, base.is_some()).await?;
            }
            if let Some(lsn) = base {
                self.make_base(&mut folded, &mut packs, lsn).await?;
                is_changed = true;
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

    /// Reads the packs whose sizes aren't known: those to which is only referred. One that can't be
    /// read is looked at by whoever needs it.
    async fn look_at(&self, packs: &mut Needs) -> Result<(), FoldError> {
        let unknown = packs.iter().filter(|(_, need)| need.bytes == 0);
        let unknown: Vec<PackPlace> = unknown.map(|(place, _)| place.clone()).collect();
        let looked = stream::iter(unknown).map(|place| async {
            let pack = self.reader.pack(&place).await;
            (place, pack)
        });
        let mut looked = std::pin::pin!(looked.buffer_unordered(INDEXES_AHEAD));
        while let Some((place, pack)) = looked.next().await {
            match pack {
                Ok(pack) => {
                    if let Some(need) = packs.get_mut(&place) {
                        (need.bytes, need.head) = sizes_of(&pack.header);
                    }
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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
    let gone = |packs: &PackSet, log: &LogName, first| packs.of(log)?.next(first);
    for (log, first) in history.logs() {
        let removed = gone(&collected.removed, &log, first);
        let Some(gone) = removed.or(gone(&collected.condemned, &log, first)) else { continue };
        // What lies beyond a log's end is nothing that was ever to be folded.
        if gone < reader.survey(&log).await?.counted.next {
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
