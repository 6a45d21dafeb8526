//! One pass over one disk: blocks that may have changed, and of which nothing is known, are read; those
//! whose hash isn't the one that is noted go to the journal.

use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_hrl::journal::{AppendError, Change};
use tidegate_hrl::storage::Storage;
use tidegate_model::{Extent, Lsn, is_zero};

use super::hashes::{BLOCK, BLOCK_BYTES, Hash, UNKNOWN};
use super::{PassError, Passing, Reading};
use crate::pieces::{Piece, pieces};
use crate::reader::pool::Pool;

/// Bytes that are read at once: what one write to a connection takes.
const STRETCH: usize = 1 << 20;
const STRETCH_BYTES: u64 = STRETCH as u64;
/// Bytes of the journal that may not be durable yet: an eighth of the batch in which writes gather.
const UNSURE_BYTES: u64 = 1 << 20;
/// How long it waits before it asks a journal again that took nothing.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// What a range of zeros counts as: 256 of them are waited for at once.
const ZERO_COST: u64 = 4 << 10;

/// What a pass found, or has found by now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes of the blocks that had changed.
    pub changed_bytes: u64,
    /// Bytes of them that weren't zeros.
    pub data_bytes: u64,
}

impl Compared {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            read_bytes: self.read_bytes + other.read_bytes,
            changed_bytes: self.changed_bytes + other.changed_bytes,
            data_bytes: self.data_bytes + other.data_bytes,
        }
    }
}

/// A pass that is being made.
struct Work<'a> {
    reading: &'a mut dyn Reading,
    /// Waits until the journal has room; false ends the pass.
    room: &'a mut dyn FnMut() -> bool,
    /// The next range that may have changed.
    dirty: Option<Range<u64>>,
    found: Compared,
    /// Hashes that are noted once the records of their blocks are durable.
    unsure: Vec<(u64, Vec<Hash>)>,
    unsure_bytes: u64,
    last: Lsn,
}

impl Work<'_> {
    /// Which of the blocks from `at` on, of which this is known, must be read. Asked in their order.
    fn wanted(&mut self, at: u64, known: &[Hash]) -> Result<Vec<bool>, PassError> {
        let mut wanted = Vec::with_capacity(known.len());
        for (start, hash) in (at..).step_by(BLOCK).zip(known) {
            while self.dirty.as_ref().is_some_and(|dirty| dirty.end <= start) {
                self.dirty = self.reading.next(start)?;
            }
            let is_dirty =
                self.dirty.as_ref().is_some_and(|dirty| dirty.start < start + BLOCK_BYTES);
            wanted.push(is_dirty || *hash == UNKNOWN);
        }
        Ok(wanted)
    }
}

impl<S: Storage> Passing<S> {
    /// Captures what has changed. Everything that it appended is durable when this returns. `room` waits
    /// until the journal has some; false ends the pass, as if it were whole.
    ///
    /// # Errors
    /// [`PassError`]
    pub fn compare(
        &self,
        reading: &mut dyn Reading,
        room: &mut dyn FnMut() -> bool,
    ) -> Result<Compared, PassError> {
        let pool = Pool::new(STRETCH, 1).map_err(PassError::Memory)?;
        let mut buffer = pool.take().expect("the only one who takes from it");
        let (dirty, found, unsure) = (reading.next(0)?, Compared::default(), Vec::new());
        let mut work =
            Work { reading, room, dirty, found, unsure, unsure_bytes: 0, last: Lsn::NONE };
        for at in (0..self.bytes).step_by(STRETCH) {
            if !(work.room)() {
                break;
            }
            let end = self.bytes.min(at + STRETCH_BYTES);
            self.stretch(at..end, &mut buffer, &mut work)?;
            if work.unsure_bytes >= UNSURE_BYTES {
                self.settle(&mut work)?;
            }
            self.looked.store(end, Ordering::Relaxed);
        }
        self.settle(&mut work)?;
        Ok(work.found)
    }

    /// Reads those blocks of a stretch that must be.
    fn stretch(
        &self,
        stretch: Range<u64>,
        buffer: &mut [u8],
        work: &mut Work<'_>,
    ) -> Result<(), PassError> {
        let blocks = (stretch.end - stretch.start).div_ceil(BLOCK_BYTES);
        let mut known = vec![UNKNOWN; usize::try_from(blocks).unwrap_or(usize::MAX)];
        self.hashes.read(stretch.start / BLOCK_BYTES, &mut known)?;
        let (wanted, mut first) = (work.wanted(stretch.start, &known)?, 0);
        for run in wanted.chunk_by(|one, other| one == other) {
            if run[0] {
                let start = stretch.start + first as u64 * BLOCK_BYTES;
                let bytes = (run.len() as u64 * BLOCK_BYTES).min(stretch.end - start);
                let data = &mut buffer[..usize::try_from(bytes).unwrap_or(usize::MAX)];
                work.reading.read(start, data)?;
                work.found.read_bytes += bytes;
                self.capture(start, data, &known[first..first + run.len()], work)?;
            }
            first += run.len();
        }
        Ok(())
    }

    /// Appends those blocks that aren't as they are known.
    fn capture(
        &self,
        at: u64,
        data: &[u8],
        known: &[Hash],
        work: &mut Work<'_>,
    ) -> Result<(), PassError> {
        let first = at / BLOCK_BYTES;
        let fresh: Vec<Hash> = data.chunks(BLOCK).map(hash).collect();
        let mut index = 0;
        while index < fresh.len() {
            let differ = |index: &usize| fresh[*index] != known[*index];
            let count = (index..fresh.len()).take_while(differ).count();
            if count == 0 {
                index += 1;
                continue;
            }
            let (block, start) = (first + index as u64, index * BLOCK);
            let changed = &data[start..data.len().min(start + count * BLOCK)];
            self.hashes.forget(block, count)?;
            for piece in pieces(block * BLOCK_BYTES, changed) {
                let Some(lsn) = self.append(piece, work.room)? else { return Ok(()) };
                work.last = lsn;
                let bytes =
                    if let Piece::Data { data, .. } = piece { data.len() as u64 } else { 0 };
                work.found.data_bytes += bytes;
                work.unsure_bytes += bytes.max(ZERO_COST);
            }
            work.found.changed_bytes += changed.len() as u64;
            work.unsure.push((block, fresh[index..index + count].to_vec()));
            index += count;
        }
        Ok(())
    }

    /// Appends a piece; `None` when the pass shall end.
    fn append(
        &self,
        piece: Piece<'_>,
        room: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Lsn>, PassError> {
        let disk = self.disk;
        let change = match piece {
            Piece::Data { offset, data } => Change::Write { disk, offset, data },
            Piece::Zero { offset, bytes } => Change::Zero(Extent { disk, offset, length: bytes }),
        };
        loop {
            match self.journal.append_waiting(&change, (self.clock)()) {
                Err(AppendError::Full { .. } | AppendError::NoRoom) if room() => {
                    std::thread::sleep(FULL_PAUSE);
                }
                Err(AppendError::Full { .. } | AppendError::NoRoom) => return Ok(None),
                appended => return Ok(Some(appended?)),
            }
        }
    }

    /// Waits until what was appended is durable, and notes its hashes.
    fn settle(&self, work: &mut Work<'_>) -> Result<(), PassError> {
        self.journal.wait_durable(work.last)?;
        for (block, hashes) in work.unsure.drain(..) {
            self.hashes.note(block, &hashes)?;
        }
        work.unsure_bytes = 0;
        Ok(())
    }
}

/// A block's hash; that of zeros is known.
fn hash(block: &[u8]) -> Hash {
    static ZEROS: LazyLock<Hash> = LazyLock::new(|| blake3::hash(&[0; BLOCK]).into());
    if block.len() as u64 == BLOCK_BYTES && is_zero(block) {
        *ZEROS
    } else {
        blake3::hash(block).into()
    }
}
