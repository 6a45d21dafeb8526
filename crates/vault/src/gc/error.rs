//! Why garbage couldn't be collected.

use tidegate_model::{LogName, Name, Remedy};

use crate::log::{LogError, PackPlace};
use crate::meta::MetaError;
use crate::store::StoreError;

/// Why garbage couldn't be collected. Nothing that is needed was deleted.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The store didn't do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record, a manifest or a step can't be read or created.
    #[error("nothing is collected as long as it can't be told what is needed: {0}")]
    Meta(#[from] MetaError),
    /// A pack can't be read.
    #[error("nothing is collected as long as it can't be told what is needed: {0}")]
    Log(#[from] LogError),
    /// What was removed fills a step.
    #[error(
        "no more packs can be collected: to note which were, a step would take {bytes} bytes, and {bytes_max} are the most; manifests and layers are deleted all the same"
    )]
    TooLong {
        /// What it would take.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// It would take more memory than there is for it.
    #[error(
        "garbage isn't collected in the background: what {packs} packs and {records} records of machines take is {bytes} bytes, and {bytes_max} are left for that; run `tidegate maintain`, or give the server more (--memory)"
    )]
    TooMuch {
        /// Stored packs.
        packs: u64,
        /// Objects of machines.
        records: u64,
        /// What they take.
        bytes: u64,
        /// What they may take.
        bytes_max: u64,
    },
    /// The newest steps are gone: what they had removed nobody can tell.
    #[error(
        "nothing is collected: log {log} has read gc/{step:020}, and that isn't there; bring it back from a copy of the vault"
    )]
    LostStep {
        /// The log.
        log: LogName,
        /// The step.
        step: u64,
    },
    /// The manifests that had folded what was removed are gone.
    #[error(
        "nothing is collected: {machine} needs {pack}, which was removed when newer manifests of it had folded that; they aren't there, bring them back from a copy of the vault"
    )]
    LostFold {
        /// The pack.
        pack: PackPlace,
        /// The machine.
        machine: Name,
    },
    /// A pack has records of a machine that nothing accounts for.
    #[error(
        "nothing is collected: {pack} has records of {machine} that no session names and no manifest has folded; `tidegate verify` tells more"
    )]
    Unnamed {
        /// The pack.
        pack: PackPlace,
        /// The machine.
        machine: Name,
    },
}

impl GcError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Meta(error) => error.remedy(),
            Self::Log(error) => error.remedy(),
            Self::TooLong { .. } | Self::TooMuch { .. } => Remedy::Refuse,
            Self::Unnamed { .. } | Self::LostStep { .. } | Self::LostFold { .. } => Remedy::Repair,
        }
    }
}
