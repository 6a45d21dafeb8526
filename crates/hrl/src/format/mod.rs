//! The bytes of an .hrl file, version 2.0 of [MS-HRL] (docs/formats/hrl.md): file header, metadata
//! blocks, entries. Pure: fields to bytes and back.
//!
//! A decoder takes files of other writers: what doesn't hold is told by [`HeaderDoubt`] or a
//! [`BlockError`], never by a panic, and no count reserves anything before it is held to its limit.

mod block;
mod checksum;
mod entry;
mod header;
mod stamp;
mod unique_id;

pub use block::{BLOCK_HEADER_BYTES, Block, BlockError, BlockHeader, encode_block};
pub use checksum::Sum;
pub use entry::{ENTRY_BYTES, Entry, EntryError};
pub use header::{FileHeader, HEADER_BYTES, HeaderDoubt, HeaderError, Version};
pub use stamp::Stamp;
pub use unique_id::UniqueId;
