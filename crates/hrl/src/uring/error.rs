//! Why a journal's directory can't be written to through io_uring.

use std::io;
use std::path::PathBuf;

use tidegate_model::Remedy;

/// Why the directory can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// The directory can't be made or opened.
    #[error("the journal's directory {} can't be used: {error}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "the journal in {} is in use by another process; end that, or name another directory",
        path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The kernel, or what confines this process, doesn't allow io_uring.
    #[error(
        "io_uring is forbidden here ({error}); set the sysctl kernel.io_uring_disabled to 0, and \
         in a container use a seccomp profile that allows io_uring_setup, io_uring_enter and \
         io_uring_register"
    )]
    Forbidden {
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// io_uring failed otherwise.
    #[error(
        "a ring for the journal can't be set up: {error}; see the limits of this process (ulimit -a)"
    )]
    Ring {
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl UringError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Directory { .. } | Self::InUse { .. } | Self::Forbidden { .. } => Remedy::Refuse,
            Self::Ring { .. } => Remedy::Stop,
        }
    }
}
