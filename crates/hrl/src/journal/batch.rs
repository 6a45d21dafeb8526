//! What is to be written in one go: the decision, without the doing.

use tidegate_model::{DiskNumber, Lsn};

/// Bytes for one place of one file.
pub(super) type Part = (u64, Vec<u8>);

/// What one batch writes. Everything in it is durable together, or counts as not written.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The segment that it belongs to.
    pub(super) segment: u64,
    /// To the order file; at 0 where the file is to be made.
    pub(super) order: Part,
    /// To the disks' logs; at 0 where the file is to be made.
    pub(super) logs: Vec<(DiskNumber, Part)>,
    /// The last LSN that it makes durable.
    pub(super) last: Lsn,
    /// What it states to be committed.
    pub(super) stated: Lsn,
    /// The segment before, to be closed once this batch is durable.
    pub(super) closes: Option<Closing>,
}

/// What is written to close a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closing {
    /// The segment.
    pub(super) segment: u64,
    /// The headers of its logs, which come first.
    pub(super) logs: Vec<(DiskNumber, Vec<u8>)>,
    /// The record at its end.
    pub(super) end: Part,
}

impl Batch {
    /// What to tell [`State`](super::State) when it is durable.
    #[must_use]
    pub const fn written(&self) -> Written {
        Written { segment: self.segment, last: self.last, stated: self.stated }
    }
}

/// A batch that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub(super) segment: u64,
    pub(super) last: Lsn,
    pub(super) stated: Lsn,
}
