//! The end of one disk's log: where the next data go, and the block that will describe them.

use tidegate_model::Micros;

use super::batch::Part;
use crate::format::{Entry, FileHeader, HEADER_BYTES, Stamp, Sum, UniqueId, Version, encode_block};
use crate::limits::METADATA_BYTES;

/// Most entries of a block.
pub(super) const BLOCK_ENTRIES: usize = 127;
/// Where the first data stand: behind the header and an empty block, so that a log without entries
/// has an end that can be found, as the specification's example has it.
pub(super) const DATA_START: u64 = HEADER_BYTES + BLOCK_BYTES;
/// Bytes of a block.
pub(super) const BLOCK_BYTES: u64 = METADATA_BYTES as u64;

/// The end of a log that is being written.
#[derive(Debug)]
pub(super) struct LogTail {
    header: FileHeader,
    /// Where the next byte goes.
    end: u64,
    /// Where the last block begins.
    block: u64,
    /// Entries of data that no block describes yet.
    entries: Vec<Entry>,
    /// Bytes from `written` to `end`.
    pending: Vec<u8>,
    written: u64,
}

impl LogTail {
    /// A log that is to be made.
    pub(super) fn new(unique_id: UniqueId, previous: UniqueId, created: Micros) -> Self {
        let header = new_header(unique_id, previous, created);
        let mut pending = header.encode();
        pending.extend(encode_block(0, &[], METADATA_BYTES));
        let (end, block) = (DATA_START, HEADER_BYTES);
        Self { header, end, block, entries: Vec::new(), pending, written: 0 }
    }

    /// How many bytes the log grows by with so much data.
    pub(super) fn cost(&self, data_bytes: u64) -> u64 {
        let fits = !self.entries.is_empty() && self.entries.len() < BLOCK_ENTRIES;
        data_bytes + if fits { 0 } else { BLOCK_BYTES }
    }

    /// Adds data, and says where in the file they stand.
    pub(super) fn append(&mut self, byte_offset: u64, data: &[u8], time: Micros) -> u64 {
        if self.entries.len() == BLOCK_ENTRIES {
            self.end_block();
        }
        let location = self.end;
        self.pending.extend_from_slice(data);
        self.end += data.len() as u64;
        self.entries.push(Entry {
            byte_offset,
            data_bytes: u32::try_from(data.len()).expect("a record is short"),
            time: time.into(),
            data_checksum: Sum::of(data).checksum(),
        });
        self.header.last_modified = time.into();
        location
    }

    /// What is to be written, with a block at its end.
    pub(super) fn take(&mut self) -> Option<Part> {
        if !self.entries.is_empty() {
            self.end_block();
        }
        let part = (self.written, std::mem::take(&mut self.pending));
        self.written = self.end;
        (!part.1.is_empty()).then_some(part)
    }

    /// The header of the log once it is closed. Everything must have been taken.
    pub(super) fn closed_header(&self) -> Vec<u8> {
        debug_assert!(self.pending.is_empty() && self.entries.is_empty());
        closed_header(self.header.clone(), self.end)
    }

    fn end_block(&mut self) {
        self.pending.extend(encode_block(self.end - self.block, &self.entries, METADATA_BYTES));
        self.block = self.end;
        self.end += BLOCK_BYTES;
        self.header.entries_total += self.entries.len() as u64;
        self.entries.clear();
    }
}

/// The header of a log that is open.
pub(super) fn new_header(unique_id: UniqueId, previous: UniqueId, created: Micros) -> FileHeader {
    FileHeader {
        version: Version::V2,
        created: created.into(),
        creator_application: *b"tdgt",
        creator_version: 1,
        original_bytes: DATA_START,
        current_bytes: DATA_START,
        eol_location: 0,
        error_code: 0,
        metadata_bytes: METADATA_BYTES,
        unique_id,
        previous_unique_id: previous,
        last_modified: Stamp::from(created),
        entries_total: 0,
        file_type: 0,
        flags: 0,
        data_write_guid: UniqueId::NONE,
    }
}

/// The same when it is closed.
pub(super) fn closed_header(header: FileHeader, end: u64) -> Vec<u8> {
    FileHeader { current_bytes: end, eol_location: end, ..header }.encode()
}
