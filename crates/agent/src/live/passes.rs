//! Passes over the disks that aren't served: when one is made, what runs around it, and the bookmark at
//! its end.
//!
//! A pass is over all these disks of the machine together, so that its end can be one moment of them.
//! It is one, and the bookmark clean, only where that was seen: what is read stood still from the
//! pass's beginning to its end, and where a snapshot was read, so did the disks that are served. Otherwise
//! the pass is fuzzy: everything is captured, but no moment of the disks is. No LSN between the ends of two
//! passes is one: there the journal has a gap.
//!
//! Invariant: what `before` made `after` takes away, also when the pass failed, and by the next start of
//! an agent that was killed in between: a marker file stands as long.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidegate_model::BookmarkKind;

use super::Passing;
use super::agent::Agent;
use super::error::{LiveError, MarkError, PassFailed};
use super::halt::Halt;
use super::hooks::{HookError, run};
use super::initial::room;
use super::settings::{DiskSource, LiveDisk};
use super::status::{LastPass, Marked};
use crate::capture::Capture;
use crate::pass::{Compared, PassError, Reading};

/// How often it looks whether a pass is due or asked for.
const STEP: Duration = Duration::from_millis(100);
/// How long a pass that came to nothing is left alone when others can't do without it.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// How long a bookmark waits before it is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// Tells the program that runs after a pass whether everything is captured.
const OUTCOME: &str = "TIDEGATE_PASS";

/// What is read of one disk.
type Read<'a> = (&'a Passing, Box<dyn Reading>);

/// Makes passes until `halt`: the first as long as the machine was never captured as a whole, then one
/// at the agent's start and in each interval, and those that are asked for.
pub(super) fn keep(agent: &Agent, halt: &Halt) -> Result<(), LiveError> {
    if agent.passing.is_empty() {
        return Ok(());
    }
    clear_up(agent);
    let every = agent.settings.passes.every;
    let is_whole = || agent.notebook.read().copy_end.is_some();
    let mut due = (every.is_some() || !is_whole()).then(Instant::now);
    while !halt.is_asked() {
        let is_due = due.is_some_and(|at| Instant::now() >= at);
        if let Some((number, name)) = agent.passes.begin(is_due, agent.now()) {
            let told = one(agent, halt, number, &name)?;
            let pause = if is_whole() { every } else { Some(FAILED_PAUSE) };
            due = pause.map(|pause| Instant::now() + pause);
            agent.passes.end(told);
        }
        halt.within(STEP);
    }
    Ok(())
}

/// Runs what should have run after the last pass of an agent that was killed.
fn clear_up(agent: &Agent) {
    if agent.settings.passing().exists() {
        tracing::warn!(
            "the agent before this one ended within a pass: what it began is cleared up"
        );
        after(agent, false);
    }
}

/// One pass; an error only where the journal can't go on. `None` when it was stopped.
fn one(agent: &Agent, halt: &Halt, number: u64, name: &str) -> Result<Option<LastPass>, LiveError> {
    tracing::info!(number, "a pass begins");
    let mut last = LastPass { number, ..LastPass::default() };
    match make(agent, halt, name) {
        Ok((marked, compared, fuzzy)) => {
            let Compared { read_bytes, changed_bytes, data_bytes } = compared;
            if marked.kind == BookmarkKind::CopyEnd {
                agent.notebook.change(|notes| notes.copy_end = Some(marked.lsn))?;
            }
            match &fuzzy {
                None => {
                    tracing::info!(number, lsn = %marked.lsn, changed_bytes, "the pass has ended")
                }
                Some(cause) => tracing::warn!(
                    number, lsn = %marked.lsn, changed_bytes, %cause,
                    "the pass has ended, and is fuzzy: its end is no moment of the disks"
                ),
            }
            (last.clean, last.fuzzy, last.marked) = (fuzzy.is_none(), fuzzy, Some(marked));
            (last.read_bytes, last.changed_bytes) = (read_bytes, changed_bytes);
            last.data_bytes = data_bytes;
        }
        Err(PassFailed::Stopped) => return Ok(None),
        Err(error) if error.is_of_journal() => return Err(error.into()),
        Err(error) => {
            tracing::error!(number, %error, "the pass came to nothing; the next one captures the rest");
            last.failed = Some(error.to_string());
        }
    }
    last.time = agent.now();
    Ok(Some(last))
}

/// What a pass came to: its bookmark, what it found, and why it is fuzzy.
type Made = (Marked, Compared, Option<String>);

fn make(agent: &Agent, halt: &Halt, name: &str) -> Result<Made, PassFailed> {
    if agent.settings.passes.application && !has_moments(agent) {
        let places = &agent.settings.hooks.file_systems;
        agent.frozen(|| around(agent, halt, name, places))?
    } else {
        around(agent, halt, name, &[])
    }
}

/// Whether all that is read are moments that are made at the pass's beginning: only then are applications
/// frozen for no longer than that takes.
fn has_moments(agent: &Agent) -> bool {
    let is_itself = |disk: &LiveDisk| matches!(disk.source, DiskSource::Scan { snapshot: None });
    !agent.settings.disks.iter().any(is_itself)
}

/// Watches the disks, and runs what is to run around a pass.
fn around(agent: &Agent, halt: &Halt, name: &str, frozen: &[PathBuf]) -> Result<Made, PassFailed> {
    let marker = agent.settings.passing();
    File::create(&marker).map_err(|error| HookError::Marker { path: marker, error })?;
    let changes = changes(agent);
    let made = within(agent, halt, name, frozen, &changes);
    after(agent, made.is_ok());
    made
}

fn within(
    agent: &Agent,
    halt: &Halt,
    name: &str,
    frozen: &[PathBuf],
    changes: &[u64],
) -> Result<Made, PassFailed> {
    let begin = |passing| -> Result<Read<'_>, PassError> {
        let passing: &Passing = passing;
        Ok((passing, passing.begin()?))
    };
    let reads = agent.passing.iter().map(|passing| begin(passing));
    let mut reads = reads.collect::<Result<Vec<_>, _>>()?;
    open(agent, &mut reads)?;
    let mut found = Compared::default();
    for (passing, reading) in &mut reads {
        let compared = passing.compare(&mut **reading, &mut || room(agent, halt))?;
        if halt.is_asked() {
            return Err(PassFailed::Stopped);
        }
        found = found.and(compared);
    }
    reads.iter().try_for_each(|(_, reading)| reading.check())?;
    let (marked, fuzzy) = end(agent, halt, name, || cause(agent, &reads, frozen, changes))?;
    for (disk, reading) in &mut reads {
        if let Err(error) = reading.captured() {
            tracing::warn!(disk = %disk.disk(), %error, "the next pass reads the same again");
        }
    }
    Ok((marked, found, fuzzy))
}

/// Makes the moments that are read, and opens them.
fn open(agent: &Agent, reads: &mut [Read<'_>]) -> Result<(), PassFailed> {
    let passes = &agent.settings.passes;
    let mut make = || -> Result<(), PassFailed> {
        run(&passes.before, passes.limit, &[])?;
        Ok(reads.iter_mut().try_for_each(|(_, reading)| reading.open())?)
    };
    if passes.application && has_moments(agent) { agent.frozen(make)? } else { make() }
}

/// Runs what is to run after a pass.
fn after(agent: &Agent, captured: bool) {
    let (passes, marker) = (&agent.settings.passes, agent.settings.passing());
    let outcome = if captured { "captured" } else { "failed" };
    if let Err(error) = run(&passes.after, passes.limit, &[(OUTCOME, outcome)]) {
        tracing::error!(%error, "what was made for the pass may be there still: see to it");
    }
    if let Err(error) = std::fs::remove_file(&marker) {
        tracing::warn!(%error, marker = %marker.display(), "can't be removed");
    }
}

/// How many changes were begun on each of the disks that are served.
fn changes(agent: &Agent) -> Vec<u64> {
    agent.taps.iter().map(|tap| tap.changes()).collect()
}

/// Why what a pass read isn't of one moment of the machine, if it isn't.
fn cause(
    agent: &Agent,
    reads: &[Read<'_>],
    frozen: &[PathBuf],
    before: &[u64],
) -> Result<Option<String>, PassError> {
    for (_, reading) in reads {
        if let Some(change) = reading.changed(frozen)? {
            return Ok(Some(change.to_string()));
        }
    }
    // Those that stood still are now as they were read, and so fit any moment of the others meanwhile.
    let moments: BTreeSet<_> = reads.iter().filter_map(|(_, reading)| reading.moment()).collect();
    if moments.len() > 1 {
        return Ok(Some("disks are read from different moments".to_owned()));
    }
    let moved = agent.taps.iter().zip(before).find(|(tap, before)| tap.changes() != **before);
    let moved = moved.filter(|_| !moments.is_empty());
    Ok(moved.map(|(tap, _)| {
        format!("disk {} was written to while a snapshot of another was read", tap.disk())
    }))
}

/// Places the bookmark that ends a pass.
fn end(
    agent: &Agent,
    halt: &Halt,
    name: &str,
    cause: impl Fn() -> Result<Option<String>, PassError>,
) -> Result<(Marked, Option<String>), PassFailed> {
    let is_first = agent.notebook.read().copy_end.is_none();
    let kind = match agent.settings.passes.application {
        _ if is_first => BookmarkKind::CopyEnd,
        true => BookmarkKind::ApplicationConsistent,
        false => BookmarkKind::CrashConsistent,
    };
    loop {
        match agent.mark_pass(kind, name, &cause) {
            // Both pass: a disk that is served catches up, the journal gets room.
            Err(error @ PassFailed::Mark(MarkError::Gap { .. } | MarkError::Append(_)))
                if !error.is_of_journal() => {}
            marked => return marked,
        }
        if halt.within(PAUSE) {
            return Err(PassFailed::Stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::opened::{self, Wish};
    use crate::live::settings::for_tests;

    #[test]
    fn a_pass_whose_journal_fails_ends_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![7; 8 << 20]).unwrap();
        let mut settings = for_tests(&folder.path().join("agent"));
        settings.journal_bytes = 16 << 20;
        let source = DiskSource::Scan { snapshot: None };
        settings.disks = vec![LiveDisk { number: 0.try_into().unwrap(), path, source }];
        let opened = opened::open(&settings, Wish::GoOn).unwrap();
        let agent =
            Agent::new(settings, opened.journal, opened.notebook, opened.taps, opened.passing);
        // Its next segment can't be made.
        std::fs::remove_dir_all(agent.settings.journal()).unwrap();
        let made = one(&agent, &Halt::default(), 1, "");
        assert!(matches!(&made, Err(error) if error.to_string().contains("journal")), "{made:?}");
    }
}
