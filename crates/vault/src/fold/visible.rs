//! Which of an epoch's extents its disks hold something of in the end. Pure.

use std::collections::BTreeMap;

use tidegate_model::DiskNumber;
use tidegate_model::limits::DISK_BYTES_MAX;

use super::layer::LayerExtent;
use super::manifest::Declared;

/// Leaves those extents that later ones don't cover whole, and tells of the others. `disks` are the
/// declarations, by LSN: one that makes a disk shorter covers what lies beyond its end.
pub(super) fn retain<E>(
    extents: &mut Vec<E>,
    extent_of: impl Fn(&E) -> &LayerExtent,
    disks: &[Declared],
    mut tell: impl FnMut(&E),
) {
    // The newest first.
    extents.sort_by_key(|entry| std::cmp::Reverse(extent_of(entry).lsn));
    let mut declared = disks.iter().rev().peekable();
    let mut covers: BTreeMap<DiskNumber, Cover> = BTreeMap::new();
    extents.retain(|kept| {
        let entry = extent_of(kept);
        while let Some(told) = declared.next_if(|told| told.lsn > entry.lsn) {
            let cover = covers.entry(told.disk.number).or_default();
            cover.add(told.disk.bytes, DISK_BYTES_MAX);
        }
        let (begin, length) = (entry.extent.offset, entry.extent.length);
        let is_visible = covers.entry(entry.extent.disk).or_default().add(begin, begin + length);
        if !is_visible {
            tell(kept);
        }
        is_visible
    });
}

/// Parts of a disk: runs (begin, end) that neither touch nor overlap.
#[derive(Default)]
struct Cover(BTreeMap<u64, u64>);

impl Cover {
    /// Adds a part; false when all of it was there.
    fn add(&mut self, mut begin: u64, mut end: u64) -> bool {
        let before = self.0.range(..=begin).next_back().map(|(at, end)| (*at, *end));
        let before = before.filter(|(_, before)| *before >= begin);
        if begin >= end || before.is_some_and(|(_, before)| before >= end) {
            return false;
        }
        let first = before.map_or(begin, |(at, _)| at);
        let joined: Vec<(u64, u64)> =
            self.0.range(first..=end).map(|(at, end)| (*at, *end)).collect();
        for (at, until) in joined {
            self.0.remove(&at);
            (begin, end) = (begin.min(at), end.max(until));
        }
        self.0.insert(begin, end);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_model::{Lsn, Micros};

    use super::*;
    use crate::fold::LayerSource;
    use crate::testing::{disk, extent};

    const SIZE: u64 = 48;

    /// The LSN to which each byte of a disk goes back that changed in these ways.
    fn painted(extents: &[LayerExtent], disks: &[Declared]) -> Vec<u64> {
        let mut bytes: Vec<u64> = (0..SIZE).map(|_| 0).collect();
        let mut changes: Vec<(u64, u64, u64)> = Vec::new();
        let range = |entry: &LayerExtent| {
            (entry.lsn.0, entry.extent.offset, entry.extent.offset + entry.extent.length)
        };
        changes.extend(extents.iter().map(range));
        changes.extend(disks.iter().map(|told| (told.lsn.0, told.disk.bytes, SIZE)));
        changes.sort_unstable();
        for (lsn, begin, end) in changes {
            let changed = (0..).zip(&mut bytes).filter(|(at, _)| (begin..end).contains(at));
            changed.for_each(|(_, byte)| *byte = lsn);
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_is_left_makes_the_same_disk_and_none_of_it_is_hidden(
            changes in proptest::collection::vec((0..SIZE, 1..20_u64, 0..8_u8), 1..40),
        ) {
            let (mut extents, mut disks) = (Vec::new(), Vec::new());
            for (lsn, (offset, length, kind)) in (1..).zip(changes) {
                match kind {
                    0 => {
                        let (lsn, time) = (Lsn(lsn), Micros(0));
                        disks.push(Declared { lsn, time, disk: disk(0, offset) });
                    }
                    _ => {
                        let length = length.min(SIZE - offset);
                        let (extent, lsn) = (extent(0, offset, length), Lsn(lsn));
                        let (time, source) = (Micros(0), LayerSource::Zero);
                        extents.push(LayerExtent { extent, lsn, time, source });
                    }
                }
            }
            let whole = painted(&extents, &disks);
            retain(&mut extents, |extent| extent, &disks, |_| ());
            prop_assert_eq!(painted(&extents, &disks), whole.clone());
            for entry in &extents {
                prop_assert!(whole.contains(&entry.lsn.0), "LSN {} is hidden", entry.lsn);
            }
        }
    }
}
