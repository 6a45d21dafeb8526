//! The body of a layer or manifest: compressed where that helps, within a container (`meta`).
//! docs/formats/fold.md, "Body".

use tidegate_model::{Reader, Writer};

/// zstd level: both are a thousandth of what they describe, and read more often than written.
const LEVEL: i32 = 3;
/// In front of the content: how it is compressed, three zeros, its length.
const ENVELOPE_BYTES: usize = 8;
const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// The longest body whose content has at most `content_bytes_max`: it is kept raw when it doesn't
/// shrink.
pub(crate) const fn body_bytes_max(content_bytes_max: usize) -> usize {
    ENVELOPE_BYTES + content_bytes_max
}

/// Makes a body of this content, which must be shorter than 4 GiB.
pub(crate) fn pack(content: &[u8]) -> Result<Vec<u8>, &'static str> {
    let length = u32::try_from(content.len()).map_err(|_| "it is too long to be written")?;
    let packed = zstd::bulk::compress(content, LEVEL).ok();
    let packed = packed.filter(|packed| packed.len() < content.len());
    let (kind, bytes) = packed.as_deref().map_or((RAW, content), |packed| (ZSTD, packed));
    let mut body = Vec::with_capacity(ENVELOPE_BYTES + bytes.len());
    Writer::new(&mut body).u8(kind).zeros(3).u32(length).bytes(bytes);
    Ok(body)
}

/// How long the content of a body is, as it states.
pub(super) fn content_bytes(body: &[u8]) -> Result<usize, &'static str> {
    let length = body.get(ENVELOPE_BYTES - size_of::<u32>()..ENVELOPE_BYTES);
    let length = length.and_then(|length| length.try_into().ok()).map(u32::from_le_bytes);
    length.map(|length| length as usize).ok_or("it is shorter than any")
}

/// The content of a body, if it has at most `content_bytes_max`; no more than that is reserved.
pub(crate) fn unpack(body: &[u8], content_bytes_max: usize) -> Result<Vec<u8>, &'static str> {
    let short = |_| "it is shorter than any";
    let mut reader = Reader::new(body);
    let kind = reader.u8().map_err(short)?;
    if reader.array::<3>().map_err(short)? != [0; 3] {
        return Err("reserved bytes are set");
    }
    let length = reader.u32().map_err(short)? as usize;
    if length > content_bytes_max {
        return Err("it is longer than any");
    }
    let bytes = reader.bytes(reader.left()).map_err(short)?;
    let content = match kind {
        RAW => bytes.to_vec(),
        ZSTD => zstd::bulk::decompress(bytes, length).map_err(|_| "it doesn't expand")?,
        _ => return Err("its compression isn't known"),
    };
    if content.len() == length { Ok(content) } else { Err("it hasn't the length that it states") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_content_comes_back_whether_it_shrinks_or_not(
            content in proptest::collection::vec(any::<u8>(), 0..300),
            repeat in 1..20_usize,
        ) {
            let content = content.repeat(repeat);
            let body = pack(&content).unwrap();
            prop_assert!(body.len() <= body_bytes_max(content.len()));
            prop_assert_eq!(unpack(&body, content.len()), Ok(content.clone()));
            prop_assert_eq!(content_bytes(&body), Ok(content.len()));
            if !content.is_empty() {
                prop_assert!(unpack(&body, content.len() - 1).is_err());
                prop_assert!(unpack(&body[..body.len() - 1], content.len()).is_err());
            }
        }

        #[test]
        fn garbage_is_refused_and_nothing_is_reserved_for_it(
            kind in 0..4_u8,
            length in any::<u32>(),
            garbage in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut body = vec![kind, 0, 0, 0];
            body.extend(length.to_le_bytes());
            body.extend(&garbage);
            if let Ok(content) = unpack(&body, 4096) {
                prop_assert_eq!(content.len(), length as usize);
                prop_assert!(content.len() <= 4096);
            }
        }
    }
}
