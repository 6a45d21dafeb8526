//! Why an overlay can't be used.

use std::io;
use std::path::{Path, PathBuf};

use tidegate_model::Remedy;

use super::header::{Beneath, HeaderError};

/// Why an overlay can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OverlayError {
    /// The file system reports something.
    #[error("the overlay {} can't be {what}: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What is reported.
        cause: io::Error,
    },
    /// It is something else.
    #[error("{} can't be taken for an overlay: {cause}; it is left as it is, name another file", .path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What it is.
        cause: HeaderError,
    },
    /// It belongs to something else.
    #[error("{} is the overlay of {theirs}, not of {ours}: {remedy}", .path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// To what it belongs.
        theirs: String,
        /// For what it was to be taken.
        ours: String,
        /// What helps.
        remedy: String,
    },
    /// Another process has it.
    #[error("the overlay {} is in use: another mount has it, end that first", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

impl OverlayError {
    /// The error of an overlay that was made over `theirs`.
    pub(super) fn other(path: &Path, theirs: Beneath, ours: &Beneath) -> Self {
        let same_machine = theirs.vault == ours.vault && theirs.machine == ours.machine;
        let remedy = if same_machine && theirs.point != ours.point {
            format!("mount that with --at {}, or name another file", theirs.point)
        } else if same_machine {
            "mount the same disks as then, or name another file".to_owned()
        } else {
            "name another file".to_owned()
        };
        let told = |of: &Beneath| {
            let disks: Vec<_> = of.disks.iter().map(|(number, _)| number.to_string()).collect();
            format!(
                "{} at {} (disks {}) in vault {}",
                of.machine,
                of.point,
                disks.join(", "),
                of.vault
            )
        };
        let (theirs, ours) = (told(&theirs), told(ours));
        Self::Other { path: path.to_owned(), theirs, ours, remedy }
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::File { cause, .. } => match cause.kind() {
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotFound => Remedy::Refuse,
                _ => Remedy::Stop,
            },
            Self::Header { cause: HeaderError::Damaged, .. } => Remedy::Repair,
            Self::Header { .. } | Self::Other { .. } | Self::InUse { .. } => Remedy::Refuse,
        }
    }
}
