//! Why a pass ends before it is whole.

use std::io;
use std::path::PathBuf;

use tidegate_hrl::journal::{AppendError, JournalError};
use tidegate_nbd::client::ClientError;

use super::qmp::QmpError;
use crate::source::SourceError;

/// Why a pass ends before it is whole. What it has captured by then isn't captured again.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The disk can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What is read isn't the disk that was declared.
    #[error(
        "{path}: has {found} bytes, but the disk {expected}: see that it is a snapshot of this disk; \
         where the disk was resized, start the agent again"
    )]
    Size {
        /// What was opened.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The disk's.
        expected: u64,
    },
    /// The hashes of its blocks can't be used.
    #[error("the hashes in {path} can't be {doing}: {error}; see to its file system")]
    Hashes {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The image of a hypervisor's disk can't be used.
    #[error("{}: {error}; name a qcow2 image, and see that the agent may read it and write beside it", .path.display())]
    Image {
        /// As given.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The server of the export doesn't do what is needed.
    #[error(transparent)]
    Export(#[from] ClientError),
    /// The server of the export says nothing.
    #[error("the bitmap's server says nothing of what follows offset {0}; see its log")]
    Silent(u64),
    /// QEMU doesn't do what is needed.
    #[error(transparent)]
    Monitor(QmpError),
    /// No memory to read into.
    #[error("no memory to read a disk into: {0}")]
    Memory(#[source] io::Error),
    /// The journal doesn't take what changed.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The journal can't make it durable.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl PassError {
    /// Whether the journal takes nothing any more.
    pub(crate) const fn is_of_journal(&self) -> bool {
        matches!(self, Self::Journal(_) | Self::Append(AppendError::Ended))
    }
}
