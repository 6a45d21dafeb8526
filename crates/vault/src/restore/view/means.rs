//! What reading a point at any place may take: memory, and how much of it for what. Pure.
//!
//! ```text
//! bytes = runs × BUFFER_BYTES_MAX                              fetched, sealed
//!       + openers × (FRAME_BYTES_MAX + EXPANDER_BYTES)         being opened
//!       + reads × FRAME_BYTES_MAX                              opened, being copied from
//!       + kept_bytes                                           opened, kept for who reads next
//! ```
//!
//! The factors are what a vault may hold at most; frames as they are written by default are a
//! sixteenth of that, and take as much less.

use tidegate_model::limits::FRAME_BYTES_MAX;

use crate::log::frames::BUFFER_BYTES_MAX;
use crate::pack::EXPANDER_BYTES;

/// Least memory with which reads, reading ahead and keeping don't drive each other out: 2 runs, 3
/// reads, some 24 MiB kept.
pub const VIEW_MEMORY_MIN: u64 = 48 << 20;

/// Runs that are fetched at once at most: more requests at a time a store would refuse.
const RUNS_MAX: u64 = 64;
/// Reads that are under way at once at most, of all connections.
const READS_MAX: u64 = 64;
/// Farther ahead than this nobody needs to read: 64 MiB from a store that answers after 20 ms are
/// 3 GB/s.
const AHEAD_BYTES_MAX: u64 = 64 << 20;
const OPENER_BYTES: u64 = FRAME_BYTES_MAX as u64 + EXPANDER_BYTES as u64;

/// How the memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewMeans {
    /// Runs of frames that are fetched or wait to be opened, at most.
    pub runs: usize,
    /// Threads that open frames at once, at most.
    pub openers: usize,
    /// Reads under way at once, at most; the others wait.
    pub reads: usize,
    /// For opened frames that are kept.
    pub kept_bytes: usize,
}

impl ViewMeans {
    /// What so many cores can do with so many bytes, of which [`VIEW_MEMORY_MIN`] are taken at
    /// least.
    #[must_use]
    pub fn of(bytes: u64, cores: usize) -> Self {
        let bytes = bytes.max(VIEW_MEMORY_MIN);
        let runs = (bytes / 4 / BUFFER_BYTES_MAX).min(RUNS_MAX);
        let openers = (bytes / 8 / OPENER_BYTES).clamp(1, cores.max(1) as u64);
        let reads = (bytes / 4 / u64::from(FRAME_BYTES_MAX)).min(READS_MAX);
        let spent =
            runs * BUFFER_BYTES_MAX + openers * OPENER_BYTES + reads * u64::from(FRAME_BYTES_MAX);
        let count = |of: u64| usize::try_from(of).unwrap_or(usize::MAX);
        Self {
            runs: count(runs),
            openers: count(openers),
            reads: count(reads),
            kept_bytes: count(bytes - spent),
        }
    }

    /// The most bytes that are in memory at once, but for the map of the point and the reader's indexes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.fetched_bytes() + self.opened_bytes() + self.kept_bytes as u64
    }

    /// The part of it for what is fetched.
    #[must_use]
    pub const fn fetched_bytes(&self) -> u64 {
        self.runs as u64 * BUFFER_BYTES_MAX
    }

    /// The part of it for what is being opened and copied from.
    #[must_use]
    pub const fn opened_bytes(&self) -> u64 {
        self.openers as u64 * OPENER_BYTES + self.reads as u64 * FRAME_BYTES_MAX as u64
    }

    /// How far ahead of a reader is read at most: so little that all readers for whom that is done
    /// have room for it in half of what is kept.
    pub(super) fn ahead_bytes(&self) -> u64 {
        let share = self.kept_bytes as u64 / (2 * super::ahead::STREAMS as u64);
        share.min(AHEAD_BYTES_MAX)
    }

    /// How much of one read is loaded at once at most: so little that all reads have room for it in
    /// half of what is kept.
    pub(super) const fn begun_bytes(&self) -> u64 {
        self.kept_bytes as u64 / (2 * self.reads as u64)
    }
}

const _: () = {
    assert!(
        VIEW_MEMORY_MIN / 4 >= 2 * BUFFER_BYTES_MAX,
        "one run is read ahead, one is waited for"
    );
    assert!(VIEW_MEMORY_MIN / 8 >= OPENER_BYTES);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_least_is_what_its_comment_says() {
        let least = ViewMeans::of(VIEW_MEMORY_MIN, 64);
        assert_eq!((least.runs, least.reads, least.openers), (2, 3, 1));
        assert!((23..25).contains(&(least.kept_bytes >> 20)), "{least:?}");
    }

    proptest! {
        #[test]
        fn no_means_exceed_what_they_were_given(bytes in 0..8_u64 << 30, cores in 0..2048_usize) {
            let means = ViewMeans::of(bytes, cores);
            prop_assert!(means.bytes() <= bytes.max(VIEW_MEMORY_MIN));
            prop_assert!(means.kept_bytes as u64 >= means.bytes() / 4);
            prop_assert!(means.openers >= 1 && means.openers <= cores.max(1));
            prop_assert!(means.runs >= 2 && means.reads >= 2);
            prop_assert!(means.begun_bytes() > 0 && means.ahead_bytes() >= 1 << 20);
        }
    }
}
