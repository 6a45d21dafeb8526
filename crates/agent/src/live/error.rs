//! Why an agent's service can't go on.

use std::io;
use std::path::PathBuf;

use tidegate_hrl::journal::{AppendError, JournalError};
use tidegate_hrl::uring::UringError;
use tidegate_model::limits::TEXT_BYTES_MAX;
use tidegate_model::{DiskNumber, Lsn, Remedy};
use tidegate_nbd::ExportError;
use tidegate_nbd::serve::ServeError;

use super::control::ControlError;
use super::hooks::HookError;
use crate::pass::PassError;
use crate::session::SessionError;
use crate::tap::{CaptureError, TapError};

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
    /// A disk can't be tapped.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A disk can't be captured.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A disk can't be captured in passes.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A pass can't go on, and nothing else.
    #[error(transparent)]
    PassFailed(#[from] PassFailed),
    /// A disk can't be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The agent's own socket.
    #[error(transparent)]
    Control(#[from] ControlError),
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
    /// The disks' declarations don't fit the journal.
    #[error("the disks can't be declared: {0}")]
    Declared(#[source] AppendError),
    /// Not even a new journal can be begun.
    #[error("a new history can't begin either: {cause}; see the agent's folder")]
    NotAnew {
        /// Why.
        cause: String,
    },
    /// A disk can't be offered.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// No thread is to be had.
    #[error("a thread can't be started: {0}; see the limits of this process (ulimit -a)")]
    Thread(#[source] io::Error),
    /// Something ended without saying why: a defect.
    #[error("a part of the agent ended by itself; this is a defect, please report it")]
    Ended,
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
            Self::Control(error) => error.remedy(),
            Self::Capture(_)
            | Self::PassFailed(_)
            | Self::File { .. }
            | Self::NotAnew { .. }
            | Self::Thread(_)
            | Self::Ended => Remedy::Stop,
            Self::Tap(_)
            | Self::Pass(_)
            | Self::Serve(_)
            | Self::Declared(_)
            | Self::Export(_)
            | Self::NewerNotes { .. } => Remedy::Refuse,
            Self::Gap { .. } | Self::TooLong { .. } => Remedy::Repair,
        }
    }

    /// Whether what the journal holds can't be relied on.
    pub(super) const fn is_of_journal(&self) -> bool {
        matches!(self.remedy(), Remedy::Repair)
    }

    /// Whether the folder's file system is full, which passes.
    pub(super) fn is_of_room(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::File { error, .. } if full.contains(&error.kind()))
    }
}

/// Why a pass came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PassFailed {
    /// A disk can't be read, or the journal not be written.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A program around it failed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Its bookmark isn't placed, or nothing can be frozen.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// The agent stops.
    #[error("the agent stops")]
    Stopped,
}

impl PassFailed {
    /// Whether the journal takes nothing any more.
    pub(super) const fn is_of_journal(&self) -> bool {
        match self {
            Self::Pass(error) => error.is_of_journal(),
            Self::Mark(error) => {
                matches!(error, MarkError::Journal(_) | MarkError::Append(AppendError::Ended))
            }
            Self::Hook(_) | Self::Stopped => false,
        }
    }
}

/// Why a bookmark isn't placed.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// Not everything was captured.
    #[error(
        "disk {disk} is catching up after the journal was full: no moment before that is whole; ask \
         again when `tidegate agent status` says that its mode is data"
    )]
    Gap {
        /// The disk.
        disk: DiskNumber,
    },
    /// Nothing can be brought back to it.
    #[error("the initial copy hasn't ended: nothing could be brought back to it; ask again then")]
    Copying,
    /// Some disks are captured in passes.
    #[error(
        "some disks are captured in passes, so that only the end of a pass can be a moment of the machine: \
         ask for one by `tidegate agent pass`"
    )]
    Passes,
    /// No disk is captured in passes.
    #[error("every write to the disks is recorded, there are no passes: ask for a bookmark")]
    NoPasses,
    /// The next pass has a name.
    #[error("a pass with another name is about to begin; ask again when it does")]
    Asked,
    /// The journal doesn't take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The journal can't make it durable.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What writes can't be frozen.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Nothing is named that freezes.
    #[error(
        "the configuration names no hooks: without them it would be crash-consistent; ask for that, \
         or add [hooks]"
    )]
    NoHooks,
    /// It isn't a name.
    #[error("a bookmark's name is one line of at most {TEXT_BYTES_MAX} bytes")]
    Name,
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
}
