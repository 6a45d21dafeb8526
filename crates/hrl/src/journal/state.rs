//! What the journal knows: pure, so that its decisions can be replayed.
//!
//! Gives records their LSN and their place, gathers them to batches, counts bytes, and says which
//! segments can go. Bound: two batches in memory, the one being written and the one that gathers.

use std::collections::{BTreeMap, VecDeque};

use tidegate_model::limits::{DISKS_MAX, RECORD_BYTES_MAX, TEXT_BYTES_MAX};
use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, DiskNumber, Extent, Incarnation, Lsn, Micros,
};

use super::batch::{Batch, Closing, Written};
use super::error::{AppendError, JournalError};
use super::log_tail::{DATA_START, LogTail};
use super::{Change, JournalSettings};
use crate::format::UniqueId;
use crate::order::{
    HEADER_BYTES, Mark, OrderBody, OrderHeader, OrderRecord, RECORD_BYTES, SegmentEnding,
};

/// Bytes of a segment without records: the header of its order file, and the record at its end.
pub(super) const SEGMENT_COST: u64 = (HEADER_BYTES + RECORD_BYTES) as u64;
/// Bytes of the record that lets a segment be deleted.
const NOTE_COST: u64 = RECORD_BYTES as u64;
/// Bytes that no record may take: for whoever opens the journal next, who begins a segment, and for the
/// note without which nothing can be deleted. There is one at a time: the next is written when what it
/// was for is gone.
pub(super) const RESERVE: u64 = SEGMENT_COST + NOTE_COST;

/// What files take on a file system besides their bytes: their blocks' ends, folders, its own maps.
const ROOM_BYTES: u64 = 1 << 20;

/// A segment of which everything is written, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Its first LSN.
    pub first: Lsn,
    /// Its last; the one before `first` while it has no records.
    pub last: Lsn,
    /// Of all its files.
    pub bytes: u64,
    /// The disks of which it has a log.
    pub disks: Vec<DiskNumber>,
    /// Whether the record at its end is durable.
    pub closed: bool,
}

/// The end of the newest segment.
#[derive(Debug)]
struct Tail {
    mark: Mark,
    /// Bytes of the order file that were taken to be written.
    written: u64,
    order: Vec<u8>,
    logs: BTreeMap<DiskNumber, LogTail>,
    /// What is committed, as far as the order file says so.
    stated: Lsn,
}

/// Where the journal stands when it is opened.
#[derive(Debug)]
pub(super) struct Start {
    pub incarnation: Incarnation,
    pub boot: [u8; 16],
    pub segments: VecDeque<Segment>,
    pub next_segment: u64,
    pub last: Lsn,
    pub committed: Lsn,
    pub time: Micros,
    pub last_logs: [UniqueId; DISKS_MAX],
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this segment.
    In(u64),
    /// It is committed; go on with this one.
    GoOn(Lsn),
    /// It isn't durable yet.
    NotYet,
}

/// How full the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of its files, with what is about to be written.
    pub bytes: u64,
    /// What they may have.
    pub bytes_max: u64,
    /// The last LSN given.
    pub last: Lsn,
    /// The last durable one.
    pub durable: Lsn,
    /// The last that is known to be committed.
    pub committed: Lsn,
}

/// Whether records are taken whose LSNs are no moments of the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// As far as this life of the journal knows, they aren't.
    Closed,
    /// They will be: the next record says so.
    Owed { kind: BookmarkKind, time: Micros },
    /// A record says so, and no bookmark has ended it yet.
    Open,
}

/// The journal's state.
#[derive(Debug)]
pub struct State {
    settings: JournalSettings,
    incarnation: Incarnation,
    boot: [u8; 16],
    /// Oldest first; the last one is being written.
    segments: VecDeque<Segment>,
    tail: Tail,
    closing: Option<Closing>,
    /// Bytes of records that gather.
    pending_bytes: u64,
    bytes: u64,
    last: Lsn,
    durable: Lsn,
    committed: Lsn,
    /// The same, as far as a durable record says so: what is up to here may be missing.
    stated: Lsn,
    time: Micros,
    last_logs: [UniqueId; DISKS_MAX],
    gap: Gap,
    failed: bool,
    has_room: bool,
}

impl State {
    /// A journal that goes on from `start` in a new segment, whose header is the first batch.
    pub(super) fn new(settings: JournalSettings, start: Start) -> Self {
        let mark = Mark::of(start.incarnation, start.next_segment);
        let (order, logs, stated) = (Vec::new(), BTreeMap::new(), start.committed);
        let tail = Tail { mark, written: 0, order, logs, stated };
        let mut state = Self {
            settings,
            incarnation: start.incarnation,
            boot: start.boot,
            bytes: start.segments.iter().map(|segment| segment.bytes).sum(),
            segments: start.segments,
            tail,
            closing: None,
            pending_bytes: 0,
            last: start.last,
            durable: start.last,
            committed: start.committed,
            stated: start.committed,
            time: start.time,
            last_logs: start.last_logs,
            gap: Gap::Closed,
            failed: false,
            has_room: true,
        };
        state.begin_segment(start.next_segment);
        state
    }

    /// Takes a change, and gives it its LSN. A time that lies before the last record's is raised to it.
    /// Where a gap has begun, a record that says so comes before it.
    ///
    /// # Errors
    /// [`AppendError`]; the change isn't taken then.
    ///
    /// # Panics
    /// When a write is empty or longer than a record may be, or a text than a text: defects of the
    /// caller.
    pub fn append(&mut self, change: &Change<&[u8]>, time: Micros) -> Result<Lsn, AppendError> {
        if let Gap::Owed { kind, time } = self.gap {
            let begins = Bookmark { kind, clean: false, name: String::new() };
            self.append_one(&Change::Bookmark(begins), time)?;
            self.gap = Gap::Open;
        }
        let lsn = self.append_one(change, time)?;
        if let Change::Bookmark(bookmark) = change {
            self.gap = if bookmark.kind.begins_gap() { Gap::Open } else { Gap::Closed };
        }
        Ok(lsn)
    }

    /// From the next record on no LSN is a moment of the disks, until a bookmark is taken: a record of
    /// this kind comes before it, of the time when something was missing first. Within a gap that has
    /// begun nothing more is said.
    ///
    /// # Panics
    /// When no gap begins with a record of this kind.
    pub fn begin_gap(&mut self, kind: BookmarkKind, time: Micros) {
        assert!(kind.begins_gap(), "{kind:?} begins no gap");
        if self.gap == Gap::Closed {
            self.gap = Gap::Owed { kind, time };
        }
    }

    fn append_one(&mut self, change: &Change<&[u8]>, time: Micros) -> Result<Lsn, AppendError> {
        if self.failed {
            return Err(AppendError::Ended);
        }
        if !self.has_room {
            return Err(AppendError::NoRoom);
        }
        let begins = self.pending_bytes == 0 && self.newest_is_long();
        let cost = self.cost(change, begins);
        if self.bytes + cost + RESERVE > self.settings.bytes_max {
            let (bytes, bytes_max) = (self.bytes, self.settings.bytes_max);
            return Err(AppendError::Full { bytes, bytes_max });
        }
        if self.pending_bytes > 0 && self.pending_bytes + cost > self.settings.batch_bytes {
            return Err(AppendError::Behind { bytes: self.pending_bytes });
        }
        if begins {
            self.closing = Some(self.closing_of_newest(SegmentEnding::Continued));
            self.begin_segment(self.newest().number + 1);
        }
        self.time = self.time.max(time);
        self.last = self.last.next();
        let body = self.place(change);
        self.push(body, self.last);
        self.grow(cost - if begins { SEGMENT_COST } else { 0 });
        self.newest_mut().last = self.last;
        Ok(self.last)
    }

    /// What is to be written next; the one before must be [`State::written`]. `None` when there is
    /// nothing.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.state_committed();
        if self.tail.order.is_empty() || self.failed {
            return None;
        }
        let order = (self.tail.written, std::mem::take(&mut self.tail.order));
        self.tail.written += order.1.len() as u64;
        let logs = self.tail.logs.iter_mut();
        let logs = logs.filter_map(|(disk, log)| Some((*disk, log.take()?))).collect();
        self.pending_bytes = 0;
        let (segment, last, stated) = (self.newest().number, self.last, self.tail.stated);
        Some(Batch { segment, order, logs, last, stated, closes: self.closing.take() })
    }

    /// A batch is durable, and what it closes is closed.
    pub fn written(&mut self, batch: Written) {
        (self.durable, self.stated) = (batch.last, batch.stated);
        for segment in &mut self.segments {
            segment.closed |= segment.number < batch.segment;
        }
    }

    /// A write failed: nothing is taken any more.
    pub const fn fail(&mut self) {
        self.failed = true;
    }

    /// Says whether there is room for what was taken, beside that of all files: without it nothing
    /// more is taken.
    pub const fn set_room(&mut self, has_room: bool) {
        self.has_room = has_room;
    }

    /// Whether there was, when it was last said.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.has_room
    }

    /// The room that [`State::set_room`] is about: a batch that is being written and one that gathers,
    /// a segment's end, and what the file system adds.
    #[must_use]
    pub const fn room_bytes(&self) -> u64 {
        2 * self.settings.batch_bytes + ROOM_BYTES
    }

    /// Whether a write failed.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Everything up to `lsn` is committed. An older LSN than the last one changes nothing.
    ///
    /// # Errors
    /// [`JournalError::NeverSent`].
    pub fn committed(&mut self, lsn: Lsn) -> Result<(), JournalError> {
        if lsn > self.durable {
            return Err(JournalError::NeverSent { said: lsn, durable: self.durable });
        }
        self.committed = self.committed.max(lsn);
        Ok(())
    }

    /// The oldest segment, once it is closed and a durable record says that it is committed: to be
    /// removed, and then [`State::forget`]. Without that record it would be missed.
    #[must_use]
    pub fn removable(&self) -> Option<&Segment> {
        self.closed_up_to(self.stated)
    }

    /// The oldest segment, if it is closed and ends at or before `lsn`.
    fn closed_up_to(&self, lsn: Lsn) -> Option<&Segment> {
        let oldest = self.segments.front().filter(|_| self.segments.len() > 1)?;
        (oldest.closed && oldest.last <= lsn).then_some(oldest)
    }

    /// Says what is committed, where a segment could be deleted then.
    fn state_committed(&mut self) {
        let stated = self.tail.stated;
        let owed = self.closed_up_to(self.committed).is_some_and(|oldest| oldest.last > stated);
        if owed && !self.failed {
            self.tail.stated = self.committed;
            self.push(OrderBody::Committed(self.committed), self.last);
            self.bytes += NOTE_COST;
            self.newest_mut().bytes += NOTE_COST;
        }
    }

    /// A segment is gone.
    pub fn forget(&mut self, number: u64) {
        if let Some(index) = self.segments.iter().position(|segment| segment.number == number) {
            self.bytes -= self.segments.remove(index).map_or(0, |segment| segment.bytes);
        }
    }

    /// Where the record with this LSN is to be read.
    #[must_use]
    pub fn place_of(&self, lsn: Lsn) -> Place {
        if lsn <= self.committed {
            return Place::GoOn(self.committed.next());
        }
        if lsn > self.durable {
            return Place::NotYet;
        }
        let holds = |segment: &&Segment| segment.first <= lsn && lsn <= segment.last;
        self.segments.iter().find(holds).map_or(Place::NotYet, |segment| Place::In(segment.number))
    }

    /// How full it is.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        Usage {
            bytes: self.bytes,
            bytes_max: self.settings.bytes_max,
            last: self.last,
            durable: self.durable,
            committed: self.committed,
        }
    }

    /// What closes the journal, when everything is written.
    pub(super) fn close(&mut self) -> Closing {
        self.fail();
        self.closing_of_newest(SegmentEnding::Closed)
    }

    fn newest(&self) -> &Segment {
        self.segments.back().expect("there is always a segment that is being written")
    }

    fn newest_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always a segment that is being written")
    }

    fn newest_is_long(&self) -> bool {
        let newest = self.newest();
        newest.last >= newest.first && newest.bytes >= self.settings.segment_bytes
    }

    fn grow(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.pending_bytes += bytes;
        self.newest_mut().bytes += bytes;
    }

    /// Bytes by which the files grow.
    fn cost(&self, change: &Change<&[u8]>, begins: bool) -> u64 {
        let order = RECORD_BYTES as u64 + if begins { SEGMENT_COST } else { 0 };
        order
            + match change {
                Change::Write { disk, data, .. } => {
                    assert!((1..=RECORD_BYTES_MAX as usize).contains(&data.len()), "cut before");
                    let log = self.tail.logs.get(disk).filter(|_| !begins);
                    let new = || DATA_START + super::log_tail::BLOCK_BYTES + data.len() as u64;
                    log.map_or_else(new, |log| log.cost(data.len() as u64))
                }
                Change::Disk(disk) => text_cost(&disk.name),
                Change::Bookmark(bookmark) => text_cost(&bookmark.name),
                Change::Zero(_) | Change::Time => 0,
            }
    }

    /// What the order record says; a write's data get their place.
    fn place(&mut self, change: &Change<&[u8]>) -> OrderBody {
        match change {
            Change::Disk(disk) => OrderBody::Disk(disk.clone()),
            Change::Write { disk, offset, data } => {
                let (number, time) = (self.newest().number, self.time);
                let log = self.tail.logs.entry(*disk).or_insert_with(|| {
                    let id = UniqueId::of_log(self.incarnation, number, *disk);
                    let previous = std::mem::replace(&mut self.last_logs[disk.index()], id);
                    LogTail::new(id, previous, time)
                });
                let location = log.append(*offset, data, time);
                let length = data.len() as u64;
                let extent = Extent { disk: *disk, offset: *offset, length };
                let disks = &mut self.newest_mut().disks;
                if !disks.contains(disk) {
                    disks.push(*disk);
                }
                OrderBody::Write { extent, location, checksum: Checksum::of(data) }
            }
            Change::Zero(extent) => OrderBody::Zero(*extent),
            Change::Bookmark(bookmark) => OrderBody::Bookmark(bookmark.clone()),
            Change::Time => OrderBody::Time,
        }
    }

    fn push(&mut self, body: OrderBody, lsn: Lsn) {
        let record = OrderRecord { lsn, time: self.time, durable: self.durable, body };
        record.encode(self.tail.mark, &mut self.tail.order);
    }

    fn begin_segment(&mut self, number: u64) {
        let header = OrderHeader {
            incarnation: self.incarnation,
            segment: number,
            first: self.last.next(),
            committed: self.committed,
            time: self.time,
            boot: self.boot,
            last_logs: self.last_logs,
        };
        let (mark, order) = (header.mark(), header.encode());
        let (logs, stated) = (BTreeMap::new(), header.committed);
        self.tail = Tail { mark, written: 0, order, logs, stated };
        let (first, last, bytes) = (header.first, self.last, SEGMENT_COST);
        let disks = Vec::new();
        self.segments.push_back(Segment { number, first, last, bytes, disks, closed: false });
        self.bytes += bytes;
    }

    /// What closes the newest segment.
    fn closing_of_newest(&self, ending: SegmentEnding) -> Closing {
        let logs = self.tail.logs.iter().map(|(disk, log)| (*disk, log.closed_header())).collect();
        let at = self.tail.written;
        let record = OrderRecord {
            lsn: self.last,
            time: self.time,
            durable: self.durable,
            body: OrderBody::End { committed: self.committed, ending },
        };
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        record.encode(self.tail.mark, &mut bytes);
        Closing { segment: self.newest().number, logs, end: (at, bytes) }
    }
}

fn text_cost(text: &str) -> u64 {
    assert!(text.len() <= TEXT_BYTES_MAX, "texts are cut before they come here");
    text.len() as u64
}
