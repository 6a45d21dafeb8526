//! What the data key wraps: the root keys, and what must be as it was when the vault was made.
//! docs/formats/keys.md, "Contents".
//!
//! Binary, not JSON, so that its secrets are in one buffer that is wiped.

use std::collections::BTreeMap;

use tidegate_model::{Reader, Short, VaultId, Writer};
use zeroize::Zeroizing;

use crate::description::Description;
use crate::seal::{KeyRing, Secret};

const LAYOUT: u32 = 1;
/// Most versions of the root key: one a day for 2 years.
const ROOTS_MAX: u32 = 1024;
/// Longest certificate: ours have less than 1 KiB.
pub(super) const CERTIFICATE_BYTES_MAX: usize = 16 << 10;

/// The contents, opened.
pub(super) struct Contents {
    pub vault: VaultId,
    pub format: u32,
    pub block_bytes: u32,
    /// By version, from 1; never empty.
    pub roots: BTreeMap<u32, Secret>,
    /// The authority's certificate, DER.
    pub certificate: Vec<u8>,
}

/// Why bytes are no contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ContentsError {
    #[error(transparent)]
    Short(#[from] Short),
    #[error("layout {0} is unknown: use a newer program")]
    Layout(u32),
    #[error("{0}")]
    Field(&'static str),
}

impl Contents {
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let bytes = 32 + self.roots.len() * 36 + 4 + self.certificate.len();
        // Its whole size at once: a buffer that grows leaves its secrets behind.
        let mut buffer = Zeroizing::new(Vec::with_capacity(bytes));
        let mut writer = Writer::new(&mut buffer);
        let count = |n: usize| u32::try_from(n).expect("counts have limits far below 2^32");
        writer.u32(LAYOUT).u32(self.format).bytes(self.vault.as_bytes()).u32(self.block_bytes);
        writer.u32(count(self.roots.len()));
        for (version, key) in &self.roots {
            writer.u32(*version).bytes(key.as_slice());
        }
        writer.u32(count(self.certificate.len())).bytes(&self.certificate);
        debug_assert_eq!(buffer.len(), bytes);
        buffer
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ContentsError> {
        let mut reader = Reader::new(bytes);
        let layout = reader.u32()?;
        if layout != LAYOUT {
            return Err(ContentsError::Layout(layout));
        }
        let format = reader.u32()?;
        let vault = VaultId::from_bytes(reader.array()?);
        let block_bytes = reader.u32()?;
        let count = reader.u32()?;
        if !(1..=ROOTS_MAX).contains(&count) {
            return Err(ContentsError::Field("the number of root keys is beyond its limits"));
        }
        let mut roots = BTreeMap::new();
        for _ in 0..count {
            let version = reader.u32()?;
            if roots.last_key_value().is_some_and(|(last, _)| *last >= version) || version == 0 {
                return Err(ContentsError::Field("the root keys are out of order"));
            }
            let mut key = Secret::default();
            key.copy_from_slice(reader.bytes(32)?);
            roots.insert(version, key);
        }
        let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        if length > CERTIFICATE_BYTES_MAX {
            return Err(ContentsError::Field("the certificate is too long"));
        }
        let certificate = reader.bytes(length)?.to_vec();
        if reader.left() > 0 {
            return Err(ContentsError::Field("bytes follow its end"));
        }
        Ok(Self { vault, format, block_bytes, roots, certificate })
    }

    pub fn ring(&self) -> KeyRing {
        KeyRing::new(self.vault, self.roots.clone())
    }

    /// Whether vault.json still says what it said when the vault was made.
    pub fn agrees_with(&self, description: &Description) -> bool {
        self.vault == description.vault
            && self.format == description.format
            && self.block_bytes == description.block_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents() -> Contents {
        Contents {
            vault: VaultId::from_bytes([9; 16]),
            format: 1,
            block_bytes: 65536,
            roots: BTreeMap::from([(1, Secret::new([1; 32])), (2, Secret::new([2; 32]))]),
            certificate: b"certificate".to_vec(),
        }
    }

    #[test]
    fn contents_read_back_and_no_length_but_theirs_does() {
        let bytes = contents().encode();
        assert_eq!(Contents::decode(&bytes).unwrap().encode(), bytes);
        for length in 0..bytes.len() {
            assert!(Contents::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Contents::decode(&[&bytes[..], b"x"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_neither_panics_nor_reads_back_as_something_else(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            prefix in 0_usize..40,
        ) {
            let mut mixed = contents().encode()[..prefix].to_vec();
            mixed.extend(&bytes);
            if let Ok(contents) = Contents::decode(&mixed) {
                prop_assert_eq!(&contents.encode()[..], &mixed[..]);
            }
        }
    }
}
