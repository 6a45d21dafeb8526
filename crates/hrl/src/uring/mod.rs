//! The journal's directory on a real file system, written through io_uring.
//!
//! A batch is one submission: for each file its writes and then an fdatasync, linked, so that the
//! kernel goes through all files at once and the caller waits once. The directory is locked as long as
//! it is open, because two writers would destroy it.
//!
//! The only unsafe code of the crate is in `ring.rs`.

mod aside;
mod error;
mod ring;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

use crate::storage::{ReadAt, Storage, Write};
use aside::Aside;
pub use error::UringError;
use ring::Ring;

/// A file; clones are of the same.
#[derive(Debug, Clone)]
pub struct DiskFile(Arc<File>);

impl From<File> for DiskFile {
    fn from(file: File) -> Self {
        Self(Arc::new(file))
    }
}

impl ReadAt for DiskFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(&*self.0, into, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// A directory with a journal. Files in it belong to their owner alone, for they hold what the disks
/// hold.
#[derive(Debug, Clone)]
pub struct UringStorage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    directory: File,
    ring: Mutex<Ring>,
    aside: Aside,
}

impl UringStorage {
    /// Opens the directory at `path`, or makes it, and locks it.
    ///
    /// # Errors
    /// [`UringError`].
    pub fn open(path: &Path) -> Result<Self, UringError> {
        let failed = |error| UringError::Directory { path: path.to_owned(), error };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
            Ok(()) => sync_parent(path).map_err(failed)?,
        }
        let directory = File::open(path).map_err(failed)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(UringError::InUse { path: path.to_owned() });
            }
            locked => locked.map_err(|error| failed(error.into()))?,
        }
        let ring = Mutex::new(Ring::new()?);
        let aside = Aside::in_directory(path);
        Ok(Self(Arc::new(Inner { path: path.to_owned(), directory, ring, aside })))
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl Storage for UringStorage {
    type File = DiskFile;

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.0.path)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        Ok(OpenOptions::new().read(true).write(true).open(self.path_of(name))?.into())
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create_new(true).mode(0o600);
        Ok(self.0.aside.or_taken(|| how.open(self.path_of(name)))?.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path_of(name))
    }

    fn truncate(&self, file: &DiskFile, bytes: u64) -> io::Result<()> {
        file.0.set_len(bytes)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.aside.or_taken(|| self.0.directory.sync_all())
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.0.aside.holds(bytes)
    }

    fn write(&self, writes: Vec<Write<DiskFile>>) -> io::Result<()> {
        // The ring is whole between calls, whoever panicked.
        let mut ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.write(writes, &self.0.aside)
    }
}
