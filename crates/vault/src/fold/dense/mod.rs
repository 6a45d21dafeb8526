//! Dense packs: what is alive in frames that are mostly dead, copied into new ones.
//! docs/formats/fold.md, "Dense packs".
//!
//! Owns choosing what is copied (`choose`), the bytes of the packs (`write`), and carrying it out (`copy`).
//! Doesn't own which records are alive: who makes a base knows (`fold::base`).
//!
//! Invariants: what is copied was read, opened, and had the checksum of its capture; what can't be read
//! is left where it is. A dense pack is stored before anything names it. Its name is drawn for it alone,
//! and so are its keys: whoever else folds at the same time seals nothing under them.
//!
//! Memory: some 90 bytes for each record that is alive, and for each that is copied; [`RUNS_AHEAD`] runs of frames; and
//! [`BATCH_BYTES`] three times: of records, of the pack that is open, and of one that is being stored.

mod choose;
mod copy;
mod write;

pub(super) use choose::{CopiedMost, Part, choose, is_sparse, parts};
pub(super) use copy::Copier;

use std::sync::Arc;

use tidegate_model::{BlockName, Checksum, Extent, FrameNumber, Lsn, Micros};

use crate::log::PackPlace;

/// Records that are held at once, and in the order of the disks when they are written.
const BATCH_BYTES: usize = 16 << 20;
/// Runs of frames that are fetched ahead.
const RUNS_AHEAD: usize = 4;

/// A kept record: the pack's place in a table, its frame, and which of the frame's kept records.
pub(super) type RecordKey = (u32, FrameNumber, u32);

/// A kept record that something of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alive {
    pub key: RecordKey,
    /// The first place on the disks that it is.
    pub extent: Extent,
    pub lsn: Lsn,
    pub time: Micros,
    pub checksum: Checksum,
    pub name: Option<BlockName>,
}

/// Where a record was copied to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NewPlace {
    place: Arc<PackPlace>,
    frame: FrameNumber,
    ordinal: u32,
}
