//! What a directory must be, and must stay, to hold a vault.
//!
//! Owns what the store client doesn't do for a directory: that it exists, that it has hard links
//! (create-if-absent is a hard link), that writers know of each other, that staging files of dead
//! writers go, and that a mount that went away isn't written beside. Reading and writing objects
//! is the client's.
//!
//! The lock file `.lock` is shared by all writers. Who holds it alone for a moment is the only
//! writer, and so may delete staging files: they are a crashed writer's. It is made and taken
//! before the first object is written, not before: a directory that was only looked at, because
//! there is no vault, stays as it is.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::StoreError;
use super::walk::{Unreadable, Walk};
use crate::MadeFolders;

/// The file that writers lock.
const LOCK: &str = ".lock";
/// Why some paths can't be a vault's.
const PART_IS_FILE: &str = "a part of its path is a file, not a directory";
/// What the names of the files that try hard links begin with.
pub(super) const PROBE: &str = ".probe-";

/// The directory of a vault that is written to.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    place: String,
    /// The directory as it was opened, to know it again.
    opened: File,
    /// The lock file from the first write on, held for its lock.
    lock: Mutex<Option<File>>,
    /// What was made for it; goes again if nothing is written.
    made: MadeFolders,
}

/// Refuses a directory that isn't there.
pub(super) fn check(path: &Path, place: &str) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(no_place(place, "that is a file, not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(no_place(place, "the directory doesn't exist; 'tidegate vault init' makes a vault"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(no_place(place, PART_IS_FILE))
        }
        Err(error) => Err(StoreError::of_io(place, "the directory", &error)),
    }
}

/// Makes a directory that only its owner may enter, and keeps one that is there.
pub(super) fn create(path: &Path, place: &str) -> Result<MadeFolders, StoreError> {
    let made = MadeFolders::make(path, 0o700);
    let durable = made.and_then(|made| {
        path.parent().map_or(Ok(()), sync_folder)?;
        Ok(made)
    });
    durable.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            no_place(place, PART_IS_FILE)
        }
        _ => StoreError::of_io(place, "the directory", &error),
    })
}

/// Makes what the folder lists durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Directory {
    /// Opens the directory; it isn't changed yet.
    pub fn open(path: &Path, place: &str, made: MadeFolders) -> Result<Self, StoreError> {
        check(path, place)?;
        let opened = File::open(path);
        let opened = opened.map_err(|error| StoreError::of_io(place, "the directory", &error))?;
        let (path, place) = (path.to_path_buf(), place.to_owned());
        Ok(Self { path, place, opened, lock: Mutex::new(None), made })
    }

    /// To be called before every write. Takes the directory for writing before the first: sweeps
    /// what dead writers left if no other writer lives, and checks that the file system will do.
    /// Refuses when the path no longer leads to the directory that was opened: writing on would
    /// fill what lies under a mount that went away, and call it stored.
    pub fn ready(&self) -> Result<(), StoreError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = &*lock {
            return self.check_same(lock, &self.path.join(LOCK));
        }
        let taken = self.check_same(&self.opened, &self.path).and_then(|()| self.take());
        *lock = Some(taken.map_err(|error| match self.path.try_exists() {
            Ok(false) => self.gone(),
            _ => error,
        })?);
        Ok(())
    }

    fn take(&self) -> Result<File, StoreError> {
        self.probe(|from, to| fs::hard_link(from, to))?;
        self.share(open_lock(&self.path, &self.place)?)
    }

    /// Locks it together with other writers; sweeps before if there are none.
    fn share(&self, lock: File) -> Result<File, StoreError> {
        if alone(&lock) {
            sweep(&self.path);
            // Taken again, shared, below; a writer that comes between finds nothing of ours yet.
            let _ = lock.unlock();
        }
        if let Err(error) = lock.lock_shared() {
            // Some network file systems have no locks. Writers don't need them, only sweeping does.
            tracing::warn!(place = %self.place, %error, "no lock: leftovers of crashed writers aren't swept");
        }
        // A writer that had made the directory, and wrote nothing, took both away while this one
        // waited. The store client would make it again, and for everybody.
        match self.check_same(&lock, &self.path.join(LOCK)) {
            Err(StoreError::Replaced { .. }) => Err(self.gone()),
            same => same.map(|()| lock),
        }
    }

    /// The error where nothing was written yet.
    fn gone(&self) -> StoreError {
        StoreError::Gone { place: self.place.clone() }
    }

    fn check_same(&self, held: &File, path: &Path) -> Result<(), StoreError> {
        let replaced = || StoreError::Replaced { place: self.place.clone() };
        let at = |error: io::Error| StoreError::of_io(&self.place, "the directory", &error);
        let held = held.metadata().map_err(at)?;
        let found = fs::metadata(path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound { replaced() } else { at(error) }
        })?;
        if (held.dev(), held.ino()) == (found.dev(), found.ino()) {
            Ok(())
        } else {
            Err(replaced())
        }
    }

    /// Makes durable that an object is there: its writer may have died before it did so.
    pub fn sync_entry(&self, path: &str) -> Result<(), StoreError> {
        let file = self.path.join(path);
        sync_folder(file.parent().unwrap_or(&self.path))
            .map_err(|error| StoreError::of_io(&self.place, path, &error))
    }

    fn probe(&self, link: impl Fn(&Path, &Path) -> io::Result<()>) -> Result<(), StoreError> {
        let name = self.path.join(format!("{PROBE}{}", std::process::id()));
        let second = name.with_extension("link");
        let at = |error: io::Error| StoreError::of_io(&self.place, "the directory", &error);
        // Left by a process of the same number that died here; or ours, in another thread.
        let _ = fs::remove_file(&second);
        OpenOptions::new().write(true).create(true).truncate(true).open(&name).map_err(at)?;
        let linked = link(&name, &second);
        let _ = fs::remove_file(&second);
        let _ = fs::remove_file(&name);
        match linked {
            Ok(()) => Ok(()),
            // Another thread of this process probed at the same time: it can link.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(at(error)),
            Err(error) => {
                Err(StoreError::NoHardLinks { place: self.place.clone(), cause: error.to_string() })
            }
        }
    }
}

impl Drop for Directory {
    /// A write that failed leaves a lock and nothing else: in a directory that was made for it that
    /// goes too, unless another writer has come.
    fn drop(&mut self) {
        let lock = self.lock.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.made.is_empty() || !lock.as_ref().is_some_and(alone) {
            return;
        }
        let only_lock = |mut names: fs::ReadDir| {
            names.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))
        };
        if fs::read_dir(&self.path).is_ok_and(only_lock) {
            let _ = fs::remove_file(self.path.join(LOCK));
        }
    }
}

fn no_place(place: &str, advice: &str) -> StoreError {
    StoreError::NoPlace { place: place.to_owned(), advice: advice.to_owned() }
}

fn open_lock(path: &Path, place: &str) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK))
        .map_err(|error| StoreError::of_io(place, LOCK, &error))
}

fn alone(lock: &File) -> bool {
    match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "the vault's directory can't be locked");
            false
        }
    }
}

/// Deletes what crashed writers left. What can't be read or deleted stays: it does no harm.
fn sweep(path: &Path) {
    let walk = Walk::new(path.to_path_buf(), "", None, Unreadable::Skip);
    let leftovers = walk.filter_map(Result::ok).filter(|file| is_leftover(&file.path));
    let swept = leftovers.filter(|file| fs::remove_file(path.join(&file.path)).is_ok()).count();
    if swept > 0 {
        tracing::info!(files = swept, "deleted unfinished files of writers that crashed");
    }
}

/// A staging file of the store client (`name#digits`), or a probe of ours.
fn is_leftover(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let staged = name.rsplit_once('#').is_some_and(|(stem, digits)| {
        !stem.is_empty() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    staged || path.starts_with(PROBE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Directory {
        let directory = Directory::open(path, "file:///test", MadeFolders::default()).unwrap();
        directory.ready().unwrap();
        directory
    }

    fn leave_staging(dir: &Path) -> PathBuf {
        fs::create_dir_all(dir.join("log/n")).unwrap();
        let file = dir.join("log/n/00000000000000000001#1");
        fs::write(&file, b"half").unwrap();
        file
    }

    #[test]
    fn a_directory_is_left_as_it_is_until_something_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault");
        let made = create(&path, "file:///test").unwrap();
        let directory = Directory::open(&path, "file:///test", made).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        // And what took its place meanwhile isn't written to at all.
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let _made = create(&path, "file:///test").unwrap();
        assert!(matches!(directory.ready(), Err(StoreError::Replaced { .. })));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_was_made_for_nothing_goes_again_and_one_with_objects_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("above/vault");
        let make = || {
            let made = create(&path, "file:///test").unwrap();
            Directory::open(&path, "file:///test", made).unwrap()
        };
        drop(make());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        make().ready().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a lock alone is nothing");
        let first = make();
        first.ready().unwrap();
        let second = open(&path);
        drop(first);
        assert!(path.join(LOCK).exists(), "another writer has it");
        drop(second);
        let third = make();
        fs::write(path.join("vault.json"), b"").unwrap();
        drop(third);
        assert!(path.join("vault.json").exists());
    }

    #[test]
    fn a_directory_that_its_maker_takes_away_is_gone_and_isnt_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault");
        let make = || {
            let made = create(&path, "file:///test").unwrap();
            Directory::open(&path, "file:///test", made).unwrap()
        };
        let maker = make();
        let second = Directory::open(&path, "file:///test", MadeFolders::default()).unwrap();
        drop(maker);
        let error = second.ready().unwrap_err();
        assert!(error.to_string().contains("try again"), "{error}");

        // The same where the second has the lock file, and waits until the maker lets it go.
        let maker = make();
        maker.ready().unwrap();
        let second = Directory::open(&path, "file:///test", MadeFolders::default()).unwrap();
        let lock = open_lock(&path, "file:///test").unwrap();
        drop(maker);
        let error = second.share(lock).unwrap_err();
        assert!(matches!(error, StoreError::Gone { .. }), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn leftovers_go_when_nobody_else_writes_and_objects_stay() {
        let dir = tempfile::tempdir().unwrap();
        let staging = leave_staging(dir.path());
        let object = dir.path().join("log/n/x#y");
        fs::write(&object, b"").unwrap();
        open(dir.path());
        assert!(!staging.exists());
        assert!(object.exists());
    }

    #[test]
    fn a_second_writer_leaves_the_first_ones_staging_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        let staging = leave_staging(dir.path());
        let second = open(dir.path());
        assert!(staging.exists());
        drop((first, second));
        open(dir.path());
        assert!(!staging.exists());
    }

    #[test]
    fn a_file_system_without_hard_links_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let directory = open(dir.path());
        let refused = |_: &Path, _: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let error = directory.probe(refused).unwrap_err();
        assert!(error.to_string().contains("without hard links"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the lock is left");
    }

    #[test]
    fn a_directory_that_was_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault");
        let _made = create(&path, "file:///test").unwrap();
        let directory = open(&path);
        directory.ready().unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        assert!(matches!(directory.ready(), Err(StoreError::Replaced { .. })));
        let _made = create(&path, "file:///test").unwrap();
        let _other = open(&path);
        assert!(matches!(directory.ready(), Err(StoreError::Replaced { .. })));
    }

    #[test]
    fn what_is_no_directory_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let error = check(&dir.path().join("absent"), "file:///test").unwrap_err();
        assert!(error.to_string().contains("there is no vault at file:///test"), "{error}");
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = check(&file, "file:///test").unwrap_err();
        assert!(error.to_string().contains("not a directory"), "{error}");
        let error = check(&file.join("below"), "file:///test").unwrap_err();
        assert!(error.to_string().contains("not a directory"), "{error}");
    }
}
