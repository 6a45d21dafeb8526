//! A point's disks, read at any place without bringing them back first.
//!
//! Owns finding what holds a range, loading it, and what is kept of it for who reads next. Doesn't
//! own who reads, nor what is written over it.
//!
//! Invariants, as for a restore: every byte that is given was authenticated, and belongs to a kept
//! record whose length and checksum are those that were captured. What is damaged fails the reads
//! that need it, and no others.
//!
//! A read fetches the frames that hold it; one that belongs to a sequence has what follows fetched,
//! too, in runs as long as a restore's. Memory: the map of the point, about 100 bytes for each
//! stretch of disk that a record holds (while it is built, a restore's 300), the reader's cache of
//! indexes, and [`ViewMeans::bytes`].

mod ahead;
mod disk;
mod frame;
mod frames;
mod load;
mod means;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_model::{Disk, DiskNumber, Extent, Name, Point};
use tokio::sync::Semaphore;

pub use means::{VIEW_MEMORY_MIN, ViewMeans};

use super::error::Damage;
use super::map::{Kept, Segment, Source};
use super::{RestoreError, state_at};
use crate::chain::MachineHistory;
use crate::log::{LogError, LogReader};
use ahead::Streams;
use disk::DiskMap;
use frame::OpenFrame;
use frames::{FrameKey, Frames, Whereabouts};
use load::Loader;

/// A part of a disk of which the same holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// Whether it is all zeros, and nothing is kept for it.
    pub is_zero: bool,
}

/// A machine's disks at a point, to be read at any place, by any number of threads.
pub struct PointView {
    machine: Name,
    point: Point,
    disks: Vec<DiskMap>,
    loader: Arc<Loader>,
    frames: Arc<Frames>,
    reads: Semaphore,
    streams: Mutex<Streams>,
    means: ViewMeans,
}

impl PointView {
    /// Reads the indexes that make up `point` of a machine; of the disks in `only`, or all when it
    /// is empty.
    ///
    /// # Errors
    /// [`RestoreError`] when something that makes up the point is missing or damaged.
    pub async fn build(
        reader: &LogReader,
        history: &MachineHistory,
        point: Point,
        only: &[DiskNumber],
        means: ViewMeans,
    ) -> Result<Self, RestoreError> {
        let state = state_at(reader, history, point, only).await?;
        // Each map goes as soon as its segments are there.
        let disks = state.disks.into_iter().map(|(disk, map)| DiskMap::of(disk, &map)).collect();
        Ok(Self {
            machine: history.machine.clone(),
            point,
            disks,
            loader: Loader::new(reader.clone(), state.packs, means),
            frames: Frames::new(means.kept_bytes),
            reads: Semaphore::new(means.reads),
            streams: Mutex::new(Streams::new(means.ahead_bytes())),
            means,
        })
    }

    /// The point.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }

    /// The disks, with their sizes at the point.
    pub fn disks(&self) -> impl ExactSizeIterator<Item = &Disk> {
        self.disks.iter().map(|map| &map.disk)
    }

    /// What the map of the point takes of memory, beside the means.
    #[must_use]
    pub fn map_bytes(&self) -> usize {
        self.disks.iter().map(DiskMap::memory_bytes).sum()
    }

    /// What a range of a disk holds: its stretches, cut to it, in order.
    ///
    /// # Panics
    /// If the point has no such disk.
    pub fn stretches(
        &self,
        disk: DiskNumber,
        offset: u64,
        length: u64,
    ) -> impl Iterator<Item = Stretch> + '_ {
        self.map(disk).pieces(offset, length).map(|piece| Stretch {
            offset: piece.offset,
            length: piece.length,
            is_zero: piece.source == Source::Zero,
        })
    }

    /// Fills `out` with what the disk holds from `offset` on. Runs within tokio.
    ///
    /// # Errors
    /// [`RestoreError::Damaged`] when what holds a part of it can't be read; `out` is then of no
    /// meaning.
    ///
    /// # Panics
    /// If the point has no such disk, or it ends before.
    pub async fn read(
        &self,
        disk: DiskNumber,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), RestoreError> {
        let (map, length) = (self.map(disk), out.len() as u64);
        let lies_within = Extent { disk, offset, length }.lies_within(map.disk.bytes);
        assert!(lies_within, "{length} bytes at {offset} lie beyond the end of disk {disk}");
        let stopped = |_| RestoreError::Log(LogError::Stopped("nothing is read any more".into()));
        let _turn = self.reads.acquire().await.map_err(stopped)?;
        let mut begun = self.begin(map, offset, length);
        if let Some(ahead) = self.streams().read(disk, offset, length) {
            self.begin_all(map, ahead);
        }
        let mut rest = out;
        for piece in map.pieces(offset, length) {
            if piece.offset >= begun {
                begun = self.begin(map, piece.offset, offset + length - piece.offset);
            }
            let count = usize::try_from(piece.length).expect("a piece is no longer than its read");
            let (part, after) = rest.split_at_mut(count);
            self.fill(disk, &piece, part).await?;
            rest = after;
        }
        Ok(())
    }

    /// Has the beginning of a range loaded, as much as a read may at once; gives where that ends.
    fn begin(&self, map: &DiskMap, offset: u64, length: u64) -> u64 {
        let end = offset + length.min(self.means.begun_bytes());
        self.begin_all(map, offset..end);
        end
    }

    fn begin_all(&self, map: &DiskMap, range: Range<u64>) {
        let keys = map.frames(range.start, range.end - range.start);
        self.loader.begin(self.frames.missing(keys));
    }

    async fn fill(
        &self,
        disk: DiskNumber,
        piece: &Segment,
        part: &mut [u8],
    ) -> Result<(), RestoreError> {
        let Source::Kept { record, skip } = piece.source else {
            part.fill(0);
            return Ok(());
        };
        let copied = self.copy(&record, skip, part).await;
        copied.map_err(|what| {
            let range = Extent { disk, offset: piece.offset, length: piece.length };
            let what = Box::new(Damage::clone(&what));
            RestoreError::Damaged { machine: self.machine.clone(), range, what }
        })
    }

    async fn copy(&self, record: &Kept, skip: u32, part: &mut [u8]) -> Result<(), Arc<Damage>> {
        let frame = self.frame(record).await?;
        let place = self.loader.packs.get(record.pack);
        part.copy_from_slice(frame.bytes_of(record, skip, part.len(), place)?);
        Ok(())
    }

    /// The frame that has a record. It may have been driven out since it was begun: then it is
    /// loaded again, and comes straight to who waits.
    async fn frame(&self, record: &Kept) -> Result<Arc<OpenFrame>, Arc<Damage>> {
        let (whereabouts, promise) =
            self.frames.find(FrameKey { pack: record.pack, frame: record.frame });
        self.loader.begin(promise.into_iter().collect());
        let coming = match whereabouts {
            Whereabouts::Here(frame) => return Ok(frame),
            Whereabouts::OnItsWay(coming) => coming,
        };
        let stopped =
            || Arc::new(Damage::Log(LogError::Stopped("its reading was given up".into())));
        coming.wait().await.ok_or_else(stopped)?
    }

    /// The memory of what is kept, and the most that was ever fetched into.
    #[cfg(test)]
    pub(super) fn memory_taken(&self) -> (usize, usize) {
        (self.frames.kept_bytes(), self.loader.fetched_bytes_most())
    }

    fn map(&self, disk: DiskNumber) -> &DiskMap {
        let map = self.disks.iter().find(|map| map.disk.number == disk);
        map.unwrap_or_else(|| panic!("the point has no disk {disk}"))
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
