//! Small sealed records: which runs there are, which epochs a machine has, in which logs its
//! sessions lie. docs/formats/epochs.md.
//!
//! Owns sealing and opening them, their checks, and creating and listing them in a store. Doesn't
//! own when an epoch is granted (the server decides) nor what the logs hold (`pack`, `log`).
//!
//! Invariants: an object is created once and never changed; what is read from here was
//! authenticated under the path it was read at; creating one twice with the same bytes is creating
//! it once, so a lost answer does no harm.

pub(crate) mod container;
mod records;
mod removal;
mod table;

pub use records::{Begins, EpochRecord, Run, SessionRecord};
pub use removal::{Removal, is_removed, remove_machine, removed_upto};
pub use table::{
    Records, create_epoch, create_run, create_session, epoch_numbers, list_epochs, list_machines,
    list_runs, list_sessions, newest_session, read_epoch, read_run,
};
pub(crate) use table::{create, read};

use tidegate_model::Remedy;

use crate::keys::KeyError;
use crate::store::StoreError;

/// Why a record couldn't be had or created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// The store didn't give or take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Written by a later program.
    #[error("{path} has format {format}, which this program doesn't know: use a newer one")]
    Format {
        /// The object.
        path: String,
        /// Its format.
        format: u32,
    },
    /// Not what a writer of ours makes, or not at its place.
    #[error("{path} is damaged: {cause}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// It was created once and isn't there: records are numbered without gaps.
    #[error("{path} is missing, though there is a later one")]
    Missing {
        /// The object.
        path: String,
    },
    /// Sealed under a root key that this program wasn't given.
    #[error(
        "{path} is sealed under root key version {version}, which the vault's keys don't have: run this again, and if that doesn't help, restore the newest object in keys/"
    )]
    KeyVersion {
        /// The object.
        path: String,
        /// The version.
        version: u32,
    },
    /// Keys can't be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A thread that decodes has ended: the program is stopping, or has a mistake.
    #[error("reading was stopped: {0}")]
    Stopped(String),
}

impl MetaError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Key(error) => error.remedy(),
            Self::Format { .. } => Remedy::Refuse,
            Self::Stopped(_) => Remedy::Stop,
            Self::Damaged { .. } | Self::Missing { .. } | Self::KeyVersion { .. } => Remedy::Repair,
        }
    }

    /// Whether what is stored is wrong (and not the way to it): others can be read all the same.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } => true,
            Self::Store(error) => error.is_damage(),
            Self::Format { .. } | Self::KeyVersion { .. } | Self::Key(_) | Self::Stopped(_) => {
                false
            }
        }
    }

    /// The object that is damaged, if one is.
    #[must_use]
    pub fn damaged_path(&self) -> Option<&str> {
        match self {
            Self::Damaged { path, .. } | Self::Missing { path } => Some(path),
            Self::Store(error) if error.is_damage() => error.path(),
            _ => None,
        }
    }

    pub(crate) fn damaged(path: &str, cause: &str) -> Self {
        Self::Damaged { path: path.into(), cause: cause.into() }
    }

    fn key(path: &str, version: u32) -> Self {
        Self::KeyVersion { path: path.into(), version }
    }
}

#[cfg(test)]
mod tests;
