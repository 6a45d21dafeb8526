//! Applies a machine's records to its disks, up to a point. Pure: packs come in, maps come out.

use std::collections::{BTreeMap, HashMap};

use tidegate_model::limits::DISK_BYTES_MAX;
use tidegate_model::{
    Checksum, Disk, DiskNumber, Epoch, Extent, FrameNumber, LogId, Lsn, Name, PackNumber, Point,
};

use super::RestoreError;
use super::map::{ExtentMap, Kept, Source, Stamp};
use crate::chain::{Assembler, Broken, Chain, Loss};
use crate::fold::{FoldedEpoch, Layer, LayerExtent, LayerSource};
use crate::log::{LogError, PackPlace, PackRead};
use crate::pack::{Content, PackError, PackIndex, Record, TargetLog};

/// The packs that segments come from, by their places in this table.
#[derive(Debug, Clone, Default)]
pub struct PackTable {
    places: Vec<PackPlace>,
    by_key: HashMap<(LogId, PackNumber), u32>,
}

impl PackTable {
    fn place_of(&mut self, place: PackPlace) -> u32 {
        let next = u32::try_from(self.places.len()).expect("memory ends long before 2^32 packs");
        *self.by_key.entry(place.key()).or_insert_with(|| {
            self.places.push(place);
            next
        })
    }

    /// The pack at this place of the table.
    pub fn get(&self, pack: u32) -> &PackPlace {
        &self.places[pack as usize]
    }
}

/// What a record does to a disk.
#[derive(Clone)]
enum Change {
    Range(Extent, Source),
    Disk(Disk),
    Nothing,
}

/// A disk while it is built.
#[derive(Debug, Clone, Default)]
struct DiskState {
    declared: Option<(Stamp, Disk)>,
    map: ExtentMap,
}

/// A machine's disks while its records are applied.
#[derive(Clone)]
pub struct StateBuilder {
    machine: Name,
    /// Only these disks; all when empty.
    only: Vec<DiskNumber>,
    /// The epochs of the lineage: their depth, and how far each counts.
    epochs: HashMap<Epoch, (u32, Lsn)>,
    chains: HashMap<Epoch, Chain>,
    assemblers: HashMap<(Epoch, LogId), Assembler<Change>>,
    disks: BTreeMap<DiskNumber, DiskState>,
    packs: PackTable,
}

/// The disks at the point, and the packs that they come from.
pub struct State {
    /// Each disk and what it holds.
    pub disks: Vec<(Disk, ExtentMap)>,
    /// The packs.
    pub packs: PackTable,
}

impl State {
    /// A disk that is wanted and isn't there.
    pub fn missing_disk(&self, wanted: &[DiskNumber]) -> Option<DiskNumber> {
        let is_there =
            |wanted: &DiskNumber| self.disks.iter().any(|(disk, _)| disk.number == *wanted);
        wanted.iter().copied().find(|wanted| !is_there(wanted))
    }
}

impl StateBuilder {
    /// Nothing applied yet; `lineage` is what makes up the point, oldest epoch first.
    pub fn new(machine: Name, lineage: &[Point], only: &[DiskNumber]) -> Self {
        let epochs = (0..).zip(lineage).map(|(depth, p)| (p.epoch, (depth, p.lsn))).collect();
        Self {
            machine,
            only: only.to_vec(),
            epochs,
            chains: HashMap::new(),
            assemblers: HashMap::new(),
            disks: BTreeMap::new(),
            packs: PackTable::default(),
        }
    }

    /// Whose disks they are.
    pub const fn machine(&self) -> &Name {
        &self.machine
    }

    /// Takes what is folded of an epoch, but for its layers; tells up to which LSN these are wanted,
    /// or `None` when the point doesn't stand on the epoch.
    pub fn add_fold(&mut self, fold: &FoldedEpoch) -> Option<Lsn> {
        let (depth, upto) = *self.epochs.get(&fold.epoch)?;
        self.chains.insert(fold.epoch, fold.chain());
        for told in fold.disks.iter().filter(|told| told.lsn <= upto) {
            if self.wants(told.disk.number) {
                let stamp = Stamp { depth, lsn: told.lsn };
                let disk = self.disks.entry(told.disk.number).or_default();
                disk.declare(stamp, told.disk.clone());
            }
        }
        Some(upto)
    }

    /// Takes a layer; layers may come in any order.
    pub fn add_layer(&mut self, layer: &Layer) {
        let Some((depth, upto)) = self.epochs.get(&layer.epoch).copied() else { return };
        let packs: Vec<u32> =
            layer.packs.iter().map(|place| self.packs.place_of(place.clone())).collect();
        for LayerExtent { extent, lsn, source, time: _ } in &layer.extents {
            if *lsn > upto || !self.wants(extent.disk) {
                continue;
            }
            let source = match *source {
                LayerSource::Zero => Source::Zero,
                LayerSource::Kept { pack, frame, ordinal, checksum, name } => {
                    // Both were checked when the layer was opened.
                    let pack = packs[pack as usize];
                    let bytes = u32::try_from(extent.length).expect("no kept record is longer");
                    let record = Kept { pack, frame, ordinal, bytes, checksum, name };
                    Source::Kept { record, skip: 0 }
                }
            };
            let (stamp, end) = (Stamp { depth, lsn: *lsn }, extent.offset + extent.length);
            self.disks.entry(extent.disk).or_default().map.put(extent.offset, end, stamp, source);
        }
    }

    fn wants(&self, disk: DiskNumber) -> bool {
        self.only.is_empty() || self.only.contains(&disk)
    }

    /// Takes the next pack of a log; logs may come in any order.
    ///
    /// # Errors
    /// A record that no writer of ours makes.
    pub fn add_pack(&mut self, pack: &PackRead) -> Result<(), RestoreError> {
        let index = &pack.index;
        let epochs: Vec<Option<(Epoch, u32, Lsn)>> = index
            .machines
            .iter()
            .map(|entry| {
                let (depth, upto) = *self.epochs.get(&entry.epoch)?;
                (entry.name == self.machine).then_some((entry.epoch, depth, upto))
            })
            .collect();
        if epochs.iter().all(Option::is_none) {
            return Ok(());
        }
        let mut ordinals = Ordinals::default();
        for record in &index.records {
            let ordinal = ordinals.next(record);
            if let Some((epoch, depth, upto)) = epochs[usize::from(record.machine)]
                && record.lsn <= upto
            {
                let change = self.change(pack, record, ordinal)?;
                self.apply(pack.place.log.id, epoch, depth, record, change);
            }
        }
        Ok(())
    }

    fn apply(&mut self, log: LogId, epoch: Epoch, depth: u32, record: &Record, change: Change) {
        let assembler = self.assemblers.entry((epoch, log)).or_default();
        let Some(changes) = assembler.push(record.lsn, record.piece, change) else { return };
        self.chains.entry(epoch).or_default().add(record.lsn);
        let stamp = Stamp { depth, lsn: record.lsn };
        for change in changes {
            match change {
                Change::Range(extent, source) => {
                    let end = extent.offset + extent.length;
                    let disk = self.disks.entry(extent.disk).or_default();
                    disk.map.put(extent.offset, end, stamp, source);
                }
                Change::Disk(disk) => {
                    self.disks.entry(disk.number).or_default().declare(stamp, disk)
                }
                Change::Nothing => {}
            }
        }
    }

    fn change(
        &mut self,
        pack: &PackRead,
        record: &Record,
        ordinal: u32,
    ) -> Result<Change, RestoreError> {
        if record.content.extent().is_some_and(|extent| !self.wants(extent.disk)) {
            return Ok(Change::Nothing);
        }
        Ok(match &record.content {
            Content::Disk(disk) if self.wants(disk.number) => Change::Disk(disk.clone()),
            Content::Disk(_) | Content::Bookmark(_) | Content::Time => Change::Nothing,
            Content::Zero(extent) => Change::Range(*extent, Source::Zero),
            Content::Kept { extent, checksum, frame, name: _, offset: _ } => {
                let number = pack.index.frames[*frame as usize].number;
                let kept = self.kept(pack, &pack.place, extent, *checksum, number, ordinal)?;
                Change::Range(*extent, Source::Kept { record: kept, skip: 0 })
            }
            Content::Reference { extent, checksum, name, target } => {
                let place = target_place(&pack.place, &pack.index, target.log, target.pack);
                let (number, ordinal) = (target.frame, target.ordinal);
                let kept = self.kept(pack, &place, extent, *checksum, number, ordinal)?;
                let record = Kept { name: Some(*name), ..kept };
                Change::Range(*extent, Source::Kept { record, skip: 0 })
            }
        })
    }

    fn kept(
        &mut self,
        pack: &PackRead,
        place: &PackPlace,
        extent: &Extent,
        checksum: Checksum,
        frame: FrameNumber,
        ordinal: u32,
    ) -> Result<Kept, RestoreError> {
        let bytes = u32::try_from(extent.length).map_err(|_| -> RestoreError {
            let cause = PackError::Field("a reference is longer than any kept record");
            LogError::Pack { place: pack.place.clone(), cause }.into()
        })?;
        let pack = self.packs.place_of(place.clone());
        Ok(Kept { pack, frame, ordinal, bytes, checksum, name: None })
    }

    /// The disks, once all packs were taken; `losses` is what couldn't be.
    ///
    /// # Errors
    /// [`RestoreError::Broken`] or [`RestoreError::Lost`] when an LSN of the lineage wasn't among them,
    /// [`RestoreError::Undeclared`] for writes to a disk that was never declared.
    pub fn finish(self, losses: &[Loss]) -> Result<State, RestoreError> {
        for (epoch, (_, wanted)) in &self.epochs {
            let end = self.chains.get(epoch).map_or(Lsn::NONE, Chain::end);
            if end < *wanted {
                let cause = Broken::Ends { epoch: *epoch, end, wanted: *wanted };
                return Err(RestoreError::broken(self.machine, cause, losses));
            }
        }
        let machine = self.machine;
        let disks = self.disks.into_iter().filter_map(|(number, state)| match state.declared {
            // It was removed.
            Some((_, disk)) if disk.bytes == 0 => None,
            Some((_, disk)) => Some(Ok((disk, state.map))),
            None => Some(Err(RestoreError::Undeclared { machine: machine.clone(), disk: number })),
        });
        Ok(State { disks: disks.collect::<Result<_, _>>()?, packs: self.packs })
    }
}

impl DiskState {
    /// A disk that shrinks loses what lies beyond its end; should it grow again, zeros are there.
    fn declare(&mut self, stamp: Stamp, disk: Disk) {
        if disk.bytes < DISK_BYTES_MAX {
            self.map.put(disk.bytes, DISK_BYTES_MAX, stamp, Source::Zero);
        }
        if self.declared.as_ref().is_none_or(|(before, _)| *before <= stamp) {
            self.declared = Some((stamp, disk));
        }
    }
}

/// Counts the kept records of each frame: the index has them frame after frame.
#[derive(Debug, Default)]
pub struct Ordinals {
    frame: u32,
    next: u32,
}

impl Ordinals {
    /// That of the next record of the pack; 0 when it keeps nothing there.
    pub fn next(&mut self, record: &Record) -> u32 {
        let Content::Kept { frame, .. } = record.content else { return 0 };
        if frame != self.frame {
            *self = Self { frame, next: 0 };
        }
        self.next += 1;
        self.next - 1
    }
}

/// The pack that a reference points at. That its log is listed was checked when the index was
/// opened.
pub fn target_place(
    place: &PackPlace,
    index: &PackIndex,
    log: TargetLog,
    number: PackNumber,
) -> PackPlace {
    let log = match log {
        TargetLog::Own => &place.log,
        TargetLog::Other(other) => &index.logs[usize::from(other)],
    };
    PackPlace { log: log.clone(), number }
}
