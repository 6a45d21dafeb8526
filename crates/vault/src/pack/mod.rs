//! Packs: the objects that hold everything. docs/formats/pack.md describes them byte by byte.
//!
//! ```text
//! header 160 | sealed index | frame 0 | frame 1 | ...
//! ```
//!
//! Owns the bytes of headers, frames and indexes, their limits and their checks, for writers and
//! readers alike. Doesn't own where packs lie (`layout`, `store`), which of them count (`log`), or
//! when one closes (the pipeline).
//!
//! Invariants: what a reader gets from here was authenticated, and every number in it is within
//! its limit and points at something that exists within the pack.

mod error;
mod frame;
mod header;
mod index;
mod index_codec;
mod index_part;
mod record_codec;
mod writer;

pub use error::PackError;
pub use frame::{
    Codec, EXPANDER_BYTES, Expander, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FrameHeader,
    SEALED_FRAME_BYTES_MAX, open_frame,
};
pub use header::{Envelope, HEADER_BYTES, PackHeader, PackKind};
pub use index::{
    Content, FrameEntry, MachineEntry, PackIndex, PackSummary, Record, Target, TargetLog,
};
#[cfg(feature = "fuzzing")]
pub(crate) use index_codec::decode as decode_index;
pub use index_codec::{SEALED_INDEX_BYTES_MAX, open_index};
pub(crate) use index_codec::{decode_name, encode_name};
pub use index_part::{BLOCKS_BYTES_MAX, PackBlock, PackBlocks, open_blocks, open_summary};
pub use record_codec::RECORD_BYTES;
pub use writer::{ClosedPack, PackClose, PackWriter, RecordHead};

#[cfg(test)]
mod tests;
