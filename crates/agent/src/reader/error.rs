//! Why the disks can't be read to their end.

use std::io;

use tidegate_model::{ExactBytes, Remedy};

use crate::source::SourceError;

/// Why reading ended before the disks did.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// A disk failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The kernel, or what confines this process, doesn't allow io_uring.
    #[error(
        "io_uring is forbidden here ({error}); set the sysctl kernel.io_uring_disabled to 0, and \
         in a container use a seccomp profile that allows io_uring_setup, io_uring_enter and \
         io_uring_register"
    )]
    Forbidden {
        /// What the system said.
        error: io::Error,
    },
    /// The ring itself doesn't fit what may be locked.
    #[error(
        "too little memory may be locked for io_uring (RLIMIT_MEMLOCK is {limit}); raise it with \
         ulimit -l, or LimitMEMLOCK= in a systemd unit: 1 MiB is enough"
    )]
    Locked {
        /// The limit, with its unit.
        limit: String,
    },
    /// io_uring failed otherwise.
    #[error("{doing} failed: {error}; see the limits of this process (ulimit -a) and try again")]
    Ring {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The pool's memory isn't to be had.
    #[error(
        "{} for read buffers can't be had ({error}); give the agent less memory (--window)",
        ExactBytes(*.bytes)
    )]
    Memory {
        /// How much was asked for.
        bytes: u64,
        /// What the system said.
        error: io::Error,
    },
    /// Settings that contradict each other.
    #[error("the reader can't work with {what}; change it")]
    Settings {
        /// Which setting, and its value.
        what: String,
    },
    /// The thread ended without saying why: a defect.
    #[error("the disk reader's thread ended by itself; this is a defect, please report it")]
    Died,
}

impl ReaderError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Source(error) => error.remedy(),
            Self::Forbidden { .. } | Self::Locked { .. } | Self::Settings { .. } => Remedy::Refuse,
            Self::Ring { .. } | Self::Memory { .. } | Self::Died => Remedy::Stop,
        }
    }
}
