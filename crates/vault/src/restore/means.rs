//! What a restore may take: threads, and bytes on their way. Pure.
//!
//! ```text
//! bytes = runs × BUFFER_BYTES_MAX                                   fetched, sealed
//!       + threads × (buffers × FRAME_BYTES_MAX + EXPANDER_BYTES)    opened, on their way to the sink
//! ```
//!
//! Both factors are what a vault may hold at most; frames as they are written by default are a
//! sixteenth of that, and take as much less.

use tidegate_model::limits::FRAME_BYTES_MAX;

use crate::log::frames::BUFFER_BYTES_MAX;
use crate::pack::EXPANDER_BYTES;

/// Memory for what is on its way unless the caller says otherwise: at two cores 47 runs, with which
/// a store that answers after 100 ms gives 1.9 GB/s.
pub const MEMORY_DEFAULT: u64 = 256 << 20;
/// Least memory with which a restore goes on while it reads and writes: one thread with two buffers,
/// and three runs.
pub const MEMORY_MIN: u64 = 32 << 20;

/// Runs that are fetched at once at most: more requests at a time a store would refuse.
const RUNS_MAX: u64 = 64;
/// A thread fills one buffer while another is written.
const BUFFERS_MIN: u64 = 2;
/// More than what a disk works on at once wouldn't be written sooner.
const BUFFERS_MAX: u64 = 8;

/// Threads and memory of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// Threads that open frames and write.
    pub threads: usize,
    /// Buffers of each thread.
    pub buffers: usize,
    /// Runs of frames that are fetched or wait for a thread, at most.
    pub runs: usize,
}

impl Means {
    /// What so many cores can do with so many bytes, of which [`MEMORY_MIN`] are taken at least.
    #[must_use]
    pub fn of(bytes: u64, cores: usize) -> Self {
        let bytes = bytes.max(MEMORY_MIN);
        let opened = bytes / 2;
        let threads = (opened / thread_bytes(BUFFERS_MIN)).clamp(1, cores.max(1) as u64);
        let of_thread = (opened / threads).saturating_sub(EXPANDER_BYTES as u64);
        let buffers = (of_thread / u64::from(FRAME_BYTES_MAX)).clamp(BUFFERS_MIN, BUFFERS_MAX);
        let left = bytes.saturating_sub(threads * thread_bytes(buffers));
        let runs = (left / BUFFER_BYTES_MAX).clamp(1, RUNS_MAX);
        let count = |of: u64| usize::try_from(of).unwrap_or(1);
        Self { threads: count(threads), buffers: count(buffers), runs: count(runs) }
    }

    /// The most bytes that are in memory at once on their way from the store to the sink.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.runs as u64 * BUFFER_BYTES_MAX
            + self.threads as u64 * thread_bytes(self.buffers as u64)
    }

    /// Runs that are fetched before it is known that the store is slower than the threads: two for
    /// each, which it works on and works on next, and two on their way.
    #[must_use]
    pub fn runs_at_first(&self) -> usize {
        (2 * self.threads + 2).min(self.runs)
    }
}

impl Default for Means {
    fn default() -> Self {
        Self::of(MEMORY_DEFAULT, std::thread::available_parallelism().map_or(1, |n| n.get()))
    }
}

const fn thread_bytes(buffers: u64) -> u64 {
    buffers * FRAME_BYTES_MAX as u64 + EXPANDER_BYTES as u64
}

const _: () = {
    assert!(thread_bytes(BUFFERS_MIN) <= MEMORY_MIN / 2);
    assert!(3 * BUFFER_BYTES_MAX + thread_bytes(BUFFERS_MIN) <= MEMORY_MIN);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_is_what_its_comment_says() {
        assert_eq!(Means::of(MEMORY_DEFAULT, 2), Means { threads: 2, buffers: 8, runs: 47 });
        assert_eq!(Means::of(MEMORY_MIN, 64), Means { threads: 1, buffers: 3, runs: 4 });
    }

    proptest! {
        #[test]
        fn no_means_exceed_what_they_were_given(bytes in 0..8_u64 << 30, cores in 0..2048_usize) {
            let means = Means::of(bytes, cores);
            prop_assert!(means.bytes() <= bytes.max(MEMORY_MIN));
            prop_assert!(means.threads >= 1 && means.threads <= cores.max(1));
            prop_assert!(means.buffers >= 2 && means.runs_at_first() >= 2);
        }
    }
}
