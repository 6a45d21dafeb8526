//! One entry of a metadata block: 32 bytes that say where on the disk some data belongs.

use tidegate_model::{Reader, Short, Writer};

use super::checksum::Sum;
use super::stamp::Stamp;

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 32;

const CHECKSUM_AT: usize = 8;
/// MetaOperation: the only one there is.
const WRITE: u8 = 1;

/// One write, with the names of the specification. Its data stands before the block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// ByteOffset: where on the disk the data belongs.
    pub byte_offset: u64,
    /// DataLength.
    pub data_bytes: u32,
    /// TimeStamp.
    pub time: Stamp,
    /// DataChecksum; 0 where the writer computed none, as in the specification's example.
    pub data_checksum: u32,
}

/// Why 32 bytes are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The checksum is another one.
    #[error("its checksum is {stated}, and its bytes give {computed}")]
    Checksum {
        /// What it states.
        stated: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// An operation that isn't known.
    #[error("its operation is {code}, and only 1 (write) is known")]
    Operation {
        /// What it states.
        code: u8,
    },
    /// Fewer bytes than an entry has.
    #[error(transparent)]
    Short(#[from] Short),
}

impl Entry {
    /// Appends the entry's bytes to `into`.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        let mut fields = Writer::new(into);
        fields.u64(self.byte_offset).u32(0).u32(self.data_bytes).u32(self.time.0);
        fields.u8(WRITE).u32(self.data_checksum).zeros(7);
        let checksum = Sum::around(&into[start..], CHECKSUM_AT);
        into[start + CHECKSUM_AT..start + CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The entry in the first 32 of `bytes`.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let bytes = Reader::new(bytes).bytes(ENTRY_BYTES)?;
        let mut fields = Reader::new(bytes);
        let (byte_offset, stated, data_bytes) = (fields.u64()?, fields.u32()?, fields.u32()?);
        let (time, code, data_checksum) = (Stamp(fields.u32()?), fields.u8()?, fields.u32()?);
        let computed = Sum::around(bytes, CHECKSUM_AT);
        if stated != computed {
            return Err(EntryError::Checksum { stated, computed });
        }
        if code != WRITE {
            return Err(EntryError::Operation { code });
        }
        Ok(Self { byte_offset, data_bytes, time, data_checksum })
    }

    /// Whether `data` has the stated checksum, as far as one was computed.
    #[must_use]
    pub const fn is_of(&self, data: Sum) -> bool {
        self.data_checksum == 0 || self.data_checksum == data.checksum()
    }
}
