//! A unit: records of one stream, in order, and the bytes of the one frame that they may fill.
//!
//! The session builds it, any core works on it, its shard packs it. What it is made of is used
//! again ([`Blanks`]), so that in steady state nothing is allocated.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use tidegate_model::limits::{
    BLOCK_BYTES_MIN, FRAME_BYTES_DEFAULT, FRAME_BYTES_MAX, TEXT_BYTES_MAX,
};
use tidegate_model::{
    BlockName, Bookmark, Checksum, Disk, Epoch, Extent, FrameNumber, LogId, Lsn, Micros, Name,
    PackNumber, Piece,
};
use tidegate_vault::pack::FrameHeader;

use crate::buffers::Buffer;
use crate::known::Known;
use crate::logs::LogSlot;
use crate::stats::StreamTotals;

/// Most records in a unit: writes of 4 KiB fill a buffer of 256 KiB with 64, and what describes them
/// must not outweigh it.
pub(crate) const UNIT_RECORDS_MAX: usize = 96;
/// Most records with a text (disks, bookmarks) in a unit: texts are memory too. `PackWriter::has_room`
/// keeps room for 256.
const UNIT_TEXTS_MAX: usize = 4;
/// Most blocks that a unit's buffer touches: all that fit a default frame, of the smallest size.
const UNIT_BLOCKS_MAX: usize = FRAME_BYTES_DEFAULT as usize / BLOCK_BYTES_MIN as usize;

/// The longest frame in a vault with blocks of so many bytes: a unit's records must not outweigh
/// their place in the memory plan, so it has at most as many blocks as a default frame of the
/// smallest ones. With blocks of 64 KiB that is what the format allows, 4 MiB.
#[must_use]
pub fn frame_bytes_max(block_bytes: u32) -> usize {
    (UNIT_BLOCKS_MAX * block_bytes as usize).min(FRAME_BYTES_MAX as usize)
}

/// Most memory that the records of one unit take, beside its buffer: as they came, cut into pieces
/// (each record into one more than the block borders in it), and their texts.
pub(crate) const UNIT_RECORD_BYTES_MAX: usize = UNIT_RECORDS_MAX * size_of::<Entry>()
    + (2 * UNIT_RECORDS_MAX + UNIT_BLOCKS_MAX) * size_of::<Outcome>()
    + 2 * UNIT_TEXTS_MAX * TEXT_BYTES_MAX;
/// What stands in for the piece of a record that isn't packed: it never becomes complete.
const UNFINISHED: Piece = Piece { number: 0, count: 2 };

/// The longest frames that suit a level: fast levels look back no further than a default frame, and
/// above 9 a long one would keep its core from everything else for a tenth of a second.
#[must_use]
pub const fn frame_bytes_for(level: i32) -> usize {
    match level {
        ..3 => FRAME_BYTES_DEFAULT as usize,
        3..=9 => FRAME_BYTES_MAX as usize,
        _ => FRAME_BYTES_MAX as usize / 4,
    }
}

/// Whose records a unit holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream {
    /// The machine.
    pub machine: Name,
    /// Its epoch.
    pub epoch: Epoch,
    /// Tells this session's stream from every other of its shard.
    pub id: u64,
    /// What the vault had of the epoch when the session began: the next is the stream's first.
    pub committed: Lsn,
}

/// Why a stream must end: nothing of it counts from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes of this record aren't those that the agent sent.
    Spoiled(Lsn),
    /// A record came where another was next: something was lost within the program.
    Gap {
        /// What was next.
        expected: Lsn,
        /// What came.
        found: Lsn,
    },
}

/// One record as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub lsn: Lsn,
    /// When it happened.
    pub time: Micros,
    /// What it says.
    pub kind: EntryKind,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// Bytes, which lie in the unit's buffer from `at`.
    Write {
        /// Where they belong.
        extent: Extent,
        /// Where they begin in the unit's buffer.
        at: usize,
        /// Their checksum, as the agent computed it.
        checksum: Checksum,
    },
    /// Zeros.
    Zero(Extent),
    /// A disk is there.
    Disk(Disk),
    /// A bookmark.
    Bookmark(Bookmark),
    /// Time passed.
    Time,
}

/// A piece of a record, once the unit has been worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub lsn: Lsn,
    pub time: Micros,
    pub piece: Piece,
    pub kind: OutcomeKind,
}

/// What became of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutcomeKind {
    Kept {
        extent: Extent,
        checksum: Checksum,
        name: Option<BlockName>,
        offset: u32,
    },
    Known {
        extent: Extent,
        checksum: Checksum,
        name: BlockName,
        known: Known,
        /// The pack that the block is in, where that is another log's.
        pack: Option<PackNumber>,
    },
    Zero(Extent),
    Disk(Disk),
    Bookmark(Bookmark),
    Time,
}

/// The place in its log that a unit gets at dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The shard that packs it.
    pub shard: u16,
    pub log: LogId,
    pub slot: LogSlot,
    /// The frame that its kept bytes become.
    pub frame: FrameNumber,
}

/// A frame, sealed, as it lies at the beginning of the unit's buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SealedFrame {
    pub header: FrameHeader,
    pub tag: [u8; 16],
    /// Header, ciphertext and tag.
    pub bytes: usize,
}

/// Records of one stream on their way.
pub struct Unit {
    pub(crate) stream: Arc<Stream>,
    pub(crate) entries: Vec<Entry>,
    /// When its first record had come whole; `None` while it has none.
    pub(crate) came: Option<Micros>,
    pub(crate) buffer: Option<Buffer>,
    /// Bytes of payload that go into the buffer.
    room: usize,
    pub(crate) filled: usize,
    /// How many of the entries have a text.
    texts: usize,
    /// Close the pack as soon as this unit is in it.
    pub(crate) flush: bool,
    pub(crate) place: Option<Place>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) frame: Option<SealedFrame>,
    pub(crate) totals: StreamTotals,
    pub(crate) fault: Option<Fault>,
}

impl Unit {
    /// The shard whose log the unit belongs to, once it has been dispatched.
    #[must_use]
    pub fn home(&self) -> Option<u16> {
        self.place.map(|place| place.shard)
    }

    /// Bytes of payload in it.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.filled
    }

    /// Its stream has ended with an earlier record, so that none of these may count. Bytes that
    /// were kept stay what they are, for others may refer to them: as pieces without an end.
    pub(crate) fn abandon(&mut self) {
        self.outcomes.retain(|outcome| matches!(outcome.kind, OutcomeKind::Kept { .. }));
        self.outcomes.iter_mut().for_each(|outcome| outcome.piece = UNFINISHED);
        let stored_bytes = self.totals.stored_bytes;
        self.totals = StreamTotals { stored_bytes, ..StreamTotals::default() };
    }
}

/// What units that were packed leave for new ones: lists that have grown to their size.
#[derive(Clone)]
pub struct Blanks(Arc<ArrayQueue<Blank>>);

struct Blank {
    entries: Vec<Entry>,
    outcomes: Vec<Outcome>,
}

impl Blanks {
    /// Keeps at most `count` of them: as many as units can be under way.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(Arc::new(ArrayQueue::new(count.max(1))))
    }

    fn take(&self) -> Blank {
        self.0.pop().unwrap_or_else(|| Blank {
            entries: Vec::with_capacity(8),
            outcomes: Vec::with_capacity(8),
        })
    }

    /// Takes back what a unit was made of.
    pub(crate) fn give_back(&self, unit: &mut Unit) {
        let mut entries = std::mem::take(&mut unit.entries);
        let mut outcomes = std::mem::take(&mut unit.outcomes);
        entries.clear();
        outcomes.clear();
        // One too many is simply dropped.
        let _ = self.0.push(Blank { entries, outcomes });
    }
}

/// Gathers the records of one stream into units.
pub struct UnitBuilder {
    stream: Arc<Stream>,
    unit: Option<Unit>,
    record_bytes_max: usize,
    /// Units take no more payload than this, however large their buffer is.
    frame_bytes: usize,
    blanks: Blanks,
}

impl UnitBuilder {
    /// A builder for one stream whose records have at most `record_bytes_max` bytes.
    #[must_use]
    pub const fn new(stream: Arc<Stream>, record_bytes_max: usize, blanks: Blanks) -> Self {
        let frame_bytes = FRAME_BYTES_MAX as usize;
        Self { stream, unit: None, record_bytes_max, frame_bytes, blanks }
    }

    /// The stream.
    #[must_use]
    pub const fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Units whose buffer is given from now on take at most so many bytes of payload, or one record.
    pub fn limit_frames(&mut self, bytes: usize) {
        self.frame_bytes = bytes.max(self.record_bytes_max);
    }

    /// Whether a record with so many bytes needs a buffer first: [`Self::give_buffer`].
    #[must_use]
    pub fn needs_buffer(&self, bytes: usize) -> bool {
        bytes > 0 && self.unit.as_ref().is_none_or(|unit| unit.buffer.is_none())
    }

    /// Whether the unit must be closed before a record with so many bytes: [`Self::close`].
    #[must_use]
    pub fn must_close(&self, bytes: usize) -> bool {
        self.unit.as_ref().is_some_and(|unit| {
            let room = if unit.buffer.is_some() { unit.room - unit.filled } else { usize::MAX };
            let is_full = unit.entries.len() == UNIT_RECORDS_MAX || unit.texts == UNIT_TEXTS_MAX;
            is_full || bytes > room
        })
    }

    /// Whether no further record of the largest size fits: close it now rather than later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.must_close(self.record_bytes_max)
    }

    /// Whether there is nothing to close.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unit.as_ref().is_none_or(|unit| unit.entries.is_empty())
    }

    /// The buffer into which the next writes go.
    pub fn give_buffer(&mut self, buffer: Buffer) {
        let frame_bytes = self.frame_bytes;
        let unit = self.open();
        debug_assert!(unit.buffer.is_none(), "a unit has one buffer");
        unit.room = payload_room(&buffer).min(frame_bytes);
        unit.buffer = Some(buffer);
    }

    /// Where the next bytes of the record being received go: `received` of them are there already.
    ///
    /// # Panics
    /// If there is no buffer or no room: the caller asked [`Self::must_close`] and
    /// [`Self::needs_buffer`] with the record's length.
    pub fn space(&mut self, received: usize, bytes: usize) -> &mut [u8] {
        let unit = self.unit.as_mut().expect("give_buffer opened a unit");
        let buffer = unit.buffer.as_mut().expect("give_buffer gave it one");
        let begin = unit.filled + received;
        assert!(begin + bytes <= unit.room, "must_close was asked first");
        &mut buffer[begin..begin + bytes]
    }

    /// Adds a write whose bytes have all been put into [`Self::space`]. The clock is asked when it is
    /// the unit's first record: the age of its pack counts from there.
    pub fn add_write(
        &mut self,
        lsn: Lsn,
        time: Micros,
        extent: Extent,
        checksum: Checksum,
        clock: impl FnOnce() -> Micros,
    ) {
        let unit = self.open();
        unit.came.get_or_insert_with(clock);
        let kind = EntryKind::Write { extent, at: unit.filled, checksum };
        unit.filled += usize::try_from(extent.length).expect("a write fits its buffer");
        unit.entries.push(Entry { lsn, time, kind });
    }

    /// Adds a record without bytes; the clock is asked as in [`Self::add_write`].
    pub fn add(&mut self, entry: Entry, clock: impl FnOnce() -> Micros) {
        let unit = self.open();
        unit.came.get_or_insert_with(clock);
        unit.texts +=
            usize::from(matches!(entry.kind, EntryKind::Disk(_) | EntryKind::Bookmark(_)));
        unit.entries.push(entry);
    }

    /// The unit so far, to be dispatched; `None` when it has no record. With `flush`, its pack
    /// closes behind it. An unused buffer goes back to its pool.
    pub fn close(&mut self, flush: bool) -> Option<Unit> {
        let mut unit = self.unit.take()?;
        unit.flush = flush;
        (!unit.entries.is_empty()).then_some(unit)
    }

    fn open(&mut self) -> &mut Unit {
        self.unit.get_or_insert_with(|| {
            let Blank { entries, outcomes } = self.blanks.take();
            Unit {
                stream: self.stream.clone(),
                entries,
                came: None,
                buffer: None,
                room: 0,
                filled: 0,
                texts: 0,
                flush: false,
                place: None,
                outcomes,
                frame: None,
                totals: StreamTotals::default(),
                fault: None,
            }
        })
    }
}

/// Bytes of payload that a unit's buffer takes: the rest is for the frame's header and tag, since
/// the sealed frame ends up in a buffer of the same size.
pub(crate) fn payload_room(buffer: &[u8]) -> usize {
    buffer.len() - BUFFER_OVERHEAD_BYTES
}

/// What a unit's buffer must have beyond its payload.
pub(crate) const BUFFER_OVERHEAD_BYTES: usize = tidegate_vault::pack::FRAME_OVERHEAD_BYTES;
