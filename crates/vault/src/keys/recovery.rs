//! The recovery key: 256 random bits, printed once when a vault is made, and typed by a person
//! when everything else is lost. docs/formats/keys.md, "Recovery key".
//!
//! Its text is the prefix and 14 groups of 4 characters of Crockford's base 32: 32 bytes of key,
//! then 3 bytes of SHA-256 of prefix and key, so that a slip of the pen is told from a wrong key.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::KeyError;
use crate::seal::Secret;

/// What the text of a recovery key begins with.
pub const RECOVERY_PREFIX: &str = "TIDEGATE-RECOVERY-";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 3;
/// 35 bytes are 56 characters of 5 bits, without a rest.
const BYTES: usize = KEY_BYTES + CHECK_BYTES;
const CHARS: usize = BYTES * 8 / 5;
const GROUP: usize = 4;

const _: () = assert!(BYTES.is_multiple_of(5) && CHARS.is_multiple_of(GROUP));

/// A recovery key. Wiped when dropped; shown only by [`RecoveryKey::text`].
#[derive(Clone)]
pub struct RecoveryKey(Secret);

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey(secret)")
    }
}

impl RecoveryKey {
    /// The key of these random bytes.
    pub(super) const fn new(bytes: Secret) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The text to print, once.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[..KEY_BYTES].copy_from_slice(self.0.as_slice());
        bytes[KEY_BYTES..].copy_from_slice(&check(&self.0));
        let length = RECOVERY_PREFIX.len() + CHARS + CHARS / GROUP - 1;
        let mut text = Zeroizing::new(String::with_capacity(length));
        text.push_str(RECOVERY_PREFIX);
        for (index, char) in bytes.chunks(5).flat_map(five_bytes).enumerate() {
            if index > 0 && index.is_multiple_of(GROUP) {
                text.push('-');
            }
            text.push(char);
        }
        text
    }

    /// Whether a text means to be a recovery key.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        let text = text.trim_start();
        text.get(..RECOVERY_PREFIX.len()).is_some_and(|t| t.eq_ignore_ascii_case(RECOVERY_PREFIX))
    }

    /// Reads the text; capitals, spaces and hyphens don't matter, nor do O for 0 and I or L for 1.
    ///
    /// # Errors
    /// [`KeyError::RecoveryText`] when it was mistyped.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = if Self::is_meant(text) {
            &text.trim_start()[RECOVERY_PREFIX.len()..]
        } else {
            return Err(KeyError::RecoveryText("it begins with TIDEGATE-RECOVERY-"));
        };
        let mut values = Zeroizing::new([0_u8; CHARS]);
        let mut count = 0;
        for char in rest.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
            let value = value(char)
                .ok_or(KeyError::RecoveryText("it has a character that none of ours is"))?;
            *values.get_mut(count).ok_or(KeyError::RecoveryText("it is too long"))? = value;
            count += 1;
        }
        if count < CHARS {
            return Err(KeyError::RecoveryText("it is too short"));
        }
        let mut bytes = Zeroizing::new([0_u8; BYTES]);
        for (five, eight) in bytes.chunks_mut(5).zip(values.chunks(8)) {
            let bits = eight.iter().fold(0_u64, |bits, value| bits << 5 | u64::from(*value));
            five.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        let mut key = Secret::default();
        key.copy_from_slice(&bytes[..KEY_BYTES]);
        if check(&key) != bytes[KEY_BYTES..] {
            return Err(KeyError::RecoveryText("its last characters don't fit the rest"));
        }
        Ok(Self(key))
    }
}

fn check(key: &[u8; KEY_BYTES]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(RECOVERY_PREFIX).chain_update(key).finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

fn five_bytes(bytes: &[u8]) -> impl Iterator<Item = char> {
    let bits = bytes.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..8).rev().map(move |index| {
        let value = usize::from((bits >> (5 * index)).to_le_bytes()[0] & 31);
        char::from(ALPHABET[value])
    })
}

fn value(char: char) -> Option<u8> {
    let char = match char.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET.iter().position(|c| char::from(*c) == char)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RecoveryKey {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0_u8..).for_each(|(byte, i)| *byte = i.wrapping_mul(37) ^ 0xa5);
        RecoveryKey::new(Secret::new(bytes))
    }

    #[test]
    fn a_key_reads_back_as_it_was_written_down() {
        let text = key().text();
        assert_eq!(text.len(), RECOVERY_PREFIX.len() + 14 * 4 + 13);
        let sloppy = text.to_lowercase().replace('0', "o").replace('1', "l").replace("-", " - ");
        let sloppy = sloppy.replacen("tidegate - recovery - ", "tidegate-recovery-", 1);
        for text in [text.as_str(), &format!(" {}\n", *text), &sloppy] {
            assert_eq!(RecoveryKey::parse(text).unwrap().bytes(), key().bytes(), "{text}");
        }
    }

    #[test]
    fn every_slip_of_the_pen_is_noticed() {
        let text = key().text();
        for index in RECOVERY_PREFIX.len()..text.len() {
            let mut slipped = text.as_bytes().to_vec();
            if slipped[index] == b'-' {
                continue;
            }
            slipped[index] = if slipped[index] == b'7' { b'8' } else { b'7' };
            let slipped = String::from_utf8(slipped).unwrap();
            assert!(RecoveryKey::parse(&slipped).is_err(), "{slipped}");
        }
        for text in ["", "TIDEGATE-RECOVERY-", "é", &text[..text.len() - 1], &format!("{}0", *text)]
        {
            assert!(RecoveryKey::parse(text).is_err(), "{text}");
        }
    }
}
