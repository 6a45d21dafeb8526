//! Why an agent's service can't go on.

use std::io;
use std::path::PathBuf;

use tidegate_hrl::journal::JournalError;
use tidegate_hrl::uring::UringError;
use tidegate_model::{Lsn, Remedy};

use crate::session::SessionError;

/// Why an agent's service can't go on.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Server and agent don't agree.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal's directory can't be used.
    #[error(transparent)]
    Directory(#[from] UringError),
    /// A record isn't where it should be.
    #[error(
        "the journal gives LSN {found} where LSN {expected} follows; what it held can't be relied \
         on: begin a new incarnation"
    )]
    Gap {
        /// What should follow.
        expected: Lsn,
        /// What does.
        found: Lsn,
    },
    /// A record that no server takes.
    #[error(
        "the journal's LSN {lsn} has {bytes} bytes, which no server takes; begin a new incarnation"
    )]
    TooLong {
        /// The record.
        lsn: Lsn,
        /// Its bytes.
        bytes: u64,
    },
    /// A file of the agent's folder.
    #[error("{} can't be {what}: {error}; see to its file system", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The notes were written by a newer version.
    #[error("{} is of a newer version ({version}); use that, or begin with a new folder", .path.display())]
    NewerNotes {
        /// The file.
        path: PathBuf,
        /// Their version.
        version: u32,
    },
}

impl LiveError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Session(error) => error.remedy(),
            Self::Journal(error) => error.remedy(),
            Self::Directory(error) => error.remedy(),
            Self::File { .. } => Remedy::Stop,
            Self::NewerNotes { .. } => Remedy::Refuse,
            Self::Gap { .. } | Self::TooLong { .. } => Remedy::Repair,
        }
    }
}
