//! Why a tap can't do what it is asked to.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tidegate_hrl::journal::{AppendError, JournalError};
use tidegate_model::{BookmarkKind, Lsn};

use crate::source::SourceError;

/// Why a disk can't be tapped.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// It is no disk, or can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It can't be written.
    #[error(
        "{path}: can't be opened for writing: {error}; a disk that is tapped belongs to the agent \
         alone, so unmount it, stop whoever uses it, and see that the agent may write it"
    )]
    Open {
        /// As given.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process serves it.
    #[error("{path}: is locked by another process; stop that one, for two would destroy the disk")]
    InUse {
        /// As given.
        path: PathBuf,
    },
    /// The file of marks can't be used.
    #[error("the tap's marks in {path} can't be {doing}: {error}; see to its file system")]
    Marks {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// What was in flight can't be read again.
    #[error("{path}: {error}; see the kernel's log (dmesg) for the disk")]
    Capture {
        /// The disk.
        path: PathBuf,
        /// What happened.
        error: CaptureError,
    },
    /// The disk can't be made durable.
    #[error("{path}: making it durable failed: {error}; see the kernel's log (dmesg)")]
    Sync {
        /// The disk.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a range wasn't captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It can't be read.
    #[error("reading at offset {offset} failed: {error}")]
    Read {
        /// Where, in bytes.
        offset: u64,
        /// What the system said.
        error: io::Error,
    },
    /// The journal didn't take it. Parts of it may have been taken, which does no harm.
    #[error(transparent)]
    Journal(#[from] AppendError),
}

impl CaptureError {
    /// The kind with which the gap begins that it leaves.
    pub(super) const fn begins(&self) -> BookmarkKind {
        match self {
            Self::Read { .. } => BookmarkKind::GapDiskError,
            Self::Journal(_) => BookmarkKind::GapJournalFull,
        }
    }
}

/// Why a history can't go on: the disk must be captured whole, under a new incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// There are no marks.
    NoMarks,
    /// The marks are of another journal, or know more of it than is there.
    OtherJournal,
    /// The marks are of a disk with another number, size or name.
    OtherDisk,
    /// The marks can't be believed.
    Damaged,
    /// The host went down under the tap.
    HostCrashed,
    /// The disk was written to while it wasn't tapped.
    Changed {
        /// Up to here the journal has what was on it before.
        after: Lsn,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMarks => "there are no marks of what was in flight",
            Self::OtherJournal => "its marks are of another journal",
            Self::OtherDisk => "its marks are of a disk with another number, size or name",
            Self::Damaged => "its marks are damaged",
            Self::HostCrashed => "the host went down while the disk was tapped",
            Self::Changed { .. } => "the disk was written to while it wasn't tapped",
        })
    }
}
