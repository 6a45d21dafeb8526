//! What an agent must know of itself when it starts again, besides its journal: its epoch, its disks as
//! they were declared, and how far their copy is. One small file, replaced as a whole.
//!
//! Invariant: what stands there is true of the journal that is durable. So a note is made after what it
//! says is durable; one that is missing costs work done twice, never a wrong point.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tidegate_model::{Disk, Epoch, Incarnation, Lsn, Point, Token};

use super::error::LiveError;
use crate::session::Stands;

/// The version of the file that is written.
const VERSION: u32 = 1;
/// Longest file that is read: 64 disks with the longest names, and 64 that were removed.
const NOTES_BYTES_MAX: u64 = 256 << 10;

/// Most tokens that are noted. Where more runs than that had no welcome, and one of those in between had one
/// that it didn't hear, the history is taken for another's: a resync for nothing.
const TOKENS_MAX: usize = 32;

/// What is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    version: u32,
    /// Whose journal they belong to.
    pub incarnation: Incarnation,
    /// The epoch that a server granted; none before the first welcome.
    pub epoch: Epoch,
    /// The last LSN of it that the vault is known to have, as of some moments ago.
    #[serde(default)]
    pub committed: Lsn,
    /// What that stands on, unless a server said otherwise: its disks are compared with that.
    #[serde(default)]
    pub stands: Stands,
    /// The disks.
    pub disks: Vec<NotedDisk>,
    /// The bookmark that ended the initial copy.
    pub copy_end: Option<Lsn>,
    /// Disks that this incarnation declared to be there no more: the next one does, too, for the vault may
    /// not have heard it.
    #[serde(default)]
    pub removed: Vec<Disk>,
    /// A resync was asked for: another incarnation follows.
    #[serde(default)]
    pub resync: bool,
    /// No connection has sent a record beyond this one. `None` from a welcome on: then all that the journal
    /// has may have been sent.
    #[serde(default)]
    pub sent: Option<Lsn>,
    /// By which the epoch's last session is known to be this agent's: those of the last run that was welcomed,
    /// and of those since, which may have been without having heard it.
    #[serde(default)]
    pub tokens: Vec<Token>,
}

/// A disk as it was declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedDisk {
    /// What was declared.
    pub disk: Disk,
    /// The LSN of that.
    pub declared: Lsn,
    /// Bytes from its beginning on that the initial copy has captured, or the resync compared.
    pub bytes_copied: u64,
}

impl Notes {
    /// Those of a new incarnation with these disks, whose declarations have the LSNs from 1 on.
    #[must_use]
    pub fn new(incarnation: Incarnation, stands: Stands, disks: Vec<Disk>) -> Self {
        let noted = (1..).zip(disks);
        let noted =
            noted.map(|(lsn, disk)| NotedDisk { disk, declared: Lsn(lsn), bytes_copied: 0 });
        let (version, epoch, disks) = (VERSION, Epoch::NONE, noted.collect());
        let committed = Lsn::NONE;
        let (copy_end, removed, resync, sent) = (None, Vec::new(), false, Some(Lsn::NONE));
        Self {
            version,
            incarnation,
            epoch,
            committed,
            stands,
            disks,
            copy_end,
            removed,
            resync,
            sent,
            tokens: Vec::new(),
        }
    }

    /// What an incarnation that follows this one stands on, as far as this one knows.
    #[must_use]
    pub fn followed_from(&self) -> Stands {
        match (self.epoch, self.committed) {
            // It was never welcomed.
            (Epoch::NONE, _) => self.stands,
            (_, Lsn::NONE) => Stands::Newest,
            (epoch, lsn) => Stands::Point(Point { epoch, lsn }),
        }
    }

    /// The disks that are declared at or before `lsn`.
    #[must_use]
    pub fn declared(&self, lsn: Lsn) -> Vec<Disk> {
        let declared = self.disks.iter().filter(|noted| noted.declared <= lsn);
        declared.map(|noted| noted.disk.clone()).collect()
    }
}

/// The notes and their file.
#[derive(Debug)]
pub struct Notebook {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    notes: Notes,
    /// Whether the file says the same.
    written: bool,
}

impl Notebook {
    /// The notes in `path`; `None` where there are none, or none that can be understood.
    ///
    /// # Errors
    /// [`LiveError::File`], [`LiveError::NewerNotes`].
    pub fn open(path: &Path) -> Result<Option<Self>, LiveError> {
        let mut bytes = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(NOTES_BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => drop(read.map_err(|error| unusable(path, "read", error))?),
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if let Ok(Version { version }) = serde_json::from_slice(&bytes)
            && version > VERSION
        {
            return Err(LiveError::NewerNotes { path: path.to_owned(), version });
        }
        match serde_json::from_slice(&bytes) {
            Ok(notes) => Ok(Some(Self::holding(path, notes))),
            Err(error) => {
                tracing::error!(
                    path = %path.display(), %error,
                    "the agent's notes can't be understood: its disks are copied anew"
                );
                Ok(None)
            }
        }
    }

    /// Begins anew with these notes.
    ///
    /// # Errors
    /// [`LiveError::File`].
    pub fn create(path: &Path, notes: Notes) -> Result<Self, LiveError> {
        write(path, &notes)?;
        Ok(Self::holding(path, notes))
    }

    fn holding(path: &Path, notes: Notes) -> Self {
        Self { path: path.to_owned(), held: Mutex::new(Held { notes, written: true }) }
    }

    /// The notes as they are now.
    #[must_use]
    pub fn read(&self) -> Notes {
        self.lock().notes.clone()
    }

    /// Changes the notes; they are durable when this returns. What changes nothing costs nothing.
    ///
    /// # Errors
    /// [`LiveError::File`]; nothing is changed then.
    pub fn change(&self, change: impl FnOnce(&mut Notes)) -> Result<(), LiveError> {
        let mut held = self.lock();
        let mut notes = held.notes.clone();
        change(&mut notes);
        if notes != held.notes || !held.written {
            write(&self.path, &notes)?;
            *held = Held { notes, written: true };
        }
        Ok(())
    }

    /// The same where the file system may be full: then nothing is changed, and false is given.
    ///
    /// # Errors
    /// [`LiveError::File`] for any other cause.
    pub fn change_if_room(&self, change: impl FnOnce(&mut Notes)) -> Result<bool, LiveError> {
        match self.change(change) {
            Err(error) if error.is_of_room() => {
                tracing::debug!(%error, "it is noted when there is room");
                Ok(false)
            }
            changed => changed.map(|()| true),
        }
    }

    /// Begins a run of an agent, whose journal was recovered up to `recovered_to`, and which is known by
    /// `token`. That is noted, at once or with the next change: what it captures without a server never
    /// counts as sent, and a session that it doesn't hear of as another's.
    ///
    /// # Errors
    /// [`LiveError::File`]; a file system that is full is none, for the disks are served all the same.
    pub fn begin_run(&self, recovered_to: Lsn, token: Token) -> Result<(), LiveError> {
        {
            let Held { notes, written } = &mut *self.lock();
            notes.sent.get_or_insert(recovered_to);
            if notes.tokens.len() >= TOKENS_MAX {
                // The first is of who was welcomed.
                notes.tokens.remove(1);
            }
            notes.tokens.push(token);
            *written = false;
        }
        self.change_if_room(|_| ()).map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // They are replaced as a whole, whoever panicked.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the file in the place of the one before, durable as a whole.
fn write(path: &Path, notes: &Notes) -> Result<(), LiveError> {
    let replace = || -> io::Result<()> {
        let new = path.with_extension("new");
        let mut how = OpenOptions::new();
        let mut file = how.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(notes)?)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    replace().map_err(|error| unusable(path, "written", error))
}

fn unusable(path: &Path, what: &'static str, error: io::Error) -> LiveError {
    LiveError::File { path: path.to_owned(), what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> Notes {
        let disk = |number: u8| Disk {
            number: number.try_into().unwrap(),
            bytes: 1 << 20,
            name: "/dev/vda".to_owned(),
        };
        let incarnation = Incarnation::from_bytes([1; 16]);
        Notes::new(incarnation, Stands::Newest, vec![disk(0), disk(3)])
    }

    #[test]
    fn what_was_noted_is_there_when_the_agent_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.json");
        assert!(Notebook::open(&path).unwrap().is_none());
        let book = Notebook::create(&path, notes()).unwrap();
        book.change(|notes| notes.disks[1].bytes_copied = 7).unwrap();
        book.change(|notes| notes.epoch = Epoch(3)).unwrap();
        let read = Notebook::open(&path).unwrap().unwrap().read();
        assert_eq!((read.epoch, read.disks[1].bytes_copied), (Epoch(3), 7));
        assert_eq!(read, book.read());
        assert_eq!(read.declared(Lsn(1)).len(), 1);
        assert_eq!(read.declared(Lsn(2))[1].number.get(), 3);
    }

    #[test]
    fn the_runs_that_may_have_had_the_last_session_are_noted_and_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.json");
        let book = Notebook::create(&path, notes()).unwrap();
        let token = |number: usize| Token::from_bytes([u8::try_from(number).unwrap(); 16]);
        for number in 0..2 * TOKENS_MAX {
            book.begin_run(Lsn(number as u64), token(number)).unwrap();
        }
        let read = Notebook::open(&path).unwrap().unwrap().read();
        assert_eq!((read.tokens.len(), read.sent), (TOKENS_MAX, Some(Lsn(0))));
        assert_eq!(read.tokens[..2], [token(0), token(TOKENS_MAX + 1)]);
        // It was welcomed, and may have sent all that there was at its end.
        book.change(|notes| notes.sent = None).unwrap();
        book.begin_run(Lsn(99), token(1)).unwrap();
        assert_eq!(book.read().sent, Some(Lsn(99)));
    }

    #[test]
    fn notes_that_are_damaged_count_as_none_and_those_of_a_newer_version_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.json");
        for garbage in ["", "{", "[]", "{\"version\":1}", "\u{0}\u{0}"] {
            std::fs::write(&path, garbage).unwrap();
            assert!(Notebook::open(&path).unwrap().is_none(), "{garbage}");
        }
        std::fs::write(&path, "{\"version\":2,\"what\":[]}").unwrap();
        let error = Notebook::open(&path).unwrap_err().to_string();
        assert!(error.contains("newer version (2)"), "{error}");
    }
}
