//! The order record beside a segment's .hrl files (docs/formats/order.md): in which order changes were
//! made over all disks, exactly when, and what [MS-HRL] has no place for (zeros, bookmarks, times).
//!
//! Pure: fields to bytes and back. A record is bound to its file by a mark, so that bytes of another
//! file, or of none, never count.

mod header;
mod record;

pub use header::{HEADER_BYTES, OrderHeader, OrderHeaderError};
pub use record::{Mark, OrderBody, OrderRecord, RECORD_BYTES, RecordError, SegmentEnding};
