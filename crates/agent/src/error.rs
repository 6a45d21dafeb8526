//! Why a copy ended before it was whole.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_model::{Epoch, Lsn, Remedy};

use crate::connect::ConnectError;
use crate::reader::ReaderError;
use crate::source::SourceError;
use crate::window::WindowError;

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
    /// The server's committed LSNs contradict ours.
    #[error(transparent)]
    Window(#[from] WindowError),
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
    /// The server said no.
    #[error("the server refused (code {code}): {cause}; {advice}")]
    Refused {
        /// The code of the refusal, docs/formats/wire.md.
        code: u16,
        /// What the server said is the cause.
        cause: String,
        /// What it said to do.
        advice: String,
        /// What the caller must do.
        remedy: Remedy,
    },
    /// The server's bytes make no sense.
    #[error("{what}; use an agent and a server of the same release")]
    Protocol {
        /// A sentence.
        what: String,
    },
    /// The server granted a new epoch to a copy that had one.
    #[error(
        "the server granted epoch {granted} while this copy is in epoch {epoch}: its vault lost \
         the epoch or it serves another vault; check that it is the same vault, then copy again"
    )]
    OtherEpoch {
        /// Ours.
        epoch: Epoch,
        /// Its.
        granted: Epoch,
    },
    /// Another server takes only smaller records than those that were already cut.
    #[error(
        "this server takes records of at most {granted} bytes and the copy was begun with {cut}; \
         reconnect to a server with the same settings, or copy again"
    )]
    SmallerRecords {
        /// What the first server granted.
        cut: u32,
        /// What this one grants.
        granted: u32,
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
            Self::Window(error) => error.remedy(),
            Self::Refused { remedy, .. } => *remedy,
            Self::DiskCount { .. } | Self::SameDisk { .. } => Remedy::Refuse,
            Self::GaveUp { .. } => Remedy::Retry,
            Self::Protocol { .. }
            | Self::OtherEpoch { .. }
            | Self::SmallerRecords { .. }
            | Self::Stopped { .. } => Remedy::Stop,
        }
    }
}
