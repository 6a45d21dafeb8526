//! Room that is set aside on the journal's file system, so that a batch that was taken can be written
//! though others have filled it.
//!
//! It is a file without a name, which goes with the process. Where a file system can't reserve room it
//! is left out, and one that is full ends the journal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Its name as long as it has one: none of a journal's.
const NAME: &str = "set-aside";

#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing: it wasn't asked for yet, or was taken.
    Nothing,
    Held {
        _file: File,
    },
    /// The file system can't.
    Impossible,
}

/// Whether a file system, or somebody's share of it, is full.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Aside {
    pub(super) fn in_directory(path: &Path) -> Self {
        Self { path: path.join(NAME), state: Mutex::new(State::Nothing) }
    }

    /// Whether so many bytes are set aside, which is tried where they aren't.
    pub(super) fn holds(&self, bytes: u64) -> bool {
        let mut state = self.state();
        if matches!(*state, State::Nothing) {
            match self.set(bytes) {
                Ok(file) => *state = State::Held { _file: file },
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => *state = State::Impossible,
                // There is no room yet.
                Err(_) => {}
            }
        }
        !matches!(*state, State::Nothing)
    }

    fn set(&self, bytes: u64) -> Result<File, Errno> {
        let errno = |error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let mut how = OpenOptions::new();
        let how = how.write(true).create(true).truncate(true).mode(0o600);
        let file = how.open(&self.path).map_err(errno)?;
        std::fs::remove_file(&self.path).map_err(errno)?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        Ok(file)
    }

    /// Gives the room back, for a write that finds no other; whether there was some.
    pub(super) fn take(&self) -> bool {
        let mut state = self.state();
        if !matches!(*state, State::Held { .. }) {
            return false;
        }
        *state = State::Nothing;
        true
    }

    /// Does something, and where there is no room once more with what was set aside.
    pub(super) fn or_taken<T>(&self, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match act() {
            Err(error) if is_no_room(&error) && self.take() => act(),
            done => done,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole between calls, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_set_aside_takes_room_has_no_name_and_is_given_to_what_finds_none() {
        let folder = tempfile::tempdir().unwrap();
        let aside = Aside::in_directory(folder.path());
        let full = || Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull));
        assert!(aside.or_taken(full).is_err(), "nothing is set aside yet");
        assert!(aside.holds(1 << 20) && aside.holds(1 << 20));
        if let State::Held { _file } = &*aside.state() {
            assert!(_file.metadata().unwrap().blocks() >= 2048);
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        let tries = Cell::new(0);
        let second = || match tries.replace(tries.get() + 1) {
            0 => full(),
            _ => Ok(()),
        };
        aside.or_taken(second).unwrap();
        assert!(matches!(*aside.state(), State::Nothing));
        assert!(aside.or_taken(full).is_err() && aside.holds(1 << 20));
        let other = || Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(aside.or_taken(other).is_err());
        assert!(matches!(*aside.state(), State::Held { .. }), "it is for those without room");
    }
}
