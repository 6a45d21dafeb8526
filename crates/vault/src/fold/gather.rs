//! Takes the records of one machine out of packs, log by log, and tells how far each log is folded.
//! Pure: packs come in, layers and positions come out.
//!
//! Invariants: a pack is taken as a whole, and only if all that it has of the machine lies on whole
//! chains. A record that is folded already isn't folded again. A record that is cut by the end of
//! what is taken is folded by whoever takes its end: the log's position stays where it begins.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_model::{
    BlockName, Checksum, Epoch, Extent, FrameNumber, LogId, LogName, Lsn, Micros, Name, PackNumber,
};

use super::ages::ages;
use super::layer::{LAYER_CLOSE_EXTENTS, Layer, LayerBuilder, LayerExtent, LayerSource};
use super::manifest::{FoldedEpoch, FoldedUsage, Manifest};
use super::packs::{Need, Needs, sizes_of};
use crate::chain::{Assembler, Chain, Trace, Traces};
use crate::log::{PackPlace, PackRead};
use crate::pack::{Content, MachineEntry, Record};
use crate::restore::{Ordinals, target_place};
use crate::usage::usage_in;

/// How many times of packs are held before they are put together in steps.
const STORED_MAX: usize = 1 << 16;

/// What one machine's folding has gathered.
pub(super) struct Gatherer {
    machine: Name,
    epochs: BTreeMap<Epoch, Growing>,
    /// Epochs that are passed over: nothing of them is kept any more.
    gone: BTreeSet<Epoch>,
    /// What the taken packs say, besides what they did to disks.
    pub traces: Traces,
    /// The sizes of the packs that were taken, and of their heads.
    sizes: HashMap<(LogId, PackNumber), (u64, u32)>,
}

/// An epoch whose records are gathered.
struct Growing {
    /// Its chain is whole up to here.
    end: Lsn,
    folded: Chain,
    new: LayerBuilder,
    /// The packs in which bytes are kept.
    packs: Needs,
    /// When records were stored: for each pack the last that it completes.
    stored: BTreeMap<Lsn, Micros>,
    /// And each bookmark.
    marks_stored: BTreeMap<Lsn, Micros>,
}

/// What is taken of one log.
#[derive(Default)]
pub(super) struct LogGather {
    assemblers: HashMap<Epoch, (Assembler<Item>, PackNumber)>,
    /// What the packs take of the machine.
    usage: Vec<(PackNumber, FoldedUsage)>,
}

/// What a piece of a record does.
enum Item {
    Range(Extent, Bytes),
    Nothing,
}

enum Bytes {
    Zero,
    Kept {
        place: Arc<PackPlace>,
        frame: FrameNumber,
        ordinal: u32,
        checksum: Checksum,
        name: Option<BlockName>,
    },
}

impl Gatherer {
    /// Goes on from `base`; `ends` tells how far each epoch's chain is whole. Epochs that are `gone` are
    /// passed over.
    pub fn new(
        machine: &Name,
        ends: &BTreeMap<Epoch, Lsn>,
        base: &Manifest,
        gone: &BTreeSet<Epoch>,
    ) -> Self {
        let mut traces = Traces::default();
        base.seed(machine, &mut traces);
        let growing = |(epoch, end): (&Epoch, &Lsn)| {
            let folded = base.epochs.iter().find(|folded| folded.epoch == *epoch);
            let packs = folded.into_iter().flat_map(|folded| folded.layers_kept_in());
            let ages = folded.into_iter().flat_map(|folded| &folded.ages);
            let marks = folded.into_iter().flat_map(|folded| &folded.bookmarks);
            let growing = Growing {
                end: *end,
                folded: folded.map(|folded| folded.chain()).unwrap_or_default(),
                new: LayerBuilder::default(),
                packs: packs.collect(),
                stored: ages.map(|age| (age.lsn, age.stored)).collect(),
                marks_stored: marks.map(|mark| (mark.lsn, mark.stored)).collect(),
            };
            (*epoch, growing)
        };
        // An epoch whose record is damaged keeps what is folded of it, and gets no more.
        let held = base.epochs.iter().map(|folded| (folded.epoch, Lsn::NONE));
        let mut all: BTreeMap<Epoch, Lsn> = held.collect();
        all.extend(ends);
        let epochs = all.iter().map(growing).collect();
        let (machine, gone) = (machine.clone(), gone.clone());
        Self { machine, epochs, gone, traces, sizes: HashMap::new() }
    }

    /// Takes the next pack of a log, which was stored at a time by the store's clock; false when it
    /// mustn't be, nor anything behind it.
    pub fn take(&mut self, log: &mut LogGather, pack: &PackRead, stored: Micros) -> bool {
        let index = &pack.index;
        let mut ours: Vec<Option<Epoch>> = Vec::with_capacity(index.machines.len());
        let is_ours = |m: &MachineEntry| m.name == self.machine && !self.gone.contains(&m.epoch);
        ours.extend(index.machines.iter().map(|m| is_ours(m).then_some(m.epoch)));
        let epoch_of = |record: &Record| ours[usize::from(record.machine)];
        let whole = |record: &Record| {
            let Some(epoch) = epoch_of(record) else { return true };
            self.epochs.get(&epoch).is_some_and(|growing| record.lsn <= growing.end)
        };
        if !index.records.iter().all(whole) {
            return false;
        }
        log.usage.push((pack.place.number, usage_in(pack, &self.machine)));
        if ours.iter().all(Option::is_none) {
            return true;
        }
        self.traces.add_pack(&pack.place, index, Some(&self.machine));
        self.sizes.insert(pack.place.key(), sizes_of(&pack.header));
        let mut places = Places { pack, own: Arc::new(pack.place.clone()), others: HashMap::new() };
        let mut ordinals = Ordinals::default();
        for record in &index.records {
            let ordinal = ordinals.next(record);
            let Some(epoch) = epoch_of(record) else { continue };
            let item = places.item(record, ordinal);
            let (assembler, begun) = log.assemblers.entry(epoch).or_default();
            if record.piece.number == 0 {
                *begun = pack.place.number;
            }
            let items = assembler.push(record.lsn, record.piece, item);
            if let (Some(items), Some(growing)) = (items, self.epochs.get_mut(&epoch)) {
                growing.fold(record, items, stored);
            }
        }
        true
    }

    /// The first pack that a reader of the log must look at, if all before `next` were taken, and
    /// what those before it take of the machine. `ended`: there is nothing behind; then a record
    /// that isn't complete, on a chain that is, was sent again elsewhere.
    pub fn upto(&self, log: LogGather, next: PackNumber, ended: bool) -> (PackNumber, FoldedUsage) {
        let mut upto = next;
        for (epoch, (assembler, begun)) in &log.assemblers {
            let Some(lsn) = assembler.open() else { continue };
            let elsewhere = self.epochs.get(epoch).is_some_and(|growing| lsn <= growing.end);
            if !(ended && elsewhere) {
                upto = upto.min(*begun);
            }
        }
        let passed = log.usage.iter().filter(|(number, _)| *number < upto);
        let sum = passed.fold(FoldedUsage::default(), |sum, (_, usage)| sum.plus(usage));
        (upto, sum)
    }

    /// A layer, when all that grow together are long enough for one: the longest.
    pub fn full(&mut self) -> Option<Layer> {
        let all: usize = self.epochs.values().map(|growing| growing.new.len()).sum();
        let longest = self.epochs.iter_mut().max_by_key(|(_, growing)| growing.new.len());
        let (epoch, growing) = longest.filter(|_| all > LAYER_CLOSE_EXTENTS)?;
        growing.new.close(*epoch)
    }

    /// Gives what is left of an epoch's layers.
    pub fn rest(&mut self, epoch: Epoch) -> LayerBuilder {
        let growing = self.epochs.get_mut(&epoch);
        growing.map(|growing| std::mem::take(&mut growing.new)).unwrap_or_default()
    }

    /// The packs in which an epoch's bytes are kept; the sizes of those that were read are known.
    pub fn packs(&mut self, epoch: Epoch) -> Needs {
        let growing = self.epochs.get_mut(&epoch);
        let mut packs =
            growing.map(|growing| std::mem::take(&mut growing.packs)).unwrap_or_default();
        for (place, need) in &mut packs {
            let known = self.sizes.get(&place.key()).copied();
            (need.bytes, need.head) = known.unwrap_or((need.bytes, need.head));
        }
        packs
    }

    /// An epoch as it is folded now, but for its layers and packs.
    pub fn folded(&self, epoch: Epoch, trace: &Trace) -> FoldedEpoch {
        let growing = self.epochs.get(&epoch);
        let marks = growing.map(|growing| &growing.marks_stored);
        let stored = growing.into_iter().flat_map(|growing| &growing.stored);
        let folded = FoldedEpoch::of(epoch, trace, marks.unwrap_or(&BTreeMap::new()));
        FoldedEpoch { ages: ages(stored.map(|(lsn, stored)| (*lsn, *stored))), ..folded }
    }
}

impl Growing {
    /// Takes the pieces of a record that is complete, unless it was taken before.
    fn fold(&mut self, record: &Record, items: impl Iterator<Item = Item>, stored: Micros) {
        if self.folded.has(record.lsn) {
            return;
        }
        self.folded.add(record.lsn);
        self.note(record, stored);
        for item in items {
            let Item::Range(extent, bytes) = item else { continue };
            let source = match bytes {
                Bytes::Zero => LayerSource::Zero,
                Bytes::Kept { place, frame, ordinal, checksum, name } => {
                    let by = Need::by(record.lsn);
                    self.packs.entry(PackPlace::clone(&place)).or_insert(by).add(record.lsn);
                    let pack = self.new.pack(&place);
                    LayerSource::Kept { pack, frame, ordinal, checksum, name }
                }
            };
            self.new.add(LayerExtent { extent, lsn: record.lsn, time: record.time, source });
        }
    }

    /// Notes when a record was stored. Those of a pack mostly follow each other: the last one tells.
    fn note(&mut self, record: &Record, stored: Micros) {
        if matches!(record.content, Content::Bookmark(_)) {
            self.marks_stored.insert(record.lsn, stored);
        }
        let before = Lsn(record.lsn.0.saturating_sub(1));
        if self.stored.get(&before) == Some(&stored) {
            self.stored.remove(&before);
        }
        self.stored.insert(record.lsn, stored);
        if self.stored.len() > STORED_MAX {
            let told = ages(std::mem::take(&mut self.stored));
            self.stored = told.into_iter().map(|age| (age.lsn, age.stored)).collect();
        }
    }
}

/// The packs that a pack's records name, each made once.
struct Places<'p> {
    pack: &'p PackRead,
    own: Arc<PackPlace>,
    others: HashMap<(LogName, PackNumber), Arc<PackPlace>>,
}

impl Places<'_> {
    fn item(&mut self, record: &Record, ordinal: u32) -> Item {
        match &record.content {
            Content::Zero(extent) => Item::Range(*extent, Bytes::Zero),
            Content::Kept { extent, checksum, frame, name, offset: _ } => {
                let frame = self.pack.index.frames[*frame as usize].number;
                let place = self.own.clone();
                let (checksum, name) = (*checksum, *name);
                Item::Range(*extent, Bytes::Kept { place, frame, ordinal, checksum, name })
            }
            Content::Reference { extent, checksum, name, target } => {
                let place =
                    target_place(&self.pack.place, &self.pack.index, target.log, target.pack);
                let key = (place.log.clone(), place.number);
                let place = self.others.entry(key).or_insert_with(|| Arc::new(place)).clone();
                let (frame, ordinal, checksum) = (target.frame, target.ordinal, *checksum);
                let name = Some(*name);
                Item::Range(*extent, Bytes::Kept { place, frame, ordinal, checksum, name })
            }
            Content::Disk(_) | Content::Bookmark(_) | Content::Time => Item::Nothing,
        }
    }
}
