//! What a pack's index says, as a reader gets it. docs/formats/pack.md, "Index".

use tidegate_model::{
    BlockName, Bookmark, Checksum, Disk, Epoch, Extent, FrameNumber, LogName, Lsn, Micros, Name,
    PackNumber, Piece,
};

use super::Codec;
use super::frame::FRAME_HEADER_BYTES;

/// A pack's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackIndex {
    /// Whether the log ends with this pack, as its writer meant it to.
    pub last: bool,
    /// The vault's block size when it was written.
    pub block_bytes: u32,
    /// The newest condemned list that the log had read; 0 for none.
    pub condemned_list: u64,
    /// How many packs at the log's beginning were known to be stored when this one closed.
    pub committed_packs: u64,
    /// When it closed, by its writer's clock.
    pub closed: Micros,
    /// The machines whose records are here.
    pub machines: Vec<MachineEntry>,
    /// The other logs to which references point.
    pub logs: Vec<LogName>,
    /// The frames, in order.
    pub frames: Vec<FrameEntry>,
    /// The records, in the order of the log.
    pub records: Vec<Record>,
    /// For each frame, its kept records: positions in `records`.
    pub(super) kept: Vec<u32>,
}

/// What a search for a log's or a machine's end needs of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackSummary {
    /// As [`PackIndex::last`].
    pub last: bool,
    /// As [`PackIndex::committed_packs`].
    pub committed_packs: u64,
    /// As [`PackIndex::machines`].
    pub machines: Vec<MachineEntry>,
}

/// A machine in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineEntry {
    /// Its name.
    pub name: Name,
    /// The epoch of its records here.
    pub epoch: Epoch,
    /// The first LSN that has a piece here.
    pub first_lsn: Lsn,
    /// The last LSN whose pieces are all in this log up to here; 0 when there is none.
    pub complete_lsn: Lsn,
    /// The time of its last record here.
    pub last_time: Micros,
}

/// A frame in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEntry {
    /// Its number in its log; numbers rise, and may leave some out (a unit of which nothing had to
    /// be kept).
    pub number: FrameNumber,
    /// Bytes of ciphertext and tag.
    pub sealed_bytes: u32,
    /// Bytes of content.
    pub plain_bytes: u32,
    /// How it was made smaller.
    pub codec: Codec,
    /// The frame's tag: binds these very bytes to the index.
    pub tag: [u8; 16],
    /// Where its header begins in the object.
    pub offset: u64,
    /// Its kept records: a range of [`PackIndex::kept`].
    pub(super) kept: (u32, u32),
}

impl FrameEntry {
    /// Bytes of the frame in the object, its header included.
    #[must_use]
    pub const fn object_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + self.sealed_bytes as u64
    }
}

/// A record, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its machine: a place in [`PackIndex::machines`].
    pub machine: u16,
    /// Its number.
    pub lsn: Lsn,
    /// Which piece of it this is.
    pub piece: Piece,
    /// When it happened, by its machine's clock.
    pub time: Micros,
    /// What it says.
    pub content: Content,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes kept in a frame of this pack.
    Kept {
        /// Where they belong.
        extent: Extent,
        /// Their checksum.
        checksum: Checksum,
        /// Their name, when they are a whole block.
        name: Option<BlockName>,
        /// The frame: its place in this pack.
        frame: u32,
        /// Where they begin in the frame's content.
        offset: u32,
    },
    /// Zeros.
    Zero(Extent),
    /// Bytes kept elsewhere.
    Reference {
        /// Where they belong.
        extent: Extent,
        /// Their checksum.
        checksum: Checksum,
        /// Their name.
        name: BlockName,
        /// Where they are kept.
        target: Target,
    },
    /// A disk is there, with this size, from here on.
    Disk(Disk),
    /// A bookmark.
    Bookmark(Bookmark),
    /// Nothing but time passed.
    Time,
}

impl Content {
    /// The place on a disk that it is about, if it is about one.
    #[must_use]
    pub const fn extent(&self) -> Option<Extent> {
        match self {
            Self::Kept { extent, .. } | Self::Reference { extent, .. } | Self::Zero(extent) => {
                Some(*extent)
            }
            Self::Disk(_) | Self::Bookmark(_) | Self::Time => None,
        }
    }
}

/// Where a reference points: always at a kept record, never at another reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// The log.
    pub log: TargetLog,
    /// The pack there.
    pub pack: PackNumber,
    /// The frame there, by its number in the log.
    pub frame: FrameNumber,
    /// Which of the frame's kept records, from 0.
    pub ordinal: u32,
}

/// The log of a reference's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetLog {
    /// The log of the pack that the reference is in.
    Own,
    /// Another: a place in [`PackIndex::logs`].
    Other(u16),
}

impl PackIndex {
    /// The place in this pack of the frame with this number.
    #[must_use]
    pub fn frame_place(&self, number: FrameNumber) -> Option<u32> {
        let place = self.frames.binary_search_by_key(&number, |entry| entry.number).ok()?;
        u32::try_from(place).ok()
    }

    /// The kept records of a frame of this pack, in the order of its content.
    pub fn kept_of(&self, frame: u32) -> impl ExactSizeIterator<Item = &Record> {
        let (begin, end) = self.frames.get(frame as usize).map_or((0, 0), |entry| entry.kept);
        self.kept[begin as usize..end as usize].iter().map(|at| &self.records[*at as usize])
    }

    /// The kept record with this ordinal in a frame of this pack.
    #[must_use]
    pub fn kept_at(&self, frame: u32, ordinal: u32) -> Option<&Record> {
        self.kept_of(frame).nth(ordinal as usize)
    }
}
