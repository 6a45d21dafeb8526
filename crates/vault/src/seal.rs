//! Keys derived from the vault's root keys, and what they seal.
//!
//! Owns: every HKDF label, every nonce rule. Doesn't own where root keys come from (`keys`), nor
//! what the sealed bytes mean (`pack`, `meta`). docs/formats/keys.md, "Derived keys".
//!
//! Invariants: a (key, nonce) pair seals once. A log's keys come from its run, 128 random bits
//! claimed in the vault before the first seal, and its shard; its nonces are the numbers of its
//! frames and packs, each given once. Metadata has a key a path and a random nonce.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use tidegate_model::{BlockName, FrameNumber, LogId, PackNumber, VaultId};
use zeroize::Zeroizing;

/// Bytes of an AES-GCM tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of an AES-GCM nonce.
pub const NONCE_BYTES: usize = 12;
/// Most bytes that one call seals: far below AES-GCM's own limit of 64 GiB.
const SEAL_BYTES_MAX: usize = 1 << 30;

/// A 256-bit secret that is wiped when it is dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// Sealed bytes that don't open: changed, cut, from another place, or under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("doesn't open with this vault's key: it was changed, or belongs elsewhere")]
pub struct OpenError;

/// Seals and opens with one derived key, whose schedule is made once. In place, without allocating.
/// `aws-lc-rs`, which rustls brings along, is faster here than the `aes-gcm` crate, which reads along
/// in the tests (docs/decisions/0008-two-ciphers.md).
#[derive(Clone)]
pub struct Cipher(Arc<LessSafeKey>);

impl Cipher {
    /// A cipher with this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        // "Less safe" is its word for nonces that the caller gives: ours are numbers.
        let key = UnboundKey::new(&AES_256_GCM, key).expect("AES-256 has keys of 32 bytes");
        Self(Arc::new(LessSafeKey::new(key)))
    }

    /// Seals `bytes` in place and gives the tag.
    ///
    /// # Panics
    /// If `bytes` is longer than a gibibyte, which no format of ours allows.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], aad: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        assert!(bytes.len() <= SEAL_BYTES_MAX);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), bytes);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(sealed.expect("AES-GCM refuses only lengths over 64 GiB").as_ref());
        tag
    }

    /// Opens `bytes` in place.
    ///
    /// # Errors
    /// [`OpenError`] when the tag doesn't fit; `bytes` are then of no meaning.
    pub fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        bytes: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), OpenError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), &tag, bytes);
        opened.map(drop).map_err(|_| OpenError)
    }
}

/// The two ciphers of a log.
#[derive(Clone)]
pub struct LogCiphers {
    frame: Cipher,
    index: Cipher,
}

impl LogCiphers {
    /// Seals a frame. Call once a number.
    pub fn seal_frame(&self, number: FrameNumber, aad: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        self.frame.seal(numbered_nonce(NonceKind::Frame, number.0), aad, bytes)
    }

    /// Opens a frame.
    ///
    /// # Errors
    /// [`OpenError`] when it isn't the frame of this log and number, unchanged.
    pub fn open_frame(
        &self,
        number: FrameNumber,
        aad: &[u8],
        bytes: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), OpenError> {
        self.frame.open(numbered_nonce(NonceKind::Frame, number.0), aad, bytes, tag)
    }

    /// Seals the index of a pack. Call once a number.
    pub fn seal_index(&self, number: PackNumber, aad: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        self.index.seal(numbered_nonce(NonceKind::Index, number.0), aad, bytes)
    }

    /// Opens the index of a pack.
    ///
    /// # Errors
    /// [`OpenError`] when it isn't the index of this log and number, unchanged.
    pub fn open_index(
        &self,
        number: PackNumber,
        aad: &[u8],
        bytes: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), OpenError> {
        self.index.open(numbered_nonce(NonceKind::Index, number.0), aad, bytes, tag)
    }
}

/// The first byte of a nonce: what its number counts.
#[derive(Clone, Copy)]
enum NonceKind {
    Frame = 1,
    Index = 2,
}

/// Kind, three zeros, the number with its highest byte first.
fn numbered_nonce(kind: NonceKind, number: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[0] = kind as u8;
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

/// Gives blocks their names; knows the vault's naming key.
#[derive(Clone)]
pub struct BlockNamer(Secret);

impl BlockNamer {
    /// The name of the block whose plain BLAKE3 hash this is.
    #[must_use]
    pub fn name(&self, hash: &blake3::Hash) -> BlockName {
        let keyed = blake3::keyed_hash(&self.0, hash.as_bytes());
        let mut name = [0; 16];
        name.copy_from_slice(&keyed.as_bytes()[..16]);
        BlockName::from_bytes(name)
    }

    /// The name of a block.
    #[must_use]
    pub fn name_block(&self, block: &[u8]) -> BlockName {
        self.name(&blake3::hash(block))
    }
}

/// The root keys of an opened vault, by version.
#[derive(Clone)]
pub struct KeyRing {
    vault: VaultId,
    roots: BTreeMap<u32, Secret>,
}

impl KeyRing {
    /// A ring of these root keys.
    ///
    /// # Panics
    /// If `roots` is empty: a vault is made with its first.
    #[must_use]
    pub fn new(vault: VaultId, roots: BTreeMap<u32, Secret>) -> Self {
        assert!(!roots.is_empty(), "a vault has a root key");
        Self { vault, roots }
    }

    /// The vault whose keys these are.
    #[must_use]
    pub const fn vault(&self) -> VaultId {
        self.vault
    }

    /// The newest version: what is sealed now is sealed under it.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.roots.last_key_value().map_or(0, |(version, _)| *version)
    }

    /// All versions, the oldest first.
    pub fn versions(&self) -> impl Iterator<Item = u32> + '_ {
        self.roots.keys().copied()
    }

    /// The ciphers of a log; `None` when the ring has no root key of that version.
    #[must_use]
    pub fn log_ciphers(&self, version: u32, log: LogId) -> Option<LogCiphers> {
        let derive = |label: &[u8]| {
            let shard = log.shard.to_le_bytes();
            self.derive(version, &[label, log.run.as_bytes(), &shard]).map(|key| Cipher::new(&key))
        };
        Some(LogCiphers {
            frame: derive(b"tidegate/1 frame")?,
            index: derive(b"tidegate/1 index")?,
        })
    }

    /// The cipher of the metadata object at `path`; `None` when the ring has no such root key.
    #[must_use]
    pub fn meta_cipher(&self, version: u32, path: &str) -> Option<Cipher> {
        self.derive(version, &[b"tidegate/1 meta", path.as_bytes()]).map(|key| Cipher::new(&key))
    }

    /// The namer of blocks. Its key comes from the first root key and is never rotated: a new one
    /// would make every known block unknown.
    #[must_use]
    pub fn block_namer(&self) -> BlockNamer {
        let first = self.roots.first_key_value().map_or(0, |(version, _)| *version);
        let key = self.derive(first, &[b"tidegate/1 block name"]);
        BlockNamer(key.expect("a ring has its own first version"))
    }

    fn derive(&self, version: u32, info: &[&[u8]]) -> Option<Secret> {
        let root = self.roots.get(&version)?;
        let hkdf = Hkdf::<Sha256>::new(Some(self.vault.as_bytes()), root.as_slice());
        let mut key = Secret::default();
        hkdf.expand_multi_info(info, key.as_mut_slice()).expect("32 bytes are within HKDF's limit");
        Some(key)
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing(vault {}, versions {:?})", self.vault, self.roots.keys())
    }
}

#[cfg(test)]
mod tests {
    use aes_gcm::aead::AeadInOut;
    use proptest::prelude::*;
    use tidegate_model::RunId;

    use super::*;

    fn ring() -> KeyRing {
        let roots = BTreeMap::from([(1, Secret::new([7; 32])), (2, Secret::new([8; 32]))]);
        KeyRing::new(VaultId::from_bytes([1; 16]), roots)
    }

    fn log(shard: u16) -> LogId {
        LogId { run: RunId::from_bytes([2; 16]), shard }
    }

    #[test]
    fn a_frame_opens_only_as_itself() {
        let ring = ring();
        let ciphers = ring.log_ciphers(2, log(0)).unwrap();
        let mut sealed = *b"the content of a frame";
        let tag = ciphers.seal_frame(FrameNumber(5), b"header", &mut sealed);
        let open = |ciphers: &LogCiphers, number, aad: &[u8]| {
            ciphers.open_frame(FrameNumber(number), aad, &mut sealed.clone(), tag)
        };
        assert_eq!(open(&ciphers, 5, b"header"), Ok(()));
        assert_eq!(open(&ciphers, 6, b"header"), Err(OpenError));
        assert_eq!(open(&ciphers, 5, b"Header"), Err(OpenError));
        assert_eq!(open(&ring.log_ciphers(2, log(1)).unwrap(), 5, b"header"), Err(OpenError));
        assert_eq!(open(&ring.log_ciphers(1, log(0)).unwrap(), 5, b"header"), Err(OpenError));
        assert!(ring.log_ciphers(3, log(0)).is_none());
    }

    #[test]
    fn an_index_and_a_frame_of_one_number_have_different_keys_and_nonces() {
        assert_ne!(numbered_nonce(NonceKind::Frame, 1), numbered_nonce(NonceKind::Index, 1));
        let ciphers = ring().log_ciphers(1, log(0)).unwrap();
        let mut sealed = *b"x";
        let tag = ciphers.seal_frame(FrameNumber(0), b"", &mut sealed);
        assert_eq!(ciphers.open_index(PackNumber(0), b"", &mut sealed, tag), Err(OpenError));
    }

    /// The same cipher by another hand.
    fn other(key: &[u8; 32]) -> aes_gcm::Aes256Gcm {
        aes_gcm::aead::KeyInit::new(key.into())
    }

    proptest! {
        #[test]
        fn what_this_seals_another_implementation_opens(
            key: [u8; 32], nonce: [u8; 12], aad in bytes(0..100), plain in bytes(0..10_000),
        ) {
            let mut sealed = plain.clone();
            let tag = Cipher::new(&key).seal(nonce, &aad, &mut sealed);
            let opened = other(&key).decrypt_inout_detached(
                &nonce.into(), &aad, sealed.as_mut_slice().into(), &tag.into());
            prop_assert!(opened.is_ok());
            prop_assert_eq!(sealed, plain);
        }

        #[test]
        fn what_another_implementation_seals_this_opens_unless_it_was_changed(
            key: [u8; 32], nonce: [u8; 12], aad in bytes(0..100), plain in bytes(1..10_000),
            spoil: prop::sample::Index,
        ) {
            let mut sealed = plain.clone();
            let tag = other(&key)
                .encrypt_inout_detached(&nonce.into(), &aad, sealed.as_mut_slice().into())
                .unwrap();
            let cipher = Cipher::new(&key);
            let mut spoiled = sealed.clone();
            spoiled[spoil.index(plain.len())] ^= 1;
            prop_assert_eq!(cipher.open(nonce, &aad, &mut spoiled, tag.into()), Err(OpenError));
            prop_assert_eq!(cipher.open(nonce, &aad, &mut sealed, tag.into()), Ok(()));
            prop_assert_eq!(sealed, plain);
        }
    }

    fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), length)
    }

    #[test]
    fn block_names_survive_a_new_root_key() {
        let one =
            KeyRing::new(VaultId::from_bytes([1; 16]), BTreeMap::from([(1, Secret::new([7; 32]))]));
        assert_eq!(one.block_namer().name_block(b"b"), ring().block_namer().name_block(b"b"));
    }

    #[test]
    fn debug_shows_no_key() {
        assert!(!format!("{:?}", ring()).contains("7, 7"));
    }
}
