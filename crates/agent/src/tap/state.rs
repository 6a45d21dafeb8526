//! What a tap says of itself.

use tidegate_model::{BookmarkKind, DiskNumber, Lsn, Micros};

/// What is recorded of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each with its data and its place in the order.
    Data,
    /// Only which blocks: the journal takes nothing, or is being caught up with.
    Bitmap,
}

/// Where a gap in a disk's history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapStart {
    /// The last LSN up to which nothing is missing.
    pub after: Lsn,
    /// When something was missing first.
    pub time: Micros,
    /// Why: a kind with which a gap begins.
    pub kind: BookmarkKind,
}

/// How a tap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapState {
    /// What it records.
    pub mode: Mode,
    /// Bytes of the blocks that must be read again.
    pub dirty_bytes: u64,
    /// In bitmap mode, since when.
    pub since: Option<GapStart>,
}

/// A stretch of a disk's history of which only the end is known. No LSN after `start.after` and before
/// `end` is a recovery point of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The disk.
    pub disk: DiskNumber,
    /// Where it begins.
    pub start: GapStart,
    /// From this LSN on the history is whole again.
    pub end: Lsn,
    /// When that was.
    pub time: Micros,
}

/// How far a climb came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Climb {
    /// There was nothing to do.
    Data,
    /// So much is left: climb again.
    Further {
        /// Bytes of the blocks that must be read again.
        dirty_bytes: u64,
    },
    /// The journal took no more: climb when there is room.
    Full {
        /// Bytes of the blocks that must be read again.
        dirty_bytes: u64,
    },
    /// Data mode again.
    Done(Gap),
}

/// Ranges that were in flight when the process was killed, and were recorded anew. Between `after` and
/// `last` the journal doesn't say what the disk was at any moment: no LSN there, both excluded, is a
/// recovery point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reread {
    /// The last LSN before.
    pub after: Lsn,
    /// The last LSN of them.
    pub last: Lsn,
    /// How much it was.
    pub bytes: u64,
}

/// What a capture recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured {
    /// The LSN of its last record.
    pub last: Lsn,
    /// Bytes that weren't zeros.
    pub data_bytes: u64,
}
