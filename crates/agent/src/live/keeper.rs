//! What an agent does from time to time: bookmarks by their schedule, times while nothing is written,
//! and climbing back where the journal was full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_hrl::journal::{AppendError, Change, JournalError};
use tidegate_model::{BookmarkKind, Lsn};

use super::agent::Agent;
use super::error::{LiveError, MarkError};
use super::halt::Halt;
use crate::tap::{Climb, Gap, Mode};

/// How often it looks.
const STEP: Duration = Duration::from_millis(100);
/// After how long without a change the time is recorded: it costs a pack, and so a request.
const TIME_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is noted what the vault has: so much more than that travels again when a history breaks.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// What is read again in one go: bookmarks and the next look wait for that.
const CLIMB_BYTES: u64 = 4 << 20;
/// How long a disk that can't be read is left alone before it is tried again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(10);

/// The keeper of an agent.
pub(super) struct Keeper {
    agent: Arc<Agent>,
    /// When bookmarks are due.
    crash: Due,
    application: Option<Due>,
    /// When it was last noted what the vault has.
    noted: Instant,
    /// The last LSN, and since when it is that.
    last: (Lsn, Instant),
    /// Gaps that are closed and have no bookmark behind them yet.
    closed: Vec<Gap>,
    /// The life before may have left a gap open, such as a kill leaves: a bookmark ends it.
    unsure: bool,
    /// A disk couldn't be read: when it is tried again.
    unreadable: Option<Instant>,
}

/// A moment that comes again.
struct Due {
    at: Instant,
    every: Duration,
}

impl Due {
    fn after(every: Duration) -> Self {
        Self { at: Instant::now() + every, every }
    }

    /// Whether it has come; then the next is awaited. Those that were missed are left out.
    fn has_come(&mut self, now: Instant) -> bool {
        let come = now >= self.at;
        while self.at <= now {
            self.at += self.every;
        }
        come
    }
}

impl Keeper {
    pub fn new(agent: Arc<Agent>, goes_on: bool) -> Self {
        let crash = Due::after(agent.settings.bookmark_interval);
        let application = agent.settings.application_interval.map(Due::after);
        let last = (agent.journal.usage().last, Instant::now());
        let (closed, unreadable, noted) = (Vec::new(), None, Instant::now());
        let unsure = goes_on;
        Self { agent, crash, application, noted, last, closed, unsure, unreadable }
    }

    /// Keeps until `halt`, or until the journal can't be written any more.
    pub fn keep(mut self, halt: &Halt) -> Result<(), LiveError> {
        while !halt.within(STEP) {
            let now = Instant::now();
            self.agent.sample(now);
            self.agent.taps.iter().for_each(|tap| tap.free_marks());
            if now.saturating_duration_since(self.noted) >= NOTE_INTERVAL {
                self.agent.note_committed()?;
                self.noted = now;
            }
            self.climb(halt)?;
            self.tell_time(now)?;
            self.mark(now)?;
        }
        Ok(())
    }

    /// Reads again what a full journal left out, once half of it is free.
    fn climb(&mut self, halt: &Halt) -> Result<(), LiveError> {
        if self.unreadable.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.unreadable = None;
        let usage = || self.agent.journal.usage();
        for tap in &self.agent.taps {
            while tap.state().mode == Mode::Bitmap
                && usage().bytes <= usage().bytes_max / 2
                && !halt.is_asked()
            {
                match self.agent.alone(|| tap.climb(CLIMB_BYTES)) {
                    Ok(Climb::Done(gap)) => {
                        tracing::warn!(
                            disk = %gap.disk, after = %gap.start.after, end = %gap.end,
                            "the journal was full: what was written between these LSNs is one step"
                        );
                        self.closed.push(gap);
                    }
                    Ok(Climb::Further { .. }) => {
                        // Not more than the journal's disk can take beside the writes.
                        self.agent.journal.wait_durable(usage().last)?;
                    }
                    Ok(Climb::Full { .. } | Climb::Data) => break,
                    // Its clients are served all the same; until it can be read no moment is whole.
                    Err(error) => {
                        tracing::error!(disk = %tap.disk(), %error, "it is tried again");
                        self.unreadable = Some(Instant::now() + UNREADABLE_PAUSE);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn tell_time(&mut self, now: Instant) -> Result<(), LiveError> {
        // That nothing was written to the other disks up to now isn't known.
        if !self.agent.is_ordered() {
            return Ok(());
        }
        let last = self.agent.journal.usage().last;
        if last != self.last.0 {
            self.last = (last, now);
        } else if now.saturating_duration_since(self.last.1) >= TIME_INTERVAL {
            match self.agent.journal.append(&Change::Time, self.agent.now()) {
                Ok(lsn) => self.last = (lsn, now),
                Err(AppendError::Ended) => return Err(JournalError::Failed.into()),
                // Then there is enough that isn't idle.
                Err(_) => self.last.1 = now,
            }
        }
        Ok(())
    }

    /// Places the bookmarks that are due. Before the initial copy has ended nothing could be brought
    /// back to them.
    pub fn mark(&mut self, now: Instant) -> Result<(), LiveError> {
        if !self.agent.is_ordered() {
            // Each pass has its own at its end.
            return Ok(());
        }
        let due = self.crash.has_come(now);
        let frozen = self.application.as_mut().is_some_and(|application| application.has_come(now));
        if self.agent.notebook.read().copy_end.is_none() {
            (self.unsure, self.closed) = (false, Vec::new());
            return Ok(());
        }
        if frozen && let Err(error) = self.agent.mark_frozen("") {
            settle("an application-consistent bookmark", true, error)?;
        }
        let name = self.closed.first().map(|first| {
            let start = self.closed.iter().map(|gap| gap.start.after).min().unwrap_or_default();
            let end = self.closed.iter().map(|gap| gap.end).max().unwrap_or(first.end);
            format!("after a gap: the journal was full between LSN {start} and {end}")
        });
        if due || self.unsure || name.is_some() {
            match self.agent.mark(BookmarkKind::CrashConsistent, &name.unwrap_or_default()) {
                Ok(_) => (self.unsure, self.closed) = (false, Vec::new()),
                Err(error) => settle("a bookmark", due, error)?,
            }
        }
        Ok(())
    }
}

/// A bookmark that can't be placed now is due again, unless the journal has failed. One that is tried at
/// each look isn't told of each time.
fn settle(what: &str, told: bool, error: MarkError) -> Result<(), LiveError> {
    match error {
        MarkError::Journal(error) => Err(error.into()),
        MarkError::Append(AppendError::Ended) => Err(JournalError::Failed.into()),
        error if told => {
            tracing::warn!(%error, "{what} wasn't placed");
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_hrl::journal::{Birth, JournalSettings};
    use tidegate_hrl::uring::UringStorage;
    use tidegate_model::{Epoch, Incarnation, Micros};

    use super::*;
    use crate::live::control::{Answer, Answers, Request};
    use crate::live::settings::for_tests;
    use crate::live::{Hooks, Journal, Notebook, Notes, Stands};

    /// The keeper of an agent without disks, with a bookmark each minute.
    fn keeper(folder: &std::path::Path) -> Keeper {
        let storage = UringStorage::open(&folder.join("journal")).unwrap();
        let incarnation = Incarnation::from_bytes([3; 16]);
        let birth = Birth { incarnation, boot: [1; 16] };
        let bounds = JournalSettings::of(64 << 20).unwrap();
        let (journal, _) = Journal::open(storage, bounds, &birth, Box::new(|_| {})).unwrap();
        let settings = for_tests(folder);
        let notes = Notes::new(incarnation, Stands::Nothing, Vec::new());
        let notebook = Notebook::create(&settings.notes(), notes).unwrap();
        let agent =
            Agent::new(settings, Arc::new(journal), Arc::new(notebook), Vec::new(), Vec::new());
        Keeper::new(Arc::new(agent), false)
    }

    fn last(keeper: &Keeper) -> Lsn {
        keeper.agent.journal.usage().last
    }

    #[test]
    fn the_time_is_told_while_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = keeper(folder.path());
        let start = Instant::now();
        keeper.tell_time(start).unwrap();
        assert_eq!(last(&keeper), Lsn(0));
        keeper.tell_time(start + 2 * TIME_INTERVAL).unwrap();
        assert_eq!(last(&keeper), Lsn(1));
        keeper.agent.journal.append(&Change::Time, Micros(6)).unwrap();
        keeper.tell_time(start + 4 * TIME_INTERVAL).unwrap();
        keeper.tell_time(start + 5 * TIME_INTERVAL - STEP).unwrap();
        assert_eq!(last(&keeper), Lsn(2), "something was written meanwhile");
        keeper.tell_time(start + 5 * TIME_INTERVAL).unwrap();
        assert_eq!(last(&keeper), Lsn(3));
    }

    #[test]
    fn bookmarks_are_placed_by_their_schedule_once_there_is_something_to_bring_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = keeper(folder.path());
        let minute = Duration::from_secs(60);
        let start = Instant::now();
        keeper.mark(start + 2 * minute).unwrap();
        assert_eq!(last(&keeper), Lsn(0), "the copy hasn't ended");
        keeper.agent.notebook.change(|notes| notes.copy_end = Some(Lsn(1))).unwrap();
        keeper.mark(start + 2 * minute).unwrap();
        assert_eq!(last(&keeper), Lsn(0), "it isn't due again yet");
        // A host that slept through some of them has one.
        keeper.mark(start + 9 * minute).unwrap();
        keeper.mark(start + 9 * minute).unwrap();
        assert_eq!(last(&keeper), Lsn(1));
        keeper.unsure = true;
        keeper.mark(start + 9 * minute).unwrap();
        keeper.mark(start + 9 * minute).unwrap();
        assert_eq!(last(&keeper), Lsn(2), "behind what the life before left");
        keeper.agent.close();
        keeper.mark(start + 20 * minute).unwrap();
        assert_eq!(last(&keeper), Lsn(2), "the agent stops");
    }

    #[test]
    fn a_resync_that_was_asked_for_is_noted_before_that_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let agent = keeper(folder.path()).agent;
        assert!(matches!(agent.answer(Request::Resync), Answer::Refused(_)), "nothing is granted");
        agent.notebook.change(|notes| notes.epoch = Epoch(1)).unwrap();
        assert!(matches!(agent.answer(Request::Resync), Answer::Refused(_)), "the copy runs");
        agent.notebook.change(|notes| notes.copy_end = Some(Lsn(1))).unwrap();
        assert!(matches!(agent.answer(Request::Resync), Answer::Resync));
        let noted = Notebook::open(&agent.settings.notes()).unwrap().unwrap().read();
        assert!(noted.resync, "whatever ends this agent, the next one knows");
    }

    #[test]
    fn one_freeze_ends_before_the_next_begins() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = keeper(folder.path());
        let out = folder.path().join("out");
        let say = |word: &str| {
            let script = format!("echo {word} >> {}", out.display());
            vec!["sh".to_owned(), "-c".to_owned(), script]
        };
        let agent = Arc::get_mut(&mut keeper.agent).unwrap();
        let (freeze, thaw, limit) = (say("freeze"), say("thaw"), Duration::from_secs(20));
        agent.settings.hooks = Hooks { freeze, thaw, file_systems: Vec::new(), limit };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| agent.mark_frozen("").unwrap());
            }
        });
        let said = || std::fs::read_to_string(&out).unwrap();
        assert_eq!(said(), "freeze\nthaw\n".repeat(4));
        agent.close();
        assert!(matches!(agent.mark_frozen(""), Err(MarkError::Stopping)));
        assert_eq!(said(), "freeze\nthaw\n".repeat(4), "nothing is frozen any more");
    }
}
