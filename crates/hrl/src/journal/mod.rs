//! The journal: what was captured, until the vault has it.
//!
//! ```text
//! append ─▶ State (pure: LSN, place, room) ─▶ Batch ─▶ Writer ─▶ storage     durable
//! commit ─▶                                 ◀─ removals                      deleted
//!           Reader ◀──────────────────────────────────── storage             sent
//! ```
//!
//! - A **segment** is one order file and, for each disk that was written to, one .hrl file. A batch lies
//!   in one segment. A segment that is long enough is closed, and deleted when all of it is committed.
//! - An LSN is **durable** when its batch is on the disk. Only then it is given out by a [`Reader`], so
//!   what was sent can be sent again. One batch at a time is being written, and the next gathers.
//! - A segment is closed by a record at its end, and only after the next one is durable, or when the
//!   journal is closed. So the newest segment tells how the journal ended, and a crash at any moment
//!   loses nothing that was durable ([`recover`]).
//! - Before a segment is deleted a durable record says that it is committed. So nothing is ever missing
//!   without being missed.
//! - The journal has a bound in bytes, the files' own headers included. What doesn't fit is refused
//!   ([`AppendError::Full`]), never dropped.
//!
//! Nothing here waits or asks a clock: [`Storage`](crate::storage::Storage) is the edge, and
//! [`crate::Journal`] the shell with a thread.

mod batch;
mod error;
mod inspect;
mod log_tail;
mod names;
mod reader;
mod recover;
mod repair;
mod state;
mod walk;
mod writer;

use tidegate_model::{Bookmark, Checksum, Disk, DiskNumber, Extent, Incarnation, Lsn, Micros};

use crate::limits::{BATCH_BYTES_DEFAULT, RECORD_COST_MAX, SEGMENT_BYTES_DEFAULT};
pub use batch::{Batch, Written};
pub use error::{AppendError, JournalError};
pub use names::{FileKind, FileName};
pub use reader::Reader;
pub use state::{Place, Segment, State, Usage};
pub use writer::{Writer, discard, open};

/// What was captured. `D` is how its data are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<D> {
    /// The machine has this disk, with this size, from here on.
    Disk(Disk),
    /// Data was written.
    Write {
        /// The disk.
        disk: DiskNumber,
        /// Where on it.
        offset: u64,
        /// What: 1 byte to [`RECORD_BYTES_MAX`](tidegate_model::limits::RECORD_BYTES_MAX).
        data: D,
    },
    /// The range reads as zeros from here on: zeros were written, or it was trimmed and reads so.
    Zero(Extent),
    /// A named place.
    Bookmark(Bookmark),
    /// Nothing was written up to now.
    Time,
}

/// A change with its place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the machine's history.
    pub lsn: Lsn,
    /// When it happened. Never before the record before it.
    pub time: Micros,
    /// What happened.
    pub change: Change<Vec<u8>>,
    /// XXH3 of a write's data, as it was captured; of nothing for the others.
    pub checksum: Checksum,
}

/// How large a journal may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSettings {
    /// Most bytes of all its files together.
    pub bytes_max: u64,
    /// Bytes of a segment from which the next batch begins another.
    pub segment_bytes: u64,
    /// Bytes of a batch that close it to more records.
    pub batch_bytes: u64,
}

impl JournalSettings {
    /// Least bytes of a journal: room for two segments, so that it goes on while one is deleted.
    pub const BYTES_MIN: u64 = 16 * RECORD_COST_MAX;

    /// What suits a journal of `bytes_max` bytes.
    ///
    /// # Errors
    /// [`JournalError::TooSmall`].
    pub fn of(bytes_max: u64) -> Result<Self, JournalError> {
        let segment_bytes = SEGMENT_BYTES_DEFAULT.min(bytes_max / 4);
        let batch_bytes = BATCH_BYTES_DEFAULT.min(segment_bytes / 2);
        let settings = Self { bytes_max, segment_bytes, batch_bytes };
        if bytes_max < Self::BYTES_MIN || !settings.goes_on() {
            return Err(JournalError::TooSmall { bytes_max, bytes_min: Self::BYTES_MIN });
        }
        Ok(settings)
    }

    /// Whether a journal of which everything is committed takes any record: besides it there can be
    /// the newest segment, as long as it may become.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        self.batch_bytes >= RECORD_COST_MAX
            && self.bytes_max
                >= self.segment_bytes + self.batch_bytes + RECORD_COST_MAX + state::RESERVE
    }
}

/// Whose journal it is, and where it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// The incarnation of a journal that is made; one that is there keeps its own.
    pub incarnation: Incarnation,
    /// What tells one start of the host from another: while it stays the same, no crash of the host
    /// took away what was written but not yet durable.
    pub boot: [u8; 16],
}

/// How the journal was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// There was none.
    New,
    /// It was closed: everything that was appended is there.
    Clean,
    /// It wasn't closed. It was recovered up to its last whole record; what was appended after that is
    /// missing, and it was never durable, so never sent. The caller reads the ranges again that it knows
    /// to have been in flight, or all of the disks (resync, under a new incarnation).
    Unclean {
        /// The host has been up ever since: only the process ended. Where it hasn't, that is found again
        /// each time, until the journal is closed or discarded.
        same_boot: bool,
    },
}

/// A journal as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Whose journal it is.
    pub incarnation: Incarnation,
    /// How it was left.
    pub ending: Ending,
    /// The last LSN that is there; the next record gets the one after it.
    pub recovered_to: Lsn,
    /// Up to here it is known to be committed; what follows is there to be read.
    pub committed: Lsn,
    /// The time of the last record.
    pub time: Micros,
}
