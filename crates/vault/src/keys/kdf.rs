//! From a credential to the key that wraps. docs/formats/keys.md, "From credential to key".
//!
//! Passphrases go through Argon2id (RFC 9106), because people choose them; key files and recovery
//! keys are random already, so HKDF-SHA256 (RFC 5869) will do.

use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::seal::Secret;

/// Most memory that a stored parameter may ask for, in KiB: 1 GiB, which any machine that can run
/// a server has.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most passes: with the most memory some 20 seconds, and then it must end.
const PASSES_MAX: u32 = 16;
/// Most lanes: no setting in use has more.
const LANES_MAX: u32 = 8;
/// Bytes of a slot's salt.
pub const SALT_BYTES: usize = 16;

/// How much work a passphrase costs who guesses it. The default is RFC 9106's second recommended
/// setting with one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Argon2Fields", into = "Argon2Fields")]
pub struct PassphraseCost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Parameters beyond the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Argon2id with {memory_kib} KiB, {passes} passes and {lanes} lanes is outside what is allowed: 8 KiB a lane to {MEMORY_KIB_MAX} KiB, 1 to {PASSES_MAX} passes, 1 to {LANES_MAX} lanes"
)]
pub struct CostError {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Argon2Fields {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Default for PassphraseCost {
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 1 }
    }
}

impl PassphraseCost {
    /// The least that Argon2 does: for tests, where the passphrase guards nothing.
    #[must_use]
    pub const fn for_tests() -> Self {
        Self { memory_kib: 8, passes: 1, lanes: 1 }
    }

    /// These parameters.
    ///
    /// # Errors
    /// [`CostError`] when one is outside its limits.
    pub const fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CostError> {
        let fits = lanes >= 1
            && lanes <= LANES_MAX
            && passes >= 1
            && passes <= PASSES_MAX
            && memory_kib >= 8 * lanes
            && memory_kib <= MEMORY_KIB_MAX;
        if fits {
            Ok(Self { memory_kib, passes, lanes })
        } else {
            Err(CostError { memory_kib, passes, lanes })
        }
    }

    /// Memory in KiB, passes, lanes.
    #[must_use]
    pub const fn fields(&self) -> [u32; 3] {
        [self.memory_kib, self.passes, self.lanes]
    }
}

impl TryFrom<Argon2Fields> for PassphraseCost {
    type Error = CostError;

    fn try_from(fields: Argon2Fields) -> Result<Self, CostError> {
        Self::new(fields.memory_kib, fields.passes, fields.lanes)
    }
}

impl From<PassphraseCost> for Argon2Fields {
    fn from(cost: PassphraseCost) -> Self {
        Self { memory_kib: cost.memory_kib, passes: cost.passes, lanes: cost.lanes }
    }
}

/// The wrapping key of a passphrase: Argon2id, version 0x13.
pub fn of_passphrase(passphrase: &str, salt: &[u8; SALT_BYTES], cost: PassphraseCost) -> Secret {
    let mut key = Secret::default();
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(key.len()));
    let params = params.expect("the limits of PassphraseCost are narrower than Argon2's");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .expect("Argon2 refuses only lengths that credentials and salts can't have");
    key
}

/// The wrapping key of random content; `label` keeps the kinds apart.
pub fn of_random(content: &[u8], salt: &[u8; SALT_BYTES], label: &[u8]) -> Secret {
    let hkdf = Hkdf::<Sha256>::new(Some(salt), content);
    let mut key: Secret = Zeroizing::new([0; 32]);
    hkdf.expand(label, key.as_mut_slice()).expect("32 bytes are within HKDF's limit");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_asks_for_is_bounded() {
        for (memory, passes, lanes) in
            [(7, 1, 1), (1 << 20 | 1, 1, 1), (64, 0, 1), (64, 17, 1), (64, 1, 0), (1024, 1, 9)]
        {
            assert!(PassphraseCost::new(memory, passes, lanes).is_err());
        }
        let text = r#"{"memory_kib":4294967295,"passes":3,"lanes":1}"#;
        assert!(serde_json::from_str::<PassphraseCost>(text).is_err());
        assert_eq!(PassphraseCost::new(65536, 3, 1), Ok(PassphraseCost::default()));
    }

    #[test]
    fn a_passphrase_gives_a_key_a_salt_and_a_cost() {
        let cost = |passes| PassphraseCost::new(64, passes, 1).unwrap();
        let key = of_passphrase("password", &[1; 16], cost(1));
        assert_eq!(*key, *of_passphrase("password", &[1; 16], cost(1)));
        assert_ne!(*key, *of_passphrase("password", &[2; 16], cost(1)));
        assert_ne!(*key, *of_passphrase("password", &[1; 16], cost(2)));
        assert_ne!(*key, *of_passphrase("Password", &[1; 16], cost(1)));
    }

    #[test]
    fn random_content_gives_a_key_a_kind_and_a_salt() {
        let key = |content: &[u8], salt, label: &[u8]| of_random(content, &[salt; 16], label);
        assert_ne!(*key(b"content", 1, b"a"), *key(b"content", 1, b"b"));
        assert_ne!(*key(b"content", 1, b"a"), *key(b"content", 2, b"a"));
        assert_ne!(*key(b"content", 1, b"a"), *key(b"contenT", 1, b"a"));
    }
}
