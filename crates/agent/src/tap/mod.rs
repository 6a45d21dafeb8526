//! The tap: the agent serves a disk over NBD, and every change is in the journal before its client
//! has an answer.
//!
//! ```text
//! client ─▶ lock range ─▶ note ─▶ change the disk ─▶ append (LSN) ─▶ unlock ─▶ answer
//!           (ranges)     (marks)    (backing)         (journal)
//! ```
//!
//! - A change that failed isn't recorded, but what the disk then holds is; one that was made is never
//!   missed. After a kill the ranges in flight are read and appended anew before the disk is served
//!   ([`Resumed::Reread`]); where that doesn't suffice, nothing is done and the caller is told to
//!   capture all of the disk ([`Resumed::Resync`]).
//! - Overlapping changes have one order on the disk and in the journal; disjoint ones run side by side.
//! - The client never waits for the journal's room. When it is full the tap falls to a map of dirty
//!   blocks, and [`Tap::climb`] brings it back. It does wait for the journal's disk, when that is slower
//!   than what is written.
//! - Trims are recorded as zeros, for that is what they leave; a disk that can't promise it isn't trimmed.
//!
//! - From a fall to the bitmap on, and among what is read again after a kill, no LSN is a moment of the
//!   disks: a record says so before anything else of any disk is appended (docs/decisions/0014).
//!
//! Not here: when to capture and climb, bookmarks, and which points are offered.

mod backing;
mod climb;
mod error;
mod hook;
mod marks;
mod ranges;
mod record;
mod serve;
mod slots;
mod state;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_hrl::Journal;
use tidegate_hrl::journal::Opening;
use tidegate_hrl::storage::Storage;
use tidegate_model::{BookmarkKind, Checksum, DiskNumber, Lsn};

use crate::Clock;
use crate::capture::{Capture, Order};
use backing::Backing;
pub use error::{CaptureError, Cause, TapError};
use marks::{Left, Marks, SLOTS, Subject, Unusable};
use ranges::{Held, Ranges};
use slots::Slots;
pub use state::{Captured, Climb, Gap, GapStart, Mode, Reread, TapState};

/// Most bytes that are captured at once: while they are read, nobody can write there.
pub const CAPTURE_BYTES_MAX: u64 = 1 << 20;

/// Which disk is tapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapSettings {
    /// Its number.
    pub disk: DiskNumber,
    /// The image file or block device. Nobody else may write to it.
    pub path: PathBuf,
    /// The file with its marks, on a disk that outlives the host's restart; not in the journal's
    /// directory, which is the journal's alone.
    pub marks: PathBuf,
    /// What tells one start of the host from another, as for the journal.
    pub boot: [u8; 16],
}

/// A disk that is tapped. Several of one machine share a journal.
pub struct Tap<S: Storage> {
    disk: DiskNumber,
    settings: TapSettings,
    backing: Backing,
    marks: Marks,
    slots: Slots,
    ranges: Ranges,
    history: Mutex<History>,
    /// Whether changes are recorded; as `history` says, for a look without waiting.
    recording: AtomicBool,
    closed: AtomicBool,
    /// How many changes were begun.
    changes: AtomicU64,
    journal: Arc<Journal<S>>,
    clock: Clock,
}

/// Whether the journal has every change.
#[derive(Debug)]
struct History {
    gap: Option<GapStart>,
    /// There is a gap, and it is being closed.
    climbing: bool,
}

/// A tap that is held, see [`Tap::hold`].
pub(crate) struct Hold<'a>(MutexGuard<'a, History>);

impl Hold<'_> {
    /// Whether the journal has every change that was answered.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.gap.is_none()
    }
}

/// How a tap goes on after a restart.
pub enum Resumed<S: Storage> {
    /// The journal has everything, but for what [`Tap::state`] says.
    Whole(Tap<S>),
    /// The process was killed. What was in flight is recorded anew.
    Reread(Tap<S>, Reread),
    /// It doesn't, and nothing was changed: all of the disk must be captured, under a new incarnation
    /// with a new journal and [`Tap::create`].
    Resync(Cause),
}

impl<S: Storage> Tap<S> {
    /// Taps a disk that begins anew, without marks. The caller has noted, durably and before, that all
    /// of the disk must be captured: after this the marks don't say so.
    ///
    /// # Errors
    /// [`TapError`]
    pub fn create(
        settings: &TapSettings,
        journal: Arc<Journal<S>>,
        opening: &Opening,
        clock: Clock,
    ) -> Result<Self, TapError> {
        let backing = Backing::open(&settings.path)?;
        let subject = subject(settings, opening, &backing);
        let marks = Marks::create(&settings.marks, subject).map_err(settings.failed("made"))?;
        marks.begin(settings.boot).map_err(settings.failed("made durable"))?;
        Ok(Self::new(settings, backing, marks, journal, clock))
    }

    /// Goes on after a restart. Where the process was killed, what was in flight is read and appended
    /// before this returns; so nothing else may be appended to the journal before.
    ///
    /// # Errors
    /// [`TapError`]
    pub fn resume(
        settings: &TapSettings,
        journal: Arc<Journal<S>>,
        opening: &Opening,
        clock: Clock,
    ) -> Result<Resumed<S>, TapError> {
        let backing = Backing::open(&settings.path)?;
        let marks = match Marks::open(&settings.marks, subject(settings, opening, &backing)) {
            Ok(Some(marks)) => marks,
            Ok(None) => return Ok(Resumed::Resync(Cause::NoMarks)),
            Err(Unusable::Journal) => return Ok(Resumed::Resync(Cause::OtherJournal)),
            Err(Unusable::Disk) => return Ok(Resumed::Resync(Cause::OtherDisk)),
            Err(Unusable::Damaged) => return Ok(Resumed::Resync(Cause::Damaged)),
            Err(Unusable::Io(error)) => return Err(settings.failed("opened")(error)),
        };
        let Ok(marked) = marks.marked() else { return Ok(Resumed::Resync(Cause::Damaged)) };
        let after = opening.recovered_to;
        let cause = match marks.left(settings.boot) {
            (Left::Closed { last, .. }, _) if last > after => Some(Cause::OtherJournal),
            (Left::Closed { footprint, .. }, same_boot) => {
                let now = backing.footprint().map_err(settings.unreadable())?;
                let changed = now.tells_change(&footprint, same_boot);
                changed.then_some(Cause::Changed { after })
            }
            (Left::Open, false) => Some(Cause::HostCrashed),
            // Every change of its own is recorded, and was made before the last record's time.
            (Left::Open, true)
                if marked.is_empty() && marks.gap().is_none() && after > Lsn::NONE =>
            {
                let written = backing.is_written_after(opening.time);
                let changed = written.map_err(settings.unreadable())?;
                changed.then_some(Cause::Changed { after })
            }
            (Left::Open, true) => None,
        };
        if let Some(cause) = cause {
            return Ok(Resumed::Resync(cause));
        }
        if let Some(gap) = marks.gap() {
            // Where the end of the journal was lost, the beginning of the gap was lost with it.
            let after = gap.after.min(opening.recovered_to);
            marks.set_gap(Some(GapStart { after, ..gap }));
            // Whether the journal names it already isn't known. It may be named twice.
            journal.begin_gap(gap.kind, gap.time);
        }
        marks.begin(settings.boot).map_err(settings.failed("made durable"))?;
        let tap = Self::new(settings, backing, marks, journal, clock);
        if marked.is_empty() {
            return Ok(Resumed::Whole(tap));
        }
        let reread = tap.reread(&marked, opening)?;
        Ok(Resumed::Reread(tap, reread))
    }

    fn new(
        settings: &TapSettings,
        backing: Backing,
        marks: Marks,
        journal: Arc<Journal<S>>,
        clock: Clock,
    ) -> Self {
        let gap = marks.gap();
        Self {
            disk: settings.disk,
            settings: settings.clone(),
            backing,
            marks,
            slots: Slots::new(),
            ranges: Ranges::default(),
            history: Mutex::new(History { gap, climbing: false }),
            recording: AtomicBool::new(gap.is_none()),
            closed: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            journal,
            clock,
        }
    }

    /// Records anew what was in flight, behind the beginning of a gap, and takes the marks away once
    /// that is durable.
    fn reread(
        &self,
        marked: &[std::ops::Range<u64>],
        opening: &Opening,
    ) -> Result<Reread, TapError> {
        let (after, time) = (opening.recovered_to, opening.time);
        let mut reread = Reread { after, last: after, bytes: 0 };
        // When it was killed nobody knows: up to the last record's time all is told.
        self.journal.begin_gap(BookmarkKind::GapKilled, time);
        for range in marked {
            match self.append_as_found(range) {
                Ok(captured) => reread.last = captured.last,
                Err(error) => {
                    let kind = error.begins();
                    self.fall_from(GapStart { after, time, kind }, range, &error);
                }
            }
            reread.bytes += range.end - range.start;
        }
        self.journal.wait_durable(reread.last)?;
        (0..SLOTS).for_each(|slot| self.marks.clear(slot));
        Ok(reread)
    }

    /// The disk's number.
    #[must_use]
    pub const fn disk(&self) -> DiskNumber {
        self.disk
    }

    /// The name under which the vault knows it: its canonical path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.backing.name()
    }

    /// Its size.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.backing.bytes()
    }

    /// How many changes were begun since it is served: while it stays the same the disk does.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Reads a range of at most [`CAPTURE_BYTES_MAX`] bytes, while nobody changes it, and appends it:
    /// for an initial copy. It isn't noted in the marks: what wasn't durable when the process was
    /// killed must be captured again. Blocks.
    ///
    /// # Errors
    /// [`CaptureError`]. A full journal changes nothing of how the tap is: the caller waits for room.
    ///
    /// # Panics
    /// When the range is empty, too long, or not on the disk.
    pub fn capture(&self, offset: u64, bytes: u64) -> Result<Captured, CaptureError> {
        assert!((1..=CAPTURE_BYTES_MAX).contains(&bytes), "{bytes} bytes are captured at once");
        assert!(offset <= self.bytes() && bytes <= self.bytes() - offset, "not beyond the disk");
        let range = offset..offset + bytes;
        let _held = self.ranges.lock(range.clone());
        self.append_as_found(&range)
    }

    /// Frees the marks of what is durable by now: called now and then, so that after a kill of a tap that
    /// was idle nothing is taken for being in flight.
    pub fn free_marks(&self) {
        self.slots.settle(&self.marks, self.journal.durable());
    }

    /// Reads a range of the disk while others may change it.
    ///
    /// # Errors
    /// [`CaptureError::Read`]
    pub fn look(&self, offset: u64, into: &mut [u8]) -> Result<(), CaptureError> {
        let read = self.backing.read(offset, into);
        read.map_err(|error| CaptureError::Read { offset, error })
    }

    /// Ends the tap, so that the next one knows that nothing is missing: waits for what is under way
    /// and makes disk and journal durable. Changes that come later are refused. The journal is closed
    /// after this.
    ///
    /// # Errors
    /// [`TapError`]; the next start is as after a kill then.
    pub fn close(&self) -> Result<(), TapError> {
        let held = self.ranges.lock(0..self.bytes());
        self.closed.store(true, Ordering::Release);
        drop(held);
        let path = || self.settings.path.clone();
        self.backing.sync().map_err(|error| TapError::Sync { path: path(), error })?;
        let last = self.journal.usage().last;
        self.journal.wait_durable(last)?;
        self.slots.settle(&self.marks, last);
        let footprint = self.backing.footprint();
        let footprint = footprint.map_err(|error| TapError::Sync { path: path(), error })?;
        self.marks.close(last, footprint).map_err(self.settings.failed("closed"))
    }

    /// Holds the tap as it is, in data mode or not: while it is held no change falls to the bitmap, and
    /// one that must is answered only after it did. Not to be held while the journal is waited for.
    pub(crate) fn hold(&self) -> Hold<'_> {
        Hold(self.history())
    }

    /// Holds the disk as it is: while this is held nothing changes it, and nothing is under way.
    pub(crate) fn still(&self) -> Held<'_> {
        self.ranges.lock(0..self.bytes())
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // It is whole between calls, whoever panicked.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Storage + Send + Sync> Capture for Tap<S>
where
    S::File: Send + Sync,
{
    fn disk(&self) -> DiskNumber {
        self.disk
    }

    fn name(&self) -> &str {
        self.backing.name()
    }

    fn bytes(&self) -> u64 {
        self.backing.bytes()
    }

    fn order(&self) -> Order {
        Order::EachWrite
    }
}

impl<S: Storage> std::fmt::Debug for Tap<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TapSettings {
    fn unreadable(&self) -> impl FnOnce(std::io::Error) -> TapError {
        let path = self.path.clone();
        move |error| TapError::Open { path, error }
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> TapError {
        let path = self.marks.clone();
        move |error| TapError::Marks { path, doing, error }
    }
}

fn subject(settings: &TapSettings, opening: &Opening, backing: &Backing) -> Subject {
    Subject {
        incarnation: opening.incarnation,
        disk: settings.disk,
        bytes: backing.bytes(),
        name: Checksum::of(backing.name().as_bytes()),
    }
}
