//! Files in memory, as a journal needs them. They never fail: what is looked for is what bytes do.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_hrl::storage::{ReadAt, Storage, Write};

/// Longest file that is made: a location far away would take the fuzzer's memory, as it would take a
/// disk's room.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A file.
#[derive(Debug, Clone, Default)]
pub(crate) struct File(Arc<Mutex<Vec<u8>>>);

/// A directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory(Arc<Mutex<BTreeMap<String, File>>>);

impl File {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = into.len().min(bytes.len() - from);
        into[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }
}

impl Directory {
    /// Puts a file there.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.lock().insert(name.to_owned(), File::of(bytes));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Directory {
    type File = File;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        self.lock().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let file = File::default();
        match self.lock().insert(name.to_owned(), file.clone()) {
            None => Ok(file),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn truncate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        if bytes > FILE_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.lock().resize(bytes, 0);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, writes: Vec<Write<File>>) -> io::Result<()> {
        for Write { file, parts } in writes {
            let mut bytes = file.lock();
            for (offset, part) in parts {
                let at = usize::try_from(offset).map_err(io::Error::other)?;
                let end = at.saturating_add(part.len());
                if end > FILE_BYTES_MAX {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..end].copy_from_slice(&part);
            }
        }
        Ok(())
    }
}
