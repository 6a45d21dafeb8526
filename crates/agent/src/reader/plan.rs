//! What to read of a disk, in which order: decided without I/O from where its data lies.
//!
//! A disk becomes a sequence of [`Step`]s that covers it exactly, in order. Reads begin at block
//! borders and never cross a multiple of the read size; what lies in a hole by whole blocks is
//! known to be zero and isn't read. Holes too short to be worth a read of their own are read over.

use std::ops::Range;

/// Holes up to this length between data of the same read are read over: a read costs more than
/// filling this much with zeros.
const HOLE_BYTES_MIN: u64 = 256 << 10;

/// One step over a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A hole.
    Zeros(Range<u64>),
    /// Bytes to be read.
    Read(Range<u64>),
}

/// Where a disk's data lies.
pub(super) trait Layout {
    /// What a failed look is.
    type Error;

    /// The first run of data that ends after `offset`; `None` when only a hole follows.
    fn data_from(&mut self, offset: u64) -> Result<Option<Range<u64>>, Self::Error>;
}

/// Plans the reads of one disk.
#[derive(Debug)]
pub(super) struct Planner {
    bytes: u64,
    block_bytes: u64,
    read_bytes: u64,
    at: u64,
    /// The data around or after `at`, grown to block borders; empty at the end of the disk when
    /// there is none.
    data: Range<u64>,
}

impl Planner {
    /// A plan for a disk of `bytes`. `read_bytes` is a multiple of `block_bytes`.
    pub(super) fn new(bytes: u64, block_bytes: u32, read_bytes: u32) -> Self {
        assert!(block_bytes > 0 && read_bytes.is_multiple_of(block_bytes), "whole blocks");
        Self {
            bytes,
            block_bytes: block_bytes.into(),
            read_bytes: read_bytes.into(),
            at: 0,
            data: 0..0,
        }
    }

    /// The next step; `None` at the end of the disk.
    pub(super) fn next<L: Layout>(&mut self, layout: &mut L) -> Result<Option<Step>, L::Error> {
        if self.at == self.bytes {
            return Ok(None);
        }
        if self.data.end <= self.at {
            self.data = self.data_from(self.at, layout)?;
        }
        let begin = self.at;
        if begin < self.data.start {
            self.at = self.data.start;
            return Ok(Some(Step::Zeros(begin..self.at)));
        }
        let limit = self.bytes.min((begin / self.read_bytes + 1) * self.read_bytes);
        let mut end = limit.min(self.data.end);
        while end < limit {
            self.data = self.data_from(end, layout)?;
            if self.data.start >= limit || self.data.start - end > HOLE_BYTES_MIN {
                break;
            }
            end = limit.min(self.data.end);
        }
        self.at = end;
        Ok(Some(Step::Read(begin..end)))
    }

    fn data_from<L: Layout>(&self, offset: u64, layout: &mut L) -> Result<Range<u64>, L::Error> {
        let Some(data) = layout.data_from(offset)? else { return Ok(self.bytes..self.bytes) };
        let start = data.start / self.block_bytes * self.block_bytes;
        let end = data.end.div_ceil(self.block_bytes) * self.block_bytes;
        Ok(start.clamp(offset, self.bytes)..end.clamp(offset, self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const BLOCK: u32 = 4096;
    const READ: u32 = 1 << 20;

    /// Data at these ranges, in order.
    struct Known(Vec<Range<u64>>);

    impl Layout for Known {
        type Error = Infallible;

        fn data_from(&mut self, offset: u64) -> Result<Option<Range<u64>>, Infallible> {
            Ok(self.0.iter().find(|data| data.end > offset).cloned())
        }
    }

    fn steps_of(bytes: u64, data: Vec<Range<u64>>) -> Vec<Step> {
        let mut planner = Planner::new(bytes, BLOCK, READ);
        let mut layout = Known(data);
        std::iter::from_fn(|| planner.next(&mut layout).unwrap_or_else(|never| match never {}))
            .collect()
    }

    #[test]
    fn a_hole_of_any_size_is_one_step() {
        let bytes = 64 << 30;
        assert_eq!(steps_of(bytes, vec![]), [Step::Zeros(0..bytes)]);
        let last = bytes - 1..bytes;
        assert_eq!(
            steps_of(bytes, vec![last]),
            [Step::Zeros(0..bytes - 4096), Step::Read(bytes - 4096..bytes)]
        );
    }

    #[test]
    fn short_holes_are_read_over_and_long_ones_are_not() {
        let data = vec![0..1, 100_000..100_001, 900_000..900_001];
        assert_eq!(
            steps_of(1_000_000, data),
            [
                Step::Read(0..102_400),
                Step::Zeros(102_400..897_024),
                Step::Read(897_024..901_120),
                Step::Zeros(901_120..1_000_000)
            ]
        );
    }

    proptest! {
        #[test]
        fn steps_cover_the_disk_in_order_and_zeros_hold_no_data(
            bytes in 1_u64..8 << 20,
            cuts in prop::collection::btree_set(0_u64..8 << 20, 0..24),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().map(|cut| cut.min(bytes)).collect();
            let data: Vec<_> = cuts
                .chunks_exact(2)
                .map(|pair| pair[0]..pair[1])
                .filter(|data| !data.is_empty())
                .collect();
            let mut at = 0;
            for step in steps_of(bytes, data.clone()) {
                let (Step::Zeros(range) | Step::Read(range)) = &step;
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end > at);
                at = range.end;
                let holds = |d: &Range<u64>| d.start < range.end && range.start < d.end;
                match &step {
                    Step::Zeros(_) => prop_assert!(!data.iter().any(holds)),
                    Step::Read(_) => {
                        prop_assert!(range.start % u64::from(BLOCK) == 0);
                        let unit = u64::from(READ);
                        prop_assert!(range.start / unit == (range.end - 1) / unit);
                        prop_assert!(data.iter().any(holds));
                    }
                }
            }
            prop_assert_eq!(at, bytes);
        }
    }
}
