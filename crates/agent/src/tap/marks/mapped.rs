//! A file mapped into memory, as words that many threads change.
//!
//! What is stored is in the file at once, as far as this host is concerned: it outlives the process,
//! however that ends. It is on the disk when it is synced.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A mapping of a whole file. The file's blocks must be there, and nobody may cut it: touching what
/// has none ends the process.
#[derive(Debug)]
pub(super) struct Mapped {
    start: NonNull<AtomicU64>,
    words: usize,
    file: File,
}

// SAFETY: a mapping belongs to the process, not to a thread, and it is only used as atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `words` words of a file that has as many.
    pub(super) fn new(file: File, words: usize) -> io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory that anyone
        // else uses.
        let address = unsafe {
            mmap(std::ptr::null_mut(), words * size_of::<u64>(), prot, MapFlags::SHARED, &file, 0)?
        };
        let start = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, words, file })
    }

    /// The file, word by word.
    pub(super) const fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many words, begins at a page and lives as long as `self`; any
        // bits are an integer, and whoever else has the file mapped (nobody should) can at worst make
        // it another integer.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// Makes all of it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        let bytes = self.words * size_of::<u64>();
        // SAFETY: exactly our mapping.
        unsafe { msync(self.start.as_ptr().cast(), bytes, MsyncFlags::SYNC)? };
        self.file.sync_all()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly our mapping; the references that `words` gave ended with `self`'s borrow.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.words * size_of::<u64>()) };
        debug_assert!(unmapped.is_ok());
    }
}
