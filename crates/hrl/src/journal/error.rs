//! Why the journal can't do what it was asked to.

use std::io;

use tidegate_model::{ExactBytes, Lsn, Remedy};

/// Why a change wasn't taken. It has no LSN then, and the journal is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal has reached its bound.
    #[error(
        "the journal has {} of {} and can't take more until some is committed",
        ExactBytes(*.bytes),
        ExactBytes(*.bytes_max)
    )]
    Full {
        /// What it has.
        bytes: u64,
        /// What it may have.
        bytes_max: u64,
    },
    /// The file system on which it lies is full.
    #[error("the journal's file system is full: free some room on it")]
    NoRoom,
    /// The journal's disk is slower than what is captured: a whole batch waits already.
    #[error("the journal's disk is behind: {} wait to be written", ExactBytes(*.bytes))]
    Behind {
        /// What waits.
        bytes: u64,
    },
    /// The journal was closed, or a write to it failed.
    #[error("the journal takes nothing any more: it was closed, or a write to it failed")]
    Ended,
}

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system failed.
    #[error("the journal's file {name} can't be {what}: {error}; see to its file system")]
    Io {
        /// Which file.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// Something that was durable isn't whole any more.
    #[error(
        "the journal is damaged: {name}: {what}; what it held can't be relied on: resync under a \
         new incarnation"
    )]
    Damaged {
        /// Which file.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer version.
    #[error("the journal's file {name} is of a newer version ({what}); use that, or begin anew")]
    Newer {
        /// Which file.
        name: String,
        /// What isn't known.
        what: String,
    },
    /// The bound is too small to work with.
    #[error(
        "a journal of {} is too small: give it {} or more",
        ExactBytes(*.bytes_max),
        ExactBytes(*.bytes_min)
    )]
    TooSmall {
        /// What was given.
        bytes_max: u64,
        /// What is needed.
        bytes_min: u64,
    },
    /// Committed is what isn't even durable.
    #[error(
        "LSN {said} is said to be committed, but {durable} is the last that could have been sent; \
         another agent may use this machine's name, so check for one"
    )]
    NeverSent {
        /// What was said.
        said: Lsn,
        /// The last durable one.
        durable: Lsn,
    },
    /// A write failed before; whoever waited for that was told why.
    #[error("a write to the journal failed before; open it again")]
    Failed,
}

impl JournalError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Io { .. } | Self::NeverSent { .. } | Self::Failed => Remedy::Stop,
            Self::Damaged { .. } => Remedy::Repair,
            Self::Newer { .. } | Self::TooSmall { .. } => Remedy::Refuse,
        }
    }
}
