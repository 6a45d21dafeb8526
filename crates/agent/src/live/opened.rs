//! Finding out, at a start, whether the history goes on where it ended, or begins anew.
//!
//! It goes on only where nothing can be missing from it: the journal is whole, and was closed or lost
//! nothing that the disks' marks don't name; the notes are of this journal; the disks are those that were
//! declared. Everything else is a new incarnation, whose disks are compared with what the vault has of
//! them: as it was where this agent knows it to have been, or as it was last.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use tidegate_hrl::journal::{Birth, Change, Ending, JournalSettings, Opening, discard};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::{BookmarkKind, Disk, Incarnation, Remedy};
use tokio::sync::watch;

use super::error::LiveError;
use super::notes::{Notebook, Notes};
use super::origins;
use super::settings::{DiskSource, LiveDisk, LiveSettings};
use super::{Journal, Passing, Progressing, Stands, Tap};
use crate::pass::Image;
use crate::source::Source;
use crate::tap::{Resumed, TapError, TapSettings};

/// An agent's journal, notes and taps, open.
pub(super) struct Opened {
    pub journal: Arc<Journal>,
    pub opening: Opening,
    pub notebook: Arc<Notebook>,
    pub taps: Vec<Arc<Tap>>,
    pub passing: Vec<Arc<Passing>>,
    /// Whether the history goes on: the life before may have left a gap open.
    pub goes_on: bool,
    pub progress: watch::Sender<Progressing>,
}

/// Whether the history goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// As it is found.
    GoOn,
    /// It can't: a new one begins, which stands on this.
    Anew(Stands),
    /// A new one begins at the end of this one.
    Resync,
}

/// Why the history can't go on, and what a new one follows.
struct Broken {
    cause: String,
    before: Before,
}

/// What a new history follows, as far as this agent knows.
struct Before {
    /// What it stands on.
    stands: Stands,
    /// The disks that there were.
    disks: Vec<Disk>,
}

impl Before {
    /// What the notes tell; of whichever journal they are, the vault had what they say.
    fn of(notes: Option<&Notes>) -> Self {
        let Some(notes) = notes else { return Self { stands: Stands::Newest, disks: Vec::new() } };
        let disks = notes.disks.iter().map(|noted| &noted.disk).chain(&notes.removed).cloned();
        let disks = disks.collect();
        Self { stands: notes.followed_from(), disks }
    }
}

/// Opens everything in the agent's folder. Blocks.
pub(super) fn open(settings: &LiveSettings, wish: Wish) -> Result<Opened, LiveError> {
    make_folder(settings)?;
    let storage = UringStorage::open(&settings.journal())?;
    let notes = || Ok::<_, LiveError>(Notebook::open(&settings.notes())?.map(|book| book.read()));
    let before = match wish {
        Wish::Anew(stands) => Before { stands, ..Before::of(notes()?.as_ref()) },
        Wish::GoOn | Wish::Resync => match go_on(settings, &storage, wish, notes()?, None)? {
            Ok(opened) => return Ok(opened),
            Err(Broken { cause, before }) => {
                if wish == Wish::GoOn {
                    tracing::error!(
                        %cause, stands = ?before.stands,
                        "the history can't go on: the disks are compared with the vault"
                    );
                }
                before
            }
        },
    };
    discard(&storage)?;
    let opened = go_on(settings, &storage, Wish::GoOn, None, Some(before))?;
    opened.map_err(|Broken { cause, .. }| LiveError::NotAnew { cause })
}

fn make_folder(settings: &LiveSettings) -> Result<(), LiveError> {
    match DirBuilder::new().mode(0o700).create(&settings.folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let path = settings.folder.clone();
            Err(LiveError::File { path, what: "made", error })
        }
        _ => Ok(()),
    }
}

/// Opens what is there, or begins anew where nothing is: then after `before`, or after what `notes` tell.
fn go_on(
    settings: &LiveSettings,
    storage: &UringStorage,
    wish: Wish,
    notes: Option<Notes>,
    before: Option<Before>,
) -> Result<Result<Opened, Broken>, LiveError> {
    let (progress, _) = watch::channel(Progressing::default());
    let told = progress.clone();
    let tell = move |lsn| told.send_modify(|progress| progress.durable = lsn);
    let incarnation = Incarnation::from_bytes((settings.random)());
    let birth = Birth { incarnation, boot: settings.boot };
    let bounds = JournalSettings::of(settings.journal_bytes)?;
    let broken = |cause: &dyn fmt::Display| {
        let (cause, before) = (cause.to_string(), Before::of(notes.as_ref()));
        Ok(Err(Broken { cause, before }))
    };
    let opened = Journal::open(storage.clone(), bounds, &birth, Box::new(tell));
    let (journal, opening) = match opened {
        Err(error) if error.remedy() == Remedy::Repair => return broken(&error),
        opened => opened?,
    };
    let journal = Arc::new(journal);
    let goes_on = opening.ending != Ending::New;
    let disks = declared(settings)?;
    if goes_on && let Some(cause) = cause_to_begin_anew(wish, notes.as_ref(), &opening, &disks) {
        return broken(&cause);
    }
    let notebook = match Notebook::open(&settings.notes())?.filter(|_| goes_on) {
        Some(notebook) => notebook,
        None => {
            let before = before.unwrap_or_else(|| Before::of(notes.as_ref()));
            begin(settings, &journal, &opening, disks, &before)?
        }
    };
    if settings.disks.iter().any(|disk| disk.listen().is_none()) {
        journal.begin_gap(BookmarkKind::GapPass, (settings.clock)());
    }
    forget_other_sources(settings)?;
    let mut taps = Vec::new();
    for disk in settings.disks.iter().filter(|disk| disk.listen().is_some()) {
        let (path, marks) = (disk.path.clone(), settings.marks(disk.number));
        let told = TapSettings { disk: disk.number, path, marks, boot: settings.boot };
        let (journal, clock) = (journal.clone(), settings.clock.clone());
        if !goes_on {
            taps.push(Arc::new(Tap::create(&told, journal, &opening, clock)?));
            continue;
        }
        match Tap::resume(&told, journal, &opening, clock)? {
            Resumed::Whole(tap) => taps.push(Arc::new(tap)),
            Resumed::Reread(tap, ranges) => {
                tracing::info!(disk = %disk.number, ?ranges, "what was in flight was read again");
                taps.push(Arc::new(tap));
            }
            Resumed::Resync(cause) => {
                return broken(&format!("disk {}: {cause}", disk.number));
            }
        }
    }
    let passing = passing(settings, &journal, &opening, &notebook.read())?;
    let notebook = Arc::new(notebook);
    Ok(Ok(Opened { journal, opening, notebook, taps, passing, goes_on, progress }))
}

/// Removes what the sources that disks had before knew of them: it isn't told what these captured.
fn forget_other_sources(settings: &LiveSettings) -> Result<(), LiveError> {
    for disk in &settings.disks {
        let path = match disk.listen() {
            Some(_) => settings.hashes(disk.number),
            None => settings.marks(disk.number),
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LiveError::File { path, what: "removed", error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The disks that are captured in passes.
fn passing(
    settings: &LiveSettings,
    journal: &Arc<Journal>,
    opening: &Opening,
    notes: &Notes,
) -> Result<Vec<Arc<Passing>>, LiveError> {
    let mut passing = Vec::new();
    let disks: Vec<_> = notes.disks.iter().map(|noted| noted.disk.clone()).collect();
    for (disk, origin) in origins::of(settings, opening.incarnation, &disks)? {
        let (hashes, journal) = (settings.hashes(disk.number), journal.clone());
        let clock = settings.clock.clone();
        passing.push(Arc::new(Passing::open(&disk, origin, &hashes, journal, opening, clock)?));
    }
    Ok(passing)
}

/// The disks as they are declared.
fn declared(settings: &LiveSettings) -> Result<Vec<Disk>, LiveError> {
    let declare = |disk: &LiveDisk| {
        if let DiskSource::Bitmap(_) = disk.source {
            let Image { name, bytes } = Image::open(&disk.path)?;
            return Ok(Disk { number: disk.number, bytes, name });
        }
        let source = Source::open(&disk.path).map_err(TapError::from)?;
        let (bytes, name) = (source.bytes(), source.name().to_owned());
        Ok(Disk { number: disk.number, bytes, name })
    };
    settings.disks.iter().map(declare).collect()
}

/// Why a journal with records in it can't go on, as far as it and the notes tell.
fn cause_to_begin_anew(
    wish: Wish,
    notes: Option<&Notes>,
    opening: &Opening,
    disks: &[Disk],
) -> Option<&'static str> {
    if opening.ending == (Ending::Unclean { same_boot: false }) {
        return Some("the host ended while the journal was open");
    }
    let Some(notes) = notes else { return Some("there are no notes of the journal") };
    if notes.incarnation != opening.incarnation {
        return Some("the notes are of another journal");
    }
    if !notes.disks.iter().map(|noted| &noted.disk).eq(disks) {
        return Some("the disks, or their sizes, are others than before");
    }
    (wish == Wish::Resync || notes.resync).then_some("a resync was asked for")
}

/// Declares the disks, which are the first records of a new incarnation, then those that were removed,
/// and notes that all must be captured or compared.
fn begin(
    settings: &LiveSettings,
    journal: &Journal,
    opening: &Opening,
    disks: Vec<Disk>,
    before: &Before,
) -> Result<Notebook, LiveError> {
    let is_there = |number| disks.iter().any(|disk| disk.number == number);
    let removed = before.disks.iter().filter(|disk| !is_there(disk.number));
    let removed: Vec<_> = removed.map(|disk| Disk { bytes: 0, ..disk.clone() }).collect();
    for disk in disks.iter().chain(&removed).cloned() {
        let lsn =
            journal.append(&Change::Disk(disk), (settings.clock)()).map_err(LiveError::Declared)?;
        journal.wait_durable(lsn)?;
    }
    let mut notes = Notes::new(opening.incarnation, before.stands, disks);
    notes.removed = removed;
    Notebook::create(&settings.notes(), notes)
}

#[cfg(test)]
mod tests;
