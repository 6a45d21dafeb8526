//! What the pipeline counts: nanoseconds a stage, bytes by what became of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A stage of the work on a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Comparing each record with the checksum that the agent computed.
    Checksum,
    /// Looking for zeros.
    ZeroTest,
    /// BLAKE3 and the keyed name.
    Hash,
    /// Looking the name up.
    LookUp,
    /// zstd.
    Compress,
    /// AES-256-GCM.
    Seal,
}

impl Stage {
    /// All, in the order in which a unit passes them.
    pub const ALL: [Self; 6] =
        [Self::Checksum, Self::ZeroTest, Self::Hash, Self::LookUp, Self::Compress, Self::Seal];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checksum => "checksum",
            Self::ZeroTest => "zero test",
            Self::Hash => "hash",
            Self::LookUp => "look up",
            Self::Compress => "compress",
            Self::Seal => "seal",
        }
    }
}

/// Time and bytes of every stage, added up over all cores since the start.
#[derive(Debug, Default)]
pub struct StageTimes {
    stages: [Cell; Stage::ALL.len()],
}

#[derive(Debug, Default)]
struct Cell {
    nanos: AtomicU64,
    bytes: AtomicU64,
}

impl StageTimes {
    /// Nanoseconds that all cores together spent in the stage, and bytes that passed it.
    #[must_use]
    pub fn get(&self, stage: Stage) -> (u64, u64) {
        let cell = &self.stages[stage as usize];
        (cell.nanos.load(Ordering::Relaxed), cell.bytes.load(Ordering::Relaxed))
    }

    fn add(&self, stage: Stage, nanos: u64, bytes: u64) {
        let cell = &self.stages[stage as usize];
        cell.nanos.fetch_add(nanos, Ordering::Relaxed);
        cell.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Times one unit's way through the stages, and adds it to [`StageTimes`] at the end.
pub(crate) struct UnitClock {
    last: Instant,
    nanos: [u64; Stage::ALL.len()],
    bytes: [u64; Stage::ALL.len()],
}

impl UnitClock {
    pub(crate) fn start() -> Self {
        Self { last: Instant::now(), nanos: Default::default(), bytes: Default::default() }
    }

    /// What has passed since the last lap belongs to `stage`.
    pub(crate) fn lap(&mut self, stage: Stage, bytes: usize) {
        let now = Instant::now();
        let nanos = now.duration_since(self.last).as_nanos();
        self.nanos[stage as usize] += u64::try_from(nanos).unwrap_or(u64::MAX);
        self.bytes[stage as usize] += bytes as u64;
        self.last = now;
    }

    pub(crate) fn finish(self, times: &StageTimes) {
        for stage in Stage::ALL {
            times.add(stage, self.nanos[stage as usize], self.bytes[stage as usize]);
        }
    }
}

/// What became of the bytes of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamTotals {
    /// Zeros: nothing is stored for them.
    pub zero_bytes: u64,
    /// Bytes that were known already: a reference is stored.
    pub deduplicated_bytes: u64,
    /// Bytes kept, before compression.
    pub kept_bytes: u64,
    /// Bytes in the store: sealed frames, and the stream's share of headers and indexes.
    pub stored_bytes: u64,
}

impl StreamTotals {
    /// Adds another's bytes to these.
    pub fn add(&mut self, other: &Self) {
        self.zero_bytes += other.zero_bytes;
        self.deduplicated_bytes += other.deduplicated_bytes;
        self.kept_bytes += other.kept_bytes;
        self.stored_bytes += other.stored_bytes;
    }
}
