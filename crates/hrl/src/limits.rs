//! The limits of the journal in one place, each with its reason; relations between them are checked
//! when the crate is compiled.

use tidegate_model::limits::{RECORD_BYTES_MAX, TEXT_BYTES_MAX};

/// Bytes of a metadata block that we write; what [MS-HRL] has by default.
pub const METADATA_BYTES: u32 = 4096;
/// Longest metadata block that is read: 256 times the default. Nothing larger was ever seen, and one
/// block is held in memory.
pub const METADATA_BYTES_MAX: u32 = 1 << 20;

/// Most bytes that a write record adds to the journal: its data and its order record, a metadata
/// block, and where it begins a segment the order file's header and end, and the log's header and empty
/// first block.
pub const RECORD_COST_MAX: u64 = RECORD_BYTES_MAX as u64
    + (2 * crate::order::RECORD_BYTES + TEXT_BYTES_MAX) as u64
    + crate::order::HEADER_BYTES as u64
    + crate::format::HEADER_BYTES
    + 2 * METADATA_BYTES as u64;

/// Bytes of a batch that closes it to further records while the one before it is being written: two
/// of them are the journal's memory. At 400 MB/s, more than the disks of journals take, 20 ms.
pub const BATCH_BYTES_DEFAULT: u64 = 8 << 20;
/// Bytes of a segment from which the next batch begins another: what is committed is deleted in steps
/// of this, and what a crash leaves open is at most this and a batch to be looked through.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Bytes of order records read at once.
pub const ORDER_CHUNK_BYTES: usize = 64 << 10;

const _: () = {
    assert!(METADATA_BYTES.is_multiple_of(512) && METADATA_BYTES <= METADATA_BYTES_MAX);
    assert!(RECORD_COST_MAX <= BATCH_BYTES_DEFAULT);
    assert!(BATCH_BYTES_DEFAULT < SEGMENT_BYTES_DEFAULT);
    assert!(ORDER_CHUNK_BYTES > crate::order::RECORD_BYTES + TEXT_BYTES_MAX);
};
