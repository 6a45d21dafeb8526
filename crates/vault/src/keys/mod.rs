//! A vault's keys: what they are wrapped in, and how they are opened. docs/formats/keys.md.
//!
//! ```text
//! credential ── Argon2id or HKDF ──▶ slot key ──▶ data key ──▶ contents: root keys, description
//!                                             └─▶ authority key ──▶ the authority's private key
//! ```
//!
//! Owns slots, wraps, credentials, the recovery key, and the numbered versions of it all. Doesn't
//! own what the root keys seal (`seal`), nor certificates (`authority`, `identity`).
//!
//! Invariants: no secret is printed, logged, or in an error; what is read from the store is
//! checked against limits before work or memory is spent on it; nothing is believed that wasn't
//! authenticated under a credential.

mod contents;
mod credential;
mod document;
mod error;
mod hex;
mod kdf;
mod recovery;
mod slot;
mod unlocked;
mod wrap;

#[cfg(test)]
mod tests;

pub use credential::{Credential, make_key_file};
pub(crate) use document::newest_number;
pub use document::{KeyDocument, SLOTS_MAX};
pub use error::KeyError;
pub use kdf::{CostError, PassphraseCost};
pub use recovery::{RECOVERY_PREFIX, RecoveryKey};
pub use slot::{Scope, Slot, SlotKind};
pub(crate) use unlocked::make;
pub use unlocked::{NewSlot, Unlocked};

use crate::seal::Secret;

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(bytes)
}

/// A random secret, written where it stays.
pub(crate) fn random_secret() -> Result<Secret, KeyError> {
    let mut secret = Secret::default();
    getrandom::fill(secret.as_mut_slice()).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(secret)
}
