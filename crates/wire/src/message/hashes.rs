//! A question by hashes, and its answer: which blocks of a disk the vault holds already, for this very
//! machine at this very place. docs/formats/wire.md, "Hashes" and "Have".
//!
//! Neither is a record: they have no LSN, and nothing of them is stored. That a question's extent has as
//! many blocks as hashes, the session checks, which knows how long a block is.

use tidegate_model::{Extent, Reader, Writer};

use super::record;
use crate::limits::{HASH_BYTES, HASHES_MAX};
use crate::{DecodeError, Header, Kind};

/// Bytes of an answer's payload: a bit for each block of the longest question.
pub(crate) const HAVE_BYTES: usize = 16;

/// The BLAKE3 hash of a block, without any key.
pub type BlockHash = [u8; HASH_BYTES];

/// Does the vault hold these blocks?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// Whole blocks.
    pub extent: Extent,
    /// The hash of each, in their order: 1 to [`HASHES_MAX`].
    pub hashes: Vec<BlockHash>,
}

/// The answer to a question about the same extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Have {
    /// The blocks.
    pub extent: Extent,
    /// Bit n: the vault holds block n. The others are needed.
    pub blocks: u128,
}

impl Hashes {
    pub(super) fn header_and_payload(&self, payload: &mut Vec<u8>) -> Header {
        self.hashes.iter().for_each(|hash| payload.extend_from_slice(hash));
        header(Kind::Hashes, self.extent)
    }

    pub(super) fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let extent = record::extent(header)?;
        let count = reader.left() / HASH_BYTES;
        if !(1..=HASHES_MAX).contains(&count) {
            return Err(DecodeError::Payload("a question has no hash, or too many"));
        }
        let hashes = (0..count).map(|_| reader.array());
        Ok(Self { extent, hashes: hashes.collect::<Result<_, _>>()? })
    }
}

impl Have {
    /// Whether the vault holds block `index` of the extent.
    #[must_use]
    pub const fn has(&self, index: usize) -> bool {
        index < HASHES_MAX && self.blocks >> index & 1 == 1
    }

    pub(super) fn header_and_payload(&self, payload: &mut Vec<u8>) -> Header {
        Writer::new(payload).bytes(&self.blocks.to_le_bytes());
        header(Kind::Have, self.extent)
    }

    pub(super) fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let extent = record::extent(header)?;
        Ok(Self { extent, blocks: u128::from_le_bytes(reader.array()?) })
    }
}

fn header(kind: Kind, extent: Extent) -> Header {
    let Extent { disk, offset, length } = extent;
    Header { disk: disk.get(), offset, length, ..Header::of(kind) }
}
