//! Why the vault grants nothing.

use tidegate_model::{Epoch, Lsn, Name, Point, Remedy};

use crate::log::LogError;
use crate::meta::MetaError;

/// Why nothing was granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The logs can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The records can't be read or created.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The epoch isn't there.
    #[error(
        "{machine} claims epoch {epoch}, and this vault has none of that number: is its state of another vault, or older than a restore of the vault?"
    )]
    NoEpoch {
        /// The machine.
        machine: Name,
        /// What it claims, or names as parent.
        epoch: Epoch,
    },
    /// The epoch belongs to another life of the agent.
    #[error(
        "{machine} claims epoch {epoch}, which was granted to another incarnation: was the machine cloned, or its disk restored with the agent's state on it? Let the agent begin a new incarnation"
    )]
    OtherIncarnation {
        /// The machine.
        machine: Name,
        /// What it claims.
        epoch: Epoch,
    },
    /// A newer epoch has begun since.
    #[error(
        "{machine} claims epoch {epoch}, and began a newer one since: was its disk with the agent's state restored, or is it a clone? Let the agent begin a new incarnation"
    )]
    Superseded {
        /// The machine.
        machine: Name,
        /// What it claims.
        epoch: Epoch,
    },
    /// It continues what the vault doesn't have.
    #[error("{machine} continues {parent}, and the vault has epoch {} only up to LSN {end}: what lies between is lost; begin an initial copy", .parent.epoch)]
    ParentBeyond {
        /// The machine.
        machine: Name,
        /// What it continues.
        parent: Point,
        /// What there is.
        end: Lsn,
    },
    /// What it continues was let go.
    #[error("{machine} goes on from {place}, and that isn't kept any more; begin an initial copy")]
    NotKept {
        /// The machine.
        machine: Name,
        /// What it continues.
        place: Point,
    },
    /// Others were first, again and again.
    #[error(
        "{machine} is granted epochs or sessions elsewhere at the same time; is it running more than once?"
    )]
    Contended {
        /// The machine.
        machine: Name,
    },
}

impl GrantError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Log(error) => error.remedy(),
            Self::Meta(error) => error.remedy(),
            Self::Contended { .. } => Remedy::Retry,
            Self::NoEpoch { .. }
            | Self::OtherIncarnation { .. }
            | Self::Superseded { .. }
            | Self::ParentBeyond { .. }
            | Self::NotKept { .. } => Remedy::Refuse,
        }
    }
}
