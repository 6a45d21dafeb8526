//! The sealed container of small metadata objects. docs/formats/epochs.md, "Container".
//!
//! Owns the 64-byte header, its checks, and sealing and opening under the object's path. Doesn't
//! own what the body says (`records`).

use std::ops::Range;

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
/// Where the header has the version of its key.
const KEY_VERSION_AT: Range<usize> = 12..16;
/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 256 * 1024 - HEADER_BYTES - TAG_BYTES;

const _: () = assert!((BODY_BYTES_MAX + HEADER_BYTES + TAG_BYTES) as u64 == META_BYTES_MAX);

/// What a sealed object has besides its body.
pub(crate) const SEALED_OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// Seals `body` as the small object at `path`, under the newest root key.
pub(crate) fn seal(ring: &KeyRing, path: &str, body: &[u8]) -> Result<Bytes, MetaError> {
    seal_within(ring, path, body, BODY_BYTES_MAX)
}

/// The same for a body that may have `body_bytes_max`.
pub(crate) fn seal_within(
    ring: &KeyRing,
    path: &str,
    body: &[u8],
    body_bytes_max: usize,
) -> Result<Bytes, MetaError> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= body_bytes_max);
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

/// Opens the small object that was read at `path`. Whether it is of a newer format, or under a key
/// that isn't there, is believed only when the seal doesn't show that the field was changed.
pub(crate) fn open(ring: &KeyRing, path: &str, object: &[u8]) -> Result<Vec<u8>, MetaError> {
    open_within(ring, path, object, BODY_BYTES_MAX)
}

/// The same for an object whose body may have `body_bytes_max`.
pub(crate) fn open_within(
    ring: &KeyRing,
    path: &str,
    object: &[u8],
    body_bytes_max: usize,
) -> Result<Vec<u8>, MetaError> {
    let short = |_: Short| MetaError::damaged(path, "it is cut short");
    let mut reader = Reader::new(object);
    let header: [u8; HEADER_BYTES] = reader.array().map_err(short)?;
    let fields = Fields::read(&header).map_err(short)?;
    if fields.magic != MAGIC {
        return Err(MetaError::damaged(path, "its first bytes are not those of a sealed object"));
    }
    let length = usize::try_from(fields.length).unwrap_or(usize::MAX);
    if length > body_bytes_max || reader.left() != length + TAG_BYTES {
        return Err(MetaError::damaged(path, "it hasn't the length that it states"));
    }
    let sealed = reader.bytes(length).map_err(short)?;
    let tag = reader.array().map_err(short)?;
    let open = |version, header: &[u8]| {
        let cipher = ring.meta_cipher(version, path)?;
        let mut body = sealed.to_vec();
        let opened = cipher.open(fields.nonce, &aad(header, path), &mut body, tag);
        Some(opened.map(|()| body))
    };
    match open(fields.key_version, &header) {
        Some(Ok(body)) if fields.format == FORMAT => Ok(body),
        Some(Ok(_)) => Err(MetaError::Format { path: path.into(), format: fields.format }),
        Some(Err(error)) => Err(MetaError::damaged(path, &error.to_string())),
        None => {
            let changed = ring.versions().any(|version| {
                let mut header = header;
                header[KEY_VERSION_AT].copy_from_slice(&version.to_le_bytes());
                matches!(open(version, &header), Some(Ok(_)))
            });
            Err(match changed {
                true => MetaError::damaged(path, "the key version that it states was changed"),
                false => MetaError::key(path, fields.key_version),
            })
        }
    }
}

/// What the header says.
struct Fields {
    magic: [u8; 8],
    format: u32,
    key_version: u32,
    nonce: [u8; NONCE_BYTES],
    length: u32,
}

impl Fields {
    fn read(header: &[u8]) -> Result<Self, Short> {
        let mut reader = Reader::new(header);
        Ok(Self {
            magic: reader.array()?,
            format: reader.u32()?,
            key_version: reader.u32()?,
            nonce: reader.array()?,
            length: reader.u32()?,
        })
    }
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
            let error = open(&ring(&[1, 0]), "p", &flipped).unwrap_err();
            assert!(error.is_damage(), "byte {index}: {error}");
            assert!(open(&ring(&[1]), "p", &object[..index]).is_err(), "cut at {index}");
        }
        assert!(open(&ring(&[1]), "p", &[&object[..], b"x"].concat()).is_err());
    }

    #[test]
    fn another_format_or_key_is_believed_when_the_seal_fits() {
        let ring = ring(&[1]);
        let body = *b"body";
        let sealed = |format: u32, version: u32| {
            let mut object = seal(&ring, "p", &body).unwrap().to_vec();
            object[8..12].copy_from_slice(&format.to_le_bytes());
            object[KEY_VERSION_AT].copy_from_slice(&version.to_le_bytes());
            let (header, rest) = object.split_at_mut(HEADER_BYTES);
            let content = &mut rest[..body.len()];
            content.copy_from_slice(&body);
            let nonce = header[16..28].try_into().unwrap();
            // A key of that version, of which our ring knows nothing.
            let all = super::tests::ring(&[1, 2]);
            let cipher = all.meta_cipher(version, "p").unwrap();
            let tag = cipher.seal(nonce, &aad(header, "p"), content);
            rest[body.len()..].copy_from_slice(&tag);
            object
        };
        assert_eq!(open(&ring, "p", &sealed(1, 1)).unwrap(), body);
        let newer = open(&ring, "p", &sealed(2, 1)).unwrap_err();
        assert!(matches!(newer, MetaError::Format { format: 2, .. }), "{newer}");
        let other = open(&ring, "p", &sealed(1, 2)).unwrap_err();
        assert!(matches!(other, MetaError::KeyVersion { version: 2, .. }), "{other}");
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
