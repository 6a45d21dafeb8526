//! A live agent as its parts share it: the journal, the taps, and what may be done to them one at a time.
//!
//! Invariant: a bookmark stands only where every disk is whole: not in a gap, not while what a gap left
//! out is read again. So placing one and closing a gap take turns.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tidegate_hrl::journal::{AppendError, Change};
use tidegate_model::limits::TEXT_BYTES_MAX;
use tidegate_model::{Bookmark, BookmarkKind, Epoch, Lsn, Micros};
use tokio::sync::Notify;

use super::board::Board;
use super::control::{Answer, Answers, Request};
use super::drain::SharedLink;
use super::error::{LiveError, MarkError, PassFailed};
use super::rate::Rate;
use super::settings::{LiveDisk, LiveSettings};
use super::status::{CopyStatus, DiskStatus, Marked, Mode, PassStatus, Status};
use super::{Journal, Notebook, Notes, Passing, Stands, Tap};
use crate::capture::{self, Capture};
use crate::pass::PassError;
use crate::progress::Progress;
use crate::session::Questions;
use crate::tap;

/// Moments kept for the lag: one for each step of the journal that isn't committed.
const MOMENTS_MAX: usize = 4096;

/// A live agent.
pub(super) struct Agent {
    pub settings: LiveSettings,
    pub journal: Arc<Journal>,
    pub notebook: Arc<Notebook>,
    pub taps: Vec<Arc<Tap>>,
    pub passing: Vec<Arc<Passing>>,
    pub passes: Board,
    pub link: SharedLink,
    pub progress: Arc<Progress>,
    /// What the vault is asked by hashes.
    pub questions: Arc<Questions>,
    /// Told when somebody wants a resync.
    pub resync: Notify,
    order: Mutex<Order>,
    /// Whose hooks are at work.
    freezing: Mutex<()>,
    seen: Mutex<Seen>,
}

/// What takes turns.
struct Order {
    closed: bool,
}

/// What was seen from time to time.
struct Seen {
    /// LSNs with the time when they were the last ones; the oldest isn't committed.
    moments: VecDeque<(Lsn, Micros)>,
    committed: Rate,
    copied: Rate,
    newest: Option<Marked>,
}

impl Agent {
    pub fn new(
        settings: LiveSettings,
        journal: Arc<Journal>,
        notebook: Arc<Notebook>,
        taps: Vec<Arc<Tap>>,
        passing: Vec<Arc<Passing>>,
    ) -> Self {
        Self {
            settings,
            journal,
            notebook,
            taps,
            passing,
            passes: Board::begun(),
            link: SharedLink::default(),
            progress: Arc::default(),
            questions: Arc::default(),
            resync: Notify::new(),
            order: Mutex::new(Order { closed: false }),
            freezing: Mutex::default(),
            seen: Mutex::new(Seen {
                moments: VecDeque::new(),
                committed: Rate::default(),
                copied: Rate::default(),
                newest: None,
            }),
        }
    }

    /// Now.
    pub fn now(&self) -> Micros {
        (self.settings.clock)()
    }

    /// Whether every LSN is a moment of the machine, once it is captured as a whole: each write to each
    /// of its disks has its record.
    pub fn is_ordered(&self) -> bool {
        let tapped = self.taps.iter().map(|tap| tap.order());
        let mut orders = tapped.chain(self.passing.iter().map(|disk| disk.order()));
        orders.all(|order| order == capture::Order::EachWrite)
    }

    /// Places a bookmark, and waits until it is durable.
    pub fn mark(&self, kind: BookmarkKind, name: &str) -> Result<Marked, MarkError> {
        let order = self.order();
        if order.closed {
            return Err(MarkError::Stopping);
        }
        self.place(Bookmark { kind, clean: true, name: name.to_owned() })
    }

    /// Places the bookmark at the end of a pass; clean unless `judge` gives a cause why not. Nothing is
    /// written to the disks that are served from its judgement on until the bookmark stands.
    pub fn mark_pass(
        &self,
        kind: BookmarkKind,
        name: &str,
        judge: impl FnOnce() -> Result<Option<String>, PassError>,
    ) -> Result<(Marked, Option<String>), PassFailed> {
        let order = self.order();
        if order.closed {
            return Err(PassFailed::Stopped);
        }
        // Clients aren't held up for what can't stand yet.
        if let Some(tap) = self.taps.iter().find(|tap| tap.state().mode != tap::Mode::Data) {
            return Err(MarkError::Gap { disk: tap.disk() }.into());
        }
        let _still: Vec<_> = self.taps.iter().map(|tap| tap.still()).collect();
        let fuzzy = judge()?;
        let bookmark = Bookmark { kind, clean: fuzzy.is_none(), name: name.to_owned() };
        let marked = self.place(bookmark)?;
        // What is recorded from here on is of disks of which the others aren't known.
        self.journal.begin_gap(BookmarkKind::GapPass, self.now());
        Ok((marked, fuzzy))
    }

    fn place(&self, bookmark: Bookmark) -> Result<Marked, MarkError> {
        let (kind, name) = (bookmark.kind, bookmark.name.clone());
        let (lsn, time) = self.append_whole(&Change::Bookmark(bookmark))?;
        self.journal.wait_durable(lsn)?;
        let epoch = self.notebook.read().epoch;
        tracing::info!(%lsn, ?kind, name, "a bookmark");
        let marked = Marked { epoch, lsn, time, kind, name };
        self.seen().newest = Some(marked.clone());
        Ok(marked)
    }

    /// Appends what may stand only where every disk is whole. No tap can fall in between: what the
    /// journal then lacks isn't answered before this is in it.
    fn append_whole(&self, change: &Change<&[u8]>) -> Result<(Lsn, Micros), MarkError> {
        loop {
            let held: Vec<_> = self.taps.iter().map(|tap| tap.hold()).collect();
            if let Some(at) = held.iter().position(|hold| !hold.is_whole()) {
                return Err(MarkError::Gap { disk: self.taps[at].disk() });
            }
            let time = self.now();
            match self.journal.append(change, time) {
                Err(AppendError::Behind { .. }) => {
                    drop(held);
                    self.journal.wait_durable(self.journal.usage().last)?;
                }
                appended => return Ok((appended?, time)),
            }
        }
    }

    /// The same with applications frozen around it, as far as hooks are named.
    pub fn mark_frozen(&self, name: &str) -> Result<Marked, MarkError> {
        self.frozen(|| self.mark(BookmarkKind::ApplicationConsistent, name))?
    }

    /// Does something while applications are frozen.
    pub fn frozen<T>(&self, work: impl FnOnce() -> T) -> Result<T, MarkError> {
        if self.settings.hooks.are_none() {
            return Err(MarkError::NoHooks);
        }
        // Two at once would thaw each other.
        let _freezing = self.freezing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.order().closed {
            return Err(MarkError::Stopping);
        }
        Ok(self.settings.hooks.around(&self.settings.frozen(), work)?)
    }

    /// Does something that no bookmark may stand in.
    pub fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let _order = self.order();
        work()
    }

    /// From here on no bookmark is placed.
    pub fn close(&self) {
        self.order().closed = true;
    }

    /// Notes what the vault has, for whoever must go on from there without the journal.
    pub fn note_committed(&self) -> Result<(), LiveError> {
        let committed = self.journal.usage().committed;
        self.notebook.change_if_room(|notes| notes.committed = committed).map(drop)
    }

    /// Looks at how far everything is; called some times a second.
    pub fn sample(&self, at: Instant) {
        let (usage, now) = (self.journal.usage(), self.now());
        let copied = self.bytes_copied();
        let mut seen = self.seen();
        while seen.moments.front().is_some_and(|(lsn, _)| *lsn <= usage.committed) {
            seen.moments.pop_front();
        }
        let newest = seen.moments.back().map_or(usage.committed, |(lsn, _)| *lsn);
        if usage.last > newest && seen.moments.len() < MOMENTS_MAX {
            seen.moments.push_back((usage.last, now));
        }
        seen.committed.sample(at, self.progress.snapshot().bytes_committed);
        seen.copied.sample(at, copied);
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let (usage, notes, link) = (self.journal.usage(), self.notebook.read(), self.link.look());
        let backlog_records = usage.last.0 - usage.committed.0;
        let seen = self.seen();
        let oldest = seen.moments.iter().find(|(lsn, _)| *lsn > usage.committed);
        let lag = oldest.map_or(0, |(_, time)| self.now().0.saturating_sub(time.0));
        Status {
            machine: self.settings.machine.to_string(),
            incarnation: notes.incarnation,
            epoch: notes.epoch,
            server: link.server,
            connected: link.connected,
            trouble: link.trouble,
            captured: usage.last,
            committed: usage.committed,
            backlog_records,
            backlog_bytes: if backlog_records == 0 { 0 } else { usage.bytes },
            journal_bytes_max: usage.bytes_max,
            lag_ms: lag / 1000,
            bytes_per_second: seen.committed.a_second(),
            bytes_sent: self.progress.snapshot().bytes_sent,
            copy: self.copy_status(&notes, seen.copied.a_second()),
            disks: self.disks(),
            passes: self.pass_status(),
            bookmark: seen.newest.clone(),
        }
    }

    fn copy_status(&self, notes: &Notes, a_second: u64) -> CopyStatus {
        let (end, resync) = (notes.copy_end, notes.stands != Stands::Nothing);
        let bytes_total: u64 = notes.disks.iter().map(|noted| noted.disk.bytes).sum();
        let bytes_copied = self.bytes_copied();
        let seconds_left = if end.is_none() {
            bytes_total.saturating_sub(bytes_copied).checked_div(a_second)
        } else {
            None
        };
        CopyStatus { resync, bytes_total, bytes_copied, end, seconds_left }
    }

    /// Asks for a resync, which is a new incarnation.
    fn begin_resync(&self) -> Result<(), &'static str> {
        let notes = self.notebook.read();
        if notes.epoch == Epoch::NONE {
            return Err("no server has granted an epoch yet: there is nothing to compare with");
        }
        if notes.copy_end.is_none() {
            return Err("the initial copy, or a resync, is under way already");
        }
        // Whatever ends this life, the next one knows.
        if self.notebook.change(|notes| notes.resync = true).is_err() {
            return Err("that it was asked for can't be noted in the agent's folder; see to it");
        }
        self.resync.notify_one();
        Ok(())
    }

    fn bytes_copied(&self) -> u64 {
        let notes = self.notebook.read();
        let tapped: u64 = notes.disks.iter().map(|noted| noted.bytes_copied).sum();
        let is_whole = notes.copy_end.is_some();
        let of_pass = |disk: &Arc<Passing>| if is_whole { disk.bytes() } else { disk.looked() };
        tapped + self.passing.iter().map(of_pass).sum::<u64>()
    }

    fn disks(&self) -> Vec<DiskStatus> {
        let mut disks: Vec<DiskStatus> = self.taps.iter().map(|tap| self.tap_status(tap)).collect();
        disks.extend(self.passing.iter().map(|disk| DiskStatus {
            mode: Mode::Pass,
            looked: Some(disk.looked()),
            ..self.disk_status(&**disk)
        }));
        disks.sort_by_key(|disk| disk.number);
        disks
    }

    fn tap_status(&self, tap: &Tap) -> DiskStatus {
        let state = tap.state();
        let mode = match state.mode {
            tap::Mode::Data => Mode::Data,
            tap::Mode::Bitmap => Mode::Bitmap,
        };
        let since = state.since.map(|since| since.time);
        DiskStatus { mode, dirty_bytes: state.dirty_bytes, since, ..self.disk_status(tap) }
    }

    /// What is told of every disk.
    fn disk_status(&self, disk: &dyn Capture) -> DiskStatus {
        let told = self.settings.disks.iter().find(|told| told.number == disk.disk());
        let listen = told.and_then(LiveDisk::listen);
        DiskStatus {
            number: disk.disk().get(),
            path: disk.name().to_owned(),
            source: told.map_or("", |told| told.source.name()).to_owned(),
            listen: listen.map(|listen| listen.uri(&LiveSettings::export(disk.disk()))),
            bytes: disk.bytes(),
            mode: Mode::Data,
            dirty_bytes: 0,
            since: None,
            looked: None,
        }
    }

    fn pass_status(&self) -> Option<PassStatus> {
        let (running, last) = self.passes.look();
        let every = self.settings.passes.every.map(|every| every.as_secs());
        let life = self.passes.life;
        (!self.passing.is_empty()).then_some(PassStatus { every, life, running, last })
    }

    /// Asks for a bookmark.
    fn bookmark(&self, name: &str, application: bool) -> Result<Marked, MarkError> {
        check_name(name)?;
        if !self.is_ordered() {
            return Err(MarkError::Passes);
        }
        if self.notebook.read().copy_end.is_none() {
            return Err(MarkError::Copying);
        }
        if application {
            self.mark_frozen(name)
        } else {
            self.mark(BookmarkKind::CrashConsistent, name)
        }
    }

    /// Asks for a pass.
    fn pass(&self, name: String) -> Result<u64, MarkError> {
        check_name(&name)?;
        if self.is_ordered() {
            return Err(MarkError::NoPasses);
        }
        self.passes.ask(name)
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        // It is whole between statements, whoever panicked.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that a person gave.
fn check_name(name: &str) -> Result<(), MarkError> {
    if name.len() > TEXT_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(MarkError::Name);
    }
    Ok(())
}

impl Answers for Agent {
    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Resync => match self.begin_resync() {
                Ok(()) => Answer::Resync,
                Err(why) => Answer::Refused(why.to_owned()),
            },
            Request::Bookmark { name, application } => match self.bookmark(&name, application) {
                Ok(marked) => Answer::Marked(marked),
                Err(error) => Answer::Refused(error.to_string()),
            },
            Request::Pass { name } => match self.pass(name) {
                Ok(number) => Answer::Pass { number, life: self.passes.life },
                Err(error) => Answer::Refused(error.to_string()),
            },
        }
    }
}
