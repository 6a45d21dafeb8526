//! What an epoch stands on, block by block: so that an agent which goes on from its machine's state is
//! told what of its disks needn't travel. docs/formats/wire.md, "Resync".
//!
//! Owns reading that and comparing hashes with it. Doesn't own questions and answers (the server does)
//! nor granting epochs (`grant`).
//!
//! Invariant: a block is had only if the state at the epoch's parent, as a restore would bring it back,
//! holds exactly these bytes at this place of this machine's disk. What isn't known isn't had: blocks
//! that smaller writes made up, and those in layers that were written before layers kept names.
//!
//! Memory: [`BLOCK_MEMORY_BYTES`] for each block of the window that is looked at. While it is read one
//! layer, or the indexes of some packs, and what a history takes (bookmarks, sessions).

mod read;
mod standing;
#[cfg(test)]
mod tests;

use tidegate_model::{Epoch, Name, Remedy};

pub use read::read;
pub use standing::{BLOCK_MEMORY_BYTES, Standing, Window};

use crate::chain::{Broken, HistoryError};
use crate::log::LogError;
use crate::meta::MetaError;

/// Why what an epoch stands on can't be told.
#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    /// It isn't whole.
    #[error("what epoch {epoch} of {machine} stands on isn't whole: {cause}")]
    Broken {
        /// The machine.
        machine: Name,
        /// The epoch.
        epoch: Epoch,
        /// What is missing.
        cause: Broken,
    },
    /// It refers to what can't be read.
    #[error("what epoch {epoch} of {machine} stands on can't be brought back: {cause}")]
    Lacks {
        /// The machine.
        machine: Name,
        /// The epoch.
        epoch: Epoch,
        /// What is wrong with the pack.
        cause: LogError,
    },
    /// The machine's history can't be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The packs to which it refers can't be looked at.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The records of its epochs or its layers can't be read.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl ResyncError {
    /// Whether nothing that stands on it can ever be brought back.
    #[must_use]
    pub const fn is_for_good(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Lacks { .. })
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Broken { .. } | Self::Lacks { .. } => Remedy::Repair,
            Self::History(error) => error.remedy(),
            Self::Log(error) => error.remedy(),
            Self::Meta(error) => error.remedy(),
        }
    }
}
