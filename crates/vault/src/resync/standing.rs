//! The blocks of a window of one disk, as records make them. Pure; records may come in any order and
//! more than once.
//!
//! Of each block the newest record that is all of it is remembered, and when a smaller one touched it
//! last: where that is newer, what the block holds isn't known.

use std::mem::size_of;

use tidegate_model::limits::DISK_BYTES_MAX;
use tidegate_model::{BlockName, Disk, DiskNumber, Epoch, Extent, Lsn, Name, Point};

use crate::fold::{Layer, LayerSource};
use crate::log::PackRead;
use crate::pack::Content;
use crate::seal::BlockNamer;

/// Memory of one block of a window.
pub const BLOCK_MEMORY_BYTES: usize = size_of::<Block>();

/// A stretch of a disk: so many whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The disk.
    pub disk: DiskNumber,
    /// Where it begins, a multiple of the block size.
    pub offset: u64,
    /// How many blocks it has.
    pub blocks: usize,
    /// How long a block is.
    pub block_bytes: u64,
}

/// A place in the lineage: LSNs counted through its epochs, the oldest first. 0 is before all.
type Moment = u64;

#[derive(Clone, Copy, Default)]
struct Block {
    /// The last record that was all of it.
    whole: Moment,
    /// What that left: a block of this name, or zeros.
    name: Option<BlockName>,
    /// The last record that was a part of it.
    part: Moment,
}

/// What a record left in its range.
#[derive(Clone, Copy)]
enum Left {
    Zeros,
    Named(BlockName),
    Unknown,
}

/// What an epoch stands on, in a window.
pub struct Standing {
    window: Window,
    /// How far each epoch of the lineage counts, and the moment before its first LSN.
    lineage: Vec<(Point, Moment)>,
    blocks: Vec<Block>,
}

impl Window {
    const fn end(&self) -> u64 {
        self.offset.saturating_add(self.blocks as u64 * self.block_bytes)
    }

    /// Whether an extent lies in it.
    #[must_use]
    pub fn covers(&self, extent: &Extent) -> bool {
        let end = extent.offset.checked_add(extent.length);
        extent.disk == self.disk
            && extent.offset >= self.offset
            && end.is_some_and(|end| end <= self.end())
    }
}

impl Standing {
    /// Nothing was read yet; `lineage` is what makes up the state, oldest epoch first.
    pub(super) fn new(window: Window, lineage: &[Point]) -> Self {
        let mut before: Moment = 0;
        let placed = lineage.iter().map(|point| {
            let placed = (*point, before);
            // No machine has sent so many that this would matter.
            before = before.saturating_add(point.lsn.0);
            placed
        });
        let lineage = placed.collect();
        Self { window, lineage, blocks: vec![Block::default(); window.blocks] }
    }

    /// The window.
    #[must_use]
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// Forgets everything: no block is had.
    pub(super) fn forget(&mut self) {
        let unknown = Block { part: Moment::MAX, ..Block::default() };
        self.blocks.fill(unknown);
    }

    /// Whether the block at `offset`, which begins a block of the window, is had: what it stands on
    /// holds the block whose plain BLAKE3 hash this is.
    #[must_use]
    pub fn has(&self, namer: &BlockNamer, offset: u64, hash: &[u8; 32]) -> bool {
        let at = offset.checked_sub(self.window.offset).map(|at| at / self.window.block_bytes);
        let at = at.and_then(|at| usize::try_from(at).ok());
        let Some(block) = at.and_then(|at| self.blocks.get(at)) else { return false };
        if block.part > block.whole {
            return false;
        }
        match block.name {
            Some(name) => namer.name(&blake3::Hash::from_bytes(*hash)) == name,
            None => *hash == zero_hash(self.window.block_bytes),
        }
    }

    /// The moment of a record of the lineage.
    fn moment(&self, epoch: Epoch, lsn: Lsn) -> Option<Moment> {
        let (point, before) = self.lineage.iter().find(|(point, _)| point.epoch == epoch)?;
        (lsn <= point.lsn && lsn != Lsn::NONE).then(|| before.saturating_add(lsn.0))
    }

    /// Takes a pack of a log; of the machine only what its index lists under `machine`.
    pub(super) fn add_pack(&mut self, pack: &PackRead, machine: &Name) {
        for record in &pack.index.records {
            let of = &pack.index.machines[usize::from(record.machine)];
            if of.name != *machine {
                continue;
            }
            let Some(moment) = self.moment(of.epoch, record.lsn) else { continue };
            let (extent, left) = match &record.content {
                Content::Zero(extent) => (extent, Left::Zeros),
                Content::Kept { extent, name, .. } => (extent, named(*name)),
                Content::Reference { extent, name, .. } => (extent, Left::Named(*name)),
                Content::Disk(_) | Content::Bookmark(_) | Content::Time => continue,
            };
            self.put(extent, moment, left);
        }
    }

    /// Takes a layer.
    pub(super) fn add_layer(&mut self, layer: &Layer) {
        for entry in &layer.extents {
            let Some(moment) = self.moment(layer.epoch, entry.lsn) else { continue };
            let left = match entry.source {
                LayerSource::Zero => Left::Zeros,
                LayerSource::Kept { name, .. } => named(name),
            };
            self.put(&entry.extent, moment, left);
        }
    }

    /// Takes the declaration of a disk: one that becomes shorter loses what lies beyond its end.
    pub(super) fn add_disk(&mut self, epoch: Epoch, lsn: Lsn, disk: &Disk) {
        let beyond = DISK_BYTES_MAX.saturating_sub(disk.bytes);
        if let Some(moment) = self.moment(epoch, lsn).filter(|_| beyond > 0) {
            let extent = Extent { disk: disk.number, offset: disk.bytes, length: beyond };
            self.put(&extent, moment, Left::Zeros);
        }
    }

    fn put(&mut self, extent: &Extent, moment: Moment, left: Left) {
        let Window { disk, offset, block_bytes, .. } = self.window;
        let begin = extent.offset.max(offset);
        let end = extent.offset.saturating_add(extent.length).min(self.window.end());
        if extent.disk != disk || begin >= end {
            return;
        }
        let first = (begin - offset) / block_bytes;
        let last = (end - offset - 1) / block_bytes;
        for index in first..=last {
            let at = offset + index * block_bytes;
            let is_all = begin <= at && at + block_bytes <= end;
            let whole = match left {
                Left::Zeros if is_all => Some(None),
                Left::Named(name) if is_all && extent.length == block_bytes => Some(Some(name)),
                _ => None,
            };
            let Some(block) = usize::try_from(index).ok().and_then(|at| self.blocks.get_mut(at))
            else {
                return;
            };
            match whole {
                Some(name) if moment >= block.whole => (block.whole, block.name) = (moment, name),
                Some(_) => {}
                None => block.part = block.part.max(moment),
            }
        }
    }
}

fn named(name: Option<BlockName>) -> Left {
    name.map_or(Left::Unknown, Left::Named)
}

/// The hash of a block of zeros.
fn zero_hash(block_bytes: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let zeros = [0; 4096];
    let mut left = block_bytes;
    while left > 0 {
        let count = left.min(zeros.len() as u64);
        hasher.update(&zeros[..usize::try_from(count).unwrap_or(0)]);
        left -= count;
    }
    hasher.finalize().into()
}
