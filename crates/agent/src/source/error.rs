//! Why a disk can't be read, in words that say what to do about it.

use std::io;
use std::path::PathBuf;

use tidegate_model::Remedy;
use tidegate_model::limits::DISK_BYTES_MAX;

/// Why a path is no disk that can be copied, or stopped being one.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing is there.
    #[error("{path}: there is no such file or device; check the path")]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// It is there, but this user may not read it.
    #[error(
        "{path}: reading it is not permitted; run as root or as a user who may read it (for a \
         block device usually a member of the group 'disk')"
    )]
    NotPermitted {
        /// As given.
        path: PathBuf,
    },
    /// A directory.
    #[error("{path}: is a directory; name a raw image file or a block device")]
    Directory {
        /// As given.
        path: PathBuf,
    },
    /// Something else that has no bytes at offsets.
    #[error("{path}: is a {what}; name a raw image file or a block device")]
    NotADisk {
        /// As given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// No bytes.
    #[error("{path}: is empty, so there is nothing to copy; check that it is the right disk")]
    Empty {
        /// As given.
        path: PathBuf,
    },
    /// More bytes than any format of ours can name.
    #[error("{path}: is {bytes} bytes long; at most {max} can be copied", max = DISK_BYTES_MAX)]
    TooLarge {
        /// As given.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Another path was put in its place between looking and opening.
    #[error("{path}: was replaced while it was being opened; try again")]
    Replaced {
        /// As given.
        path: PathBuf,
    },
    /// It became shorter than it was when it was opened.
    #[error(
        "{path}: shrank from {expected} to {found} bytes while it was read; the copy can't be \
         whole, so stop what changes it and copy again"
    )]
    Shrank {
        /// As given.
        path: PathBuf,
        /// Its size when it was opened.
        expected: u64,
        /// Where it ends now.
        found: u64,
    },
    /// The device or file system failed.
    #[error(
        "{path}: reading at offset {offset} failed: {error}; the disk may be failing, so see the \
         kernel's log (dmesg), then copy again"
    )]
    Read {
        /// As given.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// What the system said.
        error: io::Error,
    },
    /// Asking about it failed.
    #[error("{path}: {doing} failed: {error}; check the device and try again")]
    Inspect {
        /// As given.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl SourceError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Shrank { .. } | Self::Read { .. } => Remedy::Stop,
            Self::Replaced { .. } => Remedy::Retry,
            _ => Remedy::Refuse,
        }
    }

    /// The error for a failed look at, or opening of, `path`.
    pub(super) fn of_opening(path: PathBuf, doing: &'static str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { path },
            _ => Self::Inspect { path, doing, error },
        }
    }
}
