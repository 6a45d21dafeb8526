//! Why no connection can go on where the one before ended.

use tidegate_model::{Epoch, Remedy};

use crate::window::WindowError;

/// Why a session can't go on, on this connection or another.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The server's committed LSNs contradict ours.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The session before this one was another agent's.
    #[error(
        "another agent has had this one's place in the vault: this folder was restored, or copied; check \
         for one that uses this machine's name"
    )]
    Copied,
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
    /// The server granted a new epoch to an agent that had one.
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
}

impl SessionError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Window(error) => error.remedy(),
            Self::Refused { remedy, .. } => *remedy,
            Self::Copied
            | Self::Protocol { .. }
            | Self::OtherEpoch { .. }
            | Self::SmallerRecords { .. } => Remedy::Stop,
        }
    }
}
