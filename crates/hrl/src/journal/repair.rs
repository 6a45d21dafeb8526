//! Closing a segment that nobody closed: its logs get the blocks and headers that they would have had,
//! had the journal been closed after the last whole record.
//!
//! The order file says which data stand where, so each block follows from it, whether it was written or
//! not. Doing it twice does no harm: a crash in between leaves the segment open, and it is done anew.

use tidegate_model::{DiskNumber, Lsn, Micros};

use super::batch::Part;
use super::log_tail::{BLOCK_BYTES, BLOCK_ENTRIES, DATA_START, closed_header, new_header};
use crate::format::{Entry, HEADER_BYTES, UniqueId, encode_block};
use crate::limits::METADATA_BYTES;

/// A write whose data are whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeptWrite {
    pub disk: DiskNumber,
    pub location: u64,
    pub entry: Entry,
    pub lsn: Lsn,
}

/// Blocks that stand where the data say, or the LSN whose data stand where none can.
pub(super) fn closed_log<'a>(
    unique_id: UniqueId,
    previous: UniqueId,
    writes: impl Iterator<Item = &'a KeptWrite>,
) -> Result<(u64, Vec<Part>), Lsn> {
    let mut parts: Vec<Part> = vec![(HEADER_BYTES, encode_block(0, &[], METADATA_BYTES))];
    let (mut block, mut end) = (HEADER_BYTES, DATA_START);
    let mut entries: Vec<Entry> = Vec::new();
    let mut header = new_header(unique_id, previous, Micros(0));
    for write in writes {
        if write.location != end {
            // A block stands between this and the data before.
            if entries.is_empty() || write.location != end + BLOCK_BYTES {
                return Err(write.lsn);
            }
            parts.push((end, encode_block(end - block, &entries, METADATA_BYTES)));
            entries.clear();
            block = end;
            end += BLOCK_BYTES;
        }
        if entries.len() == BLOCK_ENTRIES {
            return Err(write.lsn);
        }
        if header.entries_total == 0 {
            header.created = write.entry.time;
        }
        header.entries_total += 1;
        header.last_modified = write.entry.time;
        entries.push(write.entry);
        end += u64::from(write.entry.data_bytes);
    }
    if !entries.is_empty() {
        parts.push((end, encode_block(end - block, &entries, METADATA_BYTES)));
        end += BLOCK_BYTES;
    }
    parts.push((0, closed_header(header, end)));
    Ok((end, parts))
}
