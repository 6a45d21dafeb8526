//! vault.json: what a vault is. docs/formats/vault.md.
//!
//! Plain JSON, made once, never changed, read before any key: it holds nothing secret and nothing
//! that is believed without being compared with what the keys authenticate.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidegate_model::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use tidegate_model::{Micros, Remedy, VaultId};

use crate::rfc3339;

/// The format of vaults that this program makes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// Most bytes of vault.json: twenty times what it has.
pub const DESCRIPTION_BYTES_MAX: u64 = 4 << 10;

/// What a vault is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The format of the whole.
    pub format: u32,
    /// Which vault it is.
    pub vault: VaultId,
    /// The size of its blocks.
    pub block_bytes: u32,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: Micros,
}

/// Why vault.json can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// Not JSON, or without the fields that are needed.
    #[error(
        "its vault.json is not one of Tidegate's ({0}): another program's directory, or damaged"
    )]
    NotOurs(String),
    /// Made by a later program; or damaged, for nothing in it is authenticated by itself.
    #[error(
        "its vault.json has format {0}, which this program doesn't know: use a newer Tidegate, or, if none has written there, bring back that damaged object from a copy"
    )]
    Newer(u64),
    /// A block size that no vault has.
    #[error(
        "a block size of {0} bytes is impossible: a power of two from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX} is needed"
    )]
    BlockBytes(u32),
}

impl DescriptionError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        Remedy::Refuse
    }
}

impl Description {
    /// The description of a new vault.
    ///
    /// # Errors
    /// [`DescriptionError::BlockBytes`] for a block size that can't be had.
    pub fn new(
        vault: VaultId,
        block_bytes: u32,
        created: Micros,
    ) -> Result<Self, DescriptionError> {
        check_block_bytes(block_bytes)?;
        Ok(Self { format: FORMAT, vault, block_bytes, created })
    }

    /// The bytes of vault.json.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut json = serde_json::to_vec_pretty(self).expect("numbers and texts are always JSON");
        json.push(b'\n');
        json.into()
    }

    /// Reads vault.json.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptionError> {
        /// Looked at first, because a later format may have other fields.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let not_ours = |error: serde_json::Error| DescriptionError::NotOurs(error.to_string());
        let Format { format } = serde_json::from_slice(bytes).map_err(not_ours)?;
        if format != u64::from(FORMAT) {
            return Err(DescriptionError::Newer(format));
        }
        let description: Self = serde_json::from_slice(bytes).map_err(not_ours)?;
        check_block_bytes(description.block_bytes)?;
        Ok(description)
    }
}

fn check_block_bytes(bytes: u32) -> Result<(), DescriptionError> {
    if bytes.is_power_of_two() && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes) {
        Ok(())
    } else {
        Err(DescriptionError::BlockBytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &[u8] = include_bytes!("golden/vault.json");

    #[test]
    fn the_golden_vault_json_reads_and_is_written_the_same() {
        let description = Description::decode(GOLDEN).unwrap();
        let made = Micros(1_767_225_600_000_000);
        let vault = VaultId::from_bytes(
            *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
        );
        assert_eq!(description, Description::new(vault, 65536, made).unwrap());
        assert_eq!(description.encode(), GOLDEN);
    }

    #[test]
    fn each_way_to_be_wrong_has_its_error() {
        let golden = std::str::from_utf8(GOLDEN).unwrap();
        let with = |from: &str, to: &str| Description::decode(golden.replace(from, to).as_bytes());
        assert!(matches!(with("\"format\": 1", "\"format\": 2"), Err(DescriptionError::Newer(2))));
        assert!(matches!(with("\"format\"", "\"f\""), Err(DescriptionError::NotOurs(_))));
        assert!(matches!(with("0011", "001x"), Err(DescriptionError::NotOurs(_))));
        for (size, number) in [("0", 0), ("65537", 65537), ("2048", 2048), ("524288", 524_288)] {
            assert_eq!(with("65536", size), Err(DescriptionError::BlockBytes(number)));
        }
        assert!(matches!(Description::decode(b"<html>"), Err(DescriptionError::NotOurs(_))));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Description::decode(&bytes).is_err());
        }
    }
}
