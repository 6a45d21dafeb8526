//! Secrets sealed under other secrets. docs/formats/keys.md, "Wraps".
//!
//! A wrap is nonce (12 random bytes), ciphertext, tag (16); AES-256-GCM. What it is, and whose, is
//! authenticated with it, so that no wrap can stand in for another.

use tidegate_model::{VaultId, Writer};
use zeroize::Zeroizing;

use super::{KeyError, random};
use crate::seal::{Cipher, NONCE_BYTES, OpenError, Secret, TAG_BYTES};

/// What a wrap adds to its content.
pub(super) const WRAP_OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// A wrapped 256-bit key.
pub(super) const WRAPPED_KEY_BYTES: usize = WRAP_OVERHEAD_BYTES + 32;

/// Seals `plain` under `key`.
pub(super) fn wrap(key: &Secret, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyError> {
    let nonce: [u8; NONCE_BYTES] = random()?;
    let mut wrapped = Vec::with_capacity(plain.len() + WRAP_OVERHEAD_BYTES);
    wrapped.extend_from_slice(&nonce);
    wrapped.extend_from_slice(plain);
    // In place: the plain bytes are gone when this returns.
    let tag = Cipher::new(key).seal(nonce, aad, &mut wrapped[NONCE_BYTES..]);
    wrapped.extend_from_slice(&tag);
    Ok(wrapped)
}

/// Opens a wrap.
pub(super) fn unwrap(
    key: &Secret,
    aad: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (nonce, sealed) = wrapped.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError)?;
    let (sealed, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(OpenError)?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    Cipher::new(key).open(*nonce, aad, &mut plain, *tag)?;
    Ok(plain)
}

/// Opens a wrap of a 256-bit key.
pub(super) fn unwrap_key(key: &Secret, aad: &[u8], wrapped: &[u8]) -> Result<Secret, OpenError> {
    let plain = unwrap(key, aad, wrapped)?;
    let mut secret = Secret::default();
    if plain.len() != secret.len() {
        return Err(OpenError);
    }
    secret.copy_from_slice(&plain);
    Ok(secret)
}

/// What is authenticated with the contents of version `number`.
pub(super) fn contents_aad(vault: VaultId, number: u64) -> Vec<u8> {
    let mut aad = Vec::new();
    Writer::new(&mut aad).bytes(b"tidegate/1 key contents").bytes(vault.as_bytes()).u64(number);
    aad
}

/// What is authenticated with the authority's key: the certificate that goes with it.
pub(super) fn authority_aad(vault: VaultId, certificate: &[u8]) -> Vec<u8> {
    let mut aad = Vec::new();
    Writer::new(&mut aad)
        .bytes(b"tidegate/1 authority key")
        .bytes(vault.as_bytes())
        .bytes(certificate);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrap_opens_with_its_key_and_place_only_and_no_byte_may_change() {
        let key = Secret::new([1; 32]);
        let wrapped = wrap(&key, b"place", &[7; 32]).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_KEY_BYTES);
        assert_eq!(*unwrap_key(&key, b"place", &wrapped).unwrap(), [7; 32]);
        assert!(unwrap(&key, b"other", &wrapped).is_err());
        assert!(unwrap(&Secret::new([2; 32]), b"place", &wrapped).is_err());
        for index in 0..wrapped.len() {
            let mut flipped = wrapped.clone();
            flipped[index] ^= 1;
            assert!(unwrap(&key, b"place", &flipped).is_err(), "byte {index}");
            assert!(unwrap(&key, b"place", &wrapped[..index]).is_err(), "cut at {index}");
        }
    }
}
