//! How a change gets from the disk into the journal, and what becomes of it when the journal takes
//! nothing.
//!
//! Every change of the disk is noted *before* it is made: in a slot of the marks where it will be
//! recorded, or as dirty blocks where it won't. The note goes only when the record is durable, or when
//! another note has taken its place. So whenever the process is killed the notes cover what the
//! journal lacks.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use tidegate_hrl::journal::{AppendError, Change};
use tidegate_hrl::storage::Storage;
use tidegate_model::{BookmarkKind, Extent, Lsn};
use tidegate_nbd::Errno;
use tidegate_nbd::serve::Failure;
use tracing::warn;

use super::backing::{Applied, Backing};
use super::state::GapStart;
use super::{CAPTURE_BYTES_MAX, CaptureError, Captured, Tap, hook};
use crate::pieces::{Piece, pieces};

/// Longest range that is read again at once, when changing it failed, by the client's thread. Longer
/// ones, which only zeros and trims have, are left to a climb.
const FAILED_BYTES_MAX: u64 = 32 << 20;

/// Where a change was noted before it was made.
#[derive(Debug, Clone, Copy)]
enum Noted {
    Slot(usize),
    Dirty,
}

/// What a range holds after a change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    Data(&'a [u8]),
    Zeros,
}

impl<S: Storage> Tap<S> {
    /// Makes a change, and records it.
    pub(super) fn change(
        &self,
        range: &Range<u64>,
        content: Content<'_>,
        apply: impl FnOnce(&Backing) -> io::Result<Applied>,
    ) -> Result<(), Failure> {
        let _held = self.ranges.lock(range.clone());
        if self.closed.load(Ordering::Acquire) {
            return Err(Failure::new(Errno::ShuttingDown, "the disk is not served any more"));
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
        let noted = self.note(range);
        let applied = apply(&self.backing);
        hook::applied();
        if let Noted::Slot(slot) = noted {
            let is_long = range.end - range.start > FAILED_BYTES_MAX;
            match &applied {
                Ok(Applied::Unchanged) => self.slots.free(&self.marks, slot),
                Ok(Applied::Changed) => self.settle(slot, range, self.append(range, content)),
                // It may have been made in part: what is recorded is what is there.
                Err(_) if !is_long => self.settle(slot, range, self.append_as_found(range)),
                Err(error) => {
                    self.fall(range, BookmarkKind::GapDiskError, error);
                    self.slots.free(&self.marks, slot);
                }
            }
        }
        applied.map(|_| ()).map_err(|error| {
            let (path, offset) = (self.backing.path().display(), range.start);
            warn!("{path}: changing it at offset {offset} failed: {error}");
            Failure::from(error)
        })
    }

    fn note(&self, range: &Range<u64>) -> Noted {
        if !self.recording.load(Ordering::Acquire) && self.soil_if_fallen(range) {
            return Noted::Dirty;
        }
        match self.mark(range) {
            Some(slot) => Noted::Slot(slot),
            None => {
                self.fall(range, BookmarkKind::GapJournalFull, &AppendError::Ended);
                Noted::Dirty
            }
        }
    }

    /// Marks a range; `None` when the journal has failed.
    pub(super) fn mark(&self, range: &Range<u64>) -> Option<usize> {
        let slot = self.slots.take(&self.marks, &self.journal)?;
        self.marks.set(slot, range);
        Some(slot)
    }

    /// What becomes of a mark once its range was to be recorded.
    fn settle(&self, slot: usize, range: &Range<u64>, recorded: Result<Captured, CaptureError>) {
        match recorded {
            Ok(Captured { last, .. }) => self.slots.recorded(last, slot),
            Err(error) => {
                self.fall(range, error.begins(), &error);
                self.slots.free(&self.marks, slot);
            }
        }
    }

    fn append(&self, range: &Range<u64>, content: Content<'_>) -> Result<Captured, CaptureError> {
        match content {
            Content::Data(data) => self.append_data(range.start, data),
            Content::Zeros => {
                let (offset, bytes) = (range.start, range.end - range.start);
                let last = self.append_piece(Piece::Zero { offset, bytes })?;
                Ok(Captured { last, data_bytes: 0 })
            }
        }
    }

    /// Appends what a range holds, which the caller has locked.
    pub(super) fn append_as_found(&self, range: &Range<u64>) -> Result<Captured, CaptureError> {
        let mut captured = Captured { last: Lsn::NONE, data_bytes: 0 };
        let mut offset = range.start;
        let mut buffer = Vec::new();
        while offset < range.end {
            let bytes = (range.end - offset).min(CAPTURE_BYTES_MAX);
            buffer.resize(usize::try_from(bytes).unwrap_or(usize::MAX), 0);
            let read = self.backing.read(offset, &mut buffer);
            read.map_err(|error| CaptureError::Read { offset, error })?;
            let part = self.append_data(offset, &buffer)?;
            captured.last = part.last;
            captured.data_bytes += part.data_bytes;
            offset += bytes;
        }
        Ok(captured)
    }

    fn append_data(&self, offset: u64, data: &[u8]) -> Result<Captured, CaptureError> {
        let mut captured = Captured { last: Lsn::NONE, data_bytes: 0 };
        for piece in pieces(offset, data) {
            captured.last = self.append_piece(piece)?;
            if let Piece::Data { data, .. } = piece {
                captured.data_bytes += data.len() as u64;
            }
        }
        Ok(captured)
    }

    fn append_piece(&self, piece: Piece<'_>) -> Result<Lsn, AppendError> {
        let disk = self.disk;
        let change = match piece {
            Piece::Data { offset, data } => Change::Write { disk, offset, data },
            Piece::Zero { offset, bytes } => Change::Zero(Extent { disk, offset, length: bytes }),
        };
        self.journal.append_waiting(&change, (self.clock)())
    }

    /// Where the tap has fallen, makes a range dirty; whether it has.
    fn soil_if_fallen(&self, range: &Range<u64>) -> bool {
        let history = self.history();
        let fallen = history.gap.is_some() && !history.climbing;
        if fallen {
            self.marks.soil(range);
        }
        fallen
    }

    /// Falls to the bitmap, or down to it from a climb: the journal lacks a range, whose change isn't
    /// answered yet.
    pub(super) fn fall(&self, range: &Range<u64>, kind: BookmarkKind, why: &dyn std::fmt::Display) {
        let usage = self.journal.usage();
        // What isn't durable is lost where the journal has failed.
        let after = if self.journal.has_failed() { usage.durable } else { usage.last };
        self.fall_from(GapStart { after, time: (self.clock)(), kind }, range, why);
    }

    /// The same, with the place up to which nothing is missing.
    ///
    /// Whatever is appended until this returns may come before the gap: the change that the journal
    /// lacks isn't answered yet. Behind it every LSN is in the gap, that of any disk.
    pub(super) fn fall_from(&self, gap: GapStart, range: &Range<u64>, why: &dyn std::fmt::Display) {
        let mut history = self.history();
        if history.gap.is_none() {
            let after = gap.after;
            self.marks.set_gap(Some(gap));
            self.journal.begin_gap(gap.kind, gap.time);
            history.gap = Some(gap);
            warn!(
                "disk {}: from LSN {after} on only changed blocks are noted, and moments in \
                 between can't be recovered: {why}",
                self.disk
            );
        }
        history.climbing = false;
        self.recording.store(false, Ordering::Release);
        self.marks.soil(range);
    }
}
