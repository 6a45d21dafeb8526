//! What one disk of a point holds at any place. Pure.

use tidegate_model::Disk;

use super::frames::FrameKey;
use crate::restore::map::{ExtentMap, Segment, Source};

/// A disk and its segments, from its first byte to its last.
pub struct DiskMap {
    /// The disk.
    pub disk: Disk,
    segments: Vec<Segment>,
}

impl DiskMap {
    /// What a map holds of a disk.
    pub fn of(disk: Disk, map: &ExtentMap) -> Self {
        let mut segments = map.segments(disk.bytes);
        segments.shrink_to_fit();
        Self { disk, segments }
    }

    /// The segments of a range, cut to it.
    pub fn pieces(&self, offset: u64, length: u64) -> impl Iterator<Item = Segment> + '_ {
        let end = offset.saturating_add(length).min(self.disk.bytes);
        let first = self.segments.partition_point(|segment| segment.end() <= offset);
        let touched = self.segments[first..].iter().take_while(move |segment| segment.offset < end);
        touched.map(move |segment| segment.within(offset, end))
    }

    /// The frames that hold a range, in its order; neighbours in one are told once.
    pub fn frames(&self, offset: u64, length: u64) -> impl Iterator<Item = FrameKey> + '_ {
        let mut last = None;
        self.pieces(offset, length).filter_map(move |piece| {
            let Source::Kept { record, .. } = piece.source else { return None };
            let key = FrameKey { pack: record.pack, frame: record.frame };
            (last.replace(key) != Some(key)).then_some(key)
        })
    }

    /// What the segments take of memory.
    pub fn memory_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>()
    }
}
