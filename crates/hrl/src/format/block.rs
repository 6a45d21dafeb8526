//! Metadata blocks: a header of 32 bytes, then entries. The data of a block's entries stands before
//! the block, in the order of the entries.
//!
//! A writer fills slots from the front. Of a block filled from the back, which a reader takes too,
//! the first entry is the last slot.

use tidegate_model::{Reader, Short, Writer};

use super::checksum::Sum;
use super::entry::{ENTRY_BYTES, Entry, EntryError};

/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 32;

const CHECKSUM_AT: usize = 12;

/// The header of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// PreviousMetadataLocation: how far back the block before it stands; 0 in the first.
    pub previous_distance: u64,
    /// ValidMetadataEntries.
    pub entries: u32,
}

/// A block that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its header.
    pub header: BlockHeader,
    /// Its entries, in the order of their data.
    pub entries: Vec<Entry>,
}

/// Why some bytes are no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The header's checksum is another one.
    #[error("its header's checksum is {stated}, and its bytes give {computed}")]
    Checksum {
        /// What it states.
        stated: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// More entries than there are slots.
    #[error("it states {stated} entries and has room for {slots}")]
    Entries {
        /// What it states.
        stated: u32,
        /// How many there can be.
        slots: u32,
    },
    /// An entry that isn't whole.
    #[error("its entry {number} of {entries} isn't whole: {error}")]
    Entry {
        /// From 1, in the order of slots.
        number: u32,
        /// How many there are.
        entries: u32,
        /// Why.
        error: EntryError,
    },
    /// Fewer bytes than a block has.
    #[error(transparent)]
    Short(#[from] Short),
}

/// The bytes of a block of `block_bytes`, filled from the front.
///
/// # Panics
/// When there are more entries than slots: a defect of the caller.
#[must_use]
pub fn encode_block(previous_distance: u64, entries: &[Entry], block_bytes: u32) -> Vec<u8> {
    assert!(entries.len() <= slots(block_bytes), "a block has a slot for each entry");
    let mut bytes = Vec::with_capacity(block_bytes as usize);
    let count = u32::try_from(entries.len()).expect("slots are counted in 32 bits");
    Writer::new(&mut bytes).u64(previous_distance).u32(count).zeros(20);
    let checksum = Sum::around(&bytes, CHECKSUM_AT);
    bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    bytes.resize(block_bytes as usize, 0);
    bytes
}

/// How many entries fit a block.
const fn slots(block_bytes: u32) -> usize {
    (block_bytes as usize).saturating_sub(BLOCK_HEADER_BYTES) / ENTRY_BYTES
}

impl BlockHeader {
    /// The header in the first 32 of `bytes`.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let bytes = Reader::new(bytes).bytes(BLOCK_HEADER_BYTES)?;
        let mut fields = Reader::new(bytes);
        let (previous_distance, entries) = (fields.u64()?, fields.u32()?);
        let (stated, computed) = (fields.u32()?, Sum::around(bytes, CHECKSUM_AT));
        if stated != computed {
            return Err(BlockError::Checksum { stated, computed });
        }
        Ok(Self { previous_distance, entries })
    }
}

impl Block {
    /// The block that all of `bytes` are.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let header = BlockHeader::decode(bytes)?;
        let slots: Vec<&[u8]> = bytes[BLOCK_HEADER_BYTES..].chunks_exact(ENTRY_BYTES).collect();
        let count = header.entries as usize;
        if count > slots.len() {
            let there = u32::try_from(slots.len()).unwrap_or(u32::MAX);
            return Err(BlockError::Entries { stated: header.entries, slots: there });
        }
        let from_front = decode_all(slots[..count].iter());
        let entries = match from_front {
            // A full block doesn't show from where it was filled, but time goes on.
            Ok(entries) if count == slots.len() && goes_back(&entries) => reversed(entries),
            Ok(entries) => entries,
            Err(error) => decode_all(slots[slots.len() - count..].iter().rev()).or(Err(error))?,
        };
        Ok(Self { header, entries })
    }

    /// How many bytes of data its entries have.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.data_bytes)).sum()
    }
}

fn decode_all<'a>(
    slots: impl ExactSizeIterator<Item = &'a &'a [u8]>,
) -> Result<Vec<Entry>, BlockError> {
    let entries = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    let numbered = slots.zip(1..);
    let decode = |(slot, number): (&&[u8], u32)| {
        Entry::decode(slot).map_err(|error| BlockError::Entry { number, entries, error })
    };
    numbered.map(decode).collect()
}

fn goes_back(entries: &[Entry]) -> bool {
    entries.first().map(|entry| entry.time) > entries.last().map(|entry| entry.time)
}

fn reversed(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.reverse();
    entries
}
