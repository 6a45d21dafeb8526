//! Passes: disks that others write to, of which the agent captures now and then what changed since it
//! last did.
//!
//! ```text
//! read ─▶ hash ─▶ compare ─▶ forget ─▶ append (LSN) ─▶ durable ─▶ note
//!                (hashes)   (hashes)    (journal)               (hashes)
//! ```
//!
//! - A block counts as known only by a hash that was noted after its record was durable, and that is
//!   forgotten before another record of the block is appended. So whenever the process is killed, a block
//!   of which journal and hash could differ has no hash, and is captured again.
//! - Blocks are read that may have changed: all of a file or device, of an export what a hypervisor's bitmap
//!   names; and each of which no hash is known.
//! - Records of a pass come by their place, whatever the order of the writes was: none of their LSNs is a
//!   moment of the disk. Whether the end of a pass is one is told by [`Reading::changed`].
//!
//! Not here: when passes are made, the programs around them, and bookmarks; see [`crate::live`].

mod bitmaps;
mod compare;
mod error;
mod export;
mod file;
mod fleece;
mod hashes;
mod image;
mod jobs;
mod qmp;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_hrl::Journal;
use tidegate_hrl::journal::Opening;
use tidegate_hrl::storage::Storage;
use tidegate_model::{Checksum, DiskNumber};

use crate::capture::{Capture, Order};
use crate::{Clock, source};
pub use compare::Compared;
pub use error::PassError;
pub use export::ExportOrigin;
pub use file::FileOrigin;
pub use fleece::{Fleece, FleeceDisk, FleeceOrigin};
use hashes::{Hashes, Subject};
pub use image::Image;
pub use qmp::QmpError;

/// Where a disk that is captured in passes lies.
pub trait Origin: Send + Sync {
    /// Begins a pass: from here on it is watched. What is read needn't be there yet.
    ///
    /// # Errors
    /// [`PassError`].
    fn begin(&self) -> Result<Box<dyn Reading>, PassError>;
}

/// A disk as one pass reads it.
pub trait Reading {
    /// Opens what is read.
    ///
    /// # Errors
    /// [`PassError`].
    fn open(&mut self) -> Result<(), PassError>;

    /// The first range from `at` on that may have changed since the last pass.
    ///
    /// # Errors
    /// [`PassError`].
    fn next(&mut self, at: u64) -> Result<Option<Range<u64>>, PassError>;

    /// Reads a range that lies on the disk.
    ///
    /// # Errors
    /// [`PassError`].
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), PassError>;

    /// Which moment of the disk it is, if it isn't the disk itself as others write to it: the same for all
    /// that were made together.
    fn moment(&self) -> Option<String>;

    /// Why what was read isn't of one moment, if it isn't. `frozen` are places of mounts that nothing
    /// was written through meanwhile.
    ///
    /// # Errors
    /// [`PassError`].
    fn changed(&self, frozen: &[std::path::PathBuf]) -> Result<Option<source::Change>, PassError>;

    /// Whether all that was read is what it should be.
    ///
    /// # Errors
    /// [`PassError`] where it may not be.
    fn check(&self) -> Result<(), PassError> {
        Ok(())
    }

    /// All that was read and had changed is durable in the journal.
    ///
    /// # Errors
    /// [`PassError`]; the next pass reads it again then.
    fn captured(&mut self) -> Result<(), PassError> {
        Ok(())
    }
}

/// A disk that is captured in passes. Several of one machine share a journal.
pub struct Passing<S: Storage> {
    disk: DiskNumber,
    name: String,
    bytes: u64,
    origin: Box<dyn Origin>,
    hashes: Hashes,
    journal: Arc<Journal<S>>,
    clock: Clock,
    /// How far the pass is that is being made, or was made last.
    looked: AtomicU64,
}

impl<S: Storage> Passing<S> {
    /// A disk as it was declared, with the hashes of the last passes as far as they are in `hashes`
    /// and of this journal.
    ///
    /// # Errors
    /// [`PassError`]
    pub fn open(
        disk: &tidegate_model::Disk,
        origin: Box<dyn Origin>,
        hashes: &Path,
        journal: Arc<Journal<S>>,
        opening: &Opening,
        clock: Clock,
    ) -> Result<Self, PassError> {
        let subject = Subject {
            incarnation: opening.incarnation,
            disk: disk.number,
            bytes: disk.bytes,
            name: Checksum::of(disk.name.as_bytes()),
        };
        Ok(Self {
            disk: disk.number,
            name: disk.name.clone(),
            bytes: disk.bytes,
            origin,
            hashes: Hashes::open(hashes, subject)?,
            journal,
            clock,
            looked: AtomicU64::new(0),
        })
    }

    /// Begins a pass over it.
    ///
    /// # Errors
    /// [`PassError`]
    pub fn begin(&self) -> Result<Box<dyn Reading>, PassError> {
        self.looked.store(0, Ordering::Relaxed);
        self.origin.begin()
    }

    /// Up to which byte the pass has come that is being made, or was made last.
    #[must_use]
    pub fn looked(&self) -> u64 {
        self.looked.load(Ordering::Relaxed)
    }

    /// Ends: what is known of the disk outlives the host. The journal is closed after this.
    ///
    /// # Errors
    /// [`PassError::Hashes`]
    pub fn close(&self) -> Result<(), PassError> {
        self.hashes.sync()
    }
}

impl<S: Storage + Send + Sync> Capture for Passing<S>
where
    S::File: Send + Sync,
{
    fn disk(&self) -> DiskNumber {
        self.disk
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn order(&self) -> Order {
        Order::EachPass
    }
}
