//! Why a vault couldn't be made or opened: what the commands say first of all.

use tidegate_model::Remedy;

use crate::description::DescriptionError;
use crate::identity::IdentityError;
use crate::keys::KeyError;
use crate::location::LocationError;
use crate::meta::MetaError;
use crate::store::StoreError;

/// Any error of a vault as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The text of its place.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is none there.
    #[error("there is no vault at {place}: 'tidegate vault init' makes one")]
    NotThere {
        /// The place.
        place: String,
    },
    /// There is one already.
    #[error(
        "there is a vault at {place} already, and was left as it is: use it, or name another place"
    )]
    Exists {
        /// The place.
        place: String,
    },
    /// Something else is there.
    #[error("{place} holds other things ({found}): a vault is made in an empty place")]
    NotEmpty {
        /// The place.
        place: String,
        /// The first of them.
        found: String,
    },
    /// vault.json can't be used.
    #[error("{place} is not a vault that can be used: {cause}")]
    Description {
        /// The place.
        place: String,
        /// Why.
        cause: DescriptionError,
    },
    /// vault.json was changed since the vault was made.
    #[error("the vault.json of {place} was changed: it must say {expected}; restore it")]
    Changed {
        /// The place.
        place: String,
        /// What the keys authenticate.
        expected: String,
    },
    /// An interrupted making that had begun otherwise.
    #[error(
        "the making of a vault at {place} was interrupted; it was to have blocks of {block_bytes} bytes: run it again with that block size"
    )]
    Interrupted {
        /// The place.
        place: String,
        /// The block size that was begun with.
        block_bytes: u32,
    },
    /// The keys.
    #[error("{place}: {cause}")]
    Key {
        /// The place.
        place: String,
        /// Why.
        cause: KeyError,
    },
    /// A record.
    #[error("{place}: {cause}")]
    Meta {
        /// The place.
        place: String,
        /// Why.
        cause: MetaError,
    },
    /// A certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl VaultError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Key { cause, .. } => cause.remedy(),
            Self::Meta { cause, .. } => cause.remedy(),
            Self::Description { cause, .. } => cause.remedy(),
            Self::Identity(error) => error.remedy(),
            Self::Changed { .. } => Remedy::Repair,
            Self::Location(_)
            | Self::NotThere { .. }
            | Self::Exists { .. }
            | Self::NotEmpty { .. }
            | Self::Interrupted { .. } => Remedy::Refuse,
        }
    }

    /// Whether there is no vault there: what an embedded default makes one for.
    #[must_use]
    pub const fn is_not_there(&self) -> bool {
        matches!(self, Self::NotThere { .. } | Self::Store(StoreError::NoPlace { .. }))
    }
}
