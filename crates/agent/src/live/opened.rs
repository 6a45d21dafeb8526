//! Finding out, at a start, whether the history goes on where it ended, or begins anew.
//!
//! It goes on only where nothing can be missing from it: the journal is whole, and was closed or lost
//! nothing that the disks' marks don't name; the notes are of this journal; the disks are those that were
//! declared. Everything else is a new incarnation, whose initial copy begins by itself.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use tidegate_hrl::journal::{Birth, Change, Ending, JournalSettings, Opening, discard};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::{Disk, Remedy};
use tokio::sync::watch;

use super::error::LiveError;
use super::notes::{Notebook, Notes};
use super::origins;
use super::settings::{DiskSource, LiveDisk, LiveSettings};
use super::{Journal, Passing, Progressing, Tap};
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
    /// Ranges were in flight when the agent was killed, and are appended anew.
    pub reread: bool,
    pub progress: watch::Sender<Progressing>,
}

/// Why the history can't go on.
type Cause = String;

/// Opens everything in the agent's folder; `anew` where it is known that nothing can go on. Blocks.
pub(super) fn open(settings: &LiveSettings, anew: bool) -> Result<Opened, LiveError> {
    make_folder(settings)?;
    let storage = UringStorage::open(&settings.journal())?;
    if !anew {
        match go_on(settings, &storage)? {
            Ok(opened) => return Ok(opened),
            Err(cause) => {
                tracing::error!(%cause, "the history can't go on: the disks are copied anew");
            }
        }
    }
    discard(&storage)?;
    go_on(settings, &storage)?.map_err(|cause| LiveError::NotAnew { cause })
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

fn go_on(
    settings: &LiveSettings,
    storage: &UringStorage,
) -> Result<Result<Opened, Cause>, LiveError> {
    let (progress, _) = watch::channel(Progressing::default());
    let told = progress.clone();
    let tell = move |lsn| told.send_modify(|progress| progress.durable = lsn);
    let birth = Birth { incarnation: (settings.new_incarnation)(), boot: settings.boot };
    let bounds = JournalSettings::of(settings.journal_bytes)?;
    let opened = Journal::open(storage.clone(), bounds, &birth, Box::new(tell));
    let (journal, opening) = match opened {
        Err(error) if error.remedy() == Remedy::Repair => return Ok(Err(error.to_string())),
        opened => opened?,
    };
    let journal = Arc::new(journal);
    let known = match known(settings, &opening)? {
        Ok(known) => known,
        Err(cause) => return Ok(Err(cause)),
    };
    let disks = declared(settings)?;
    let (mut taps, mut reread) = (Vec::new(), false);
    let goes_on = known.is_some();
    let notebook = match known {
        Some(notebook) if notebook.read().disks.iter().map(|noted| &noted.disk).eq(&disks) => {
            notebook
        }
        Some(_) => {
            return Ok(Err("the disks, or their sizes, are others than before".to_owned()));
        }
        None => begin(settings, &journal, &opening, disks)?,
    };
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
                reread = true;
                taps.push(Arc::new(tap));
            }
            Resumed::Resync(cause) => return Ok(Err(format!("disk {}: {cause}", disk.number))),
        }
    }
    let passing = passing(settings, &journal, &opening, &notebook.read())?;
    let notebook = Arc::new(notebook);
    Ok(Ok(Opened { journal, opening, notebook, taps, passing, reread, progress }))
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

/// The notes of a journal that goes on; none where it is new.
fn known(
    settings: &LiveSettings,
    opening: &Opening,
) -> Result<Result<Option<Notebook>, Cause>, LiveError> {
    let cause = match opening.ending {
        Ending::New => return Ok(Ok(None)),
        Ending::Unclean { same_boot: false } => "the host ended while the journal was open",
        Ending::Clean | Ending::Unclean { same_boot: true } => {
            match Notebook::open(&settings.notes())? {
                Some(notebook) if notebook.read().incarnation == opening.incarnation => {
                    return Ok(Ok(Some(notebook)));
                }
                Some(_) => "the notes are of another journal",
                None => "there are no notes of the journal",
            }
        }
    };
    Ok(Err(cause.to_owned()))
}

/// Declares the disks, which are the first records of a new incarnation, and notes that all of them must
/// be captured.
fn begin(
    settings: &LiveSettings,
    journal: &Journal,
    opening: &Opening,
    disks: Vec<Disk>,
) -> Result<Notebook, LiveError> {
    for disk in &disks {
        let lsn = journal
            .append(&Change::Disk(disk.clone()), (settings.clock)())
            .map_err(LiveError::Declared)?;
        journal.wait_durable(lsn)?;
    }
    Notebook::create(&settings.notes(), Notes::new(opening.incarnation, disks))
}
