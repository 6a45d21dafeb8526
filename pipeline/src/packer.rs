//! The open pack of a log: units come home to it in order, and it closes as an object to put.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use tidegate_model::{FrameNumber, LogName, Lsn, Micros, PackId, PackNumber, Piece};
use tidegate_vault::pack::{
    Content, PackClose, PackHeader, PackWriter, RECORD_BYTES, RecordHead, Target, TargetLog,
};

use crate::buffers::{BufferPool, BufferWait, PackBuffer};
use crate::known::Known;
use crate::ledger::{Closed, Committed};
use crate::logs::{LogSlot, Logs};
use crate::stats::StreamTotals;
use crate::unit::{Outcome, OutcomeKind, Stream, UNIT_RECORDS_MAX, Unit};

/// A pack closes when it has so many records, whatever its frames: 16 MiB of frames of 4 KiB writes
/// have 7,000, and a pack of nothing but references then describes 512 MiB of disk. Indexes wait in
/// memory until they are stored, so they must stay small.
const RECORDS_CLOSE: u32 = 8 << 10;

/// A pack that is ready to put: `head`, then `frames`, as one object.
pub struct FullPack {
    /// Its log.
    pub log: LogName,
    /// Its header; its id and digest tell it from another of its number.
    pub header: PackHeader,
    /// Header and sealed index.
    pub head: Vec<u8>,
    /// The frames; `None` when there are none.
    pub frames: Option<FullPackBytes>,
}

impl FullPack {
    /// How long the object is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.head.len() + self.frames.as_ref().map_or(0, |frames| frames.filled)
    }
}

/// The frames of a pack; returns its buffer to the pool when it is dropped.
pub struct FullPackBytes {
    buffer: PackBuffer,
    filled: usize,
}

impl AsRef<[u8]> for FullPackBytes {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

/// Why a unit can't be packed yet; it comes back.
pub(crate) enum Wait {
    /// The open pack must close first.
    Close,
    /// No pack buffer is free.
    Buffer,
}

/// The open pack of a shard's log.
pub(crate) struct Packer {
    writer: PackWriter,
    slot: LogSlot,
    logs: Logs,
    pool: BufferPool,
    wait: BufferWait,
    buffer: Option<PackBuffer>,
    filled: usize,
    /// One past the number of the last unit that was packed.
    frames_end: FrameNumber,
    opened: Option<Micros>,
    /// When the first of its records had come whole.
    came: Option<Micros>,
    /// Whether there is anything that somebody waits for, or only time records.
    urgent: bool,
    /// By the stream's id.
    streams: BTreeMap<u64, Packed>,
}

/// What of one stream is in the open pack.
struct Packed {
    stream: Arc<Stream>,
    lsn: Option<Lsn>,
    totals: StreamTotals,
    records: usize,
}

impl Packer {
    pub(crate) fn new(writer: PackWriter, slot: LogSlot, logs: Logs, pool: BufferPool) -> Self {
        logs.place_pack(slot, writer.first_frame(), writer.number());
        Self {
            writer,
            slot,
            logs,
            wait: pool.wait(),
            pool,
            buffer: None,
            filled: 0,
            frames_end: FrameNumber(0),
            opened: None,
            came: None,
            urgent: false,
            streams: BTreeMap::new(),
        }
    }

    /// Ready when the open pack has a buffer. Only for a pack that [`Wait::Buffer`] was said of: a
    /// buffer that nothing goes into would be missed by the packs under way.
    pub(crate) fn poll_buffer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.buffer.is_none() {
            self.buffer = Some(std::task::ready!(self.wait.poll(context)));
        }
        Poll::Ready(())
    }

    /// The number of the open pack.
    pub(crate) const fn number(&self) -> PackNumber {
        self.writer.number()
    }

    /// When the open pack got its first unit.
    pub(crate) const fn opened(&self) -> Option<Micros> {
        self.opened
    }

    /// When the first of the open pack's records had come whole.
    pub(crate) const fn came(&self) -> Option<Micros> {
        self.came
    }

    /// Whether the open pack has more than time records.
    pub(crate) const fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether the open pack is as full as it should get: its frames have reached `bytes`, or its
    /// index has its records.
    pub(crate) fn is_full(&self, bytes: usize) -> bool {
        self.filled >= bytes || self.writer.record_count() >= RECORDS_CLOSE
    }

    /// Makes sure that the open pack has room for the unit.
    pub(crate) fn prepare(&mut self, unit: &Unit) -> Result<(), Wait> {
        let records = u32::try_from(unit.outcomes.len()).unwrap_or(u32::MAX);
        if !self.writer.has_room(records, records) {
            return Err(Wait::Close);
        }
        let Some(frame) = &unit.frame else { return Ok(()) };
        match &self.buffer {
            Some(buffer) if buffer.len() - self.filled < frame.bytes => Err(Wait::Close),
            Some(_) => Ok(()),
            None => {
                self.buffer = Some(self.pool.take().ok_or(Wait::Buffer)?);
                Ok(())
            }
        }
    }

    /// Packs a unit for which there is room. Its buffer is free afterwards.
    pub(crate) fn add(&mut self, unit: &mut Unit, now: Micros) {
        let place = unit.place.expect("only dispatched units come home");
        let frame = unit.frame.map(|frame| {
            let sealed = unit.buffer.as_ref().expect("a sealed frame lies in its unit's buffer");
            let buffer = self.buffer.as_mut().expect("prepare took one");
            buffer[self.filled..self.filled + frame.bytes].copy_from_slice(&sealed[..frame.bytes]);
            self.filled += frame.bytes;
            self.writer.frame(&frame.header, frame.tag)
        });
        unit.buffer = None;
        self.frames_end = place.frame.next();
        if unit.outcomes.is_empty() {
            // Spoiled from its first record on, or abandoned: the pack stays as it is.
            return;
        }
        self.opened.get_or_insert(now);
        // Units are packed in the order of their places; one may have been begun before another's.
        let came = unit.came.unwrap_or(now);
        self.came = Some(self.came.map_or(came, |first| first.min(came)));

        let machine = self.writer.machine(&unit.stream.machine, unit.stream.epoch);
        let mut complete = None;
        let mut outcomes = std::mem::take(&mut unit.outcomes);
        for outcome in outcomes.drain(..) {
            let Outcome { lsn, time, piece, kind } = outcome;
            self.urgent |= kind != OutcomeKind::Time;
            if Piece::is_last(piece) {
                complete = Some(lsn);
            }
            let content = self.content(kind, frame);
            self.writer.record(RecordHead { machine, lsn, piece, time }, content);
        }
        unit.outcomes = outcomes;
        self.count(unit, complete);
    }

    fn content(&mut self, kind: OutcomeKind, frame: Option<u32>) -> Content {
        match kind {
            OutcomeKind::Kept { extent, checksum, name, offset } => {
                let frame = frame.expect("kept bytes are in the unit's frame");
                Content::Kept { extent, checksum, name, frame, offset }
            }
            OutcomeKind::Known { extent, checksum, name, known, pack } => {
                Content::Reference { extent, checksum, name, target: self.target(known, pack) }
            }
            OutcomeKind::Zero(extent) => Content::Zero(extent),
            OutcomeKind::Disk(disk) => Content::Disk(disk),
            OutcomeKind::Bookmark(bookmark) => Content::Bookmark(bookmark),
            OutcomeKind::Time => Content::Time,
        }
    }

    /// Where a known block lies. In one's own log its pack is known by now: it is this one or one
    /// before it. In another's it was found with the block.
    fn target(&mut self, known: Known, pack: Option<PackNumber>) -> Target {
        let pack = pack.or_else(|| self.logs.pack_of(known.log, known.frame));
        let log = if known.log == self.slot {
            TargetLog::Own
        } else {
            let name = self.logs.name(known.log).expect("a log is known before its blocks are");
            TargetLog::Other(self.writer.other_log(&name))
        };
        Target {
            log,
            pack: pack.expect("a log's packs are known before its blocks are"),
            frame: known.frame,
            ordinal: known.ordinal,
        }
    }

    fn count(&mut self, unit: &Unit, complete: Option<Lsn>) {
        let packed = self.streams.entry(unit.stream.id).or_insert_with(|| Packed {
            stream: unit.stream.clone(),
            lsn: None,
            totals: StreamTotals::default(),
            records: 0,
        });
        packed.lsn = complete.or(packed.lsn);
        packed.totals.add(&unit.totals);
        packed.records += unit.entries.len();
    }

    /// Closes the open pack; `None` when nothing is in it and it needn't be.
    pub(crate) fn close(&mut self, close: &CloseRequest) -> Option<(FullPack, Closed)> {
        if self.writer.is_empty() && !close.even_empty {
            return None;
        }
        let number = self.writer.number();
        // Or a log without frames would leave its packs' first frame behind, without limit.
        self.writer.skip_to(self.frames_end);
        let closed = self.writer.close(&PackClose {
            id: close.id,
            last: close.last,
            condemned_list: close.condemned_list,
            committed_packs: close.committed_packs,
            closed: close.now,
            frame_bytes: self.filled as u64,
        });
        self.logs.place_pack(self.slot, self.writer.first_frame(), self.writer.number());
        let filled = std::mem::take(&mut self.filled);
        let frames = self.buffer.take().map(|buffer| FullPackBytes { buffer, filled });
        let ledger_entry = Closed {
            number,
            frames_end: self.frames_end,
            came: self.came.take().unwrap_or(close.now),
            streams: self.share_out(closed.head.len()),
        };
        (self.opened, self.urgent) = (None, false);
        let log = self.writer.log().clone();
        Some((FullPack { log, header: closed.header, head: closed.head, frames }, ledger_entry))
    }

    /// Each stream bears the part of the head that its records are of all.
    fn share_out(&mut self, head_bytes: usize) -> Vec<Committed> {
        let records: usize = self.streams.values().map(|packed| packed.records).sum();
        let share = |packed: Packed| {
            let mut totals = packed.totals;
            totals.stored_bytes += (head_bytes * packed.records / records.max(1)) as u64;
            Committed { stream: packed.stream, lsn: packed.lsn, totals }
        };
        std::mem::take(&mut self.streams).into_values().map(share).collect()
    }

    /// An upper bound of what a pack's index takes, once: the last unit may go beyond the mark.
    pub(crate) const fn index_bytes_max() -> usize {
        RECORD_BYTES * (RECORDS_CLOSE as usize + 4 * UNIT_RECORDS_MAX)
    }
}

/// What is decided when a pack closes, but for its frames.
pub(crate) struct CloseRequest {
    pub id: PackId,
    pub last: bool,
    /// Whether it is closed though nothing is in it.
    pub even_empty: bool,
    pub condemned_list: u64,
    pub committed_packs: u64,
    pub now: Micros,
}
