//! The initial copy beside live changes, or the resync: every range of the disks, or every one that the
//! vault lacks, is captured under its lock and appended to the journal like a write, so that what was sent
//! can be sent again.
//!
//! It leaves the journal to the writes: it appends only while half of it is free, and waits for each
//! stretch to be durable, so that it never fills the batch that they gather in. How far it is stands in
//! the notes, so the next life of the agent goes on from there. A bookmark ends it.

use std::ops::Range;
use std::time::{Duration, Instant};

use tidegate_hrl::journal::AppendError;
use tidegate_model::{BookmarkKind, Lsn};

use super::agent::Agent;
use super::compare::{Comparison, Stretch};
use super::error::{LiveError, MarkError};
use super::halt::Halt;
use super::{Stands, Tap};
use crate::tap::{CAPTURE_BYTES_MAX, CaptureError, Captured};

/// What is captured before it waits until that is durable: an eighth of the batch in which writes gather.
const STRETCH_BYTES: u64 = 1 << 20;
/// What a range of zeros counts as: 256 of them are waited for at once.
const ZERO_COST: u64 = 4 << 10;
/// How long it waits for room, before it looks again.
const PAUSE: Duration = Duration::from_millis(20);
/// How long it leaves a disk alone that can't be read.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(10);
/// How often what is copied is noted: so much is copied again after a kill, at most.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// Copies what isn't copied yet, until it is done or `halt`; compares it where the epoch stands on
/// something.
pub(super) fn copy(agent: &Agent, halt: &Halt) -> Result<(), LiveError> {
    let notes = agent.notebook.read();
    if notes.copy_end.is_some() {
        return Ok(());
    }
    let what = if notes.stands == Stands::Nothing { "the initial copy" } else { "the resync" };
    tracing::info!(bytes = agent.status().copy.bytes_total, "{what} begins, or goes on");
    for tap in &agent.taps {
        let index = notes.disks.iter().position(|noted| noted.disk.number == tap.disk());
        let index = index.expect("what is tapped was declared");
        let at = notes.disks[index].bytes_copied;
        let copied = if notes.stands == Stands::Nothing {
            copy_disk(agent, index, tap, at, halt, &mut Whole { tap, at })?
        } else {
            let mut comparison = Comparison::new(tap, &agent.questions, at);
            copy_disk(agent, index, tap, at, halt, &mut comparison)?
        };
        if !copied {
            return Ok(());
        }
    }
    // Where there are passes, the first one captures the other disks, and ends the copy.
    if agent.passing.is_empty() { end(agent, halt, what) } else { Ok(()) }
}

/// What of a disk is captured, stretch by stretch.
trait Stretches {
    /// The next one, which isn't beyond the disk's end; `None` when it shall stop.
    fn next(&mut self, halt: &Halt) -> Result<Option<Stretch>, CaptureError>;
}

impl Stretches for Comparison<'_> {
    fn next(&mut self, halt: &Halt) -> Result<Option<Stretch>, CaptureError> {
        Comparison::next(self, halt)
    }
}

/// All of it, from `at` on.
struct Whole<'a> {
    tap: &'a Tap,
    at: u64,
}

impl Stretches for Whole<'_> {
    fn next(&mut self, _: &Halt) -> Result<Option<Stretch>, CaptureError> {
        let end = self.tap.bytes().min(self.at + CAPTURE_BYTES_MAX);
        let needed = std::iter::once(self.at..end).collect();
        self.at = end;
        Ok(Some(Stretch { end, needed }))
    }
}

/// Captures one disk from `at` on; false when it was stopped before its end.
fn copy_disk(
    agent: &Agent,
    index: usize,
    tap: &Tap,
    mut at: u64,
    halt: &Halt,
    stretches: &mut dyn Stretches,
) -> Result<bool, LiveError> {
    let (mut noted, mut unsure, mut appended) = (Instant::now(), 0, Lsn::NONE);
    while at < tap.bytes() {
        let Some(stretch) = unless_unreadable(tap, halt, || stretches.next(halt))?.flatten() else {
            return Ok(false);
        };
        for needed in stretch.needed {
            let Some(captured) = capture(agent, tap, &needed, halt)? else { return Ok(false) };
            unsure += captured.data_bytes + ZERO_COST;
            appended = captured.last;
            if unsure >= STRETCH_BYTES {
                agent.journal.wait_durable(appended)?;
                unsure = 0;
            }
        }
        at = stretch.end;
        // Only what is durable is never captured again.
        if noted.elapsed() >= NOTE_INTERVAL || at == tap.bytes() {
            agent.journal.wait_durable(appended)?;
            agent.notebook.change_if_room(|notes| notes.disks[index].bytes_copied = at)?;
            (noted, unsure) = (Instant::now(), 0);
        }
    }
    Ok(true)
}

/// Captures a range when there is room for it; `None` when it shall stop.
fn capture(
    agent: &Agent,
    tap: &Tap,
    range: &Range<u64>,
    halt: &Halt,
) -> Result<Option<Captured>, LiveError> {
    while room(agent, halt) {
        let capture = || tap.capture(range.start, range.end - range.start);
        match unless_unreadable(tap, halt, || match capture() {
            Err(CaptureError::Journal(AppendError::Full { .. } | AppendError::NoRoom)) => Ok(None),
            captured => captured.map(Some),
        })? {
            Some(Some(captured)) => return Ok(Some(captured)),
            Some(None) if halt.within(PAUSE) => return Ok(None),
            Some(None) => {}
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Does something with a disk, again and again while it can't be read: it is served all the same. `None`
/// when it shall stop.
fn unless_unreadable<T>(
    tap: &Tap,
    halt: &Halt,
    mut work: impl FnMut() -> Result<T, CaptureError>,
) -> Result<Option<T>, LiveError> {
    loop {
        match work() {
            Ok(done) => return Ok(Some(done)),
            Err(error @ CaptureError::Read { .. }) => {
                tracing::error!(disk = %tap.disk(), %error, "the copy waits, and tries it again");
                if halt.within(UNREADABLE_PAUSE) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until half of the journal is free; false when it shall stop.
pub(super) fn room(agent: &Agent, halt: &Halt) -> bool {
    loop {
        let usage = agent.journal.usage();
        if usage.bytes <= usage.bytes_max / 2 {
            return !halt.is_asked();
        }
        if halt.within(PAUSE) {
            return false;
        }
    }
}

/// Places the bookmark from which on the disks are whole.
fn end(agent: &Agent, halt: &Halt, what: &str) -> Result<(), LiveError> {
    loop {
        match agent.mark(BookmarkKind::CopyEnd, "") {
            Ok(marked) => {
                while !agent.notebook.change_if_room(|notes| notes.copy_end = Some(marked.lsn))? {
                    if halt.within(UNREADABLE_PAUSE) {
                        return Ok(());
                    }
                }
                tracing::info!(lsn = %marked.lsn, "{what} has ended");
                return Ok(());
            }
            Err(MarkError::Journal(error)) => return Err(error.into()),
            // A gap, or no room: both pass.
            Err(error) => tracing::debug!(%error, "the copy's end has to wait"),
        }
        if halt.within(PAUSE) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_hrl::journal::Change;

    use super::*;
    use crate::live::opened::{self, Wish};
    use crate::live::settings::for_tests;
    use crate::live::{DiskSource, LiveDisk};

    #[test]
    fn what_was_copied_before_a_kill_isnt_captured_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![7; 8 << 20]).unwrap();
        let mut settings = for_tests(&folder.path().join("agent"));
        let source = DiskSource::Tap { listen: "unix:/nowhere".parse().unwrap() };
        settings.disks = vec![LiveDisk { number: 0.try_into().unwrap(), path, source }];
        let opened = opened::open(&settings, Wish::GoOn).unwrap();
        let done = 5 << 20;
        let copied = |notes: &mut crate::live::Notes| {
            (notes.disks[0].bytes_copied, notes.stands) = (done, Stands::Nothing);
        };
        opened.notebook.change(copied).unwrap();
        let agent =
            Agent::new(settings, opened.journal, opened.notebook, opened.taps, opened.passing);
        copy(&agent, &Halt::default()).unwrap();
        assert!(agent.notebook.read().copy_end.is_some());
        let (mut reader, mut at) = (agent.journal.read_from(Lsn(2)), done);
        while let Some(record) = reader.next().unwrap() {
            if let Change::Write { offset, data, .. } = record.change {
                assert_eq!(offset, at);
                at += data.len() as u64;
            }
        }
        assert_eq!(at, 8 << 20);
    }
}
