//! The marks of one disk: a small mapped file that says, whenever the process is killed, what may
//! stand on the disk and not in the journal. docs/formats/marks.md.
//!
//! - A **slot** holds a range that is being changed, from before that until its record is durable.
//! - A **dirty** block was changed while the journal took nothing.
//! - The **gap** says since when, as long as there are dirty blocks.
//! - **Closed**: nothing is missing, and the disk was left as described.
//!
//! Each is changed by single stores of words, in an order in which a kill between any two leaves what
//! can be believed. What can't have come about so is damage.

mod layout;
mod mapped;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use tidegate_model::{BookmarkKind, Lsn, Micros};

use super::state::GapStart;
use crate::source::Footprint;
pub(super) use layout::{BLOCK_BYTES, SLOTS, Subject};
use layout::{
    BOOT, CLOSED, CLOSED_LSN, FIXED_WORDS, FOOTPRINT, GAP_KIND, GAP_LSN, GAP_TIME, MAGIC,
    MAP_START, SLOT_WORDS, check, halves,
};
use mapped::Mapped;

/// Why marks that are there can't be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Of another journal.
    Journal,
    /// Of a disk with another number, size or name.
    Disk,
    /// They can't have come about.
    Damaged,
    Io(io::Error),
}

/// How a tap was left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Everything up to this LSN was durable, and the disk was left so.
    Closed { last: Lsn, footprint: Footprint },
    /// In the midst of its work.
    Open,
}

/// The marks of a disk that is served.
#[derive(Debug)]
pub(super) struct Marks {
    map: Mapped,
    subject: Subject,
    dirty_blocks: AtomicU64,
}

impl Marks {
    /// Makes a file without marks, in place of what may be there.
    pub(super) fn create(path: &Path, subject: Subject) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = how.open(&name)?;
        let mut start = Vec::with_capacity(MAP_START * 8);
        start.extend(subject.fixed().into_iter().flat_map(u64::to_le_bytes));
        start.resize(MAP_START * 8, 0);
        file.write_all(&start)?;
        reserve(&mut file, (subject.words() * 8) as u64)?;
        std::fs::rename(&name, path)?;
        let map = Mapped::new(file, subject.words())?;
        Ok(Self { map, subject, dirty_blocks: AtomicU64::new(0) })
    }

    /// Opens marks that are there; `None` where none are.
    pub(super) fn open(path: &Path, subject: Subject) -> Result<Option<Self>, Unusable> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Unusable::Io)?,
        };
        let bytes = file.metadata().map_err(Unusable::Io)?.len();
        if bytes < (MAP_START * 8) as u64 || !bytes.is_multiple_of(8) {
            return Err(Unusable::Damaged);
        }
        let words = usize::try_from(bytes / 8).map_err(|_| Unusable::Damaged)?;
        // Of a copy of the file not all may have room.
        reserve(&mut file, bytes).map_err(Unusable::Io)?;
        let map = Mapped::new(file, words).map_err(Unusable::Io)?;
        let marks = Self { map, subject, dirty_blocks: AtomicU64::new(0) };
        marks.check_header()?;
        if words != subject.words() || !marks.count_dirty() {
            return Err(Unusable::Damaged);
        }
        Ok(Some(marks))
    }

    /// Says, durably, that a tap is at work from here on: after a crash of the host nobody may believe
    /// that the one before was closed.
    pub(super) fn begin(&self, boot: [u8; 16]) -> io::Result<()> {
        for (index, half) in halves(boot).into_iter().enumerate() {
            self.store(BOOT + index, half);
        }
        self.store(CLOSED, 0);
        self.map.sync()
    }

    /// How the tap before was left, and whether in this start of the host.
    pub(super) fn left(&self, boot: [u8; 16]) -> (Left, bool) {
        let same_boot = [self.load(BOOT), self.load(BOOT + 1)] == halves(boot);
        if self.load(CLOSED) == 0 {
            return (Left::Open, same_boot);
        }
        let words = std::array::from_fn(|index| self.load(FOOTPRINT + index));
        let (last, footprint) = (Lsn(self.load(CLOSED_LSN)), Footprint(words));
        (Left::Closed { last, footprint }, same_boot)
    }

    /// Says, durably, that nothing is missing from the journal up to `last` but what is dirty.
    pub(super) fn close(&self, last: Lsn, footprint: Footprint) -> io::Result<()> {
        self.store(CLOSED_LSN, last.0);
        for (index, word) in footprint.0.into_iter().enumerate() {
            self.store(FOOTPRINT + index, word);
        }
        self.store(CLOSED, 1);
        self.map.sync()
    }

    /// Marks a range in a slot that is free.
    pub(super) fn set(&self, slot: usize, range: &Range<u64>) {
        let at = slot_at(slot);
        let length = range.end - range.start;
        self.store(at, range.start);
        self.store(at + 1, length);
        // As long as this isn't there the slot is free, whatever else it holds.
        self.store(at + 2, slot_check(slot, range.start, length));
    }

    /// Frees a slot.
    pub(super) fn clear(&self, slot: usize) {
        self.store(slot_at(slot) + 2, 0);
    }

    /// Every range that is marked, sorted, without overlaps.
    pub(super) fn marked(&self) -> Result<Vec<Range<u64>>, Unusable> {
        let mut ranges = Vec::new();
        for slot in 0..SLOTS {
            let at = slot_at(slot);
            let (offset, length) = (self.load(at), self.load(at + 1));
            match self.load(at + 2) {
                0 => {}
                found if found != slot_check(slot, offset, length) => {
                    return Err(Unusable::Damaged);
                }
                _ => match offset.checked_add(length) {
                    Some(end) if end <= self.subject.bytes => ranges.push(offset..end),
                    _ => return Err(Unusable::Damaged),
                },
            }
        }
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, before| {
            let meets = next.start <= before.end;
            if meets {
                before.end = before.end.max(next.end);
            }
            meets
        });
        Ok(ranges)
    }

    /// Since when there are dirty blocks.
    pub(super) fn gap(&self) -> Option<GapStart> {
        let lsn = self.load(GAP_LSN).checked_sub(1)?;
        let code = u8::try_from(self.load(GAP_KIND)).ok()?;
        let kind = BookmarkKind::from_code(code).filter(|kind| kind.begins_gap())?;
        Some(GapStart { after: Lsn(lsn), time: Micros(self.load(GAP_TIME)), kind })
    }

    /// Says since when; before the first block is dirty, and after the last one was.
    pub(super) fn set_gap(&self, gap: Option<GapStart>) {
        if let Some(gap) = gap {
            self.store(GAP_TIME, gap.time.0);
            self.store(GAP_KIND, gap.kind.code().into());
        }
        self.store(GAP_LSN, gap.map_or(0, |gap| gap.after.next().0));
    }

    /// Makes the blocks of a range dirty.
    pub(super) fn soil(&self, range: &Range<u64>) {
        self.change_blocks(range, |word, bits| {
            let before = u64::from_le(word.fetch_or(bits.to_le(), Ordering::AcqRel));
            let added = (bits & !before).count_ones();
            self.dirty_blocks.fetch_add(u64::from(added), Ordering::AcqRel);
        });
    }

    /// Makes the blocks of a range, which are whole, clean.
    pub(super) fn clean(&self, range: &Range<u64>) {
        self.change_blocks(range, |word, bits| {
            let before = u64::from_le(word.fetch_and(!bits.to_le(), Ordering::AcqRel));
            let removed = (bits & before).count_ones();
            self.dirty_blocks.fetch_sub(u64::from(removed), Ordering::AcqRel);
        });
    }

    pub(super) fn dirty_blocks(&self) -> u64 {
        self.dirty_blocks.load(Ordering::Acquire)
    }

    /// The first dirty blocks at or after `from`, which begins one: those that follow each other, at
    /// most `bytes_max`.
    pub(super) fn next_dirty(&self, from: u64, bytes_max: u64) -> Option<Range<u64>> {
        let blocks = self.subject.blocks();
        let mut block = from / BLOCK_BYTES;
        while block < blocks && !self.is_dirty(block) {
            // Whole words without any are passed at once.
            let word = self.load(map_at(block));
            block = if word == 0 { (block / 64 + 1) * 64 } else { block + 1 };
        }
        if block >= blocks {
            return None;
        }
        let most = block + (bytes_max / BLOCK_BYTES).max(1);
        let mut end = block + 1;
        while end < blocks.min(most) && self.is_dirty(end) {
            end += 1;
        }
        Some(block * BLOCK_BYTES..(end * BLOCK_BYTES).min(self.subject.bytes))
    }

    fn is_dirty(&self, block: u64) -> bool {
        self.load(map_at(block)) & (1 << (block % 64)) != 0
    }

    fn change_blocks(&self, range: &Range<u64>, change: impl Fn(&AtomicU64, u64)) {
        let (mut block, end) = (range.start / BLOCK_BYTES, range.end.div_ceil(BLOCK_BYTES));
        while block < end {
            let count = (64 - block % 64).min(end - block);
            let bits = (u64::MAX >> (64 - count)) << (block % 64);
            change(&self.map.words()[map_at(block)], bits);
            block += count;
        }
    }

    fn check_header(&self) -> Result<(), Unusable> {
        let found: Vec<u64> = (0..=FIXED_WORDS).map(|index| self.load(index)).collect();
        let expected = self.subject.fixed();
        if found[0] != MAGIC || found[FIXED_WORDS] != check(&found[..FIXED_WORDS]) {
            Err(Unusable::Damaged)
        } else if found[2..4] != expected[2..4] {
            Err(Unusable::Journal)
        } else if found != expected {
            Err(Unusable::Disk)
        } else {
            Ok(())
        }
    }

    /// Counts the dirty blocks; whether they can be.
    fn count_dirty(&self) -> bool {
        let map = &self.map.words()[MAP_START..];
        let dirty: u64 =
            map.iter().map(|word| u64::from(word.load(Ordering::Acquire).count_ones())).sum();
        self.dirty_blocks.store(dirty, Ordering::Release);
        let beyond = self.next_bit(self.subject.blocks());
        // A gap of a kind that can't be is none.
        let told = self.gap().is_some() || self.load(GAP_LSN) == 0;
        !beyond && told && (dirty == 0 || self.gap().is_some()) && self.load(CLOSED) <= 1
    }

    /// Whether a bit is set for a block that isn't there.
    fn next_bit(&self, blocks: u64) -> bool {
        let first = map_at(blocks);
        let words = self.map.words().get(first..).unwrap_or_default();
        words.iter().enumerate().any(|(index, word)| {
            let word = u64::from_le(word.load(Ordering::Acquire));
            if index == 0 { word >> (blocks % 64) != 0 } else { word != 0 }
        })
    }

    fn load(&self, index: usize) -> u64 {
        u64::from_le(self.map.words()[index].load(Ordering::Acquire))
    }

    fn store(&self, index: usize, value: u64) {
        self.map.words()[index].store(value.to_le(), Ordering::Release);
    }
}

const fn slot_at(slot: usize) -> usize {
    layout::HEADER_WORDS + slot * SLOT_WORDS
}

fn slot_check(slot: usize, offset: u64, length: u64) -> u64 {
    check(&[slot as u64, offset, length])
}

fn map_at(block: u64) -> usize {
    MAP_START + usize::try_from(block / 64).expect("the map fits the address space, it is mapped")
}

/// Gives a file its length, and all of it room.
fn reserve(file: &mut File, bytes: u64) -> io::Result<()> {
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let written = file.metadata()?.len();
            let mut left = usize::try_from(bytes - written).map_err(io::Error::other)?;
            let zeros = [0; 64 << 10];
            while left > 0 {
                let count = left.min(zeros.len());
                file.write_all(&zeros[..count])?;
                left -= count;
            }
            Ok(())
        }
        reserved => Ok(reserved?),
    }
}

#[cfg(test)]
mod tests;
