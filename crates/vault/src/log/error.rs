//! What can be wrong when packs are read from a store.

use tidegate_model::{FrameNumber, Remedy};

use super::PackPlace;
use crate::meta::MetaError;
use crate::pack::PackError;
use crate::store::StoreError;

/// Why a pack, or a frame of it, couldn't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The store didn't give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was stored once and isn't there.
    #[error("{0} is missing")]
    Missing(PackPlace),
    /// It was stored once and removed: nothing that can be offered needed it then.
    #[error("{0} was collected as garbage")]
    Collected(PackPlace),
    /// A tombstone stands where a pack was committed.
    #[error("{0} was committed, and a tombstone stands in its place")]
    Tombstone(PackPlace),
    /// The object's size is another than its header's.
    #[error("{place} has {stored} bytes where its header states {stated}: it was cut or changed")]
    Size {
        /// The pack.
        place: PackPlace,
        /// What is stored.
        stored: u64,
        /// What was written.
        stated: u64,
    },
    /// Its header or its index isn't what belongs there.
    #[error("{place} {cause}")]
    Pack {
        /// The pack.
        place: PackPlace,
        /// Why.
        cause: PackError,
    },
    /// One of its frames isn't what belongs there.
    #[error("frame {frame} in {place} {cause}")]
    Frame {
        /// The pack.
        place: PackPlace,
        /// The frame.
        frame: FrameNumber,
        /// Why.
        cause: PackError,
    },
    /// What was collected as garbage can't be told.
    #[error(transparent)]
    Steps(#[from] MetaError),
    /// A thread that decodes has ended: the program is stopping, or has a mistake.
    #[error("reading was stopped: {0}")]
    Stopped(String),
}

impl LogError {
    /// Whether what is stored is wrong (and not the way to it): others can be read all the same.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_damage(),
            Self::Steps(error) => error.is_damage(),
            Self::Pack { cause: PackError::KeyVersion(_) | PackError::Format(_), .. }
            | Self::Stopped(_) => false,
            Self::Missing(_)
            | Self::Collected(_)
            | Self::Tombstone(_)
            | Self::Size { .. }
            | Self::Pack { .. }
            | Self::Frame { .. } => true,
        }
    }

    /// Whether it was removed on purpose. To who reads without a pin that happens; then the newest
    /// manifest needs it no more.
    #[must_use]
    pub const fn is_collected(&self) -> bool {
        matches!(self, Self::Collected(_))
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Steps(error) => error.remedy(),
            Self::Pack { cause, .. } | Self::Frame { cause, .. } => cause.remedy(),
            Self::Missing(_) | Self::Collected(_) | Self::Tombstone(_) | Self::Size { .. } => {
                Remedy::Repair
            }
            Self::Stopped(_) => Remedy::Stop,
        }
    }
}
