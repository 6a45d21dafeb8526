//! One pass over one disk: blocks whose hash isn't the one that is noted go to the journal.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use tidegate_hrl::journal::{AppendError, Change};
use tidegate_hrl::storage::Storage;
use tidegate_model::{Extent, Lsn, is_zero};

use super::hashes::{BLOCK_BYTES, Hash, UNKNOWN};
use super::{PassError, Passing, Reading};
use crate::pieces::{Piece, pieces};
use crate::reader::pool::Pool;

/// Bytes that are read at once: what one write to a connection takes.
const STRETCH_BYTES: u64 = 1 << 20;
/// Bytes of the journal that may not be durable yet: an eighth of the batch in which writes gather.
const UNSURE_BYTES: u64 = 1 << 20;
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

/// Hashes that are noted once the records of their blocks are durable.
#[derive(Default)]
struct Unsure {
    hashes: Vec<(u64, Vec<Hash>)>,
    last: Lsn,
    bytes: u64,
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
        let pool = Pool::new(STRETCH_BYTES as usize, 1).map_err(PassError::Memory)?;
        let mut buffer = pool.take().expect("the only one who takes from it");
        let (mut found, mut unsure, mut at) = (Compared::default(), Unsure::default(), 0);
        while let Some(range) = reading.next(at)? {
            at = range.start / BLOCK_BYTES * BLOCK_BYTES;
            while at < range.end {
                if !room() {
                    self.settle(&mut unsure)?;
                    return Ok(found);
                }
                let end = range.end.next_multiple_of(BLOCK_BYTES).min(at + STRETCH_BYTES);
                let end = end.min(self.bytes);
                let data = &mut buffer[..usize::try_from(end - at).unwrap_or(usize::MAX)];
                reading.read(at, data)?;
                found.read_bytes += data.len() as u64;
                self.stretch(at, data, &mut found, &mut unsure, room)?;
                if unsure.bytes >= UNSURE_BYTES {
                    self.settle(&mut unsure)?;
                }
                at = end;
                self.looked.store(at, Ordering::Relaxed);
            }
        }
        self.settle(&mut unsure)?;
        self.looked.store(self.bytes, Ordering::Relaxed);
        Ok(found)
    }

    /// Compares the blocks of a stretch, and appends those that changed.
    fn stretch(
        &self,
        at: u64,
        data: &[u8],
        found: &mut Compared,
        unsure: &mut Unsure,
        room: &mut dyn FnMut() -> bool,
    ) -> Result<(), PassError> {
        let first = at / BLOCK_BYTES;
        let fresh: Vec<Hash> = data.chunks(BLOCK_BYTES as usize).map(hash).collect();
        let mut known = vec![UNKNOWN; fresh.len()];
        self.hashes.read(first, &mut known)?;
        let mut index = 0;
        while index < fresh.len() {
            let differ = |index: &usize| fresh[*index] != known[*index];
            let count = (index..fresh.len()).take_while(differ).count();
            if count == 0 {
                index += 1;
                continue;
            }
            let (block, start) = (first + index as u64, index * BLOCK_BYTES as usize);
            let changed = &data[start..data.len().min(start + count * BLOCK_BYTES as usize)];
            self.hashes.forget(block, count)?;
            let offset = block * BLOCK_BYTES;
            for piece in pieces(offset, changed) {
                let Some(lsn) = self.append(piece, room)? else { return Ok(()) };
                unsure.last = lsn;
                let bytes =
                    if let Piece::Data { data, .. } = piece { data.len() as u64 } else { 0 };
                found.data_bytes += bytes;
                unsure.bytes += bytes.max(ZERO_COST);
            }
            found.changed_bytes += changed.len() as u64;
            unsure.hashes.push((block, fresh[index..index + count].to_vec()));
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
                Err(AppendError::Full { .. }) if room() => {}
                Err(AppendError::Full { .. }) => return Ok(None),
                appended => return Ok(Some(appended?)),
            }
        }
    }

    /// Waits until what was appended is durable, and notes its hashes.
    fn settle(&self, unsure: &mut Unsure) -> Result<(), PassError> {
        self.journal.wait_durable(unsure.last)?;
        for (block, hashes) in unsure.hashes.drain(..) {
            self.hashes.note(block, &hashes)?;
        }
        unsure.bytes = 0;
        Ok(())
    }
}

/// A block's hash; that of zeros is known.
fn hash(block: &[u8]) -> Hash {
    static ZEROS: LazyLock<Hash> =
        LazyLock::new(|| blake3::hash(&[0; BLOCK_BYTES as usize]).into());
    if block.len() as u64 == BLOCK_BYTES && is_zero(block) {
        *ZEROS
    } else {
        blake3::hash(block).into()
    }
}
