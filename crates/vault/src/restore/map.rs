//! What one disk holds at a point: sorted segments that don't overlap. Pure.
//!
//! Every change carries a [`Stamp`], its place in the machine's history; a later stamp wins
//! wherever two overlap. So logs may be read in any order, and a record that was sent twice
//! changes nothing. Memory: about 120 bytes for each segment that is still visible, which for a
//! disk that was copied in 64 KiB blocks is 0.2 % of what is stored.

use std::collections::BTreeMap;

use tidegate_model::{BlockName, Checksum, FrameNumber, Lsn};

/// A place in the history of a machine: epochs by their distance from the first of the lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// How many epochs of the lineage lie before this one.
    pub depth: u32,
    /// The record's number in that epoch.
    pub lsn: Lsn,
}

/// A kept record that holds the bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its pack: a place in the plan's table of packs.
    pub pack: u32,
    /// Its frame, by its number in the log.
    pub frame: FrameNumber,
    /// Which of the frame's kept records it is.
    pub ordinal: u32,
    /// Its length.
    pub bytes: u32,
    /// The checksum of the whole record.
    pub checksum: Checksum,
    /// Its name, when it was found by name.
    pub name: Option<BlockName>,
}

/// Where the bytes of a segment come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// They are zeros.
    Zero,
    /// They are kept.
    Kept {
        /// The record.
        record: Kept,
        /// Where in it the segment begins.
        skip: u32,
    },
}

impl Source {
    /// The source of what begins `by` bytes later. `by` lies within the segment, and so within
    /// the kept record, whose length fits 32 bits.
    fn after(self, by: u64) -> Self {
        match self {
            Self::Zero => Self::Zero,
            Self::Kept { record, skip } => {
                let by = u32::try_from(by).expect("a cut lies within a record's 32-bit length");
                Self::Kept { record, skip: skip + by }
            }
        }
    }
}

/// A stretch of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// Where its bytes come from.
    pub source: Source,
}

impl Segment {
    /// The first byte after it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// The part of it that lies within `begin..end`, which it touches.
    #[must_use]
    pub fn within(&self, begin: u64, end: u64) -> Self {
        let offset = self.offset.max(begin);
        let length = self.end().min(end) - offset;
        Self { offset, length, source: self.source.after(offset - self.offset) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    end: u64,
    stamp: Stamp,
    source: Source,
}

/// A disk while its records are applied.
#[derive(Debug, Clone, Default)]
pub struct ExtentMap(BTreeMap<u64, Entry>);

impl ExtentMap {
    /// Applies a change of `begin..end`, which isn't empty.
    pub fn put(&mut self, begin: u64, end: u64, stamp: Stamp, source: Source) {
        // Where the change still has to be entered from: what lies before is done.
        let mut at = begin;
        for (offset, entry) in self.take_overlapping(begin, end) {
            if entry.stamp > stamp {
                self.enter(at, offset, stamp, source, begin);
                at = at.max(entry.end);
                self.0.insert(offset, entry);
            } else {
                self.enter(offset, begin, entry.stamp, entry.source, offset);
                self.enter(end, entry.end, entry.stamp, entry.source, offset);
            }
        }
        self.enter(at, end, stamp, source, begin);
    }

    fn take_overlapping(&mut self, begin: u64, end: u64) -> Vec<(u64, Entry)> {
        let before = self.0.range(..begin).next_back().filter(|(_, entry)| entry.end > begin);
        let first = before.map_or(begin, |(offset, _)| *offset);
        let offsets: Vec<u64> = self.0.range(first..end).map(|(offset, _)| *offset).collect();
        offsets.iter().filter_map(|offset| self.0.remove_entry(offset)).collect()
    }

    /// Enters `begin..end`, if that isn't empty, of a change that begins at `origin`.
    fn enter(&mut self, begin: u64, end: u64, stamp: Stamp, source: Source, origin: u64) {
        if begin < end {
            let source = source.after(begin - origin);
            self.0.insert(begin, Entry { end, stamp, source });
        }
    }

    /// The disk's first `size` bytes, whole: what nothing was written to is zero.
    #[must_use]
    pub fn segments(&self, size: u64) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::with_capacity(self.0.len());
        let mut next = 0;
        for (offset, entry) in self.0.range(..size) {
            push(&mut segments, next, *offset, Source::Zero);
            push(&mut segments, *offset, entry.end.min(size), entry.source);
            next = entry.end.min(size);
        }
        push(&mut segments, next, size, Source::Zero);
        segments
    }
}

fn push(segments: &mut Vec<Segment>, begin: u64, end: u64, source: Source) {
    if begin >= end {
        return;
    }
    match segments.last_mut() {
        Some(last) if last.source == Source::Zero && source == Source::Zero => {
            last.length += end - begin;
        }
        _ => segments.push(Segment { offset: begin, length: end - begin, source }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 64;

    fn kept(tag: u32, length: u64) -> Source {
        let record = Kept {
            pack: tag,
            frame: FrameNumber(0),
            ordinal: 0,
            bytes: u32::try_from(length).unwrap(),
            checksum: Checksum(0),
            name: None,
        };
        Source::Kept { record, skip: 0 }
    }

    /// Each byte of the disk as (pack, place in its record); (0, 0) for zeros.
    fn painted(segments: &[Segment]) -> Vec<(u32, u64)> {
        let mut disk = Vec::new();
        for segment in segments {
            assert_eq!(segment.offset, disk.len() as u64, "segments follow each other");
            disk.extend((0..segment.length).map(|at| match segment.source {
                Source::Zero => (0, 0),
                Source::Kept { record, skip } => (record.pack, u64::from(skip) + at),
            }));
        }
        disk
    }

    proptest! {
        #[test]
        fn the_latest_write_is_what_a_disk_holds_whatever_the_order_of_reading(
            writes in proptest::collection::vec((0..SIZE as u64, 1_u64..20, any::<bool>()), 1..30),
            shuffle in proptest::collection::vec(any::<u32>(), 30),
        ) {
            let mut model = vec![(0, 0); SIZE + 20];
            let mut changes = Vec::new();
            for (lsn, (offset, length, zero)) in (1_u32..).zip(writes) {
                let source = if zero { Source::Zero } else { kept(lsn, length) };
                for at in 0..length {
                    let byte = if zero { (0, 0) } else { (lsn, at) };
                    model[usize::try_from(offset + at).unwrap()] = byte;
                }
                changes.push((offset, offset + length, u64::from(lsn), source));
            }
            let mut order: Vec<usize> = (0..changes.len()).collect();
            order.sort_by_key(|at| shuffle[*at]);
            let mut map = ExtentMap::default();
            for at in order.iter().chain(&order) {
                let (begin, end, lsn, source) = changes[*at];
                map.put(begin, end, Stamp { depth: 0, lsn: Lsn(lsn) }, source);
            }
            model.truncate(SIZE);
            prop_assert_eq!(painted(&map.segments(SIZE as u64)), model);
        }
    }

    #[test]
    fn a_later_epoch_wins_over_any_lsn_of_an_earlier_one() {
        let mut map = ExtentMap::default();
        map.put(0, 8, Stamp { depth: 1, lsn: Lsn(1) }, kept(2, 8));
        map.put(0, 16, Stamp { depth: 0, lsn: Lsn(99) }, kept(1, 16));
        let disk = painted(&map.segments(16));
        assert_eq!((disk[7], disk[8]), ((2, 7), (1, 8)));
    }
}
