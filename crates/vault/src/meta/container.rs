//! The sealed container of small metadata objects. docs/formats/epochs.md, "Container".
//!
//! Owns the 64-byte header, its checks, and sealing and opening under the object's path. Doesn't
//! own what the body says (`records`).

use bytes::Bytes;
use tidegate_model::limits::META_BYTES_MAX;
use tidegate_model::{Reader, Short, Writer};

use super::MetaError;
use crate::keys::random;
use crate::seal::{KeyRing, NONCE_BYTES, TAG_BYTES};

/// Bytes of the header.
const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"TGSEAL1\0";
const FORMAT: u32 = 1;
/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 256 * 1024 - HEADER_BYTES - TAG_BYTES;

const _: () = assert!((BODY_BYTES_MAX + HEADER_BYTES + TAG_BYTES) as u64 == META_BYTES_MAX);

/// Seals `body` as the object at `path`, under the newest root key.
pub(super) fn seal(ring: &KeyRing, path: &str, body: &[u8]) -> Result<Bytes, MetaError> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= BODY_BYTES_MAX);
    let length = length.ok_or_else(|| MetaError::damaged(path, "it is too long to be written"))?;
    let version = ring.current();
    let cipher = ring.meta_cipher(version, path).ok_or_else(|| MetaError::key(path, version))?;
    let nonce: [u8; NONCE_BYTES] = random()?;
    let mut object = Vec::with_capacity(HEADER_BYTES + body.len() + TAG_BYTES);
    Writer::new(&mut object)
        .bytes(&MAGIC)
        .u32(FORMAT)
        .u32(version)
        .bytes(&nonce)
        .u32(length)
        .zeros(HEADER_BYTES - 32)
        .bytes(body);
    let (header, sealed) = object.split_at_mut(HEADER_BYTES);
    let tag = cipher.seal(nonce, &aad(header, path), sealed);
    object.extend_from_slice(&tag);
    Ok(object.into())
}

/// Opens the object that was read at `path`.
pub(super) fn open(ring: &KeyRing, path: &str, object: &[u8]) -> Result<Vec<u8>, MetaError> {
    let short = |_: Short| MetaError::damaged(path, "it is cut short");
    let mut reader = Reader::new(object);
    let header = reader.bytes(HEADER_BYTES).map_err(short)?;
    let header_fields = header_fields(header, path)?;
    let (version, nonce, length) = header_fields;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > BODY_BYTES_MAX || reader.left() != length + TAG_BYTES {
        return Err(MetaError::damaged(path, "it hasn't the length that it states"));
    }
    let cipher = ring.meta_cipher(version, path).ok_or_else(|| MetaError::key(path, version))?;
    let mut body = reader.bytes(length).map_err(short)?.to_vec();
    let tag = reader.array().map_err(short)?;
    cipher
        .open(nonce, &aad(header, path), &mut body, tag)
        .map_err(|error| MetaError::damaged(path, &error.to_string()))?;
    Ok(body)
}

fn header_fields(header: &[u8], path: &str) -> Result<(u32, [u8; NONCE_BYTES], u32), MetaError> {
    let short = |_: Short| MetaError::damaged(path, "it is cut short");
    let mut reader = Reader::new(header);
    if reader.array().map_err(short)? != MAGIC {
        return Err(MetaError::damaged(path, "its first bytes are not those of a sealed object"));
    }
    let format = reader.u32().map_err(short)?;
    if format != FORMAT {
        return Err(MetaError::Format { path: path.into(), format });
    }
    let version = reader.u32().map_err(short)?;
    let nonce = reader.array().map_err(short)?;
    let length = reader.u32().map_err(short)?;
    Ok((version, nonce, length))
}

fn aad(header: &[u8], path: &str) -> Vec<u8> {
    [header, path.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tidegate_model::VaultId;

    use super::*;
    use crate::seal::Secret;

    fn ring(versions: &[u32]) -> KeyRing {
        let roots = versions.iter().map(|v| (*v, Secret::new([v.to_le_bytes()[0]; 32])));
        KeyRing::new(VaultId::from_bytes([3; 16]), BTreeMap::from_iter(roots))
    }

    #[test]
    fn an_object_opens_at_its_own_path_under_its_own_key() {
        let object = seal(&ring(&[1]), "machines/m/epochs/1", b"{}").unwrap();
        assert_eq!(object.len(), 64 + 2 + 16);
        assert_eq!(open(&ring(&[1]), "machines/m/epochs/1", &object).unwrap(), b"{}");
        // A newer root key changes nothing for what was sealed before.
        assert_eq!(open(&ring(&[1, 2]), "machines/m/epochs/1", &object).unwrap(), b"{}");
        assert!(open(&ring(&[1]), "machines/m/epochs/2", &object).is_err());
        let other = open(&ring(&[2]), "machines/m/epochs/1", &object).unwrap_err();
        assert!(matches!(other, MetaError::KeyVersion { version: 1, .. }), "{other}");
    }

    #[test]
    fn no_bit_may_change_and_nothing_be_cut_or_added() {
        let object = seal(&ring(&[1]), "p", b"body").unwrap();
        for index in 0..object.len() {
            let mut flipped = object.to_vec();
            flipped[index] ^= 1;
            assert!(open(&ring(&[1, 0]), "p", &flipped).is_err(), "byte {index}");
            assert!(open(&ring(&[1]), "p", &object[..index]).is_err(), "cut at {index}");
        }
        assert!(open(&ring(&[1]), "p", &[&object[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_body_as_long_as_allowed_makes_an_object_as_long_as_allowed() {
        let object = seal(&ring(&[1]), "p", &vec![b' '; BODY_BYTES_MAX]).unwrap();
        assert_eq!(object.len() as u64, META_BYTES_MAX);
        assert!(open(&ring(&[1]), "p", &object).is_ok());
        assert!(seal(&ring(&[1]), "p", &vec![b' '; BODY_BYTES_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(
            garbage in proptest::collection::vec(any::<u8>(), 0..200),
            magic in any::<bool>(),
        ) {
            let start = if magic { &b"TGSEAL1\0\x01\0\0\0\x01\0\0\0"[..] } else { b"" };
            prop_assert!(open(&ring(&[1]), "p", &[start, &garbage].concat()).is_err());
        }
    }
}
