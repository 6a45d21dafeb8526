//! Why a copy ended before it was whole.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_model::{Lsn, Remedy};

use crate::connect::ConnectError;
use crate::reader::ReaderError;
use crate::session::SessionError;
use crate::source::SourceError;

/// Why a copy ended. What was committed until then stays in the vault; without the bookmark that
/// ends a copy it is no recovery point.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A disk can't be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A disk can't be read.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// No connection, for a cause that doesn't pass by itself.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Server and agent don't agree.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No disks, or too many.
    #[error("{count} disks were given; a machine has 1 to {max}")]
    DiskCount {
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// One disk was given twice.
    #[error("{first} and {second} are the same disk; name each disk once")]
    SameDisk {
        /// One path.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Patience ran out.
    #[error(
        "gave up after {} s of waiting for {awaited} (the last committed LSN is {committed}); the \
         last cause was: {last}; then copy again", .waited.as_secs()
    )]
    GaveUp {
        /// How long it waited.
        waited: Duration,
        /// For what.
        awaited: Awaited,
        /// What the vault has.
        committed: Lsn,
        /// The last thing that went wrong, and what to do about it.
        last: String,
    },
    /// The caller asked to stop.
    #[error("stopped on request; the vault has LSN {committed}, which is no whole copy")]
    Stopped {
        /// What the vault has.
        committed: Lsn,
    },
}

/// What an agent has patience for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// A first session.
    Session,
    /// That more is committed.
    Commit,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "a server to accept this machine",
            Self::Commit => "a server to commit what follows",
        })
    }
}

impl CopyError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Source(error) => error.remedy(),
            Self::Reader(error) => error.remedy(),
            Self::Connect(error) => error.remedy(),
            Self::Session(error) => error.remedy(),
            Self::DiskCount { .. } | Self::SameDisk { .. } => Remedy::Refuse,
            Self::GaveUp { .. } => Remedy::Retry,
            Self::Stopped { .. } => Remedy::Stop,
        }
    }
}
