//! The initial copy beside live changes: every range of the disks is captured under its lock and appended
//! to the journal like a write, so that what was sent can be sent again.
//!
//! It leaves the journal to the writes: it appends only while half of it is free, and waits for each
//! stretch to be durable, so that it never fills the batch that they gather in. How far it is stands in
//! the notes, so the next life of the agent goes on from there. A bookmark ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_hrl::journal::AppendError;
use tidegate_model::BookmarkKind;

use super::Tap;
use super::agent::Agent;
use super::error::{LiveError, MarkError};
use super::halt::Halt;
use crate::tap::{CAPTURE_BYTES_MAX, CaptureError};

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

/// Copies what isn't copied yet, until it is done or `halt`.
pub(super) fn copy(agent: &Arc<Agent>, halt: &Halt) -> Result<(), LiveError> {
    if agent.notebook.read().copy_end.is_some() {
        return Ok(());
    }
    tracing::info!(bytes = agent.status().copy.bytes_total, "the initial copy begins, or goes on");
    for (index, tap) in agent.taps.iter().enumerate() {
        if !copy_disk(agent, index, tap, halt)? {
            return Ok(());
        }
    }
    end(agent, halt)
}

/// Copies one disk; false when it was stopped before its end.
fn copy_disk(agent: &Agent, index: usize, tap: &Tap, halt: &Halt) -> Result<bool, LiveError> {
    let mut at = agent.notebook.read().disks.get(index).map_or(0, |noted| noted.bytes_copied);
    let (mut noted, mut unsure) = (Instant::now(), 0);
    while at < tap.bytes() {
        if !room(agent, halt) {
            return Ok(false);
        }
        let bytes = CAPTURE_BYTES_MAX.min(tap.bytes() - at);
        let captured = match tap.capture(at, bytes) {
            Ok(captured) => captured,
            Err(CaptureError::Journal(AppendError::Full { .. } | AppendError::NoRoom)) => {
                if halt.within(PAUSE) {
                    return Ok(false);
                }
                continue;
            }
            // The disk is served all the same, and what comes after this is copied then.
            Err(error @ CaptureError::Read { .. }) => {
                tracing::error!(disk = %tap.disk(), %error, "the copy waits, and tries it again");
                if halt.within(UNREADABLE_PAUSE) {
                    return Ok(false);
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        at += bytes;
        unsure += captured.data_bytes + ZERO_COST;
        let last = at == tap.bytes();
        if unsure >= STRETCH_BYTES || last {
            agent.journal.wait_durable(captured.last)?;
            unsure = 0;
            // Only what is durable is never captured again.
            if noted.elapsed() >= NOTE_INTERVAL || last {
                agent.notebook.change(|notes| notes.disks[index].bytes_copied = at)?;
                noted = Instant::now();
            }
        }
    }
    Ok(true)
}

/// Waits until half of the journal is free; false when it shall stop.
fn room(agent: &Agent, halt: &Halt) -> bool {
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
fn end(agent: &Agent, halt: &Halt) -> Result<(), LiveError> {
    loop {
        match agent.mark(BookmarkKind::CopyEnd, "") {
            Ok(marked) => {
                agent.notebook.change(|notes| notes.copy_end = Some(marked.lsn))?;
                tracing::info!(lsn = %marked.lsn, "the initial copy has ended");
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
