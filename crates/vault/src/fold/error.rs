//! Why a machine's history couldn't be folded.

use std::fmt;

use tidegate_model::{LogName, Name, Remedy};

use crate::chain::HistoryError;
use crate::log::LogError;
use crate::meta::MetaError;

/// Why a machine's history couldn't be folded. What was folded before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The history couldn't be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A log couldn't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A manifest or layer couldn't be read or created.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// Nobody knows in which logs the machine's records lie.
    #[error(
        "{machine} can't be folded while records of its sessions are damaged or missing: any log may hold what they brought; `tidegate verify` says which, bring them back from a copy of the vault"
    )]
    Strayed {
        /// The machine.
        machine: Name,
    },
    /// The record of a session was brought back: all is to be folded anew.
    #[error("records of {machine} lie before what was folded of their log")]
    BeginsBefore {
        /// The machine.
        machine: Name,
    },
    /// The logs alone would give less than what was folded.
    #[error(
        "{machine} can't be folded from its logs alone: they no longer hold all that was folded, for what isn't kept was let go and collected, and only its newest manifests and their layers tell of the rest; bring those that are damaged back from a copy of the vault ('tidegate verify' names them)"
    )]
    Collected {
        /// The machine.
        machine: Name,
    },
    /// The manifest has outgrown its limit.
    #[error(
        "the manifest of {machine} would have {bytes} bytes, and {bytes_max} are the most: it has too many bookmarks or packs, and nothing more of it can be folded; recovery goes on without"
    )]
    TooLong {
        /// The machine.
        machine: Name,
        /// What it would have.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// It would take more memory than there is for it.
    #[error(
        "{machine} isn't folded in the background: {what}, {found}, and {most} are the most in the memory that is left for that; run `tidegate maintain {machine}`, or give the server more (--memory)"
    )]
    TooMuch {
        /// The machine.
        machine: Name,
        /// Of what there is too much.
        what: TooMuch,
        /// How much there is.
        found: u64,
        /// How much may be.
        most: u64,
    },
    /// Others folded the same machine meanwhile, again and again.
    #[error("others fold {machine} all the time: let one do it")]
    Contended {
        /// The machine.
        machine: Name,
    },
}

impl FoldError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::History(error) => error.remedy(),
            Self::Log(error) => error.remedy(),
            Self::Meta(error) => error.remedy(),
            Self::Strayed { .. } | Self::Collected { .. } => Remedy::Repair,
            Self::TooLong { .. } | Self::TooMuch { .. } => Remedy::Refuse,
            Self::BeginsBefore { .. } | Self::Contended { .. } => Remedy::Retry,
        }
    }

    /// Whether what is stored is wrong, or was when it was read.
    pub(super) const fn is_damage(&self) -> bool {
        match self {
            Self::Log(error) | Self::History(HistoryError::Log(error)) => error.is_damage(),
            Self::Meta(error) | Self::History(HistoryError::Meta(error)) => error.is_damage(),
            _ => false,
        }
    }
}

/// Of what there is too much for the memory of who folds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TooMuch {
    /// Packs of a log.
    StoredPacks(LogName),
    /// Packs of a log that aren't folded.
    WaitingPacks(LogName),
    /// Bytes of its manifest.
    ManifestBytes,
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoredPacks(log) => write!(f, "log {log} has too many packs"),
            Self::WaitingPacks(log) => write!(f, "too many packs of log {log} wait to be folded"),
            Self::ManifestBytes => f.write_str("its manifest has too many bytes"),
        }
    }
}
