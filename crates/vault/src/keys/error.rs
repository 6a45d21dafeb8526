//! What can go wrong with a vault's keys.

use tidegate_model::{Counted, Remedy};

use crate::store::StoreError;

/// Why keys couldn't be read, opened or changed. Never says anything of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The store didn't give or take them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are none: the vault's making was interrupted.
    #[error(
        "the vault has no keys yet: its making was interrupted; run 'tidegate vault init' again"
    )]
    NoKeys,
    /// Written by a later program; or damaged, for nothing tells whether its format is as it was
    /// written.
    #[error(
        "{path} has format {format}, which this program doesn't know: use a newer Tidegate, or, if none has written there, bring back that damaged object from a copy"
    )]
    Format {
        /// The object.
        path: String,
        /// Its format.
        format: u64,
    },
    /// Not what a writer of ours makes.
    #[error("{path} is damaged: {cause}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The credential opens none of the slots of its kind.
    #[error(
        "wrong {kind}: it was tried on {} of {path} and opens none; 'tidegate vault key list' shows them",
        Counted(*.tried, "slot")
    )]
    Wrong {
        /// The object.
        path: String,
        /// A passphrase, a key file, a recovery key.
        kind: &'static str,
        /// How many slots were tried.
        tried: usize,
    },
    /// There is no slot of the credential's kind.
    #[error(
        "the vault isn't opened by a {kind}: none of the slots of {path} is for one; use another credential ('tidegate vault key list' shows the slots)"
    )]
    NoneOfKind {
        /// The object.
        path: String,
        /// A passphrase, a key file, a recovery key.
        kind: &'static str,
    },
    /// A slot was opened, and yet what it leads to doesn't open.
    #[error(
        "{path} is damaged: slot {slot} opens, but {what} doesn't; restore that object from a copy"
    )]
    Contents {
        /// The object.
        path: String,
        /// The slot that opened.
        slot: u32,
        /// What didn't.
        what: &'static str,
    },
    /// A recovery key that was mistyped.
    #[error(
        "the recovery key is mistyped: {0}; compare it with the one that was printed when the vault was made"
    )]
    RecoveryText(&'static str),
    /// The credential doesn't open the vault's authority.
    #[error(
        "this credential opens only the vault's data, not its authority: use one of scope 'all' (the first passphrase or key file, or the recovery key)"
    )]
    NoAuthority,
    /// No such slot.
    #[error("the vault has no key slot {0}: 'tidegate vault key list' shows those it has")]
    NoSlot(u32),
    /// The recovery key can't be replaced by another kind.
    #[error("slot {0} holds the recovery key, which stays: add another slot instead")]
    RecoverySlot(u32),
    /// As many slots as there can be.
    #[error(
        "the vault has {0} key slots, as many as it can have: change one instead of adding one"
    )]
    Full(usize),
    /// Someone else changed the keys at the same time.
    #[error("the vault's keys were changed by someone else at the same time: run this again")]
    Raced,
    /// A passphrase or key file that can't be used.
    #[error("{0}")]
    Credential(String),
    /// Parameters beyond our limits.
    #[error("{0}")]
    Parameters(String),
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Random(String),
}

impl KeyError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Raced => Remedy::Retry,
            Self::Damaged { .. } | Self::Contents { .. } => Remedy::Repair,
            Self::Random(_) => Remedy::Stop,
            _ => Remedy::Refuse,
        }
    }
}
