//! A layer: what records of one epoch did to a machine's disks, sorted by place. Pure.

use std::collections::HashMap;

use tidegate_model::limits::{FRAME_BYTES_MAX, PACK_RECORDS_MAX};
use tidegate_model::{
    BlockName, Checksum, DiskNumber, Epoch, Extent, FrameNumber, LogId, Lsn, Micros, PackNumber,
};

use super::dense::{Alive, Copier};
use super::manifest::Declared;
use super::packs::{Need, Needs};
use super::visible;
use crate::log::PackPlace;

/// Most extents of a layer: at 100 bytes each a reader holds 26 MB for one, and an object of some
/// megabytes is worth its request.
pub const LAYER_EXTENTS_MAX: usize = 1 << 18;
/// A layer is closed when it has so many: one more pack completes at most as many pieces as it has
/// itself, and those of one record before it.
pub(super) const LAYER_CLOSE_EXTENTS: usize = LAYER_EXTENTS_MAX - 2 * PACK_RECORDS_MAX as usize;

const _: () = assert!(LAYER_CLOSE_EXTENTS > 0);
/// What is hidden is looked for when so many came besides twice those that were visible before: a look
/// at all of them costs as much as some layers' reading.
pub(super) const LOOKED_EXTENTS: usize = 1 << 16;

/// Part of what an epoch's records did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The epoch.
    pub epoch: Epoch,
    /// The lowest LSN in it.
    pub first: Lsn,
    /// The highest LSN in it.
    pub last: Lsn,
    /// The packs in which bytes are kept.
    pub packs: Vec<PackPlace>,
    /// By disk, offset, LSN; every version.
    pub extents: Vec<LayerExtent>,
}

/// A piece of a record: a range of a disk was written, or became zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerExtent {
    /// The range.
    pub extent: Extent,
    /// The record's number.
    pub lsn: Lsn,
    /// When it happened, by its machine's clock.
    pub time: Micros,
    /// What the range held afterwards.
    pub source: LayerSource,
}

/// Where the bytes of an extent are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerSource {
    /// They are zeros.
    Zero,
    /// They are a kept record, the whole of it.
    Kept {
        /// Its pack: a place in [`Layer::packs`].
        pack: u32,
        /// Its frame, by its number in the log.
        frame: FrameNumber,
        /// Which of the frame's kept records, from 0.
        ordinal: u32,
        /// Its checksum.
        checksum: Checksum,
        /// Its name, when it is a whole block.
        name: Option<BlockName>,
    },
}

impl Layer {
    /// Bytes of disks that its extents keep.
    pub(super) fn kept_bytes(&self) -> u64 {
        let kept = self.extents.iter().filter(|entry| entry.source != LayerSource::Zero);
        kept.map(|entry| entry.extent.length).sum()
    }

    /// Adds the packs that its extents need.
    pub(super) fn add_needs(&self, needs: &mut Needs) {
        for entry in &self.extents {
            if let LayerSource::Kept { pack, .. } = entry.source {
                let place = &self.packs[pack as usize];
                match needs.get_mut(place) {
                    Some(need) => need.add(entry.lsn),
                    None => drop(needs.insert(place.clone(), Need::by(entry.lsn))),
                }
            }
        }
    }
}

/// Where a kept record lies: its pack, its frame, and which of the frame's kept records.
pub(super) type KeptAt<'p> = (&'p PackPlace, FrameNumber, u32);

/// Where the bytes of an extent are kept, if they aren't zeros.
pub(super) fn kept_at<'p>(packs: &'p [PackPlace], entry: &LayerExtent) -> Option<KeptAt<'p>> {
    match entry.source {
        LayerSource::Kept { pack, frame, ordinal, .. } => {
            Some((&packs[pack as usize], frame, ordinal))
        }
        LayerSource::Zero => None,
    }
}

impl LayerExtent {
    /// By what the extents of a layer are sorted.
    pub(super) fn order(&self) -> (DiskNumber, u64, Lsn) {
        (self.extent.disk, self.extent.offset, self.lsn)
    }
}

/// What a layer says that can't be.
pub(super) fn check(layer: &Layer) -> Result<(), &'static str> {
    if layer.extents.is_empty() || layer.extents.len() > LAYER_EXTENTS_MAX {
        return Err("it has none or too many extents");
    }
    if !layer.extents.is_sorted_by_key(LayerExtent::order) {
        return Err("its extents are out of order");
    }
    for entry in &layer.extents {
        if !(layer.first..=layer.last).contains(&entry.lsn) || entry.lsn == Lsn::NONE {
            return Err("an extent's LSN lies outside of it");
        }
        if let LayerSource::Kept { pack, .. } = entry.source {
            if entry.extent.length > u64::from(FRAME_BYTES_MAX) {
                return Err("an extent is longer than any kept record");
            }
            if pack as usize >= layer.packs.len() {
                return Err("an extent names a pack that isn't listed");
            }
        }
    }
    Ok(())
}

/// A layer while it grows.
#[derive(Debug, Default)]
pub(super) struct LayerBuilder {
    packs: Vec<PackPlace>,
    by_key: HashMap<(LogId, PackNumber), u32>,
    extents: Vec<LayerExtent>,
}

impl LayerBuilder {
    /// How many extents it has.
    pub fn len(&self) -> usize {
        self.extents.len()
    }

    /// The place of a pack in its table.
    pub fn pack(&mut self, place: &PackPlace) -> u32 {
        let next = u32::try_from(self.packs.len()).expect("a layer has fewer packs than extents");
        *self.by_key.entry(place.key()).or_insert_with(|| {
            self.packs.push(place.clone());
            next
        })
    }

    /// Adds an extent whose pack is in the table.
    pub fn add(&mut self, extent: LayerExtent) {
        self.extents.push(extent);
    }

    /// Adds all of a layer.
    pub fn add_layer(&mut self, layer: &Layer) {
        layer.extents.iter().for_each(|entry| self.add_of(&layer.packs, entry));
    }

    /// Adds an extent whose pack is in another table.
    pub fn add_of(&mut self, packs: &[PackPlace], entry: &LayerExtent) {
        let source = match entry.source {
            LayerSource::Kept { pack, frame, ordinal, checksum, name } => {
                let pack = self.pack(&packs[pack as usize]);
                LayerSource::Kept { pack, frame, ordinal, checksum, name }
            }
            LayerSource::Zero => LayerSource::Zero,
        };
        self.add(LayerExtent { source, ..*entry });
    }

    /// Leaves what the disks hold something of after all these records, of which `disks` are the
    /// declarations.
    pub fn retain_visible(&mut self, disks: &[Declared]) {
        visible::retain(&mut self.extents, |extent| extent, disks, |_| ());
    }

    /// The table of packs.
    pub fn packs(&self) -> &[PackPlace] {
        &self.packs
    }

    /// The kept records that its extents are, each once, in the order of their packs and frames.
    pub fn alive(&self) -> Vec<Alive> {
        let alive = |entry: &LayerExtent| {
            let LayerExtent { extent, lsn, time, source } = *entry;
            let LayerSource::Kept { pack, frame, ordinal, checksum, name } = source else {
                return None;
            };
            Some(Alive { key: (pack, frame, ordinal), extent, lsn, time, checksum, name })
        };
        let mut alive: Vec<Alive> = self.extents.iter().filter_map(alive).collect();
        // In place: there are as many as extents.
        let order = |alive: &Alive| (alive.key, alive.extent.disk, alive.extent.offset, alive.lsn);
        alive.sort_unstable_by_key(order);
        alive.dedup_by_key(|alive| alive.key);
        alive
    }

    /// Has extents name the places to which their records were copied.
    pub fn move_kept(&mut self, copier: &Copier<'_>) {
        let mut extents = std::mem::take(&mut self.extents);
        for entry in &mut extents {
            let LayerSource::Kept { pack, frame, ordinal, .. } = &mut entry.source else {
                continue;
            };
            if let Some((place, to_frame, to_ordinal)) = copier.new_place((*pack, *frame, *ordinal))
            {
                (*pack, *frame, *ordinal) = (self.pack(place), to_frame, to_ordinal);
            }
        }
        self.extents = extents;
    }

    /// Puts the extents in the order of a layer, so that they are found.
    pub fn sort(&mut self) {
        self.extents.sort_unstable_by_key(LayerExtent::order);
    }

    /// Where the bytes of this extent are kept, if they are among those here, which were sorted.
    pub fn place_of(&self, extent: &LayerExtent) -> Option<KeptAt<'_>> {
        let found = self.extents.binary_search_by_key(&extent.order(), LayerExtent::order).ok()?;
        let found = Some(&self.extents[found]).filter(|found| found.extent == extent.extent)?;
        kept_at(&self.packs, found)
    }

    /// The place of a pack in its table, if it is there.
    pub fn place_in_table(&self, place: &PackPlace) -> Option<u32> {
        self.by_key.get(&place.key()).copied()
    }

    /// Adds a kept extent whose record lies there.
    pub fn add_at(&mut self, entry: &LayerExtent, (place, frame, ordinal): KeptAt<'_>) {
        let source = match entry.source {
            LayerSource::Kept { checksum, name, .. } => {
                LayerSource::Kept { pack: self.pack(place), frame, ordinal, checksum, name }
            }
            LayerSource::Zero => LayerSource::Zero,
        };
        self.add(LayerExtent { source, ..*entry });
    }

    /// The layers of all that was added, however much it is: one after another by place.
    pub fn split(self, epoch: Epoch) -> impl Iterator<Item = Layer> {
        let Self { packs, mut extents, .. } = self;
        extents.sort_by_key(LayerExtent::order);
        let mut left = extents.into_iter().peekable();
        std::iter::from_fn(move || {
            left.peek()?;
            let mut part = Self::default();
            for entry in left.by_ref().take(LAYER_EXTENTS_MAX) {
                part.add_of(&packs, &entry);
            }
            part.close(epoch)
        })
    }

    /// The layer; `None` when nothing was added. The builder is empty again.
    pub fn close(&mut self, epoch: Epoch) -> Option<Layer> {
        let Self { packs, mut extents, .. } = std::mem::take(self);
        let lsns = || extents.iter().map(|entry| entry.lsn);
        let (first, last) = (lsns().min()?, lsns().max()?);
        extents.sort_by_key(LayerExtent::order);
        Some(Layer { epoch, first, last, packs, extents })
    }
}
